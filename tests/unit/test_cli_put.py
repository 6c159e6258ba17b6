"""What `put` sends where: each file under its own name unless that is said otherwise, nothing where it is unclear."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.cli import sending as module
from iot.sftp.client.cli.parser import UsageError, top_parser
from iot.sftp.client.cli.sending import add_put, put
from iot.transfer.errors import NotFound
from iot.transfer.model import Proof, RemoteFile, TransferResult

FOLDER, FILE = RemoteFile(None, mode=0o040755), RemoteFile(3, mode=0o100644)


class Client:
    """Knows these remote paths; what it was asked to plan and to send is noted."""

    def __init__(self, **there: RemoteFile) -> None:
        self.there, self.planned, self.sent = there, [], []
        self.sha256: str | None = None

    def stat(self, path: str) -> RemoteFile:
        if path.strip("/") not in self.there:
            raise NotFound(path)
        return self.there[path.strip("/")]

    def plan_upload(self, pairs: Any, *, update: bool) -> Any:
        self.planned = list(pairs)
        return SimpleNamespace(update=update)

    def upload(self, file: Any, dest: str, **how: Any) -> TransferResult:
        file.seek(0)
        content = file.read()
        self.sent.append((content, dest, how))
        return TransferResult("3", dest, len(content), len(content), 0, 1.0, Proof.SIZE, sha256=self.sha256)


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The plans that were carried out, with how; the working folder holds a, b and the folder d with c in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SFTP_HOST", raising=False)
    for name in ("a", "b", "d/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found: list[Any] = []
    monkeypatch.setattr(module, "carry", lambda _, plan, arguments, **how: found.append((plan, how)) or [])
    return found


def parsed(*words: str, addressed: bool = True) -> argparse.Namespace:
    arguments: argparse.Namespace = top_parser((add_put,)).parse_args(["put", *words])
    arguments.arrange(arguments)
    arguments.addressed, arguments.quiet = addressed, False
    return arguments


def planned(*words: str, addressed: bool = True, **there: RemoteFile) -> list[tuple[str, str]]:
    client: Any = Client(**there)
    assert put(client, parsed(*words, addressed=addressed)) == 0
    return list(client.planned)


# -- where to


@pytest.mark.parametrize(
    ("words", "there", "pairs"),
    [
        (["a"], {}, [("a", "a")]),
        (["a", "x"], {}, [("a", "x")]),
        (["a", "x"], {"x": FILE}, [("a", "x")]),
        (["a", "x"], {"x": FOLDER}, [("a", "x/a")]),
        (["a", "x/"], {}, [("a", "x/a")]),
        (["a", "b", "x/"], {}, [("a", "x/a"), ("b", "x/b")]),
        (["a", "b", "x"], {"x": FOLDER}, [("a", "x/a"), ("b", "x/b")]),
        (["-T", "a", "x"], {"x": FOLDER}, [("a", "x")]),
        (["-r", "d", "x"], {}, [("d", "x")]),
        (["-r", "d", "x/"], {}, [("d", "x/d")]),
        (["-r", "d/", "x/"], {}, [("d/", "x/d")]),
        (["-r", ".", "x/"], {}, [(".", "x/")]),
        (["-r", "d"], {}, [("d", "d")]),
        (["a", ""], {"": FOLDER}, [("a", "a")]),
    ],
)
def test_a_source_goes_under_its_own_name_into_a_folder_and_else_under_the_name_that_is_given(
    carried, words: list[str], there: dict[str, RemoteFile], pairs: list[tuple[str, str]]
) -> None:
    assert planned(*words, **there) == pairs


def test_a_folder_without_r_is_refused_and_the_others_go(carried, capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = Client()
    assert put(client, parsed("d", "a", "x/")) == 74
    assert client.planned == [("a", "x/a")]
    assert capsys.readouterr().err == "iot-sftp: d is a folder; send it with -r\n"


def test_what_fails_on_the_way_is_the_exit_code_behind_what_failed_before_it(carried, monkeypatch) -> None:
    monkeypatch.setattr(module, "carry", lambda *_, **__: [69, 75])
    client: Any = Client()
    assert put(client, parsed("a")) == 69
    assert put(client, parsed("d", "a", "x/")) == 74


def test_what_is_asked_of_the_transfer_reaches_it(carried) -> None:
    planned("--update", "--adopt-partial", "{name}.filepart", "a")
    ((plan, how),) = carried
    assert (plan.update, how) == (True, {"adopt_partial": "{name}.filepart"})
    planned("a")
    assert (carried[1][0].update, carried[1][1]) == (False, {"adopt_partial": None})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-T", "a", "b", "x"], "-T names one remote file, and there are several sources"),
        (["-T", "a"], "-T needs a DEST"),
        (["a", "d/a", "x/"], "several of the files are called a: one would replace the other"),
        (["a", "b", "x"], "2 files need a folder as DEST; x is none: end it in / to make it"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_planned(carried, tmp_path, words, said) -> None:
    (tmp_path / "d/a").touch()
    client: Any = Client()
    with pytest.raises(UsageError, match=rf"^{said}\. Nothing was sent$"):
        put(client, parsed(*words))
    assert client.planned == []


@pytest.mark.parametrize(("words", "makes"), [(["-r", "d", "x"], True), (["a", "x"], False)])
def test_a_folder_that_a_first_run_makes_is_known_to_the_next(carried, words: list[str], makes: bool) -> None:
    arguments = parsed(*words)
    put(Client(), arguments)  # type: ignore[arg-type]
    assert arguments.makes_dest is makes
    into = parsed(*words)
    put(Client(x=FOLDER), into)  # type: ignore[arg-type]
    assert not hasattr(into, "makes_dest")


# -- patterns that a shell has expanded


@pytest.mark.parametrize(
    ("words", "there", "what"),
    [
        (["a", "b"], {}, "b is a file on this machine: did the shell expand a pattern"),
        (["b", "a"], {}, "a is a file on this machine"),
        (["a", "b"], {"b": FOLDER}, "b is a file on this machine"),
        (["a", "d"], {}, "d is a folder on this machine"),
        (["a", "gone"], {}, "gone is a name on this machine"),
    ],
)
def test_a_destination_that_is_a_name_here_was_hardly_meant(carried, tmp_path, words, there, what) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(UsageError, match=what) as told:
        planned(*words, addressed=False, **there)
    assert f"; if {words[-1]} is the remote name all the same, say -T. Nothing was sent" in str(told.value)
    planned(*words, addressed=True, **there)
    planned("-T", *words, addressed=False, **there)


def test_of_several_sources_none_could_have_that_name(carried) -> None:
    with pytest.raises(UsageError, match=r"such as FOLDER/\. Nothing was sent$"):
        planned("a", "d/c", "b", addressed=False)


@pytest.mark.parametrize("words", [["a", "a"], ["./a", "a"], ["a", "d/../a"]])
def test_the_name_of_the_source_itself_comes_from_no_pattern(carried, words: list[str]) -> None:
    assert planned(*words, addressed=False) == [(words[0], words[1])]


def test_a_folder_there_is_a_folder_whatever_is_called_so_here(carried) -> None:
    assert planned("a", "d", addressed=False, d=FOLDER) == [("a", "d/a")]


def test_a_source_on_a_server_is_taken_for_get_unless_it_is_a_file_here(carried, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"^u@h:x is on a server, and put sends what is here; did you mean get\?$"):
        parsed("u@h:x", "y")
    (tmp_path / "u@h:x").touch()
    assert planned("u@h:x", "y") == [("u@h:x", "y")]


def test_a_partial_name_has_to_hold_the_name(carried, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--adopt-partial", "filepart", "a")
    assert "--adopt-partial" in capsys.readouterr().err


# -- standard input


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"from a pipe")))


def test_what_comes_on_standard_input_is_sent_whole_to_the_file_that_is_named(carried, stdin, capfd) -> None:
    client: Any = Client()
    client.sha256 = "ab" * 32
    assert put(client, parsed("--sha256", "--adopt-partial", "{name}.x", "-", "x")) == 0
    ((content, dest, how),) = client.sent
    progress = how.pop("progress")
    assert (content, dest, how) == (b"from a pipe", "x", {"sha256": True, "adopt_partial": "{name}.x"})
    assert callable(progress)
    said = capfd.readouterr()
    assert said.out == f"{'ab' * 32}  x\n"
    assert said.err == "- -> x: 11 bytes in 1.0 s (11 B/s), proof size\n"
    assert carried == []


def test_the_progress_of_standard_input_is_that_of_one_file(carried, stdin, monkeypatch) -> None:
    shown: list[Any] = []
    real = module.display
    monkeypatch.setattr(module, "display", lambda *given, **how: shown.append((given, how)) or real(*given, **how))
    put(Client(), parsed("-", "x"))  # type: ignore[arg-type]
    assert shown == [((11, 1, "-"), {"quiet": False})]


def test_a_dry_run_of_standard_input_tells_how_much_it_would_be(carried, stdin, capfd) -> None:
    client: Any = Client()
    assert put(client, parsed("-n", "-", "x")) == 0
    assert client.sent == []
    assert capfd.readouterr().out == "would send - -> x (11 B)\n"


@pytest.mark.parametrize(
    ("words", "there"), [(["-"], {}), (["-", "x/"], {}), (["-", "x"], {"x": FOLDER}), (["-", "a", "x"], {})]
)
def test_standard_input_goes_to_one_file_that_is_named(carried, stdin, words, there) -> None:
    client: Any = Client(**there)
    with pytest.raises(UsageError, match=r"to the one remote file that DEST names\. Nothing was sent$"):
        put(client, parsed(*words))
    assert client.sent == []


def test_while_standard_input_is_waited_for_a_signal_ends_that_at_once_and_behind_it_no_more() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with module._interruptible():
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_standard_input_is_waited_for_like_that(carried, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Pipe(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            seen.append(signal.getsignal(signal.SIGTERM))
            return b""

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe()))
    put(Client(), parsed("-", "x"))  # type: ignore[arg-type]
    assert set(seen) == {signal.default_int_handler}

"""What `get` fetches and where it goes: under its own name unless that is said otherwise, and nothing unclear."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.cli import fetching as module
from iot.sftp.client.cli.fetching import add_get, get
from iot.sftp.client.cli.parser import UsageError, top_parser
from iot.transfer.errors import LinkLost, LocalStateError, NotFound, PermissionDenied
from iot.transfer.model import Proof, RemoteFile, TransferResult

FOLDER, FILE = RemoteFile(None, mode=0o040755), RemoteFile(3, mode=0o100644)


class Client:
    """Knows these remote paths and their content; what it was asked to plan and to fetch is noted."""

    def __init__(self, **there: Any) -> None:
        self.there, self.planned, self.fetched = {f"/{name}": file for name, file in there.items()}, [], []
        self.there["/"] = FOLDER
        self.fails: dict[str, Exception] = {}

    def stat(self, path: str) -> RemoteFile:
        known = path.rstrip("/") or "/"
        if known not in self.there:
            raise NotFound(f"{path}: No such file")
        return self.there[known]

    def plan_download(self, wanted: Any, *, update: bool) -> Any:
        self.planned = [(source, dest) for source, dest, _ in wanted]
        return SimpleNamespace(update=update, files=[file for _, _, file in wanted])

    def download(self, path: str, file: Any, **how: Any) -> TransferResult:
        if path in self.fails:
            raise self.fails[path]
        content = f"<{path}>".encode()
        file.write(content)
        self.fetched.append((path, how))
        return TransferResult(path, "5", len(content), len(content), 0, 1.0, Proof.SIZE, sha256="ab" * 32)


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The plans that were carried out, with how; the working folder holds the folder here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFTP_HOST", "h")
    (tmp_path / "here").mkdir()
    found: list[Any] = []
    monkeypatch.setattr(module, "carry", lambda _, plan, arguments, **how: found.append((plan, how)) or [])
    return found


def parsed(*words: str) -> argparse.Namespace:
    arguments: argparse.Namespace = top_parser((add_get,)).parse_args(["get", *words])
    arguments.arrange(arguments)
    arguments.quiet = False
    return arguments


def client(**there: Any) -> Any:
    return Client(**{"a": FILE, "b": FILE, "d": FOLDER, "d/a": FILE, **there})


# -- where to


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        (["/a"], [("/a", "./a")]),
        (["/a", "x"], [("/a", "x")]),
        (["/a", "here"], [("/a", "here/a")]),
        (["/a", "x/"], [("/a", "x/a")]),
        (["/a", "/b", "x/"], [("/a", "x/a"), ("/b", "x/b")]),
        (["/a", "/a", "x"], [("/a", "x")]),
        (["-T", "/a", "here"], [("/a", "here")]),
        (["-r", "/d", "x"], [("/d", "x")]),
        (["/a", "+x"], [("/a", "+x")]),
        (["-r", "/d", "+x"], [("/d", "+x")]),
        (["-r", "/d", "here"], [("/d", "here/d")]),
        (["-r", "/d/", "here"], [("/d/", "here/d")]),
        (["-r", "/", "here"], [("/", "here")]),
        (["-r", "/d", "/a", "x/"], [("/d", "x/d"), ("/a", "x/a")]),
    ],
)
def test_a_source_comes_under_its_own_name_into_a_folder_and_else_under_the_name_that_is_given(
    carried, words: list[str], pairs: list[tuple[str, str]]
) -> None:
    there = client()
    assert get(there, parsed(*words)) == 0
    assert there.planned == pairs
    assert carried[0][0].files == [there.stat(source) for source, _ in pairs]


def test_what_cannot_be_had_does_not_hold_up_the_others_and_the_first_failure_counts(
    carried, monkeypatch, capsys
) -> None:
    there = client()
    assert get(there, parsed("/gone", "/d", "/a", "here")) == 1
    assert there.planned == [("/a", "here/a")]
    assert capsys.readouterr().err.splitlines() == [
        "iot-sftp: /gone: No such file",
        "iot-sftp: /d is a folder; fetch it with -r",
    ]
    monkeypatch.setattr(module, "carry", lambda *_, **__: [69])
    assert get(there, parsed("/d", "/a", "here")) == 74
    assert get(there, parsed("/a", "here")) == 69


def test_what_is_asked_of_the_transfer_reaches_it(carried) -> None:
    get(client(), parsed("--update", "--sha256", "0f", "/a"))
    get(client(), parsed("/a"))
    assert [(plan.update, how) for plan, how in carried] == [(True, {"expected": "0f"}), (False, {"expected": None})]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sha256", "0f", "/a", "/b", "here"], "--sha256 is of one file, and there are several"),
        (["-r", "--sha256", "0f", "/d", "here"], "--sha256 is of one file, and there are several"),
        (["-T", "/a", "/b", "x"], r"-T names one local file, and there are several sources\. Nothing was fetched"),
        (["-T", "/a"], r"-T needs a DEST\. Nothing was fetched"),
        (["/a", "/d/a", "here"], r"several of the files are called a: one would replace the other\. Nothing"),
        (["/a", "/b", "x"], r"2 files need a folder as DEST; x is none: end it in / to make it\. Nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_planned(carried, words: list[str], said: str) -> None:
    there = client()
    with pytest.raises(UsageError, match=f"^{said}"):
        get(there, parsed(*words))
    assert there.planned == []


@pytest.mark.parametrize(("words", "makes"), [(["-r", "/d", "x"], True), (["/a", "x"], False), (["/a", "here"], None)])
def test_a_folder_that_a_first_run_makes_is_known_to_the_next(carried, words: list[str], makes: bool | None) -> None:
    arguments = parsed(*words)
    get(client(), arguments)
    assert getattr(arguments, "makes_dest", None) is makes


def test_a_name_of_a_server_that_is_none_here_needs_another(carried, capsys) -> None:
    there = client(**{"d/..": FILE})
    there.there["/"] = RemoteFile(3, mode=0o100644)
    assert get(there, parsed("/d/..", "here")) == 74
    assert get(there, parsed("/", "here")) == 74
    assert capsys.readouterr().err.count("say where to put it") == 2
    assert there.planned == []


@pytest.mark.parametrize(
    ("host", "words", "remote"),
    [
        ("", ["h:/a", "h:/b"], True),
        ("h", ["h:/a", "h:/b"], False),
        ("", ["/a", "h:/b"], False),
        ("", ["g:/a", "h:/b"], False),
        ("h", ["/a", "u@g:/b"], True),
        ("", ["-H", "g", "h:/a", "h:/b"], False),
    ],
)
def test_the_last_word_is_on_the_server_where_it_says_so(carried, monkeypatch, host, words, remote) -> None:
    monkeypatch.setenv("SFTP_HOST", host)
    assert (parsed(*words).dest is None) is remote


# -- standard output


class Pipe(io.BytesIO):
    """Standard output; at each flush a reader sees what came until then."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []
        self.buffer = self

    def flush(self) -> None:
        self.seen.append(self.getvalue())


def test_files_go_to_standard_output_one_after_another_each_when_it_is_proven(carried, monkeypatch, capsys) -> None:
    there, out = client(), Pipe()
    monkeypatch.setattr(sys, "stdout", out)
    assert get(there, parsed("/a", "/b", "-")) == 0
    assert out.seen == [b"</a>", b"</a></b>"]
    assert [(path, how["sha256"]) for path, how in there.fetched] == [("/a", False), ("/b", False)]
    assert capsys.readouterr().err.splitlines() == [
        "/a -> -: 4 bytes in 1.0 s (4 B/s), proof size",
        "/b -> -: 4 bytes in 1.0 s (4 B/s), proof size",
    ]
    assert carried == []


@pytest.mark.parametrize(
    ("words", "asked", "told"),
    [(["--sha256", "0f"], "0f", b""), (["--print-sha256"], True, b"ab" * 32 + b"  -\n")],
)
def test_a_checksum_of_what_goes_to_standard_output_is_compared_or_told(
    carried, capsysbinary, words, asked, told
) -> None:
    there = client()
    assert get(there, parsed(*words, "/a", "-")) == 0
    assert there.fetched[0][1]["sha256"] == asked
    assert capsysbinary.readouterr().out == b"</a>" + told


@pytest.mark.parametrize("error", [PermissionDenied("/a: no"), LocalStateError("disk")])
def test_a_file_that_cannot_be_had_leaves_the_others(carried, capsysbinary, error: Exception) -> None:
    there = client()
    there.fails["/a"] = error
    assert get(there, parsed("/a", "/b", "-")) == module.exit_code_of(error)
    said = capsysbinary.readouterr()
    assert said.out == b"</b>"
    assert f"iot-sftp: {error}".encode() in said.err
    there.fails["/a"] = LinkLost("cut")
    with pytest.raises(LinkLost):
        get(there, parsed("/a", "/b", "-"))


def test_folders_do_not_go_to_standard_output(carried, capsysbinary) -> None:
    assert get(client(), parsed("-r", "/d", "/a", "-")) == 74
    said = capsysbinary.readouterr()
    assert said.out == b"</a>"
    assert b"/d is a folder; standard output takes files" in said.err


def test_a_dry_run_to_standard_output_tells_how_much_it_would_be(carried, capsysbinary) -> None:
    there = client(b=RemoteFile(None, mode=0o100644))
    assert get(there, parsed("-n", "/a", "/b", "-")) == 0
    assert capsysbinary.readouterr().out == b"would fetch /a -> - (3 B)\nwould fetch /b -> - (0 B)\n"
    assert there.fetched == []


def test_a_file_that_cannot_be_had_counts_with_nothing(carried, monkeypatch, capsysbinary) -> None:
    finished: list[tuple[object, int]] = []
    real = module.Display.close

    def close(shown: Any) -> None:
        finished.extend((key, total) for key, (total, _) in shown.meter._at.items())
        real(shown)

    monkeypatch.setattr(module.Display, "close", close)
    there = client()
    there.fails["/a"] = PermissionDenied("no")
    get(there, parsed("/a", "/b", "-"))
    assert finished == [("/a", 0), ("/b", 4)]


def test_the_progress_of_all_files_is_counted_together(carried, capsysbinary, monkeypatch) -> None:
    shown: list[Any] = []
    real = module.display

    def display(*given: Any, **how: Any) -> Any:
        shown.append((given, how))
        return real(*given, **how)

    monkeypatch.setattr(module, "display", display)
    get(client(), parsed("/d/a", "/b", "-"))
    assert shown == [((6, 2, "a"), {"quiet": False})]

"""A plan on the command line: what it would do, or what comes of it, line by line; each failure has its exit code."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.cli import carrying as module
from iot.sftp.client.cli.carrying import carry
from iot.sftp.client.cli.output import each, exit_code_of, print_names, result_line
from iot.sftp.client.cli.parser import UsageError
from iot.transfer.errors import LinkLost, NotFound, PermissionDenied
from iot.transfer.model import Direction, Evidence, Proof, TransferResult
from iot.transfer.trees.model import Act, Step, StepResult, TreePlan

SHA256 = "ab" * 32


def step(act: Act, name: str = "a", *, size: int = 3, **more: Any) -> Step:
    return Step(act, name, f"here/{name}", f"/there/{name}", "reason", size, **more)


def result(name: str = "a", **more: Any) -> TransferResult:
    values = {"size": 2048, "sent_bytes": 2048, "resumed_at": 0, "seconds": 2.0, "proof": Proof.SIZE, **more}
    return TransferResult(f"here/{name}", f"/there/{name}", **values)


class Client:
    """Carries plans out like this; with what it was asked to, and what was shown meanwhile, is noted."""

    def __init__(self, *done: StepResult | Exception) -> None:
        self.done, self.how = done, {}  # type: ignore[var-annotated]

    def carry_out(self, plan: TreePlan, **how: Any) -> Any:
        self.how = how
        for each_done in self.done:
            if isinstance(each_done, Exception):
                raise each_done
            yield each_done


def arguments(**more: Any) -> Any:
    return SimpleNamespace(**{"dry_run": False, "quiet": False, "restart": False, "sha256": False, **more})


def plan(*steps: Step, direction: Direction = Direction.UPLOAD, **more: Any) -> TreePlan:
    return TreePlan(direction, steps, **more)


class Shown:
    """In the place of the display: what was said and counted."""

    def __init__(self) -> None:
        self.did: list[Any] = []
        self.meter = SimpleNamespace(finished=lambda key, size: self.did.append((key.path, size)))

    def say(self, text: str) -> None:
        self.did.append(text.split(":", maxsplit=1)[0])

    def clear(self) -> None:
        self.did.append("clear")

    def of(self, key: Step, size: int) -> Any:
        return key.path, size


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> tuple[Shown, list[Any]]:
    """What is shown, and with what the display was made."""
    found, made = Shown(), []

    class Display:
        def __init__(self, *given: Any, **how: Any) -> None:
            made.append((given, how))

        def __enter__(self) -> Shown:
            return found

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(module, "display", Display)
    return found, made


def test_each_step_is_shown_and_counted_and_each_failure_has_its_code(shown, capsys) -> None:
    one, two = step(Act.TRANSFER, "a"), step(Act.TRANSFER, "b", size=5)
    done = [
        StepResult(one, result("a")),
        StepResult(two, error=PermissionDenied("b: no")),
        StepResult(step(Act.MAKE_FOLDER, "f")),
        StepResult(step(Act.FAIL, "x"), error=NotFound("x is gone")),
        StepResult(step(Act.REMOVE, "old")),
        StepResult(step(Act.REMOVE_FOLDER, "older")),
    ]
    client: Any = Client(*done)
    assert carry(client, plan(one, two), arguments()) == [77, 1]
    assert shown[0].did == [
        ("a", 2048), "here/a -> /there/a", ("b", 0), "clear", "clear", "removed /there/old", "removed /there/older",
    ]  # fmt: skip
    assert shown[1] == [((8, 2, "a"), {"quiet": False})]
    assert capsys.readouterr().err.splitlines() == ["iot-sftp: b: no", "iot-sftp: x is gone"]


def test_what_concerns_every_file_ends_all(shown) -> None:
    client: Any = Client(LinkLost("cut"))
    with pytest.raises(LinkLost):
        carry(client, plan(step(Act.TRANSFER)), arguments())


@pytest.mark.parametrize(
    ("given", "more", "how"),
    [
        ({}, {}, {"resume": True, "sha256": False, "adopt_partial": None}),
        ({"restart": True, "sha256": True}, {}, {"resume": False, "sha256": True, "adopt_partial": None}),
        ({"sha256": True}, {"expected": "0f"}, {"resume": True, "sha256": "0f", "adopt_partial": None}),
        ({}, {"adopt_partial": "{name}.x"}, {"resume": True, "sha256": False, "adopt_partial": "{name}.x"}),
    ],
)
def test_how_a_plan_is_carried_out_is_what_was_asked_for(shown, given: Any, more: Any, how: Any) -> None:
    client: Any = Client()
    assert carry(client, plan(), arguments(**given), **more) == []
    progress = client.how.pop("progress")
    assert client.how == how
    assert progress(step(Act.TRANSFER, size=7)) == ("a", 7)
    assert shown[1] == [((0, 0, ""), {"quiet": False})]


@pytest.mark.parametrize(("direction", "word"), [(Direction.UPLOAD, "sent"), (Direction.DOWNLOAD, "fetched")])
def test_two_files_with_one_destination_are_refused(shown, direction: Direction, word: str) -> None:
    client: Any = Client()
    twice = plan(step(Act.TRANSFER), step(Act.TRANSFER), direction=direction)
    with pytest.raises(UsageError, match=rf"^two files would go to /there/a: .*\. Nothing was {word}$"):
        carry(client, twice, arguments())
    assert client.how == {}


def test_what_is_left_out_is_told_with_its_reason(shown, capsys) -> None:
    client: Any = Client()
    carry(client, plan(step(Act.LEAVE_OUT, "dev"), step(Act.LEAVE, "same")), arguments())
    assert capsys.readouterr().err == "left out, reason: here/dev\n"


@pytest.mark.parametrize(("direction", "word"), [(Direction.UPLOAD, "send"), (Direction.DOWNLOAD, "fetch")])
def test_a_dry_run_tells_all_and_does_nothing(shown, capfd, direction: Direction, word: str) -> None:
    client: Any = Client()
    steps = (
        step(Act.TRANSFER, size=2048), step(Act.LEAVE, "same"), step(Act.REMOVE, "old"), step(Act.LEAVE_OUT, "dev"),
        step(Act.FAIL, "x", error=PermissionDenied("x: no")), step(Act.FAIL, "y"),
    )  # fmt: skip
    assert carry(client, plan(*steps, direction=direction), arguments(dry_run=True)) == [77]
    assert client.how == {}
    said = capfd.readouterr()
    assert said.out.splitlines() == [f"would {word} here/a -> /there/a (2.0 KiB)", "would remove /there/old"]
    assert said.err.splitlines() == ["left out, reason: here/dev", "iot-sftp: x: no"]


def test_a_dry_run_says_why_nothing_would_be_removed(shown, capfd) -> None:
    refused = plan(step(Act.REMOVE, "old"), prune_refused="all would go; allow_empty permits that")
    assert carry(Client(), refused, arguments(dry_run=True)) == []  # type: ignore[arg-type]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "nothing would be removed: all would go; --allow-empty permits that\n")


@pytest.mark.parametrize(
    ("wanted", "sha256", "told"), [(True, SHA256, True), (False, SHA256, False), (True, None, False)]
)
def test_a_checksum_is_printed_where_it_is_wanted_and_known(shown, capfd, wanted, sha256, told) -> None:
    client: Any = Client(StepResult(step(Act.TRANSFER), result(sha256=sha256)))
    carry(client, plan(step(Act.TRANSFER)), arguments(sha256=wanted))
    assert capfd.readouterr().out == (f"{SHA256}  /there/a\n" if told else "")


# -- the words of it


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "2048 bytes in 2.0 s (1.0 KiB/s), proof size"),
        ({"sent_bytes": 1024, "resumed_at": 1024}, "2048 bytes in 2.0 s (512 B/s), proof size, resumed at 1024"),
        ({"seconds": 0.0}, "2048 bytes in 0.0 s (0 B/s), proof size"),
        ({"seconds": 0.5}, "2048 bytes in 0.5 s (4.0 KiB/s), proof size"),
        ({"already_done": True}, "was there already, proof size"),
        ({"proof": Proof.FULL, "evidence": Evidence.SECOND_READING}, "(1.0 KiB/s), proof full (second reading)"),
    ],
)
def test_what_became_of_a_file_is_told_in_a_line(more: Any, told: str) -> None:
    assert result_line(result(**more)).endswith(told)
    assert result_line(result(**more)).startswith("here/a -> /there/a: ")


def test_one_word_that_fails_does_not_hold_up_the_others_and_the_first_failure_counts(capsys) -> None:
    did: list[str] = []

    def act(word: str) -> None:
        did.append(word)
        if word != "a":
            raise {"b": PermissionDenied("b"), "c": NotFound("c"), "d": LinkLost("d")}[word]

    assert each(["a", "b", "c", "a"], act) == 77
    assert did == ["a", "b", "c", "a"]
    assert each(["a"], act) == 0
    with pytest.raises(LinkLost):
        each(["d", "a"], act)
    assert capsys.readouterr().err.splitlines() == ["iot-sftp: b", "iot-sftp: c"]
    assert exit_code_of(KeyError()) == 70


class Out(io.StringIO):
    """Standard output: its text and its bytes, as they leave."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.left = terminal, []
        self.buffer = SimpleNamespace(write=self.left.append, flush=lambda: self.left.append("flushed"))

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.left.append("text flushed")


@pytest.mark.parametrize(
    ("terminal", "null", "text", "left"),
    [
        (True, False, "a\\x1b\n\\xff\n", []),
        (True, True, "", ["text flushed", b"a\x1b\0", b"\xff\0", "flushed"]),
        (False, False, "", ["text flushed", b"a\x1b\n", b"\xff\n", "flushed"]),
    ],
)
def test_names_are_escaped_on_a_terminal_and_are_bytes_in_order_elsewhere(
    monkeypatch, terminal, null, text, left
) -> None:
    out = Out(terminal=terminal)
    monkeypatch.setattr(sys, "stdout", out)
    print_names(["a\x1b", "\udcff"], null=null)
    assert (out.getvalue(), out.left) == (text, left)

"""`iot-spooler check`: what it asks in which order, what it says, what it ends with, and what it does with secrets."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler import checks
from iot.spooler.checks import preflight, trial
from iot.spooler.checks.trial import Came, Step
from iot.spooler.cli import check
from iot.spooler.config import effects, exposure, fallbacks, layout, load
from iot.spooler.outbox import place, watches

GOOD = Step("reach", Came.GOOD, "it answers")
FAILED = Step("write", Came.FAILED, "no")
LATER = Step("write", Came.LATER, "no")


class Server:
    def __init__(self, address: str) -> None:
        self.address, self.identity, self.closed = address, f"key of {address}", 0

    def remote(self, journal: object, device_id: str) -> Any:
        assert device_id == "gw"
        return self

    def close(self) -> None:
        self.closed += 1


class Asked:
    """A device whose settings are good, until a test says otherwise. done: what was asked, and of whom."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.servers = {"server": Server("a:22")}
        self.settings: Any = SimpleNamespace(
            state_dir=base / "state",
            device_id="gw",
            servers=self.servers,
            outbox=[SimpleNamespace(label="one", path=Path("/one")), SimpleNamespace(label="two", path=Path("/two"))],
            inbox=[],
        )
        self.problems: list[str] = []
        self.done: list[Any] = []
        self.says: dict[str, list[str]] = {}
        self.steps: dict[str, list[Step]] = {}
        self._patch = monkeypatch.setattr
        self._patch(load, "look", self._look)
        self._patch(check, "act_as_owner", self.done.append)
        self._patch(preflight, "credentials_of_unit", lambda config: None)
        self._patch(preflight, "obstacles", lambda *given, by_unit: self._told("obstacles", by_unit))
        self._patch(preflight, "doubts", lambda *given, by_unit: self._told("doubts", by_unit))
        self._patch(exposure, "exposed_secrets", lambda settings, config, environment: self._told("exposed"))
        for module, name in (
            (layout, "shared_destinations"),
            (layout, "merging_rules"),
            (effects, "without_effect"),
            (fallbacks, "divided_batches"),
        ):
            self._patch(module, name, lambda settings, name=name: self._told(name))
        self._patch(place, "completeness_of", lambda path: f"of {path}")
        self._patch(watches, "why_unwatched", lambda path: "no inotify" if path == Path("/two") else "")
        self._patch(trial, "destinations", lambda settings, now_ns: ["a destination"])
        self._patch(trial, "sources", lambda settings: [("/cfg", "in")])
        self._patch(trial, "tried", self._tried)

    def _told(self, name: str, *more: Any) -> list[str]:
        self.done.append((name, *more))
        return list(self.says.get(name, ()))

    def _look(self, config: Path, environment: Any) -> tuple[Any, Any, list[str]]:
        self.done.append(("look", environment.get("CREDENTIALS_DIRECTORY")))
        return self.settings, "origins", list(self.problems)

    def _tried(self, remote: Server, identity: str, wanted: Any, fetched: Any) -> Iterator[Step]:
        assert identity == remote.identity
        self.done.append((remote.address, wanted, fetched))
        yield from self.steps.get(remote.address, [GOOD])

    def looks(self) -> list[str | None]:
        """With which credentials the settings were read."""
        return [each[1] for each in self.done if isinstance(each, tuple) and each[0] == "look"]

    def check(self, *, connect: bool = False) -> int:
        return check.check(argparse.Namespace(config=Path("/c.toml"), connect=connect))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return Asked(tmp_path, monkeypatch)


GOOD_WORDS = """\
configuration good: a:22, outboxes one, two
outbox one: completeness of /one
outbox two: completeness of /two
outbox two: scanned often (no inotify)
"""


def test_a_good_configuration_is_told_with_how_each_outbox_is_watched(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked.check() == 0
    assert capsys.readouterr() == (GOOD_WORDS, "")
    own = [("obstacles", False), ("doubts", False)]
    assert asked.done[:3] == [("look", None), ("exposed",), asked.settings.state_dir]
    assert asked.done[3:5] == own


def test_the_fallback_and_the_inboxes_are_named(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    asked.servers["fallback"] = Server("b:22")
    asked.settings.inbox = [SimpleNamespace(label="in"), SimpleNamespace(label="also")]
    assert asked.check() == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "configuration good: a:22, fallback b:22, outboxes one, two, inboxes in, also"


def test_settings_that_are_none_are_told_and_nothing_else_is_looked_at(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.settings, asked.problems = None, ["a = 1: wrong", "b = 2: wrong"]
    assert asked.check() == 78
    assert capsys.readouterr() == ("", "a = 1: wrong\nb = 2: wrong\n")
    assert asked.done == [("look", None)]


@pytest.mark.parametrize("where", ["problems", "exposed", "obstacles"])
def test_whatever_is_wrong_is_told_after_the_doubts_and_nothing_is_tried(
    asked: Asked, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.says = {"doubts": ["perhaps"], "merging_rules": ["not told then"], where: ["wrong"]}
    asked.problems = asked.says.pop("problems", [])
    assert asked.check(connect=True) == 78
    assert capsys.readouterr() == ("", "warning: perhaps\nwrong\n")


def test_doubts_are_warnings_and_no_failure(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("doubts", "shared_destinations", "merging_rules", "without_effect", "divided_batches")
    asked.says = {name: [f"because of {name}"] for name in names}
    assert asked.check() == 0
    assert capsys.readouterr().err.splitlines() == [f"warning: because of {name}" for name in names]


@pytest.mark.parametrize(
    ("first", "other", "code"),
    [
        ([GOOD], [GOOD], 0),
        ([GOOD, LATER], [GOOD], 75),
        ([GOOD, FAILED], [GOOD], 78),
        ([GOOD], [LATER], 75),
        ([LATER], [FAILED], 78),
        ([FAILED], [LATER], 78),
        ([FAILED, LATER], [GOOD], 78),
        ([LATER, FAILED], [GOOD], 78),
        ([Step("a", None, ""), Step("b", Came.NO, ""), Step("c", Came.NOT_TRIED, "")], [GOOD], 0),
    ],
)
def test_each_server_is_tried_and_the_worst_that_came_of_it_counts(
    asked: Asked, first: list[Step], other: list[Step], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.servers["fallback"] = Server("b:22")
    asked.steps = {"a:22": first, "b:22": other}
    assert asked.check(connect=True) == code
    assert asked.done[-2:] == [("a:22", ["a destination"], [("/cfg", "in")]), ("b:22", ["a destination"], [])]
    assert [server.closed for server in asked.servers.values()] == [1, 1]
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line for line in told if line.endswith(":22")] == ["server a:22", "fallback b:22"]


def test_a_trial_that_is_broken_off_closes_its_connection(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> Iterator[Step]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(trial, "tried", stopped)
    with pytest.raises(KeyboardInterrupt):
        asked.check(connect=True)
    assert asked.servers["server"].closed == 1


def test_each_step_is_a_line_that_goes_on_below_what_it_means(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    asked.steps["a:22"] = [
        Step("destination up", None, "of outbox one"),
        Step("write", Came.NOT_TRIED, ""),
        Step("fsync", Came.GOOD, "word " * 11 + "in-the-middle and the end"),
    ]
    asked.check(connect=True)
    assert capsys.readouterr().out.removeprefix(GOOD_WORDS).splitlines() == [
        "server a:22",
        "destination up of outbox one",
        "  write        not tried",
        "  fsync        ok: " + " ".join(["word"] * 11),
        " " * 15 + "in-the-middle and the end",
    ]


# -- the credentials of a unit


def test_with_connect_the_settings_are_read_again_with_the_credentials_of_the_unit(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("secret")
    monkeypatch.setattr(preflight, "credentials_of_unit", lambda config: tmp_path)
    assert asked.check() == 0
    assert asked.looks() == [None]
    assert ("obstacles", True) in asked.done
    assert ("doubts", True) in asked.done
    asked.done.clear()
    assert asked.check(connect=True) == 0
    none, folder = asked.looks()
    assert none is None
    assert folder is not None
    assert not Path(folder).exists()


def given(folder: Path | None, settings: Any) -> Any:
    return check._credentials(folder, settings)


@pytest.mark.parametrize("case", ["no folder", "no settings", "a service"])
def test_where_there_is_nothing_to_copy_nothing_is_copied(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if case == "a service":
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    monkeypatch.setattr(check, "_copied", lambda *_: pytest.fail("copied"))
    folder = None if case == "no folder" else tmp_path
    with given(folder, None if case == "no settings" else SimpleNamespace(state_dir=tmp_path)) as found:
        assert found == {}


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    done: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: done.append((Path(path).name, user, group)))
    return done


def test_the_copies_belong_to_the_user_of_the_agent_the_folder_last(
    tmp_path: Path, owners: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, secrets = tmp_path / "state", tmp_path / "secrets"
    for folder in (state, secrets):
        folder.mkdir()
    (secrets / "key").write_text("secret")
    about = os.stat(state)
    real = os.stat
    owner = os.stat_result((*about[:4], 4711, 4712, *about[6:]))
    monkeypatch.setattr(os, "stat", lambda path, **how: owner if path == state else real(path, **how))
    copies = check._copied(secrets, state)
    assert owners == [("sftp_key", 4711, 4712), (copies.name, 4711, 4712)]
    assert copies.parent == check.MEMORY
    check._remove(copies)
    assert not copies.exists()
    owners.clear()
    copies = check._copied(secrets, tmp_path / "none")
    assert owners == []
    assert (copies / "sftp_key").read_text() == "secret"
    check._remove(copies)


def test_without_a_folder_in_memory_the_copies_lie_where_temporary_files_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MEMORY", tmp_path / "none")
    copies = check._copied(tmp_path, tmp_path / "none")
    assert copies.parent == Path(os.environ.get("TMPDIR", "/tmp"))
    check._remove(copies)


def test_credentials_that_cannot_be_read_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = check._copied(tmp_path / "none", tmp_path)
    check._remove(copies)
    assert capsys.readouterr().err.startswith("warning: the credentials of the unit are not used: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_ends_with_its_number_and_leaves_no_copy(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    before = signal.signal(number, signal.SIG_DFL)
    folders: list[Path] = []
    try:
        with given(tmp_path, SimpleNamespace(state_dir=tmp_path)) as found:
            folders.append(Path(found["CREDENTIALS_DIRECTORY"]))
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(number)
        assert ended.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
        assert not folders[0].exists()
    finally:
        signal.signal(number, before)


def test_what_is_told_after_the_first_line_is_told_at_once(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may take long; who watches through a pipe sees the ones before."""
    flushed: list[str] = []
    out = SimpleNamespace(write=len, flush=lambda: flushed.append("now"), isatty=lambda: False)
    asked.steps["a:22"] = [GOOD, LATER]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        asked.check(connect=True)
    assert len(flushed) == 2


def test_what_a_trial_needs_is_loaded_before_rights_are_given_up_and_only_where_one_is_made(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bool] = []

    def give_up(_: object) -> None:
        loaded.append("iot.spooler.checks.trial" in sys.modules)
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "act_as_owner", give_up)
    for connect in (False, True):
        monkeypatch.delitem(sys.modules, "iot.spooler.checks.trial", raising=False)
        monkeypatch.delattr(checks, "trial", raising=False)
        with pytest.raises(KeyboardInterrupt):
            asked.check(connect=connect)
    assert loaded == [False, True]

"""One call at a time on one connection: what is asked of it, and what becomes of the connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.scripted import Files, drive

from iot.sftp.client import runner as module
from iot.sftp.client.pipeline.job import Job
from iot.sftp.client.runner import Account, Runner
from iot.sftp.client.session import Beside, Making
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.ssh.openssh_config import Way
from iot.sftp.client.standby import LOGIN_S, PATIENCE_S
from iot.transfer.errors import Cancelled, LinkLost, PermissionDenied
from iot.transfer.model import Direction
from iot.transfer.rate import Meter, RateLimit
from iot.transfer.stop import StopFlag

FINGERPRINT = "SHA256:" + "A" * 43


class Connection:
    """Carries out each job on files in memory; `error` comes in place of that."""

    def __init__(self) -> None:
        self.files = Files()
        self.error: BaseException | None = None
        self.pipeline = self
        self.delivered_bytes = self.sent_bytes = 0
        self.closed = False
        self.pace = SimpleNamespace(window=1)
        self.context: Any = None

    def run_one(self, job: Job[Any]) -> Any:
        if self.error is not None:
            raise self.error
        return drive(job.work, self.files)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    options = ClientOptions(state_dir=tmp_path / "state", attempts=1, host_key=FINGERPRINT, connect_timeout_s=77)
    runner = Runner(Account(Way("h", 2222, "u"), "secret"), options, None)
    yield runner
    runner.close()


@pytest.fixture
def connection(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """The one that the runner makes."""
    made = Connection()
    monkeypatch.setattr(runner.links, "_make", lambda making: made)
    return made


# -- the connection


def test_whether_it_is_connected_costs_no_connection(runner: Runner, connection: Connection) -> None:
    assert not runner.is_connected()
    assert runner.connections == 0
    runner.connect()
    assert runner.is_connected()
    assert runner.connections == 1
    assert [event.path for event in connection.files.events] == [b"."]


def test_a_refusal_is_a_sign_of_life(runner: Runner, connection: Connection) -> None:
    runner.connect()
    connection.error = PermissionDenied("no")
    assert runner.is_connected()
    assert not connection.closed


@pytest.mark.parametrize("error", [LinkLost("cut"), KeyboardInterrupt()])
def test_after_a_question_without_an_answer_the_connection_is_gone(
    runner: Runner, connection: Connection, error: BaseException
) -> None:
    runner.connect()
    connection.error = error
    with pytest.raises(type(error)):
        runner.is_connected()
    assert connection.closed
    assert not runner.is_connected()


def test_while_a_batch_runs_the_connection_is_asked_nothing(runner: Runner, connection: Connection) -> None:
    runner.connect()
    with runner._ownership.held(batch=True):
        assert runner.is_connected()
    assert connection.files.events == []


def test_an_account_is_shown_without_its_password() -> None:
    account = Account(Way("h", 2222, "u"), "secret")
    assert (str(account), repr(account)) == ("u@h:2222", "u@h:2222")


# -- calls


def test_each_call_asks_for_what_it_says(runner: Runner, connection: Connection) -> None:
    connection.files.content[b"/up/f"] = bytearray(b"12345")
    found = runner.stat(b"/up/f")
    assert found is not None
    assert found.size == 5
    assert runner.lstat(b"/up/missing") is None
    assert runner.read_small(b"/up/f", 3) == b"1234"
    runner.delete(b"/up/f")
    asked = [event.what for event in connection.files.events]
    assert asked == ["STAT", "LSTAT", "OPEN", "READ", "CLOSE", "REMOVE"]
    assert connection.files.content == {}


def test_the_caller_has_its_turn_while_a_small_file_waits_for_a_connection(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ticks = Connection(), []

    def session(tick: Any) -> Any:
        tick()
        return made

    monkeypatch.setattr(runner.links, "session", session)
    runner.read_small(b"/up/f", 3, tick=lambda: ticks.append(1))
    assert ticks == [1]


def test_what_is_discarded_is_on_record_to_be_removed_unless_it_is_on_record_already(
    runner: Runner, tmp_path: Path
) -> None:
    source = tmp_path / "f"
    runner.discard([(source, "/up/f")])
    runner._books.open()
    checkpoints = runner._books.checkpoints
    key = (Direction.UPLOAD, b"/up/f", os.fsencode(source))
    first = checkpoints.load(*key)
    assert first is not None
    assert list(checkpoints.abandoned_before(2**40)) == [first]
    noted: list[Any] = []
    checkpoints.note = lambda checkpoint, **_: noted.append(checkpoint)  # type: ignore[method-assign,assignment]
    runner.discard([(source, "/up/f"), (source, "/up/g")])
    assert [each.remote_path for each in noted] == [b"/up/g"]


# -- making a connection


def making(beside: Beside | None = None) -> Making:
    return Making(None, lambda quiet_s: False, StopFlag(), RateLimit(), Meter(), beside)


def test_a_connection_beside_another_one_has_less_patience(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[Any] = []
    monkeypatch.setattr(module, "Session", lambda target, *_: targets.append(target))
    runner._books.open()
    runner._connect_once(making())
    runner._connect_once(making(Beside(1.5, lambda: None)))
    alone, beside = targets
    assert (alone.host, alone.port, alone.credentials.password) == ("h", 2222, "secret")
    assert (alone.connect_timeout_s, alone.login_deadline_s, alone.redial_s) == (77, 60, None)
    assert (beside.connect_timeout_s, beside.login_deadline_s, beside.redial_s) == (PATIENCE_S, LOGIN_S, 1.5)


def test_a_client_that_was_closed_meanwhile_connects_no_more(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Session", lambda *_: pytest.fail("connected"))
    with pytest.raises(Cancelled, match="closed while connecting"):
        runner._connect_once(making())


def test_what_makes_every_login_fail_is_told_of_its_own_account(runner: Runner) -> None:
    assert runner.login_problems() == []
    nothing = Runner(Account(Way("h", 22, "u"), None), ClientOptions(host_key=FINGERPRINT), None)
    assert [(key, text.partition(":")[0]) for key, text in nothing.login_problems()] == [("", "nothing to log in with")]

"""The question to the server that is not used: a login, what it asks for, and nothing that could hurt the agent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from iot.spooler.server.hint import SPREAD
from iot.spooler.server.probe import Probe
from iot.transfer import LinkLost, LoginRefused, Wire

HINT = ".iot-spooler.json"
SOON_S = 10.0


class Remote:
    """Is what `remote` of its settings makes, too."""

    connections = 0

    def __init__(self, error: Exception | None = None, hint: bytes | None = None) -> None:
        self.error, self.hint = error, hint
        self.wire = Wire(300, 200)
        self.done: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def remote(self, journal: Any, device_id: str) -> Remote:
        assert journal.state_dir is None
        assert device_id == "gw"
        return self

    def connect(self) -> None:
        assert self.go_on.wait(SOON_S)
        self.done.append("connect")
        if self.error is not None:
            raise self.error

    def read_small(self, path: bytes, most_bytes: int, *, tick: Callable[[], None]) -> bytes | None:
        self.done.append(path.decode())
        return self.hint

    def disconnect(self) -> None: ...

    def cancel(self) -> None:
        self.done.append("cancel")

    def close(self) -> None:
        self.done.append("close")


def asked(
    remote: Remote, hint_file: str | None = None, *, meanwhile: Callable[[Probe], None] = lambda _: None
) -> Probe:
    over, was_over = threading.Event(), list[bool]()

    def end() -> None:
        was_over.append(probe.is_over)  # who is woken has to find the answer
        over.set()

    probe = Probe(remote, "gw", hint_file, end)  # type: ignore[arg-type]
    probe.start()
    meanwhile(probe)
    assert over.wait(SOON_S)
    assert was_over == [True]
    return probe


def test_a_login_is_an_answer_and_nothing_else_is_done() -> None:
    remote = Remote()
    probe = asked(remote)
    assert (probe.error, probe.wait_s, probe.wire) == (None, 0.0, Wire(300, 200))
    assert remote.done == ["connect", "close"]


@pytest.mark.parametrize("error", [LinkLost("down"), LoginRefused("no")])
def test_an_error_is_one_and_costs_bytes_too(error: Exception) -> None:
    remote = Remote(error)
    probe = asked(remote, HINT)
    assert (probe.error, probe.wire) == (error, Wire(300, 200))
    assert remote.done == ["connect", "close"]


def test_a_hint_to_stay_away_is_followed_as_by_an_agent() -> None:
    remote = Remote(hint=json.dumps({"retry_after_s": 60}).encode())
    probe = asked(remote, HINT)
    assert 60 <= probe.wait_s <= 60 * (1 + SPREAD)
    assert remote.done == ["connect", HINT, "close"]
    assert asked(Remote(hint=b"{}"), HINT).wait_s == 0


def test_what_nobody_foresaw_is_a_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    probe = asked(Remote(ZeroDivisionError("oh")))
    assert isinstance(probe.error, LinkLost)
    assert "ZeroDivisionError" in str(probe.error)
    assert "the question to the other server failed" in caplog.text


def test_a_device_without_a_thread_to_spare_has_its_answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    probe = Probe(Remote(), "gw", None, lambda: None)  # type: ignore[arg-type]
    probe.start()
    assert probe.is_over
    assert isinstance(probe.error, LinkLost)


def test_one_that_nobody_waits_for_is_ended() -> None:
    remote = Remote()
    remote.go_on.clear()

    def end(probe: Probe) -> None:
        while probe._remote is None:
            pass
        probe.cancel()
        remote.go_on.set()

    asked(remote, HINT, meanwhile=end)
    assert "cancel" in remote.done
    assert HINT not in remote.done
    assert remote.done[-1] == "close"


def test_one_that_is_given_up_before_it_has_begun_asks_nothing() -> None:
    remote = Remote()
    over = threading.Event()
    probe = Probe(remote, "gw", HINT, over.set)  # type: ignore[arg-type]
    probe.cancel()
    probe.start()
    assert over.wait(SOON_S)
    assert remote.done == ["close"]

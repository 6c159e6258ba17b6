"""The one loop over connections: how often it dials, how long it waits, and what becomes of the connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from iot.transfer import attempts as module
from iot.transfer.attempts import JITTER, Attempts, Patience
from iot.transfer.errors import (
    AuthenticationError,
    Cancelled,
    LinkLost,
    NotFound,
    PermanentError,
    ServerBusy,
    SFTPError,
    Timeout,
)
from iot.transfer.stop import StopFlag


@dataclass
class Links:
    """What comes of each call in turn: an error, or a connection (None)."""

    script: list[SFTPError | None] = field(default_factory=list)
    dialled: int = 0
    dropped: int = 0
    another_stands: bool = False
    current: Any = None

    def session(self, tick: Any) -> Any:
        if self.current is None:
            self.dialled += 1
            error = self.script.pop(0) if self.script else None
            if error is not None:
                raise error
            self.current = SimpleNamespace(delivered_bytes=0)
        return self.current

    def drop(self) -> None:
        self.current = None
        self.dropped += 1


NONE = Patience(3, 0.0, 0.0)


def loop(links: Links, work: Any, patience: Patience = NONE, stop: StopFlag | None = None, **options: Any) -> Any:
    for attempt in Attempts(links, patience, stop or StopFlag(), **options):
        with attempt as session:
            return work(session)
    raise AssertionError("attempts end with a result or an error")


def losing(session: Any) -> None:
    raise LinkLost("cut")


@pytest.mark.parametrize("error", [LinkLost("refused"), Timeout("late"), ServerBusy("full")])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_attempts_are_the_number_of_connections_that_are_tried_and_fail(error: SFTPError, attempts: int) -> None:
    links = Links([error] * 99)
    with pytest.raises(type(error)):
        loop(links, losing, Patience(attempts, 0.0, 0.0))
    assert links.dialled == attempts


def test_lost_links_and_failed_connects_are_counted_together() -> None:
    links = Links([LinkLost("refused"), None, LinkLost("refused"), None])
    with pytest.raises(LinkLost):
        loop(links, losing)
    assert links.dialled == 3


def test_progress_resets_the_count() -> None:
    links, runs = Links(), []

    def work(session: Any) -> str:
        runs.append(session)
        if len(runs) == 8:
            return "done"
        session.delivered_bytes += len(runs) % 2  # every second connection gets on
        raise LinkLost("cut")

    assert loop(links, work) == "done"


def test_a_failure_that_no_attempt_can_mend_is_raised_at_once() -> None:
    links = Links([AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        loop(links, losing)
    assert links.dialled == 1


def test_an_answer_leaves_the_connection_as_it_is_and_anything_else_drops_it() -> None:
    for error, dropped in ((NotFound("no"), 0), (ServerBusy("no"), 0), (KeyError("own"), 1), (KeyboardInterrupt(), 1)):
        links = Links()

        def work(session: Any, error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            loop(links, work)
        assert (links.dialled, links.dropped) == (1, dropped), error


def test_what_is_harmless_depends_on_the_operation() -> None:
    links = Links()

    def work(session: Any) -> None:
        raise PermanentError("in the middle")

    with pytest.raises(PermanentError):
        loop(links, work, harmless=())
    assert links.dropped == 1


def test_a_standby_connection_takes_over_without_a_wait_or_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    links, runs = Links(another_stands=True), []
    stop = StopFlag()
    monkeypatch.setattr(stop.__class__, "wait", lambda *_: pytest.fail("nobody has to wait"))

    def work(session: Any) -> str:
        runs.append(session)
        if len(runs) < 9:
            raise LinkLost("silent")
        return "done"

    assert loop(links, work, Patience(1, 60.0, 60.0), stop) == "done"


def test_the_wait_doubles_up_to_its_cap_and_is_spread() -> None:
    patience = Patience(9, 0.5, 60.0)
    for failures, base_s in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (9, 60.0), (5000, 60.0)):
        waits = [patience.wait_s(failures) for _ in range(50)]
        assert all(base_s <= wait_s <= base_s * (1 + JITTER) for wait_s in waits)
        assert len(set(waits)) > 1


def test_every_failure_is_followed_by_its_own_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(StopFlag, "wait", lambda _, seconds, tick: bool(waits.append(seconds)))
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.0)
    with pytest.raises(LinkLost):
        loop(Links([LinkLost("refused")] * 9), losing, Patience(5, 1.0, 60.0))
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_the_caller_ticks_while_it_waits_and_a_cancel_ends_the_wait() -> None:
    stop, ticks = StopFlag(), []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            stop.set()

    links = Links([LinkLost("refused")])
    with pytest.raises(Cancelled):
        loop(links, losing, Patience(3, 60.0, 60.0), stop, tick=tick)
    assert len(ticks) == 3
    assert links.dialled == 1


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_link_that_broke_because_it_was_cancelled_is_no_failure_of_the_link(attempts: int) -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(Cancelled):
        loop(Links(), losing, Patience(attempts, 0.0, 0.0), stop)


def test_each_failed_call_is_told_with_its_number(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LinkLost):
        loop(Links([LinkLost("refused")] * 9), losing)
    assert [record.args[0] for record in caplog.records if record.args] == [1, 2]


def test_work_runs_on_the_connections_until_one_lets_it_end() -> None:
    links, seen = Links(), []

    def work(session: Any) -> str:
        seen.append(session)
        if len(seen) < 3:
            raise LinkLost("cut")
        return "done"

    attempts = Attempts(links, NONE, StopFlag())
    assert attempts.run(work) == "done"
    assert (links.dialled, links.dropped) == (3, 2)
    with pytest.raises(NotFound):
        Attempts(Links(), NONE, StopFlag()).run(refusing)
    with pytest.raises(LinkLost):
        Attempts(Links(), NONE, StopFlag()).run(losing)


def refusing(session: Any) -> None:
    raise NotFound("gone")


def test_a_server_that_is_too_busy_for_one_request_is_not_tried_again_by_the_loop() -> None:
    links = Links()

    def work(session: Any) -> None:
        raise ServerBusy("full")

    with pytest.raises(ServerBusy):
        loop(links, work, harmless=())
    assert (links.dialled, links.dropped) == (1, 1)


def test_what_was_confirmed_before_this_attempt_is_no_progress_of_it() -> None:
    links = Links()
    links.session(None).delivered_bytes = 7
    failures: list[int] = []
    attempts = Attempts(links, Patience(2, 0.0, 0.0), StopFlag())

    def work(session: Any) -> None:
        failures.append(attempts._failures)
        raise LinkLost("cut")

    with pytest.raises(LinkLost):
        attempts.run(work)
    assert failures == [0, 1]


def test_a_cancel_says_that_what_was_sent_is_kept() -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(Cancelled, match=r"^stopped on request; what was sent is kept for a resume$") as caught:
        loop(Links([LinkLost("refused")]), losing, stop=stop)
    assert isinstance(caught.value.__cause__, LinkLost)


def test_one_who_waits_without_a_tick_just_waits() -> None:
    with pytest.raises(LinkLost):
        loop(Links([LinkLost("refused")] * 2), losing, Patience(2, 0.001, 0.001))

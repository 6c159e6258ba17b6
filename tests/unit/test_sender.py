"""What becomes of the link, and of the jobs, after each run of the client; what a device that cannot write begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.agent.local_hold import HOLD_S, LocalHold
from iot.spooler.agent.sender import Sender, Totals
from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability, ServerState
from iot.transfer import (
    Cancelled,
    DiskFull,
    Failure,
    JournalUnavailable,
    LinkLost,
    LoginRefused,
    NoSpaceOnServer,
    NotFound,
    Proof,
    TransferError,
    TransferResult,
)


class Lab:
    """errors: how a job fails; others are sent. each: called before each job. raises: by the remote, at once."""

    def __init__(self, *jobs: str) -> None:
        self.now = 1000.0
        self.jobs = list(jobs)
        self.in_flight: list[str] = []
        self.is_preparing = self.stop = False
        self.changes = self.records = 0
        self.errors: dict[str, TransferError] = {}
        self.raises: Exception | None = None
        self.each: Callable[[str], None] = lambda job: None
        self.sent: list[str] = []
        self.booked: list[tuple[Any, ...]] = []
        self.progress: list[int] = []
        self.hints = SimpleNamespace(
            is_due=False, look=lambda tick: 0.0, connection_lost=lambda: self.booked.append(())
        )
        self.server = Availability(Backoff(10.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
        self.hold = LocalHold(lambda: self.now, lambda: None)
        self.totals = Totals()
        outcomes = SimpleNamespace(
            succeeded=lambda entry, result: self.booked.append(("sent", entry.path)),
            failed=lambda entry, failure, *, progressed: self.booked.append(("failed", entry.path, progressed)),
            interrupted=lambda flying: self.booked.append(("interrupted", *flying)),
            released=lambda claimed: self.booked.append(("released", *claimed)),
            record=self._record,
        )
        self.sender = Sender(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            outcomes,  # type: ignore[arg-type]
            self.server,
            self.hold,
            self.totals,
            self.hints,  # type: ignore[arg-type]
            stopping=lambda: self.stop,
            clock=lambda: self.now,
            on_change=lambda: setattr(self, "changes", self.changes + 1),
            on_progress=self.progress.append,
        )

    def _record(self) -> None:
        self.records += 1

    # the dispatcher

    def next_job(self) -> str | None:
        if self.jobs:
            self.in_flight.append(self.jobs.pop(0))
            return self.in_flight[-1]
        return None

    def finished(self, outcome: TransferResult | Failure) -> Any:
        self.in_flight.remove(outcome.source)
        return SimpleNamespace(entry=SimpleNamespace(path=outcome.source.encode()), done_bytes=30, progressed=True)

    def abandon(self) -> tuple[list[str], list[str]]:
        flying, self.in_flight = self.in_flight, []
        return flying, ["claimed"]

    # the client

    def upload_many(
        self, jobs: Iterator[Any], *, hold_checkpoints: bool, tick: Callable[[], None]
    ) -> Iterator[TransferResult | Failure]:
        assert hold_checkpoints
        if self.raises is not None:
            raise self.raises
        for job in jobs:
            if job is None:
                return
            self.each(job)
            if job in self.errors:
                yield Failure(None, job, "/up", self.errors[job])
            else:
                self.sent.append(job)
                proof = None if job == "known" else Proof.SIZE
                yield TransferResult(job, "/up", 100, 60, 40, 0.1, proof)

    def run(self) -> None:
        self.sender.run(lambda: None)


END = [("interrupted",), ("released", "claimed")]


def test_what_is_sent_is_booked_and_the_connection_stays() -> None:
    lab = Lab("a", "known")
    lab.server.answered()
    lab.run()
    assert lab.booked == [("sent", b"a"), ("sent", b"known"), *END]
    assert (lab.totals.files, lab.progress, lab.changes, lab.records) == (1, [60, 60], 2, 1)
    assert lab.server.state is ServerState.CONNECTED


LOST, REFUSED, MISSING, FULL = LinkLost("gone"), LoginRefused("no"), NotFound("a"), NoSpaceOnServer("full")


@pytest.mark.parametrize(
    ("error", "sent", "state"),
    [
        (LOST, ["b"], ServerState.DISCONNECTED),
        (REFUSED, [], ServerState.HELD),
        (MISSING, ["b"], ServerState.CONNECTED),
        (FULL, ["b"], ServerState.DISCONNECTED),
    ],
)
def test_whose_fault_a_failure_is_decides_over_the_link_and_the_others(
    error: TransferError, sent: list[str], state: ServerState, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab("a", "b")
    lab.errors["a"] = error
    lab.run()
    assert (lab.sent, lab.server.state) == (sent, state)
    assert ("failed", b"a", True) in lab.booked
    is_link = error in (LOST, REFUSED)
    assert (() in lab.booked) is is_link  # what is known of the connection is forgotten
    assert any("link " in each.getMessage() for each in caplog.records if each.levelno > logging.INFO) is is_link
    assert lab.changes == 1 + len(sent) + is_link


def test_after_a_refused_login_the_next_run_begins_anew() -> None:
    lab = Lab("a", "b")
    lab.errors["a"] = REFUSED
    lab.run()
    assert (lab.sent, lab.server.state) == ([], ServerState.HELD)
    states: list[ServerState] = []
    lab.each = lambda job: states.append(lab.server.state)
    lab.run()
    assert (lab.sent, states) == (["b"], [ServerState.CONNECTING])


@pytest.mark.parametrize(
    ("error", "words", "held"),
    [
        (LOST, "LinkLost: gone", None),
        (Cancelled("stop"), None, None),
        (JournalUnavailable("no"), None, "JournalUnavailable: no"),
    ],
)
def test_whatever_ends_a_run_what_was_handed_out_comes_back(
    error: Exception, words: str | None, held: str | None
) -> None:
    lab = Lab("a")
    lab.in_flight = ["flying"]
    lab.raises = error
    lab.run()
    assert [each for each in lab.booked if each] == [("interrupted", "flying"), ("released", "claimed")]
    assert (lab.server.last_error, lab.hold.error) == (words, held)
    assert lab.records == 1


@pytest.mark.parametrize("stop", [True, False])
def test_a_client_that_ends_before_its_jobs_do_has_no_connection_unless_it_was_told_to(stop: bool) -> None:
    lab = Lab("a")
    lab.is_preparing = True  # so that it is handed a pause, which it takes for the end
    lab.each = lambda job: setattr(lab, "stop", stop)
    lab.run()
    assert lab.server.last_error == (None if stop else "LinkLost: the connection could not be made")


def test_a_server_that_asks_to_wait_gets_nothing_and_is_not_lost() -> None:
    lab = Lab("a")
    lab.hints.look = lambda tick: 40.0
    lab.run()
    assert (lab.sent, lab.booked, lab.changes) == ([], END, 1)
    assert lab.server.ready_at >= lab.now + 40.0
    assert lab.server.last_error == "the server asks to come back in 40 s"


def test_no_more_jobs_are_handed_out_once_a_hint_is_due_or_the_loop_is_stopped() -> None:
    for name in ("hint", "stop"):
        lab = Lab("a", "b")
        lab.each = lambda job: (
            setattr(lab.hints, "is_due", True) if name == "hint" else setattr(lab, "stop", True)  # noqa: B023
        )
        lab.run()
        assert (lab.sent, lab.jobs, lab.server.last_error) == (["a"], ["b"], None)


def test_while_this_device_is_in_the_way_no_job_is_handed_out() -> None:
    lab = Lab("a")
    lab.hold.begin(DiskFull("no room"))
    lab.run()
    assert (lab.sent, lab.jobs) == ([], ["a"])


def test_a_hold_lasts_its_time_is_told_once_and_ends_with_a_write(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "iot.spooler.agent.local_hold")
    now, changes = 0.0, 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    hold = LocalHold(lambda: now, changed)
    assert not hold.is_on
    for error in (DiskFull("a"), DiskFull("a"), DiskFull("b")):
        with hold:
            raise error
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert (changes, hold.error, hold.until, hold.is_on) == (3, "DiskFull: b", HOLD_S, True)
    with hold:
        pass  # something else could be written: too early to say
    assert hold.error == "DiskFull: b"
    now = HOLD_S
    assert not hold.is_on
    with pytest.raises(ZeroDivisionError), hold:
        raise ZeroDivisionError
    assert hold.error == "DiskFull: b"
    with hold:
        pass
    assert hold.error is None
    assert [record.message for record in caplog.records[2:]] == ["journal writable again"]
    with hold:
        pass
    assert len(caplog.records) == 3


@pytest.mark.parametrize(
    ("size", "done", "resumed_at", "news"), [(100, 30, 40, 60), (100, 30, 0, 70), (100, 100, 0, 0), (100, 0, 120, 0)]
)
def test_only_what_this_attempt_has_sent_and_nobody_was_told_of_is_news(
    size: int, done: int, resumed_at: int, news: int
) -> None:
    lab = Lab()
    lab.finished = lambda outcome: SimpleNamespace(entry=None, done_bytes=done)
    lab.sender._outcomes.succeeded = lambda entry, outcome: None
    assert lab.sender._book(TransferResult("a", "/up", size, 0, resumed_at, 0.1, None)) is None
    assert (lab.progress, lab.totals.files) == ([news], 0)


@pytest.mark.parametrize(("stop", "error", "told"), [(False, "cancelled", True), (True, "cancelled", False),
                                                     (False, "missing", False)])  # fmt: skip
def test_a_file_that_makes_room_for_another_is_told_and_one_that_ends_with_the_loop_is_not(
    caplog: pytest.LogCaptureFixture, stop: bool, error: str, told: bool
) -> None:
    caplog.set_level("INFO", "iot.spooler.agent.sender")
    lab = Lab("a")
    lab.errors["a"] = Cancelled("suspended") if error == "cancelled" else MISSING
    lab.each = lambda job: setattr(lab, "stop", stop)
    lab.run()
    assert [line for line in caplog.messages if line.startswith("suspended")] == ["suspended path=a done=30"] * told


@pytest.mark.parametrize(
    ("error", "since_s", "words"),
    [
        (LOST, 0.0, 'link disconnected error="LinkLost: gone" next_s=10.0'),
        (REFUSED, 0.0, 'link held error="LoginRefused: no" next_s=900'),
    ],
)
def test_a_lost_link_is_told_with_the_time_until_the_next_try(
    caplog: pytest.LogCaptureFixture, error: TransferError, since_s: float, words: str
) -> None:
    lab = Lab()
    lab.sender.lost(error)
    (line,) = caplog.messages
    assert line.startswith(words)
    assert lab.changes == 1


def test_a_link_that_is_tried_again_at_once_has_nothing_to_wait_for(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab()
    lab.server.progressed()
    lab.sender.lost(LOST)
    assert caplog.messages[-1].endswith("next_s=0.0")


def test_a_server_without_hints_is_never_asked_for_them() -> None:
    lab = Lab("a")
    lab.sender._hints = None
    lab.run()
    assert lab.sent == ["a"]
    lab.sender.lost(LOST)
    assert lab.server.last_error == "LinkLost: gone"
    assert lab.sender.is_asked_to_wait(lambda: None) is False


@pytest.mark.parametrize("wait_s", [0.0, 0.5])
def test_a_server_that_asks_for_any_time_at_all_is_left_alone(wait_s: float) -> None:
    lab = Lab()
    lab.hints.look = lambda tick: wait_s
    assert lab.sender.is_asked_to_wait(lambda: None) is (wait_s > 0)
    assert lab.changes == (wait_s > 0)


@pytest.mark.parametrize(("flying", "preparing", "ends"), [(0, False, True), (1, False, False), (0, True, False)])
def test_the_client_is_asked_to_wait_as_long_as_a_further_job_may_come(
    flying: int, preparing: bool, ends: bool
) -> None:
    lab = Lab()
    lab.in_flight, lab.is_preparing = ["b"] * flying, preparing
    assert next(lab.sender._jobs(), "end") == ("end" if ends else None)
    assert lab.sender._jobs_ended is ends

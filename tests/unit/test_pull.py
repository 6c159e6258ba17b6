"""How inboxes share the server with outboxes: whose turn it is, and what ends it. Inboxes and server are scripted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from iot.spooler.agent.local_hold import LocalHold
from iot.spooler.agent.pull import PATIENCE_S, TURN_S, Pull
from iot.spooler.queue.policy import Admission, Backoff
from iot.spooler.server.availability import Availability, ServerState
from iot.transfer import (
    Cancelled,
    DownloadJob,
    Failure,
    JournalUnavailable,
    LinkLost,
    LoginRefused,
    NotFound,
    TransferError,
    TransferResult,
)


class Box:
    """An inbox. jobs: paths that it has still to fetch. fails: what happens to a path, else it is fetched."""

    def __init__(self, number: int, *jobs: str) -> None:
        self.number = number
        self.jobs = list(jobs)
        self.log: list[str] = []
        self.changed, self.idle, self.failed, self.stopped = False, True, False, False
        self.at, self.here_at = 50.0, 70.0

    def step(self) -> bool:
        self.log.append("step")
        return self.changed

    def wake(self) -> None:
        self.log.append("wake")

    def needs_server(self) -> bool:
        return bool(self.jobs)

    def next_at(self) -> float:
        return self.at

    def next_here(self) -> float:
        return self.here_at

    def is_idle(self) -> bool:
        return self.idle

    def has_failed(self) -> bool:
        return self.failed

    def look(self, remote: object, tick: Callable[[], None]) -> None:
        self.log.append("look")
        tick()

    def next_job(self, suspended: Callable[[], bool]) -> DownloadJob | None:
        return DownloadJob(self.jobs.pop(0), "/x", (self.number, "p"), suspended=suspended) if self.jobs else None

    def ended(self, path: str, outcome: object) -> None:
        self.log.append(type(outcome).__name__)

    def remove_taken(self, remote: object, tick: Callable[[], None]) -> None:
        self.log.append("remove")

    def abandon(self) -> None:
        self.log.append("abandon")

    def close(self) -> None:
        self.log.append("close")


class Lab:
    """errors: how the job of a path fails; others are fetched. each: called before each. raises: by the remote."""

    def __init__(self, *boxes: Box) -> None:
        self.now = 1000.0
        self.boxes = boxes
        self.server = Availability(Backoff(10.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
        self.hold = LocalHold(lambda: self.now, lambda: None)
        self.admission = {box.number: Admission.ALL for box in boxes}
        self.ready: set[Admission] = set()
        self.asked: list[Admission] = []
        self.stop = self.is_busy = False
        self.lost: list[TransferError] = []
        self.fetched: list[str] = []
        self.progress = self.changes = self.ticks = 0
        self.raises: Exception | None = None
        self.errors: dict[str, TransferError] = {}
        self.each: Callable[[str], None] = lambda path: None
        self.pull = Pull(
            boxes,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.server,
            self.hold,
            self.admission.__getitem__,
            self.uploads_ready,
            stopping=lambda: self.stop,
            clock=lambda: self.now,
            on_change=lambda: setattr(self, "changes", self.changes + 1),
            on_progress=lambda: setattr(self, "progress", self.progress + 1),
            on_lost=self.lost.append,
            asked_to_wait=lambda tick: self.is_busy,
        )

    def uploads_ready(self, least: Admission) -> bool:
        self.asked.append(least)
        if isinstance(self.raises, JournalUnavailable):
            raise self.raises
        return least in self.ready

    def download_many(
        self, jobs: Iterator[DownloadJob], *, tick: Callable[[], None]
    ) -> Iterator[TransferResult | Failure]:
        if self.raises is not None:
            raise self.raises
        for job in jobs:
            source = str(job.source)
            self.each(source)
            tick()
            if job.suspended():
                yield Failure(job.key, source, "/x", Cancelled("suspended"))
            elif source in self.errors:
                yield Failure(job.key, source, "/x", self.errors[source])
            else:
                self.fetched.append(source)
                yield TransferResult(source, "/x", 1, 1, 0, 0.0, None, key=job.key)

    def run(self) -> None:
        self.pull.run(lambda: setattr(self, "ticks", self.ticks + 1))


def test_all_inboxes_do_what_they_can_and_one_that_has_changed_is_enough() -> None:
    for changed in ((True, False), (False, True)):
        first, second = boxes = Box(1), Box(2)
        first.changed, second.changed = changed
        assert Lab(*boxes).pull.step()
        assert first.log == second.log == ["step"]
    assert not Lab(Box(1), Box(2)).pull.step()


def test_an_inbox_that_may_not_use_the_server_is_asked_for_nothing_there() -> None:
    lab = Lab(Box(1, "a"), Box(2))
    first, second = lab.boxes
    assert lab.pull.wants()
    assert lab.pull.next_at() == 50.0
    lab.admission[1] = Admission.URGENT
    first.idle, first.at, second.at = False, 20.0, 60.0
    assert not lab.pull.wants()
    assert lab.pull.is_idle()
    assert lab.pull.next_at() == 60.0
    first.here_at = 30.0
    assert lab.pull.next_at() == 30.0
    lab.run()
    assert lab.fetched == []
    assert (first.log, second.log) == (["step", "abandon"], ["look", "step", "remove", "abandon"])
    lab.admission[1] = Admission.ALL
    assert not lab.pull.is_idle()


@pytest.mark.parametrize(("failed", "stopped"), [(True, False), (False, True)])
def test_a_drain_remains_where_an_inbox_has_failed_or_is_stopped(failed: bool, stopped: bool) -> None:
    lab = Lab(Box(1), Box(2))
    assert not lab.pull.has_failed()
    lab.boxes[1].failed, lab.boxes[1].stopped = failed, stopped
    assert lab.pull.has_failed()


def test_without_inboxes_there_is_nothing_to_do_ever() -> None:
    pull = Lab().pull
    assert (pull.next_at(), pull.claims(), pull.wants(), pull.is_idle()) == (float("inf"), False, False, True)


def test_inboxes_that_were_kept_waiting_get_their_turn_and_then_wait_anew() -> None:
    lab = Lab(Box(1, "a", "b"))
    claims: list[bool] = []
    for later_s in (0.0, PATIENCE_S - 1, 1.0):
        lab.now += later_s
        claims.append(lab.pull.claims())
    assert claims == [False, False, True]
    lab.each = lambda path: claims.append(lab.pull.claims())
    lab.run()
    assert claims[3:] == [True, True]  # all the time it runs
    lab.boxes[0].jobs.append("c")
    assert not lab.pull.claims()
    lab.now += PATIENCE_S - 1
    lab.boxes[0].jobs.clear()
    assert not lab.pull.claims()
    lab.boxes[0].jobs.append("c")
    lab.now += 1
    assert not lab.pull.claims()  # there was nothing to wait for meanwhile


@pytest.mark.parametrize("waited", [True, False])
def test_in_a_turn_only_what_is_urgent_ends_it_until_its_time_is_over(waited: bool) -> None:
    lab = Lab(Box(1, *(str(number) for number in range(20))))
    lab.ready = {Admission.ALL}
    if waited:
        lab.pull.claims()
        lab.now += PATIENCE_S

    def each(path: str) -> None:
        lab.now += 1.0

    lab.each = each
    lab.run()
    assert len(lab.fetched) == (int(TURN_S) - 1 if waited else 0)
    assert lab.asked[0] is (Admission.URGENT if waited else Admission.ALL)
    assert lab.asked[-1] is Admission.ALL
    assert lab.boxes[0].log[-1] == "abandon"
    assert "remove" not in lab.boxes[0].log  # an upload goes first
    assert lab.pull.claims() is False


def test_uploads_are_asked_for_ten_times_a_second_and_no_more_once_they_are_ready() -> None:
    lab = Lab(Box(1, *"abcdefgh"))

    def each(path: str) -> None:
        lab.now += 0.06
        lab.ready = {Admission.ALL} if path == "f" else lab.ready

    lab.each = each
    lab.run()
    assert lab.fetched == list("abcde")
    assert len(lab.asked) == 4  # when it looked, and with every second file
    assert lab.ticks == 7


def test_each_job_is_suspended_with_its_own_inbox() -> None:
    lab = Lab(Box(1, "a"), Box(2, "b", "c"))
    lab.each = lambda path: lab.admission.update({1: Admission.NONE})
    lab.run()
    assert lab.fetched == ["b", "c"]
    assert lab.boxes[0].log[:2] == ["look", "Failure"]
    assert lab.lost == []


def test_what_is_stopped_begins_nothing_more_and_the_link_is_not_lost() -> None:
    lab = Lab(Box(1, "a", "b"))
    lab.each = lambda path: setattr(lab, "stop", path == "b")
    lab.run()
    assert lab.fetched == ["a"]
    assert lab.boxes[0].log == ["look", "TransferResult", "Failure", "abandon"]
    assert (lab.lost, lab.server.state) == ([], ServerState.DISCONNECTED)
    lab.boxes[0].log.clear()
    lab.run()
    assert lab.boxes[0].log == ["abandon"]  # not even looked at


def test_a_server_that_asks_to_wait_is_not_looked_at() -> None:
    lab = Lab(Box(1, "a"))
    lab.is_busy = True
    lab.run()
    assert (lab.boxes[0].log, lab.lost, lab.progress) == (["abandon"], [], 0)


GONE, REFUSED, MISSING = LinkLost("gone"), LoginRefused("no"), NotFound("a")


@pytest.mark.parametrize(
    ("error", "fetched", "lost"), [(MISSING, ["b"], []), (GONE, ["b"], [GONE]), (REFUSED, [], [REFUSED])]
)
def test_what_ends_the_link_is_told_and_nothing_is_removed_then(
    error: TransferError, fetched: list[str], lost: list[TransferError]
) -> None:
    lab = Lab(Box(1, "a", "b"))
    lab.errors["a"] = error
    lab.run()
    assert (lab.fetched, lab.lost) == (fetched, lost)
    assert ("remove" in lab.boxes[0].log) == ("step" in lab.boxes[0].log) == (not lost)
    assert lab.progress == 1 + len(fetched)  # the look, and each file
    assert lab.changes == 2 + len(fetched)


@pytest.mark.parametrize(
    ("error", "lost", "held"),
    [(GONE, [GONE], None), (Cancelled("stop"), [], None), (JournalUnavailable("full"), [], "JournalUnavailable: full")],
)
def test_whatever_ends_a_run_it_is_over(error: Exception, lost: list[TransferError], held: str | None) -> None:
    lab = Lab(Box(1, "a", "b"), Box(2))
    lab.raises = error
    lab.run()
    assert (lab.lost, lab.hold.error, lab.changes) == (lost, held, 1)
    assert [box.log[-1] for box in lab.boxes] == ["abandon"] * 2
    assert lab.pull.claims() is False
    lab.pull.close()
    assert [box.log[-1] for box in lab.boxes] == ["close"] * 2


def test_whoever_wakes_the_agent_wakes_every_inbox() -> None:
    lab = Lab(Box(1), Box(2))
    lab.pull.wake()
    assert [box.log for box in lab.boxes] == [["wake"], ["wake"]]


def test_a_journal_that_cannot_say_whether_uploads_are_ready_ends_the_run_in_order() -> None:
    lab = Lab(Box(1, "a", "b"))

    def each(path: str) -> None:
        lab.now += 1.0
        lab.raises = JournalUnavailable("no") if path == "b" else None

    lab.each = each
    lab.run()
    assert (lab.fetched, lab.hold.error, lab.lost) == (["a"], "JournalUnavailable: no", [])
    assert lab.boxes[0].log == ["look", "TransferResult", "Failure", "abandon"]


def test_the_first_link_error_is_not_forgotten_for_a_later_file() -> None:
    lab = Lab(Box(1, "a", "b", "c"))
    lab.errors = {"a": GONE, "b": MISSING}
    lab.run()
    assert (lab.lost, lab.fetched) == ([GONE], ["c"])


def test_a_server_that_was_asked_and_answers_is_connected_and_one_that_was_not_is_let_go() -> None:
    lab = Lab(Box(1, "a"))
    states: list[ServerState] = []
    lab.each = lambda path: states.append(lab.server.state)
    lab.run()
    assert states == [ServerState.CONNECTING]
    assert lab.server.state is ServerState.DISCONNECTED


def test_a_second_run_begins_without_what_ended_the_first() -> None:
    lab = Lab(Box(1, "a", "b"))
    lab.errors["a"] = REFUSED
    lab.run()
    assert lab.fetched == []
    lab.server.lost(REFUSED, lab.now)
    lab.ready, lab.now = {Admission.ALL}, lab.now + 1.0
    lab.run()
    assert lab.fetched == []
    lab.ready = set()
    lab.now += 1.0
    lab.run()
    assert lab.fetched == ["b"]


def test_an_inbox_of_two_that_is_at_rest_or_due_is_seen() -> None:
    lab = Lab(Box(1), Box(2, "b"))
    assert lab.pull.wants()
    assert lab.pull.is_idle()
    lab.boxes[1].idle = False
    assert not lab.pull.is_idle()
    lab.boxes[1].at = 40.0
    assert lab.pull.next_at() == 40.0

"""Which job is handed out next, and what is under way: rules of the dispatcher, with a queue in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.spooler.agent.dispatch import CLAIM_BYTES, CLAIM_FILES, MAX_LARGE, Dispatcher
from iot.spooler.compression.packing import Packing
from iot.spooler.config.outboxes import AfterUpload
from iot.spooler.decisions import Decisions
from iot.spooler.hooks.before import HookRefusal
from iot.spooler.naming import Collision, UnsafeName
from iot.spooler.queue.policy import Admission, Allowed, State
from iot.spooler.queue.queue import Entry
from iot.transfer import Failure, Fingerprint, IfExists, LinkLost
from iot.transfer.model import Progress

LARGE = 2**30


def entry(number: int, outbox: int = 1, priority: int = 5, size: int = 1, dest: str = "", **more: object) -> Entry:
    plain = Entry(
        number, outbox, b"f%d" % number, State.READY, Fingerprint(size, 2), size == LARGE, priority,
        dest or f"/up/f{number}", None, None, 0, 1.0, False, None, 0, 0, 0, None,
    )  # fmt: skip
    return plain._replace(**more)


class Queue:
    """What is ready, in its order; `made_ready` counts as the real one's does."""

    def __init__(self) -> None:
        self.ready: list[Entry] = []
        self.made_ready = self.asked = 0
        self.begun: list[Entry] = []

    def add(self, *entries: Entry) -> None:
        self.ready += entries
        self.made_ready += 1

    def heads(self, outbox: int, *, large: bool, limit: int, most_bytes: float, allowed: Allowed) -> list[Entry]:
        self.asked += 1
        mine = [each for each in self.ready if each.outbox == outbox and each.large is large]
        found = [each for each in mine if each.priority <= allowed.admission and each.id <= allowed.up_to]
        return sorted(found, key=lambda each: each.priority)[:limit]

    def begin(self, entries: list[Entry]) -> list[Entry]:
        numbers = {each.id for each in entries}
        self.ready = [each for each in self.ready if each.id not in numbers]
        self.begun += entries
        return list(entries)


class NoHooks:
    """The hooks `before` of outboxes that have none, until a test gives it some."""

    def __init__(self) -> None:
        self.rooms: dict[int, int] = {}
        self.asked: list[int] = []
        self.over: list[tuple[int, HookRefusal | None]] = []

    def room(self, outbox: int) -> int | None:
        return self.rooms.get(outbox)

    def ask(self, entry: Entry) -> None:
        self.asked.append(entry.id)
        self.rooms[entry.outbox] -= 1

    def answers(self) -> list[tuple[int, HookRefusal | None]]:
        over, self.over = self.over, []
        return over

    def delivered(self, number: int) -> None:
        pass


class Rig:
    def __init__(self, *outboxes: int) -> None:
        self.queue = Queue()
        self.news: list[int] = []
        self.moved: list[Entry] = []
        settings = SimpleNamespace(
            after_upload=AfterUpload.DELETE,
            collision=Collision.OVERWRITE,
            server_ignores_case=False,
            adopt_partial=None,
            compress=None,
        )
        self.intakes = [
            SimpleNamespace(
                decisions=Decisions("box"),
                number=number,
                suspicion=lambda _: "",
                source=lambda each: f"/box/{each.id}",
                may_be_touched=False,
                settings=settings,
                part_suffix=lambda each: None,
                part_suffixes=frozenset({".tmp"}) if number == 2 else frozenset(),
                alternatives=lambda each: (f"/up/other{each.id}",),
            )
            for number in outboxes or (1,)
        ]
        self.refused: list[tuple[Entry, str]] = []
        self.hindered: list[tuple[Entry, HookRefusal]] = []
        self.before = NoHooks()
        self.admissions: dict[int, Admission] = {}
        self.dispatcher = Dispatcher(
            self.queue,
            self.intakes,
            self.news.append,
            self.moved.extend,
            lambda *refused: self.refused.append(refused),
            lambda *hindered: self.hindered.append(hindered),
            self.before,
            lambda _: False,
            lambda: 0.0,
            Packing(Path("/state"), self.intakes, self.queue, 1, lambda: 0.0),
            self.allowed,
        )

    def allowed(self, outbox: int) -> Allowed:
        return Allowed(self.admissions.get(outbox, Admission.ALL))

    def keys(self) -> list[object]:
        found = []
        while (job := self.dispatcher.next_job()) is not None:
            found.append(job.key)
        return found

    def finish(self, number: int):
        return self.dispatcher.finished(Failure(number, "", "", LinkLost("x")))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_most_urgent_first_and_outboxes_in_turn_among_equals():
    rig = Rig(1, 2)
    rig.queue.add(*(entry(number, 1) for number in (1, 2, 3)), *(entry(number, 2) for number in (4, 5)), entry(6, 2, 0))
    assert rig.keys() == [6, 1, 2, 4, 3, 5]


def test_the_next_claim_begins_with_another_outbox():
    rig = Rig(1, 2)
    rig.queue.add(entry(1, 1), entry(2, 2))
    assert rig.keys() == [1, 2]
    rig.queue.add(entry(3, 1), entry(4, 2))
    assert rig.keys() == [4, 3]


def test_what_may_not_be_sent_now_is_neither_claimed_nor_handed_out_and_what_flies_is_asked_to_stop():
    rig = Rig(1, 2)
    rig.queue.add(entry(1, 1, 0), entry(2, 1), entry(3, 1), entry(4, 2))
    job = rig.dispatcher.next_job()
    assert job.key == 1
    assert rig.dispatcher.next_job().key == 4
    rig.admissions = {1: Admission.URGENT}
    assert [each.id for each in rig.dispatcher.withdraw()] == [2, 3]
    assert not job.suspended()
    rig.queue.add(entry(3, 1), entry(5, 1, 0))
    assert rig.keys() == [5]
    rig.admissions = {1: Admission.NONE}
    assert job.suspended()
    rig.admissions = {}
    rig.dispatcher.withdraw()
    assert rig.keys() == [3]


def test_two_files_never_go_to_one_destination_at_once(rig):
    rig.queue.add(entry(1, dest="/up/same"), entry(2, dest="/up/same"), entry(3))
    assert rig.keys() == [1, 3]
    rig.finish(3)
    assert rig.keys() == []
    rig.finish(1)
    assert rig.keys() == [2]


def test_a_file_is_named_before_it_is_begun_and_one_that_cannot_be_is_refused_and_holds_up_no_other(rig):
    def destination(each: Entry) -> str:
        if each.id == 2:
            raise UnsafeName("no rule matches this file")
        return f"/up/{each.id}"

    rig.intakes[0].destination = destination
    rig.queue.add(entry(1, destination=""), entry(2, destination="", rule=7), entry(3, dest="/up/decided"))
    assert rig.keys() == [1, 3]
    assert [(each.id, each.destination, each.rule) for each in rig.queue.begun] == [
        (1, "/up/1", None),
        (2, "", None),
        (3, "/up/decided", None),
    ]
    assert [(each.id, reason) for each, reason in rig.refused] == [(2, "no rule matches this file")]


def test_a_name_that_the_part_of_another_outbox_may_have_is_refused():
    rig = Rig(1, 2)
    rig.queue.add(entry(1, dest="/up/a.csv"), entry(2, dest="/up/a.csv.TMP"))
    assert rig.keys() == [1]
    ((refused, reason),) = rig.refused
    assert (refused.id, reason) == (2, "/up/a.csv.TMP ends in '.tmp', as parts do by temporary-suffix")


def test_what_goes_where_it_was_begun_has_left_nothing_elsewhere(rig):
    rig.intakes[0].destination = lambda _: "/up/same"
    rig.queue.add(entry(1, destination="", left_at="/up/same"), entry(2, destination="", left_at="/up/old"))
    rig.dispatcher.next_job()
    assert [each.left_at for each in rig.moved] == ["/up/old"]


def test_large_files_leave_places_to_small_ones(rig):
    rig.queue.add(*(entry(number, size=LARGE) for number in (1, 2, 3, 4)), entry(5), entry(6, priority=1))
    assert rig.keys() == [6, 1, 2, 5]
    assert len(rig.dispatcher.in_flight) == 4
    assert MAX_LARGE == 2
    rig.finish(5)
    assert rig.keys() == []
    rig.finish(2)
    assert rig.keys() == [3]


def test_a_claim_is_small_in_files_and_bytes(rig):
    rig.queue.add(*(entry(number) for number in range(CLAIM_FILES + 1)))
    rig.dispatcher.next_job()
    assert len(rig.queue.begun) == CLAIM_FILES
    heavy = Rig()
    heavy.queue.add(*(entry(number, size=CLAIM_BYTES // 2) for number in range(4)))
    heavy.dispatcher.next_job()
    assert len(heavy.queue.begun) == 2
    heavier = Rig()
    heavier.queue.add(*(entry(number, size=CLAIM_BYTES + 1) for number in range(3)))
    heavier.dispatcher.next_job()
    assert len(heavier.queue.begun) == 1  # one that is too large for a claim is claimed alone
    large = Rig()
    large.queue.add(*(entry(number, size=LARGE) for number in range(3)))
    large.dispatcher.next_job()
    assert len(large.queue.begun) == 1


def test_an_empty_queue_is_asked_again_only_when_something_was_made_ready(rig):
    assert rig.dispatcher.next_job() is None
    asked = rig.queue.asked
    assert rig.dispatcher.next_job() is None
    assert rig.queue.asked == asked
    rig.queue.add(entry(1))
    assert rig.keys() == [1]


def test_a_job_says_all_that_the_client_must_know(rig):
    rig.intakes[0].may_be_touched = True
    rig.queue.add(entry(1, priority=3, check_final=True, sent_before="ab"), entry(2, size=LARGE, priority=3))
    small, large = rig.dispatcher.next_job(), rig.dispatcher.next_job()
    if small.key == 2:
        small, large = large, small
    assert (small.source, small.dest, small.fingerprint) == ("/box/1", "/up/f1", Fingerprint(1, 2))
    assert (small.check_final, small.sent_before, small.digest, small.grace) == (True, "ab", True, True)
    assert (large.check_final, large.sent_before) == (False, None)
    assert (small.priority, large.priority) == (6, 7)
    assert small.progress is None
    assert large.progress is not None


def test_a_kept_file_needs_no_grace_and_an_untouched_one_no_digest(rig):
    rig.intakes[0].settings = SimpleNamespace(
        after_upload=AfterUpload.KEEP,
        collision=Collision.SKIP,
        server_ignores_case=True,
        adopt_partial=None,
        compress=None,
    )
    rig.queue.add(entry(1))
    job = rig.dispatcher.next_job()
    assert (job.grace, job.digest) == (False, False)
    assert (job.if_exists, job.alternatives, job.ignores_case) == (IfExists.SKIP, ("/up/other1",), True)


def test_only_bytes_that_are_new_count_as_progress(rig):
    rig.queue.add(entry(1, size=LARGE))
    tell = rig.dispatcher.next_job().progress
    flight = rig.dispatcher.in_flight[1]
    tell(Progress("f", 100, LARGE, 100))  # was there before
    assert (flight.done_bytes, flight.progressed, rig.news) == (100, False, [])
    tell(Progress("f", 150, LARGE, 100))
    tell(Progress("f", 150, LARGE, 100))
    tell(Progress("f", 170, LARGE, 100))
    assert (flight.done_bytes, flight.progressed, rig.news) == (170, True, [50, 20])
    assert rig.finish(1) is flight
    assert rig.dispatcher.in_flight == {}


def test_what_goes_elsewhere_than_before_is_told_before_it_begins(rig):
    begun = []
    rig.dispatcher._on_moved = lambda moved: begun.append((list(moved), list(rig.queue.begun)))
    rig.queue.add(entry(1), entry(2, left_at="/old/f2"))
    rig.keys()
    assert begun == [([entry(2, left_at="/old/f2")], [])]


def test_when_the_client_has_ended_all_comes_back_what_flew_apart_from_what_waited(rig):
    rig.queue.add(entry(1), entry(2), entry(3, size=LARGE))
    rig.dispatcher.next_job()
    first = next(iter(rig.dispatcher.in_flight))
    flying, waiting = rig.dispatcher.abandon()
    assert [each.id for each in flying] == [first]
    assert sorted(each.id for each in waiting) == sorted({1, 2, 3} - {first})
    assert rig.dispatcher.abandon() == ([], [])
    rig.queue.add(*flying, *waiting)
    assert sorted(rig.keys()) == [1, 2, 3]


def test_what_has_a_hook_is_handed_out_once_that_has_succeeded_and_keeps_its_place():
    rig = Rig(1, 2)
    rig.before.rooms = {1: 9}
    rig.queue.add(entry(1, 1, 5), entry(2, 1, 0), entry(3, 2, 6), entry(4, 2, 6))
    job = rig.dispatcher.next_job()
    assert (job.key, rig.before.asked) == (3, [2, 1])
    rig.before.over = [(1, None), (2, None)]
    assert rig.keys() == [2, 1, 4]


def test_what_its_hook_refuses_is_not_handed_out_and_reported_once():
    rig = Rig()
    rig.before.rooms = {1: 9}
    rig.queue.add(entry(1))
    assert rig.keys() == []
    assert rig.dispatcher.is_preparing
    assert rig.dispatcher.is_busy(1)
    rig.before.over = [(1, HookRefusal("no", True))]
    assert rig.keys() == []
    assert [(each.id, refusal.reason) for each, refusal in rig.hindered] == [(1, "no")]
    assert not rig.dispatcher.is_preparing


def test_no_more_is_claimed_than_its_hooks_have_room_for_and_other_outboxes_are_not_kept_waiting():
    rig = Rig(1, 2)
    rig.before.rooms = {1: 2}
    rig.queue.add(*(entry(number, 1, 0) for number in (1, 2, 3)), entry(4, 2, 6))
    assert rig.keys() == [4]
    assert rig.before.asked == [1, 2]
    rig.before.rooms = {1: 1}
    rig.before.over = [(1, None)]
    assert rig.keys() == [1]
    assert rig.before.asked == [1, 2, 3]


def test_what_waits_for_its_hook_is_let_go_like_what_was_claimed():
    rig = Rig()
    rig.before.rooms = {1: 9}
    rig.queue.add(entry(1), entry(2))
    assert rig.keys() == []
    rig.admissions[1] = Admission.NONE
    assert [each.id for each in rig.dispatcher.withdraw()] == [1, 2]
    assert not rig.dispatcher.is_preparing
    rig.before.over = [(1, None)]
    assert rig.keys() == []


def test_at_the_end_what_waits_for_its_hook_was_never_handed_out():
    rig = Rig()
    rig.before.rooms = {1: 9}
    rig.queue.add(entry(1))
    assert rig.keys() == []
    flying, waiting = rig.dispatcher.abandon()
    assert (flying, [each.id for each in waiting]) == ([], [1])

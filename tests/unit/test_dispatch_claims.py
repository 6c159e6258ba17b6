"""What the dispatcher claims, lets go and tells others of: compressed files, hooks, outboxes that may send little."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_dispatch import LARGE, Rig, entry

from iot.spooler.agent.dispatch import CLAIM_BYTES, CLAIM_FILES, MAX_LARGE
from iot.spooler.config.packed import Compression
from iot.spooler.hooks.before import HookRefusal
from iot.spooler.naming import UnsafeName
from iot.spooler.queue.policy import Admission, Allowed
from iot.transfer import Fingerprint, TransferResult
from iot.transfer.model import Progress


class Packing:
    """late: entries whose compressed file is not made yet. over: those that it was told to be over."""

    def __init__(self, rig: Rig) -> None:
        self.late: set[int] = set()
        self.over: list[int] = []
        self.news, self.is_busy = 0, False
        rig.dispatcher._packing = self

    def is_ready(self, each: Any) -> bool:
        return each.id not in self.late

    def suffix(self, each: Any) -> str:
        return ".gz"

    def source(self, each: Any) -> tuple[str, Fingerprint]:
        return f"/state/{each.id}.gz", Fingerprint(3, 4)

    def ended(self, entries: list[Any]) -> None:
        self.over += [each.id for each in entries]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def packing(rig: Rig) -> Packing:
    return Packing(rig)


# -- compressed files


def test_what_is_still_compressed_is_passed_over_and_looked_at_again_when_one_is_done(rig, packing):
    packing.late = {1, 2}
    rig.queue.add(entry(1), entry(2), entry(3))
    assert rig.keys() == [3]
    asked = rig.queue.asked
    packing.late = {2}
    assert rig.keys() == []
    assert rig.queue.asked == asked  # nobody has said that it is done
    packing.news += 1
    assert rig.keys() == [1]


def test_what_is_compressed_goes_under_its_own_name_and_in_its_own_size(rig, packing):
    rig.intakes[0].destination = lambda each: f"/up/{each.id}"
    rig.queue.add(entry(1, destination="", size=LARGE))
    job = rig.dispatcher.next_job()
    assert (job.source, job.dest, job.fingerprint) == ("/state/1.gz", "/up/1.gz", Fingerprint(3, 4))
    flight = rig.dispatcher.in_flight[1]
    assert (flight.total_bytes, flight.done_bytes, flight.sent_bytes, flight.progressed) == (3, 0, 0, False)


def test_an_outbox_that_compresses_is_asked_for_more_than_a_claim_may_have(rig, packing):
    asked: list[tuple[int, float]] = []
    rig.queue.heads = lambda outbox, *, large, limit, most_bytes, allowed: asked.append((limit, most_bytes)) or []
    rig.keys()
    rig.intakes[0].settings.compress = Compression.GZIP
    rig.queue.made_ready += 1
    rig.keys()
    assert asked == [(CLAIM_FILES, CLAIM_BYTES), (1, CLAIM_BYTES), (CLAIM_FILES, float("inf")), (1, float("inf"))]


def test_a_compressed_file_is_needed_no_more_when_its_entry_has_landed_or_was_let_go(rig, packing):
    rig.queue.add(*(entry(number) for number in range(1, 4)), entry(4, dest="/up/f3"))
    assert [rig.dispatcher.next_job().key for _ in range(2)] == [1, 2]
    rig.finish(1)
    assert packing.over == [1]
    rig.admissions[1] = Admission.NONE
    assert [each.id for each in rig.dispatcher.withdraw()] == [3, 4]
    assert packing.over == [1, 3, 4]
    rig.dispatcher.abandon()
    assert packing.over == [1, 3, 4, 2]


def test_a_compressed_file_is_needed_no_more_when_its_hook_refuses_it_or_the_client_has_ended(rig, packing):
    rig.before.rooms = {1: 9}
    rig.queue.add(entry(1), entry(2))
    assert rig.keys() == []
    rig.before.over = [(1, HookRefusal("no", True))]
    assert rig.keys() == []
    assert packing.over == [1]
    rig.dispatcher.abandon()
    assert packing.over == [1, 2]


def test_as_long_as_a_file_is_compressed_more_may_come(rig, packing):
    assert not rig.dispatcher.is_preparing
    packing.is_busy = True
    assert rig.dispatcher.is_preparing


# -- what is claimed


@pytest.mark.parametrize(("last", "claimed"), [(CLAIM_BYTES // 2, 2), (CLAIM_BYTES // 2 + 1, 1)])
def test_a_claim_may_be_full_to_the_last_byte(rig, last, claimed):
    rig.queue.add(entry(1, size=CLAIM_BYTES // 2), entry(2, size=last))
    rig.dispatcher.next_job()
    assert len(rig.queue.begun) == claimed


def test_a_hook_without_room_is_not_even_asked_for_its_next_files():
    rig = Rig(1, 2)
    rig.before.rooms = {1: 0}
    rig.queue.add(entry(1, 1), entry(2, 2))
    asked: list[int] = []
    real = rig.queue.heads
    rig.queue.heads = lambda outbox, **more: asked.append(outbox) or real(outbox, **more)
    assert rig.keys() == [2]
    assert set(asked) == {2}


def test_room_for_more_than_a_claim_makes_it_no_larger():
    rig = Rig()
    rig.before.rooms = {1: CLAIM_FILES + 5}
    rig.queue.add(*(entry(number) for number in range(CLAIM_FILES + 5)))
    rig.dispatcher._claim(large=False)
    assert len(rig.before.asked) == CLAIM_FILES


def test_as_many_large_files_as_may_be_under_way_are_not_claimed_beyond(rig):
    rig.queue.add(*(entry(number, size=LARGE) for number in range(MAX_LARGE + 2)))
    assert len(rig.keys()) == MAX_LARGE
    assert len(rig.queue.begun) == MAX_LARGE


def test_only_what_comes_no_later_than_it_may_is_handed_out(rig):
    allowed = [Allowed(Admission.ALL, up_to=5)]
    rig.dispatcher._allowed = lambda _: allowed[0]
    rig.queue.add(entry(5), entry(6), entry(7, priority=0))
    job = rig.dispatcher.next_job()
    assert (job.key, rig.keys()) == (5, [])
    assert not job.suspended()
    allowed[0] = Allowed(Admission.ALL, up_to=4)
    assert job.suspended()
    allowed[0] = Allowed(Admission(0))
    assert job.suspended()
    rig.dispatcher.withdraw()
    assert rig.keys() == [7]


# -- what is busy, and what waits


@pytest.mark.parametrize("place", ["flies", "is claimed", "waits for its hook", "is large and claimed"])
def test_an_outbox_is_busy_wherever_its_files_are(place):
    rig = Rig(1, 2)
    assert not rig.dispatcher.is_busy(2)
    if place == "waits for its hook":
        rig.before.rooms = {2: 1}
    if place == "flies":
        rig.queue.add(entry(1, 2))
    else:
        rig.queue.add(entry(1, 1, priority=0, dest="/up/same"))
        rig.dispatcher.next_job()
        rig.queue.add(entry(2, 2, dest="/up/same", size=LARGE if "large" in place else 1))
    rig.dispatcher.next_job()
    assert rig.dispatcher.is_busy(2)
    assert rig.dispatcher.is_busy(1) is (place != "flies")
    assert not rig.dispatcher.is_busy(3)


def test_what_waits_for_another_file_to_the_same_destination_says_so(rig, caplog):
    caplog.set_level("DEBUG", "iot.spooler.decisions")
    rig.queue.add(entry(1, dest="/up/same"), entry(2, dest="/up/same"))
    assert rig.keys() == [1]
    told = [line.partition("path=")[2] for line in caplog.messages]
    assert told == ['f1 reason="being sent"', 'f2 reason="waiting, another file is being sent to its destination"']


def test_what_its_hook_has_let_through_goes_behind_its_equals_and_one_that_was_let_go_holds_up_no_other():
    rig = Rig(1, 2)
    rig.before.rooms = {1: 9}
    rig.queue.add(entry(1, 1, 5), entry(2, 1, 5), entry(3, 2, 5), entry(4, 2, 5), entry(5, 2, 6))
    assert rig.dispatcher.next_job().key == 3
    rig.before.over = [(99, None), (1, None), (99, HookRefusal("no", False)), (2, None)]
    assert rig.keys() == [4, 1, 2, 5]
    assert rig.hindered == []


def test_when_hooks_have_ended_there_is_room_for_the_next(rig):
    rig.before.rooms = {1: 1}
    rig.queue.add(entry(1), entry(2))
    assert rig.keys() == []
    rig.before.rooms = {1: 1}
    assert rig.keys() == []  # nothing has ended
    rig.before.over = [(1, HookRefusal("no", True))]
    rig.keys()
    assert rig.before.asked == [1, 2]


def test_what_was_let_go_may_be_claimed_again_though_nothing_new_came(rig):
    rig.queue.add(entry(1))
    rig.admissions[1] = Admission.NONE
    assert rig.keys() == []
    rig.admissions = {}
    assert rig.keys() == []  # nobody has said that it may
    rig.dispatcher.withdraw()
    assert rig.keys() == [1]


# -- what is told


def test_a_hook_is_done_with_what_was_delivered_and_not_with_what_failed(rig):
    over: list[object] = []
    rig.before.delivered = over.append
    rig.queue.add(entry(1), entry(2))
    rig.keys()
    rig.finish(1)
    flight = rig.dispatcher.finished(TransferResult("/box/2", "/up/f2", 1, 1, 0, 0.0, None, key=2))
    assert (over, flight.entry.id, rig.dispatcher.in_flight) == ([2], 2, {})


def test_a_job_carries_what_its_outbox_wants_of_the_server(rig):
    wanted: list[int] = []
    rig.dispatcher._wants_digest = lambda outbox: wanted.append(outbox) or True
    rig.dispatcher._commands = lambda each: f"commands of {each.id}"
    rig.intakes[0].settings.adopt_partial = "{name}.part"
    rig.intakes[0].part_suffix = lambda each: f".{each.id}.tmp"
    rig.queue.add(entry(1))
    job = rig.dispatcher.next_job()
    assert (job.digest, wanted) == (True, [1])
    assert (job.commands, job.adopt_partial, job.part_suffix, job.share) == (
        "commands of 1",
        "{name}.part",
        ".1.tmp",
        1,
    )


def test_a_file_that_may_have_suffered_is_refused_before_it_is_named(rig):
    rig.intakes[0].suspicion = lambda each: "ends in zeros" if each.id == 1 else ""
    rig.intakes[0].destination = lambda each: pytest.fail("it needs no name")
    rig.queue.add(entry(1, destination="", rule=7), entry(2, dest="/up/2"))
    assert rig.keys() == [2]
    assert [(each.id, each.rule, reason) for each, reason in rig.refused] == [(1, None, "ends in zeros")]


def test_a_refused_file_is_not_handed_out_though_it_is_the_only_one(rig):
    def destination(_: object) -> str:
        raise UnsafeName("no rule")

    rig.intakes[0].destination = destination
    rig.queue.add(entry(1, destination=""))
    assert rig.keys() == []
    assert [each.id for each, _ in rig.refused] == [1]
    assert not rig.dispatcher.is_busy(1)


def test_what_a_minute_of_a_large_file_has_brought_is_told_with_its_share(rig, caplog):
    caplog.set_level("INFO", "iot.spooler.agent.dispatch")
    now = [0.0]
    rig.dispatcher._now = lambda: now[0]
    follow = rig.dispatcher._follow(SimpleNamespace(entry=entry(1), done_bytes=0, sent_bytes=0, progressed=False))
    for at, done in ((59.9, 0), (60.0, 0), (119.9, 1), (120.0, 1)):
        now[0] = at
        follow(Progress("f", done, 1 if done else 0, 0))
    assert [line.partition("percent=")[2] for line in caplog.messages] == [
        "0 rate_bytes_per_s=0",
        "100 rate_bytes_per_s=0",
    ]

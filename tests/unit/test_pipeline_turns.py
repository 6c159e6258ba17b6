"""Jobs on one channel take turns: by urgency and size, at shared barriers, and while one of them lingers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from unit.pipeline_lab import KIB, Asked, Script, names, refused, run, until_it_ends, writes

from iot.sftp.client.pipeline.job import TURN, Barrier, Job, Linger, Work, ask
from iot.sftp.client.protocol import packets
from iot.transfer.errors import DiskFull

# -- turns


def test_an_urgent_jobs_blocks_go_before_a_large_ones() -> None:
    script = Script()
    large_asked_when_urgent_came = 0

    def feed() -> Iterator[Job[Any] | None]:
        nonlocal large_asked_when_urgent_came
        yield Job(writes(b"large", 2000, 32 * KIB), (0, 1), "large")
        while len(script.asked) < 50:
            yield None
        large_asked_when_urgent_came = len(script.asked)
        yield Job(writes(b"urgent", 3, 32 * KIB), (0, 0), "urgent")

    script.answer = lambda: script.give(script.open[:1])
    script.max_bytes = 1024 * KIB
    done = list(script.pipeline().run(feed(), lambda: 9))
    assert [item.tag for item in done] == ["urgent", "large"]
    urgent = [at for at, item in enumerate(script.asked) if item.handle == b"urgent"]
    window = 1024 // 32
    assert urgent[-1] - large_asked_when_urgent_came <= window + 8


def bulk_while_a_small_one_is_under_way(urgency: int) -> tuple[int, int]:
    """Blocks of a large job that were sent while a small job was under way, in 200 rounds of a slow link, and after."""
    script = Script(round_trip_s=0.1)
    ends = False

    def small() -> Work[str]:
        while not ends:
            yield from ask(packets.stat(b"small"))
        return "small"

    def one_block_a_round() -> bytes | None:
        nonlocal ends
        ends = ends or script.now > 20.0
        others = [item for item in script.open if not item.data]
        blocks = [item for item in script.open if item.data][:1]
        return script.give(others + blocks)

    script.answer = one_block_a_round
    pipeline = script.pipeline()
    jobs = [Job(writes(b"large", 1000, 32 * KIB), (10, 1), "large"), Job(small(), (urgency, 0), "small", KIB)]
    first = next(pipeline.run(iter(jobs), slots=lambda: 4))
    assert first.tag == "small"
    return sum(item.handle == b"large" for item in script.asked), script.in_flight_at_most


def test_what_is_less_urgent_stands_back_for_a_small_urgent_file_but_is_not_starved() -> None:
    undisturbed, _ = bulk_while_a_small_one_is_under_way(urgency=9)  # small before large is the same class
    courteous, _ = bulk_while_a_small_one_is_under_way(urgency=0)
    assert undisturbed > 190
    assert 0.5 * undisturbed < courteous < 0.9 * undisturbed


def test_of_three_priorities_the_most_urgent_is_done_first() -> None:
    script = Script()
    script.answer = lambda: script.give(script.open[:1])
    jobs = [Job(writes(b"%d" % level, 40, 32 * KIB), (level, 0), level) for level in (5, -1, 2)]
    done = run(script, jobs)
    assert [item.tag for item in done] == [-1, 2, 5]


def test_jobs_of_one_urgency_share_the_link() -> None:
    script = Script()
    script.answer = lambda: script.give(script.open[:2])
    run(script, [Job(writes(name, 100, 32 * KIB), tag=name) for name in names(4)])
    first_half = script.asked[: len(script.asked) // 2]
    shares = [sum(item.handle == name for item in first_half) for name in names(4)]
    assert min(shares) > 0.5 * max(shares)


def test_what_is_in_flight_keeps_to_the_window() -> None:
    script = Script(max_bytes=128 * KIB)
    script.answer = lambda: script.give(script.open[:1])
    run(script, [Job(writes(name, 50, 16 * KIB), tag=name) for name in names(8)])
    assert 64 * KIB < script.in_flight_at_most <= 128 * KIB


def test_a_block_larger_than_the_window_still_goes() -> None:
    script = Script(max_bytes=64 * KIB)
    done = run(script, [Job(writes(b"a", 3, 200 * KIB))])
    assert done[0].error is None


def test_requests_without_payload_pass_a_full_window() -> None:
    script = Script(max_bytes=64 * KIB)
    held: list[Asked] = []

    def hold_writes() -> bytes | None:
        small = [item for item in script.open if not item.data]
        if small:
            held.extend(item for item in script.open if item.data)
            return script.give(small)
        return script.give(script.open[:1])

    script.answer = hold_writes
    done = run(script, [Job(writes(b"large", 20, 32 * KIB), tag="large"), Job(refused(b"small"), tag="small")])
    assert [item.tag for item in done] == ["small", "large"]
    assert held


def test_small_requests_of_many_jobs_travel_together() -> None:
    script = Script()
    run(script, [Job(refused(name)) for name in names(200)])
    assert len(script.asked) == 200
    assert len(script.sends) <= 3


def test_a_long_computation_lets_the_others_have_their_turn() -> None:
    script = Script()
    order: list[str] = []

    def hashing() -> Work[None]:
        for _ in range(1000):
            order.append("hash")
            yield TURN

    def quick() -> Work[None]:
        yield from ask(packets.close(b"q"))
        order.append("quick")

    run(script, [Job(hashing()), Job(quick())])
    assert order.index("quick") < 5


# -- barriers and lingering


def barrier_then_rename(name: bytes, script: Script) -> Work[None]:
    yield from ask(packets.close(name))
    yield Barrier(name)
    assert any(name in records for records in script.commits), "went on before its record was durable"
    yield from ask(packets.rename(name, b"final"))


def test_barriers_of_many_jobs_share_one_commit_and_hold_each_until_it_is_done() -> None:
    script = Script()
    done = run(script, [Job(barrier_then_rename(name, script), tag=name) for name in names(100)])
    assert [item.error for item in done] == [None] * 100
    assert [sorted(records) for records in script.commits] == [sorted(names(100))]


def test_a_record_waits_for_company_but_not_long_and_never_when_alone() -> None:
    script = Script(round_trip_s=0.2)

    def one_by_one() -> bytes | None:
        return script.give(script.open[:1])

    script.answer = one_by_one
    alone = run(script, [Job(barrier_then_rename(b"alone", script))])
    assert alone[0].error is None
    assert script.now == pytest.approx(0.4)
    began = script.now
    done = run(script, [Job(barrier_then_rename(name, script)) for name in names(40)])
    assert [item.error for item in done] == [None] * 40
    assert script.now - began == pytest.approx(80 * 0.2)  # the link was never idle
    assert len(script.commits) - 1 < 40


def test_the_caller_ticks_also_while_all_slots_are_taken() -> None:
    script = Script()
    script.answer = lambda: script.all_in_order() if script.now > 10 else None
    ticks: list[float] = []
    jobs: list[Job[Any]] = [Job(refused(name)) for name in names(3)]
    list(script.pipeline().run(iter(jobs), lambda: 1, lambda: ticks.append(script.now)))
    assert max(later - earlier for earlier, later in itertools.pairwise(ticks)) <= 0.25
    assert ticks[-1] > 10


def test_a_broken_barrier_ends_all_and_nothing_behind_it_is_sent() -> None:
    script = Script()

    def full() -> None:
        raise DiskFull("no space left for the journal")

    script.at_commit = full
    jobs = iter([Job(barrier_then_rename(name, script)) for name in names(5)])
    results = until_it_ends(script.pipeline().run(jobs, lambda: 9), DiskFull)
    assert [type(item.error) for item in results] == [DiskFull] * 5
    assert all(item.kind != 18 for item in script.asked)


def lingering(name: bytes, script: Script, seconds: float) -> Work[float]:
    yield from ask(packets.close(name))
    began = script.now
    yield Linger(seconds)
    yield from ask(packets.stat(name))
    return script.now - began


def test_a_job_that_lingers_takes_no_slot_and_comes_back_in_time() -> None:
    script = Script()
    done = run(script, [Job(lingering(name, script, 30), tag=name) for name in names(50)], slots=2)
    assert len(done) == 50
    assert all(30 <= item.result < 31 for item in done)
    assert script.now < 35  # and not 25 x 30


def test_shorter_waits_end_first() -> None:
    script = Script()
    done = run(script, [Job(lingering(b"%d" % wait, script, wait), tag=wait) for wait in (9, 1, 5)])
    assert [item.tag for item in done] == [1, 5, 9]
    assert all(item.tag <= item.result < item.tag + 1 for item in done)

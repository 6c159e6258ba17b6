"""Many jobs on one channel: each gets its own answers, its own errors and its slot."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.pipeline_lab import KIB, Script, names, refused, run, status, writes

from iot.sftp.client.pipeline import pipeline
from iot.sftp.client.pipeline.job import CLOSED, Job, Send, Work, ask
from iot.sftp.client.pipeline.pipeline import Finished
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code
from iot.transfer.errors import LinkLost, ProtocolError, ServerRefused, SFTPError, Timeout

# -- answers and errors


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 30))
def test_every_job_gets_its_own_answers_in_any_order(seed: int, jobs: int, blocks: int) -> None:
    draw = random.Random(seed)
    script = Script()

    def some_in_any_order() -> bytes | None:
        draw.shuffle(script.open)
        return script.give(script.open[: draw.randint(1, 9)])

    script.answer = some_in_any_order
    done = run(script, [Job(writes(name, blocks), tag=name) for name in names(jobs)])
    assert sorted(item.tag for item in done) == sorted(names(jobs))
    for item in done:
        assert item.error is None
        assert sorted(item.result) == [(number, 0) for number in range(blocks)]
    ids = [item.request_id for item in script.asked]
    assert len(set(ids)) == len(ids) == jobs * blocks


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_answers_may_be_cut_anywhere(seed: int) -> None:
    draw = random.Random(seed)
    script = Script()
    stream = b""

    def dribble() -> bytes | None:
        nonlocal stream
        stream += script.all_in_order() or b""
        size = draw.randint(1, 20)
        piece, stream = stream[:size], stream[size:]
        return piece or None

    script.answer = dribble
    done = run(script, [Job(writes(name, 10), tag=name) for name in names(4)])
    assert [item.error for item in done] == [None] * 4


def test_an_error_of_one_job_leaves_its_neighbours_alone() -> None:
    script = Script()

    def refuse_one() -> bytes | None:
        bad = [item for item in script.open if item.handle == b"job-2"]
        return (script.give(bad, Code.FAILURE) or b"") + (script.all_in_order() or b"") or None

    script.answer = refuse_one
    jobs: list[Job[Any]] = [Job(refused(name) if name == b"job-2" else writes(name, 50), tag=name) for name in names(5)]
    done = {item.tag: item for item in run(script, jobs)}
    assert isinstance(done[b"job-2"].error, ServerRefused)
    assert [done[name].error for name in names(5) if name != b"job-2"] == [None] * 4


def failing_with_writes_open(name: bytes) -> Work[None]:
    for number in range(4):
        yield Send(packets.write(name, number, b"x"))
    raise ServerRefused("its own mind")


def test_late_answers_to_a_job_that_ended_reach_nobody() -> None:
    script = Script()
    jobs: list[Job[Any]] = [Job(failing_with_writes_open(b"gone"), tag="gone"), Job(writes(b"stays", 5), tag="stays")]
    done = {item.tag: item for item in run(script, jobs)}
    assert isinstance(done["gone"].error, ServerRefused)
    assert len(done["stays"].result) == 5


@pytest.mark.parametrize("twice", [True, False], ids=["twice", "never-asked"])
def test_an_answer_that_nobody_waits_for_ends_the_connection(twice: bool) -> None:
    script = Script()

    def one_too_many() -> bytes | None:
        item = script.open[0]
        return (script.give([item]) or b"") + status(item.request_id if twice else 4711)

    script.answer = one_too_many
    pipeline = script.pipeline()
    results: list[Finished] = []
    with pytest.raises(ProtocolError, match="never sent or is already answered"):
        results.extend(pipeline.run(iter([Job(writes(b"a", 2)), Job(writes(b"b", 2))]), lambda: 9))


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=100))
def test_garbage_from_the_server_is_a_lost_link_and_no_crash(garbage: bytes) -> None:
    script = Script()
    given_out = iter([garbage])

    def answer() -> bytes | None:
        data = next(given_out, None)
        if data is None and script.now > 100:
            raise LinkLost("closed")
        return data

    script.answer = answer
    with pytest.raises((LinkLost, Timeout)):
        list(script.pipeline(reply_deadline_s=5).run(iter([Job(writes(b"a", 2))]), lambda: 9))


# -- slots and feeding


class Crowd:
    """Jobs that count how many of them are under way at once."""

    def __init__(self) -> None:
        self.under_way = self.most = 0

    def work(self, name: bytes) -> Work[None]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        yield from ask(packets.close(name))
        yield from ask(packets.close(name))
        self.under_way -= 1

    def closing(self, name: bytes) -> Work[None]:
        self.under_way += 1
        yield from ask(packets.close(name))
        yield CLOSED
        yield CLOSED
        self.most = max(self.most, self.under_way)
        for _ in range(5):
            yield from ask(packets.close(name))
        self.under_way -= 1


def test_no_more_jobs_are_pulled_than_there_are_slots() -> None:
    script = Script()
    crowd = Crowd()
    pulled = 0

    def feed() -> Iterator[Job[Any]]:
        nonlocal pulled
        for name in names(40):
            pulled += 1
            assert pulled - finished <= 8, "pulled ahead of the slots"
            yield Job(crowd.work(name))

    finished = 0
    for _ in script.pipeline().run(feed(), lambda: 7):
        finished += 1
    assert (finished, crowd.most) == (40, 7)


def test_a_slot_that_comes_free_is_taken_at_once_and_not_with_the_next_answer() -> None:
    script = Script()
    script.answer = lambda: (
        script.give([item for item in script.open if item.handle != b"slow"])
        or (script.give(list(script.open)) if script.now > 5 else None)
    )
    jobs: list[Job[Any]] = [Job(refused(b"slow"), tag=b"slow"), *[Job(refused(name), tag=name) for name in names(20)]]
    done = script.pipeline().run(iter(jobs), lambda: 2)
    quick = [next(done).tag for _ in range(20)]
    assert quick == names(20)
    assert script.now < 1
    assert next(done).tag == b"slow"


@pytest.mark.parametrize(("size", "expected"), [(KIB, 40), (32 * KIB, 32), (64 * KIB, 20)])
def test_the_second_half_of_the_slots_is_for_jobs_that_are_small_together(size: int, expected: int) -> None:
    crowd = Crowd()
    run(Script(), [Job(crowd.work(name), payload_bytes=size) for name in names(200)], slots=40)
    assert crowd.most == expected


@pytest.mark.parametrize(("most_closed", "expected"), [(5, 15), (0, 10)])
def test_jobs_that_have_closed_their_files_take_no_slot_but_for_many(
    monkeypatch: pytest.MonkeyPatch, most_closed: int, expected: int
) -> None:
    monkeypatch.setattr(pipeline, "CLOSED_JOBS", most_closed)
    crowd = Crowd()
    run(Script(), [Job(crowd.closing(name), payload_bytes=KIB) for name in names(200)], slots=10)
    assert (crowd.under_way, crowd.most) == (0, expected)


def test_what_a_closed_job_has_sent_is_not_in_flight_any_more() -> None:
    large, small = Script(), Script()
    for script, size in ((large, pipeline.TOGETHER_BYTES // 4), (small, 1)):
        run(script, [Job(Crowd().closing(name), payload_bytes=size) for name in names(40)], slots=4)
    assert large.now == small.now  # four at a time, not two


def test_a_crowd_of_jobs_does_not_keep_the_link_idle_until_all_have_had_their_turn() -> None:
    script = Script()
    asked_of: list[int] = []

    def work(name: bytes) -> Work[None]:
        asked_of.append(len(script.asked))
        yield from ask(packets.close(name * 100))

    run(script, [Job(work(name)) for name in names(200)])
    assert asked_of[0] == 0
    assert asked_of[-1] > 100


def test_what_is_asked_is_on_its_way_before_the_caller_gets_the_results() -> None:
    script = Script()
    waits = [0.0, 1.0]

    def work(name: bytes, more: int) -> Work[None]:
        for _ in range(more):
            yield from ask(packets.close(name))

    results = script.pipeline().run(iter([Job(work(b"short", 1)), Job(work(b"long", len(waits)))]), lambda: 2)
    next(results)
    assert [item.handle for item in script.asked] == [b"short", b"long", b"long"]
    list(results)


def test_slots_may_be_fewer_later() -> None:
    script = Script()
    slots = 10
    seen: list[int] = []

    def answer() -> bytes | None:
        nonlocal slots
        seen.append(len(script.open))
        slots = 2
        return script.all_in_order()

    script.answer = answer
    list(script.pipeline().run(iter([Job(refused(name)) for name in names(30)]), lambda: slots))
    assert seen[0] == 10
    assert set(seen[1:]) <= {0, 1, 2}


def test_nothing_right_now_is_asked_again_within_a_moment_and_costs_no_busy_loop() -> None:
    script = Script()
    asked = 0

    def feed() -> Iterator[Job[Any] | None]:
        nonlocal asked
        while script.now < 10:
            asked += 1
            yield None
        yield Job(refused(b"late"), tag="late")

    done = list(script.pipeline().run(feed(), lambda: 5))
    assert [item.tag for item in done] == ["late"]
    assert 35 <= asked <= 50
    assert script.now < 10.5


def test_no_jobs_at_all_end_at_once() -> None:
    script = Script()
    assert run(script, []) == []
    assert script.now == 0


def test_one_job_alone_gives_its_result_or_raises_its_error() -> None:
    script = Script()
    assert len(script.pipeline().run_one(Job(writes(b"a", 3)))) == 3
    script.answer = lambda: script.give(list(script.open), Code.NO_SUCH_FILE)
    with pytest.raises(SFTPError, match="closing"):
        script.pipeline().run_one(Job(refused(b"a")))


def test_the_pipeline_can_be_run_again_after_a_jobs_error() -> None:
    script = Script()
    pipeline = script.pipeline()
    script.answer = lambda: script.give(list(script.open), Code.FAILURE)
    with pytest.raises(ServerRefused):
        pipeline.run_one(Job(refused(b"a")))
    script.answer = None
    assert len(pipeline.run_one(Job(writes(b"b", 3)))) == 3


def test_ids_of_requests_start_over_after_the_last_32_bit_number() -> None:
    script = Script()
    pipeline = script.pipeline()
    pipeline._outstanding._numbers = itertools.count(2**32 - 2)
    assert sorted(pipeline.run_one(Job(writes(b"a", 6)))) == [(number, 0) for number in range(6)]
    assert [item.request_id for item in script.asked] == [2**32 - 2, 2**32 - 1, 0, 1, 2, 3]


def test_a_job_beside_runs_with_the_next_ones_and_nobody_is_told() -> None:
    script = Script()
    pipeline = script.pipeline()
    pipeline.beside(Job(refused(b"limits"), tag="beside"))
    assert script.asked == []
    done = list(pipeline.run(iter([Job(refused(b"first"), tag="first")]), lambda: 9))
    assert [item.tag for item in done] == ["first"]
    assert {item.handle for item in script.asked} == {b"limits", b"first"}
    assert len(script.sends) == 1  # it costs no round trip

"""Many jobs on one channel: each gets its own answers, its own errors, its turn - and all end together with the link.

The channel is a script in memory: it decodes the requests by itself, and answers when and in what order a test wants.
"""

from __future__ import annotations

import itertools
import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot.sftp.client.pipeline.job import TURN, WAIT, Barrier, Job, Linger, Send, Work, ask, expect_ok
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.pipeline import Finished, Pipeline
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.sftp.client.protocol.packets import Code
from iot.transfer.errors import Cancelled, DiskFull, LinkLost, ProtocolError, ServerRefused, SFTPError, Timeout

KIB = 1024


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire; data: its payload's size."""

    request_id: int
    kind: int
    handle: bytes
    data: int = 0


@dataclass
class Script:
    """A channel and its clock. answer: what to give at a receive; by default every request in order, with OK."""

    now: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    open: list[Asked] = field(default_factory=list)
    sends: list[int] = field(default_factory=list)
    commits: list[list[Any]] = field(default_factory=list)
    answer: Callable[[], bytes | None] | None = None
    at_commit: Callable[[], None] = lambda: None
    round_trip_s: float = 0.01
    cancelled: threading.Event = field(default_factory=threading.Event)
    max_bytes: int = 256 * KIB
    in_flight_at_most: int = 0

    def clock(self) -> float:
        return self.now

    def send(self, outgoing: Outgoing, wait_s: float) -> None:
        data = outgoing.first(len(outgoing))
        outgoing.drop(len(data))
        self.sends.append(len(data))
        at = 0
        while at < len(data):
            size, kind, request_id = struct.unpack_from(">IBI", data, at)
            name = struct.unpack_from(">I", data, at + 9)[0]
            handle = data[at + 13 : at + 13 + name]
            payload = struct.unpack_from(">QI", data, at + 13 + name)[1] if kind in (5, 6) else 0
            item = Asked(request_id, kind, handle, payload)
            self.asked.append(item)
            self.open.append(item)
            at += 4 + size
        assert at == len(data)
        self.in_flight_at_most = max(self.in_flight_at_most, sum(item.data for item in self.open))

    def receive(self, limit: int, timeout_s: float) -> bytes | None:
        data = self.answer() if self.answer else self.all_in_order()
        self.now += self.round_trip_s if data else timeout_s
        return data

    def check_alive(self, waiting_since: float | None) -> Any:
        """The link lives, and is not silent."""
        return 0.0

    def all_in_order(self) -> bytes | None:
        return self.give(list(self.open))

    def give(self, items: list[Asked], code: int = 0) -> bytes | None:
        for item in items:
            self.open.remove(item)
        return b"".join(status(item.request_id, code) for item in items) or None

    def commit(self, records: Sequence[Any]) -> None:
        self.at_commit()
        self.commits.append(list(records))

    def pipeline(self, reply_deadline_s: float = 600) -> Pipeline:
        return Pipeline(
            self,
            Pace(self.max_bytes, 32 * KIB),
            clock=self.clock,
            commit=self.commit,
            reply_deadline_s=reply_deadline_s,
            cancelled=self.cancelled,
        )


def until_it_ends(results: Iterator[Finished], error: type[SFTPError]) -> list[Finished]:
    """All that is told before the run ends with this error."""
    told: list[Finished] = []
    with pytest.raises(error):
        _collect(results, told)
    return told


def _collect(results: Iterator[Finished], told: list[Finished]) -> None:
    for item in results:
        told.append(item)  # noqa: PERF402  # what came before the error stays


def status(request_id: int, code: int = 0) -> bytes:
    return struct.pack(">IBII", 9, 101, request_id, code)


def run(script: Script, jobs: list[Job[Any]], slots: int = 256) -> list[Finished]:
    return list(script.pipeline().run(iter(jobs), lambda: slots))


def writes(name: bytes, count: int, size: int = KIB) -> Work[list[tuple[int, int]]]:
    """Send numbered blocks; -> (number, code) of each answer, as they came."""
    heard: list[tuple[int, int]] = []
    for number in range(count):
        answers = yield Send(packets.write(name, number * size, bytes(size)), (name, number))
        heard += [(token[1], reply.code) for token, reply in answers if check(token[0], name)]  # type: ignore[union-attr]
    while len(heard) < count:
        answers = yield WAIT
        heard += [(token[1], reply.code) for token, reply in answers if check(token[0], name)]  # type: ignore[union-attr]
    return heard


def check(found: bytes, wanted: bytes) -> bool:
    assert found == wanted, "an answer went to another job"
    return True


def names(count: int) -> list[bytes]:
    return [b"job-%d" % number for number in range(count)]


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


def refused(name: bytes) -> Work[None]:
    expect_ok((yield from ask(packets.close(name))), "closing")


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


# -- the link is lost


def noting(name: bytes, notes: list[tuple[bytes, int, str]], count: int = 1000) -> Work[None]:
    acked = 0
    try:
        for number in range(count):
            acked += len((yield Send(packets.write(name, number, bytes(KIB)))))
        while acked < count:
            acked += len((yield WAIT))
    except SFTPError as error:
        notes.append((name, acked, type(error).__name__))
        yield from ask(packets.close(name))  # a job that tries to tidy up is not waited for
        raise


@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent"), ProtocolError("mad")])
def test_a_lost_link_is_thrown_into_every_job_and_told_for_each(error: SFTPError) -> None:
    script = Script()
    given_out = 0

    def answer() -> bytes | None:
        nonlocal given_out
        if given_out >= 60:
            raise error
        given_out += 3
        return script.give(script.open[:3])

    script.answer = answer
    notes: list[tuple[bytes, int, str]] = []
    results = until_it_ends(
        script.pipeline().run(iter([Job(noting(name, notes), tag=name) for name in names(6)]), lambda: 9), type(error)
    )
    assert sorted(item.tag for item in results) == names(6)
    assert all(item.error is error for item in results)
    assert sorted(name for name, _, _ in notes) == names(6)
    assert sum(acked for _, acked, _ in notes) == 60  # every answer that came was heard
    assert {kind for _, _, kind in notes} == {type(error).__name__}


def test_a_job_whose_last_answer_came_with_the_loss_has_succeeded() -> None:
    script = Script()

    def last_answers_and_a_bad_one() -> bytes | None:
        return (script.give(script.open[:1]) or b"") + status(4711)

    script.answer = last_answers_and_a_bad_one
    jobs: list[Job[Any]] = [Job(refused(b"done"), tag="done"), Job(refused(b"open"), tag="open")]
    results = {item.tag: item for item in until_it_ends(script.pipeline().run(iter(jobs), lambda: 9), ProtocolError)}
    assert results["done"].error is None
    assert isinstance(results["open"].error, ProtocolError)


def test_jobs_in_every_kind_of_wait_are_ended_by_a_lost_link() -> None:
    ended: list[str] = []

    def waits_in(what: str) -> Work[None]:
        try:
            if what == "linger":
                yield Linger(1000)
            elif what == "room":
                for number in range(1000):
                    yield Send(packets.write(b"w", number, bytes(KIB)))
            elif what == "turn":
                while True:
                    yield TURN
            else:
                yield from ask(packets.close(b"c"))
        except LinkLost:
            ended.append(what)
            raise

    script = Script()
    calls = 0

    def cut() -> bytes | None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise LinkLost("cut")
        return None

    script.answer = cut
    kinds = ["linger", "room", "turn", "answer"]
    with pytest.raises(LinkLost):
        run(script, [Job(waits_in(kind), tag=kind) for kind in kinds])
    assert sorted(ended) == sorted(kinds)


def test_a_link_that_dies_while_the_pipeline_rests_is_noticed() -> None:
    script = Script()

    def feed() -> Iterator[Job[Any] | None]:
        while True:
            yield None

    def closed() -> bytes | None:
        if script.now > 5:
            raise LinkLost("closed by the server")
        return None

    script.answer = closed
    with pytest.raises(LinkLost):
        list(script.pipeline().run(feed(), lambda: 9))
    assert script.now < 6


# -- cancel and deadlines


def test_cancel_ends_every_job_soon_and_keeps_what_it_noted() -> None:
    script = Script()
    notes: list[tuple[bytes, int, str]] = []

    def answer() -> bytes | None:
        if script.now > 0.5:
            script.cancelled.set()
        return script.give(script.open[:2])

    script.answer = answer
    results = until_it_ends(
        script.pipeline().run(iter([Job(noting(name, notes), tag=name) for name in names(3)]), lambda: 9), Cancelled
    )
    assert [type(item.error) for item in results] == [Cancelled] * 3
    assert len(notes) == 3
    assert script.now < 1


def test_a_caller_that_stops_asking_ends_the_jobs() -> None:
    script = Script()
    notes: list[tuple[bytes, int, str]] = []
    jobs: list[Job[Any]] = [Job(writes(b"short", 1), tag="short"), Job(noting(b"long", notes), tag="long")]
    results = script.pipeline().run(iter(jobs), lambda: 9)
    assert next(results).tag == "short"
    results.close()  # type: ignore[attr-defined]
    assert [(name, kind) for name, _, kind in notes] == [(b"long", "Cancelled")]


def test_an_answer_that_does_not_come_is_a_timeout_after_the_servers_deadline() -> None:
    script = Script()
    script.answer = lambda: None
    with pytest.raises(Timeout, match="600 s"):
        run(script, [Job(writes(b"a", 1))])
    assert 600 < script.now < 601


def test_the_deadline_is_that_of_the_oldest_request_not_of_the_last_answer() -> None:
    script = Script(round_trip_s=1.0)

    def all_but_the_first() -> bytes | None:
        return script.give([item for item in script.open if item.handle != b"stuck"][:1])

    script.answer = all_but_the_first
    with pytest.raises(Timeout):
        list(
            script.pipeline(reply_deadline_s=20).run(
                iter([Job(refused(b"stuck")), Job(writes(b"busy", 5000))]), lambda: 9
            )
        )
    assert 20 < script.now < 23


def test_the_link_is_asked_about_while_an_answer_is_due() -> None:
    script = Script()
    script.answer = lambda: None
    since: list[float | None] = []

    def check_alive(waiting_since: float | None) -> float:
        since.append(waiting_since)
        if script.now > 3:
            raise LinkLost("the link is dead")
        return script.now

    script.check_alive = check_alive  # type: ignore[method-assign]
    with pytest.raises(LinkLost):
        run(script, [Job(writes(b"a", 1))])
    assert since[-1] == 0.0
    assert script.now < 4


def test_the_link_is_asked_about_while_the_server_takes_nothing() -> None:
    script = Script()
    script.send = lambda data, wait_s: 0  # type: ignore[method-assign]

    def check_alive(waiting_since: float | None) -> float:
        if script.now > 3:
            raise LinkLost("the link is dead")
        script.now += 0.5
        return 0.0

    script.check_alive = check_alive  # type: ignore[method-assign]
    with pytest.raises(LinkLost, match="dead"):
        run(script, [Job(writes(b"a", 1))])


@pytest.mark.parametrize(("quiet_s", "wait_s"), [(0.0, 0.25), (0.4, 0.25), (0.6, 0.03)])
def test_only_a_silent_link_is_looked_at_more_often(quiet_s: float, wait_s: float) -> None:
    script = Script()
    script.check_alive = lambda waiting_since: quiet_s  # type: ignore[method-assign]
    waits: list[float] = []

    def receive(limit: int, timeout_s: float) -> bytes | None:
        waits.append(timeout_s)
        script.now += timeout_s
        if len(waits) > 20:
            raise LinkLost("enough")
        return None

    script.receive = receive  # type: ignore[method-assign]
    with pytest.raises(LinkLost):
        run(script, [Job(writes(b"a", 1))])
    assert waits[-1] == pytest.approx(wait_s)


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
    import itertools

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

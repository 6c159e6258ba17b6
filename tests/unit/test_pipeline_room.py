"""What is in flight on one channel: who stands back for whom, how much is coalesced, and who is told of silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from unit.pipeline_lab import KIB, Script, names, refused, run, until_it_ends, writes

from iot.sftp.client.pipeline.job import Job, Linger, Room, Send, Work, ask
from iot.sftp.client.pipeline.pipeline import BLOCKED_S, CLASSES_APART, EARLY_BYTES, FLUSH_BYTES, URGENT_BYTES
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.transfer.errors import Cancelled, LinkLost, Timeout
from iot.transfer.rate import RateLimit

# -- standing back


def small(until_s: float, script: Script) -> Work[None]:
    while script.now < until_s:
        yield from ask(packets.stat(b"small"))


def blocks_sent(script: Script, *beside: Job[Any]) -> int:
    """Of a large file of urgency 10, in its first two seconds on a link that carries ten blocks a second."""
    script.round_trip_s = 0.1

    def answer() -> bytes | None:
        if script.now >= 2.0:
            script.cancelled.set()
        small = [item for item in script.open if not item.data]
        return script.give(small + [item for item in script.open if item.data][:1])

    script.answer = answer
    jobs = [Job(writes(b"large", 1000, 32 * KIB), (10, 1), "large"), *beside]
    until_it_ends(script.pipeline().run(iter(jobs), lambda: 9), Cancelled)
    return sum(item.handle == b"large" for item in script.asked)


@pytest.mark.parametrize(
    ("payload_bytes", "stands_back"), [(0, False), (1, True), (URGENT_BYTES, True), (URGENT_BYTES + 1, False)]
)
def test_only_for_a_file_that_is_known_to_be_small_others_stand_back(payload_bytes: int, stands_back: bool) -> None:
    script = Script()
    beside = Job(small(9.0, script), (0, 0), "small", payload_bytes)
    assert (blocks_sent(script, beside) == 0) is stands_back


@pytest.mark.parametrize(("apart", "stands_back"), [(CLASSES_APART - 1, False), (CLASSES_APART, True)])
def test_only_what_is_clearly_less_urgent_stands_back(apart: int, stands_back: bool) -> None:
    script = Script()
    beside = Job(small(9.0, script), (10 - apart, 0), "small", KIB)
    assert (blocks_sent(script, beside) == 0) is stands_back


def test_nobody_stands_back_for_a_file_that_only_lets_time_pass() -> None:
    def lingering() -> Work[None]:
        yield Linger(60)

    assert blocks_sent(Script(), Job(lingering(), (0, 0), "small", KIB)) > 0


@pytest.mark.parametrize(("last_s", "stands_back"), [(0.0, False), (9.0, True)])
def test_others_stand_back_until_the_last_of_several_small_files_has_ended(last_s: float, stands_back: bool) -> None:
    script = Script()
    ends_s = (0.0, 0.0, last_s)
    beside = [Job(small(until_s, script), (0, 0), "small", KIB) for until_s in ends_s]
    assert (blocks_sent(script, *beside) == 0) is stands_back


def test_others_stand_back_again_for_a_small_file_that_comes_later() -> None:
    script = Script(round_trip_s=0.1)
    in_flight: dict[float, int] = {}

    def answer() -> bytes | None:
        in_flight[round(script.now, 1)] = sum(item.data for item in script.open)
        if script.now >= 12.0:
            script.cancelled.set()
        few = [item for item in script.open if not item.data]
        return script.give(few + [item for item in script.open if item.data][:1])

    def small_at(at_s: float) -> Iterator[Job[Any] | None]:
        while script.now < at_s:
            yield None
        yield Job(small(at_s + 1.0, script), (0, 0), "small", KIB)

    def feed() -> Iterator[Job[Any] | None]:
        yield Job(writes(b"large", 1000, 32 * KIB), (10, 1), "large")
        yield from small_at(2.0)
        yield from small_at(10.0)

    script.answer = answer
    until_it_ends(script.pipeline().run(feed(), lambda: 9), Cancelled)
    assert in_flight[2.9] < in_flight[9.5] / 2
    assert in_flight[10.9] < in_flight[9.5] / 2


# -- how much goes out together


def noted_waits(script: Script) -> list[float]:
    waits: list[float] = []
    send = script.send

    def noted(outgoing: Outgoing, wait_s: float) -> None:
        waits.append(wait_s)
        send(outgoing, wait_s)

    script.send = noted  # type: ignore[method-assign]
    return waits


def test_while_there_is_something_else_to_do_nobody_waits_for_a_server_that_does_not_read() -> None:
    crowd = Script()
    waits = noted_waits(crowd)
    run(crowd, [Job(refused(name * 100)) for name in names(200)])
    assert set(waits) == {0.0, BLOCKED_S}
    assert all(crowd.sends), "nothing to send is not sent"

    def twice() -> Work[None]:
        yield from ask(packets.close(b"long"))
        yield from ask(packets.close(b"long"))

    before_results = Script()
    waits = noted_waits(before_results)
    run(before_results, [Job(refused(b"short")), Job(twice())])
    assert waits == [BLOCKED_S, 0.0]


PACKET_BYTES = 16 * KIB
PAYLOAD_BYTES = PACKET_BYTES - 26
"""Of a WRITE with a handle of one byte, so that whole packets fill what is coalesced exactly."""


def test_no_more_is_coalesced_than_makes_a_flush() -> None:
    script = Script()
    pipeline = script.pipeline()
    pipeline.pace.window = 10 * FLUSH_BYTES
    pipeline.run_one(Job(writes(b"h", 40, PAYLOAD_BYTES)))
    assert script.sends[0] == FLUSH_BYTES


def test_what_waited_for_room_is_coalesced_up_to_a_flush_too(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script()
    pipeline = script.pipeline()
    monkeypatch.setattr(pipeline.pace, "_resize", lambda: None)
    pipeline.pace.window = PACKET_BYTES

    def widen() -> bytes | None:
        pipeline.pace.window = 10 * FLUSH_BYTES
        return script.all_in_order()

    script.answer = widen
    list(pipeline.run(iter([Job(writes(b"h", 1, PAYLOAD_BYTES)) for _ in range(40)]), lambda: 40))
    assert script.sends[:2] == [PACKET_BYTES, FLUSH_BYTES]


def test_a_packet_of_the_wire_is_on_its_way_before_the_next_job_has_its_turn() -> None:
    script = Script()
    asked_before: list[int] = []

    def work() -> Work[None]:
        asked_before.append(len(script.asked))
        yield from ask(packets.close(bytes(EARLY_BYTES - 13)))

    run(script, [Job(work()), Job(work())])
    assert asked_before == [0, 1]


# -- the window


def test_room_that_was_given_for_one_block_is_none_for_the_next_ones() -> None:
    def mixed() -> Work[None]:
        for _ in range(20):
            yield Room(16 * KIB)
            yield Send(packets.write(b"m", 0, bytes(16 * KIB)))
            yield Send(packets.stat(b"m"))
            yield Send(packets.write(b"m", 0, bytes(16 * KIB)))

    script = Script(max_bytes=128 * KIB)
    script.answer = lambda: script.give(script.open[:1])
    run(script, [Job(mixed()) for _ in range(8)])
    assert script.in_flight_at_most <= 128 * KIB


def test_what_waits_for_the_rate_is_looked_at_when_it_may_be_sent_and_not_later() -> None:
    script = Script()
    waits: list[float] = []

    def receive(limit: int, timeout_s: float) -> bytes | None:
        waits.append(timeout_s)
        script.now += timeout_s + 1e-6
        return script.all_in_order()

    script.receive = receive  # type: ignore[method-assign]
    script.pipeline(limit=RateLimit(1e6, script.clock)).run_one(Job(writes(b"w", 20, 16 * KIB)))
    assert sum(wait_s == pytest.approx(0.017, abs=0.001) for wait_s in waits) > 15
    assert script.now < 1.0


# -- silence, and what the wire has carried


@pytest.mark.parametrize(("payload", "told"), [(True, 0.7), (False, 0.0)])
def test_only_with_bytes_in_flight_the_link_is_told_to_be_silent(payload: bool, told: float) -> None:
    script = Script()
    script.check_alive = lambda waiting_since: 0.7  # type: ignore[method-assign]
    script.answer = lambda: None
    heard: list[float] = []

    def on_silence(quiet_s: float) -> bool:
        heard.append(quiet_s)
        return len(heard) > 4

    work = writes(b"w", 1) if payload else refused(b"c")
    with pytest.raises(LinkLost, match="standby connection is ready"):
        script.pipeline(on_silence=on_silence).run_one(Job(work))
    assert heard[1:] == [told] * 4


def test_the_link_is_looked_at_a_few_times_a_second_and_not_with_each_answer() -> None:
    script = Script()
    looks: list[float] = []

    def check_alive(waiting_since: float | None) -> float:
        looks.append(script.now)
        return 0.0

    script.check_alive = check_alive  # type: ignore[method-assign]
    script.answer = lambda: script.give(script.open[:1])
    run(script, [Job(refused(name)) for name in names(200)], slots=1)
    assert script.now == pytest.approx(2.0)
    assert 7 <= len(looks) <= 10


@pytest.mark.parametrize(("rate", "charged"), [(None, False), (1e6, True)])
def test_what_the_wire_has_carried_counts_for_a_limited_rate(rate: float | None, charged: bool) -> None:
    script = Script()
    limit = RateLimit(rate, script.clock)
    asked: list[int] = []

    def wire_sent() -> int:
        asked.append(1)
        return 10**6

    script.pipeline(limit=limit, wire_sent=wire_sent).run_one(Job(writes(b"w", 1)))
    assert bool(asked) is charged
    assert (limit.wait_s() > 0.5) is charged


def test_an_answer_may_take_as_long_as_it_may_and_no_longer() -> None:
    script = Script()
    script.answer = lambda: None
    with pytest.raises(Timeout, match="no answer for 1 s to a request of type 4"):
        script.pipeline(reply_deadline_s=1.0).run_one(Job(refused(b"c")))
    assert script.now == 1.25  # it is looked at four times a second


def test_a_job_that_lingers_goes_on_at_its_time() -> None:
    script = Script()

    def work() -> Work[float]:
        yield Linger(0.5)
        return script.now

    assert script.pipeline().run_one(Job(work())) == 0.5


@pytest.mark.parametrize(("slots", "together"), [(1, 1), (5, 3), (6, 3)])
def test_of_large_jobs_half_as_many_are_under_way_rounded_up(slots: int, together: int) -> None:
    under_way: list[int] = []

    def work(number: int) -> Work[None]:
        under_way.append(number)
        yield from ask(packets.close(b"large"))
        yield from ask(packets.close(b"large"))
        most.append(len(under_way))
        under_way.remove(number)

    most: list[int] = []
    run(Script(), [Job(work(number), payload_bytes=512 * KIB) for number in range(9)], slots=slots)
    assert max(most) == together

"""Jobs on one channel end together: with a lost link, a cancel, or an answer that does not come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from unit.pipeline_lab import KIB, Script, names, refused, run, status, until_it_ends, writes

from iot.sftp.client.pipeline.job import TURN, WAIT, Job, Linger, Room, Send, Work, ask
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.transfer.errors import Cancelled, LinkLost, ProtocolError, SFTPError, Timeout

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


def writes_for_ever(*, asks: bool) -> Work[None]:
    while True:
        if asks:
            yield Room(16 * KIB)
        yield Send(packets.write(b"w", 0, bytes(16 * KIB)))


def test_jobs_in_every_kind_of_wait_are_ended_by_a_lost_link() -> None:
    ended: list[str] = []

    def waits_in(what: str) -> Work[None]:
        try:
            if what == "linger":
                yield Linger(1000)
            elif what.startswith("room"):
                yield from writes_for_ever(asks=what == "room asked for")
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
    kinds = ["linger", "room", "room asked for", "turn", "answer"]
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

    def takes_nothing(outgoing: Outgoing, wait_s: float) -> None:
        script.now += max(wait_s, 0.01)
        assert script.now < 10, "nobody asks"

    def check_alive(waiting_since: float | None) -> float:
        if script.now > 3:
            raise LinkLost("the link is dead")
        return 0.0

    script.send = takes_nothing  # type: ignore[method-assign]
    script.check_alive = check_alive  # type: ignore[method-assign]
    with pytest.raises(LinkLost, match="dead"):
        run(script, [Job(writes(b"a", 1))])


@pytest.mark.parametrize(("quiet_s", "wait_s"), [(0.0, 0.25), (0.5, 0.25), (0.6, 0.03)])
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

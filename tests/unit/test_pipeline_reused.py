"""A run that ends early leaves nothing behind, and its jobs end as what has happened to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.pipeline_lab import KIB, Script, refused, run, status, until_it_ends, writes

from iot.sftp.client.pipeline.job import TURN, Barrier, Job, Linger, Send, Work, ask
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code
from iot.transfer.errors import LinkLost, ProtocolError, ServerRefused, SFTPError, Timeout


def turning() -> Work[None]:
    while True:
        yield TURN


def at_a_barrier(name: bytes) -> Work[None]:
    yield from ask(packets.close(name))
    yield Barrier(name)


def lingering(seconds: float) -> Work[None]:
    yield Linger(seconds)
    yield from ask(packets.stat(b"after a while"))


LEFT: dict[str, Callable[[], Work[Any]]] = {
    "another result": lambda: refused(b"another"),
    "one whose turn it is": turning,
    "one that waits for room": lambda: writes(b"large", 9, 200 * KIB),
    "one that lingers": lambda: lingering(1000),
    "one at a barrier": lambda: at_a_barrier(b"record"),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_a_caller_did_not_wait_for_is_not_met_by_its_next_run(left: str) -> None:
    script = Script()
    pipeline = script.pipeline()
    results = pipeline.run(iter([Job(refused(b"first"), tag="first"), Job(LEFT[left]())]), lambda: 9)
    assert next(results).tag == "first"
    results.close()  # type: ignore[attr-defined]
    assert pipeline.run_one(Job(lingering(2000))) is None
    assert script.commits == []
    assert 2000 <= script.now < 2001


def test_a_job_is_not_called_for_an_answer_once_its_caller_has_stopped() -> None:
    script = Script()
    heard: list[Any] = []

    def work() -> Work[None]:
        yield Send(packets.stat(b"small"), "small")
        while True:
            heard.extend((yield Send(packets.write(b"large", 0, bytes(200 * KIB)))))

    script.answer = lambda: script.give([item for item in script.open if not item.data])
    results = script.pipeline().run(iter([Job(work()), Job(refused(b"first"), tag="first")]), lambda: 9)
    assert next(results).tag == "first"
    results.close()  # type: ignore[attr-defined]
    assert [item.data for item in script.open] == [200 * KIB]  # the other answer had come
    assert heard == []


# -- how a job ends


@pytest.mark.parametrize("error", [LinkLost("server says so"), Timeout("too late")])
def test_a_job_that_finds_the_link_lost_ends_the_run(error: SFTPError) -> None:
    def finds_out() -> Work[None]:
        yield from ask(packets.close(b"first"))
        raise error

    script = Script()
    script.answer = lambda: script.give(script.open[:1])
    jobs: list[Job[Any]] = [Job(finds_out(), tag="finds out"), Job(writes(b"other", 9), tag="other")]
    told = until_it_ends(script.pipeline().run(iter(jobs), lambda: 9), type(error))
    assert {item.tag: item.error for item in told} == {"finds out": error, "other": error}


def test_a_refusal_that_came_with_the_loss_is_the_jobs_own_error() -> None:
    script = Script()
    script.answer = lambda: (script.give(script.open[:1], Code.FAILURE) or b"") + status(4711)
    jobs: list[Job[Any]] = [Job(refused(b"refused"), tag="refused"), Job(refused(b"open"), tag="open")]
    told = {item.tag: item.error for item in until_it_ends(script.pipeline().run(iter(jobs), lambda: 9), ProtocolError)}
    assert isinstance(told["refused"], ServerRefused)
    assert isinstance(told["open"], ProtocolError)


def test_a_job_that_makes_nothing_of_a_lost_link_has_not_succeeded() -> None:
    def makes_nothing_of_it() -> Work[str]:
        try:
            yield from ask(packets.close(b"c"))
        except LinkLost:
            pass
        return "fine"

    script = Script()
    lost = LinkLost("cut")

    def cut() -> bytes | None:
        raise lost

    script.answer = cut
    [told] = until_it_ends(script.pipeline().run(iter([Job(makes_nothing_of_it())]), lambda: 9), LinkLost)
    assert (told.result, told.error) == (None, lost)


def test_a_job_that_goes_on_asking_after_the_loss_is_closed() -> None:
    def goes_on() -> Work[None]:
        try:
            yield from ask(packets.close(b"c"))
        except LinkLost:
            yield from ask(packets.close(b"d"))

    script = Script()

    def cut() -> bytes | None:
        raise LinkLost("cut")

    script.answer = cut
    work = goes_on()
    until_it_ends(script.pipeline().run(iter([Job(work)]), lambda: 9), LinkLost)
    assert inspect.getgeneratorstate(work) == inspect.GEN_CLOSED


# -- when the next job is asked for


def test_a_source_that_had_no_job_is_asked_again_as_soon_as_one_has_ended() -> None:
    script = Script()
    ended: list[object] = []

    def feed() -> Iterator[Job[Any] | None]:
        yield Job(refused(b"first"))
        while not ended:
            yield None
        yield Job(refused(b"second"))

    for item in script.pipeline().run(feed(), lambda: 5):
        ended.append(item)  # noqa: PERF402  # the source looks at it meanwhile
    assert len(ended) == 2
    assert script.now < 0.1


def test_the_channel_is_never_asked_to_wait_for_less_than_no_time() -> None:
    script = Script()
    waits: list[float] = []
    receive = script.receive

    def clock() -> float:
        script.now += 0.01  # as it does between any two looks
        return script.now

    def noted(limit: int, timeout_s: float) -> bytes | None:
        waits.append(timeout_s)
        return receive(limit, timeout_s)

    script.clock, script.receive = clock, noted  # type: ignore[method-assign]

    def feed() -> Iterator[Job[Any] | None]:
        while script.now < 3:
            yield None

    assert list(script.pipeline().run(feed(), lambda: 5)) == []
    assert min(waits) >= 0.0


def test_a_single_job_is_not_kept_waiting_by_one_that_runs_beside_it() -> None:
    script = Script()
    pipeline = script.pipeline()
    pipeline.beside(Job(refused(b"beside")))
    pipeline.run_one(Job(refused(b"first")))
    assert len(script.sends) == 1


def test_who_has_work_to_do_does_not_wait_for_the_network() -> None:
    script = Script()

    def computing() -> Work[None]:
        for _ in range(50):
            yield TURN

    run(script, [Job(computing())])
    assert script.now == 0.0


def test_a_job_that_waits_for_company_at_a_barrier_is_not_kept_longer_than_a_moment() -> None:
    """One of many has a record; the others are under way, each with a request that is not answered."""
    script = Script()
    committed_at: list[float] = []
    script.at_commit = lambda: committed_at.append(script.now)
    script.answer = lambda: (
        script.give([item for item in script.open if item.handle == b"record"])
        or (script.all_in_order() if script.now > 3 else None)
    )
    jobs: list[Job[Any]] = [Job(at_a_barrier(b"record")), *[Job(refused(b"other")) for _ in range(20)]]
    run(script, jobs)
    assert 0.01 <= committed_at[0] <= 0.3


@pytest.mark.parametrize("others", ["wait for room", "compute", "wait for an answer"])
def test_a_record_waits_for_all_who_may_still_bring_one(others: str) -> None:
    script = Script(round_trip_s=1.0)
    committed_at: list[float] = []
    script.at_commit = lambda: committed_at.append(script.now)

    def answer() -> bytes | None:
        script.now += 0.01
        return script.give([item for item in script.open if item.handle == b"record" or script.now > 3])

    def computing() -> Work[None]:
        while script.now < 3:
            yield TURN

    script.answer = answer
    kinds: dict[str, Callable[[], Work[Any]]] = {
        "wait for room": lambda: writes(b"large", 1, 200 * KIB),
        "compute": computing,
        "wait for an answer": lambda: refused(b"other"),
    }
    run(script, [Job(at_a_barrier(b"record")), *[Job(kinds[others]()) for _ in range(20)]])
    assert 1.2 <= committed_at[0] < 1.5

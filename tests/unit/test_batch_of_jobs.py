"""Many jobs over one connection after the other: each has one outcome, whatever becomes of the connections."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_attempts import Links

from iot.transfer.attempts import Attempts, Patience
from iot.transfer.batch import Batch, Ticket, failure
from iot.transfer.errors import (
    AuthenticationError,
    LinkLost,
    NotFound,
    ProofFailed,
    ServerBusy,
    Timeout,
    TransferError,
)
from iot.transfer.model import DownloadJob, Failure, Finished, TransferResult, UploadJob
from iot.transfer.stop import StopFlag


def result_of(job: Any, sent_bytes: int = 0) -> TransferResult:
    return TransferResult(str(job.source), str(job.dest), 1, sent_bytes, 0, 0.1, None)


class Books:
    """Notes what becomes of the checkpoints."""

    def __init__(self) -> None:
        self.flushed = 0
        self.forgotten: list[Any] = []

    def flush(self) -> None:
        self.flushed += 1

    def forget_keys(self, keys: Any) -> None:
        self.forgotten += keys


class Jobs(Batch[Any, UploadJob, Any]):
    """ends: what each job's attempts end with, in turn; a job that is not named succeeds. seen: all that was pulled."""

    def __init__(self, attempts: int = 3, **options: Any) -> None:
        self.links, self.books, self.stop = Links(), Books(), StopFlag()
        loop = Attempts(self.links, Patience(attempts, 0.0, 0.0), self.stop)  # type: ignore[arg-type]
        super().__init__(loop, self.books, **options)  # type: ignore[arg-type]
        self.ends: dict[str, list[Any]] = {}
        self.seen: list[Any] = []
        self.calls: list[str] = []
        self.beside: list[Any] = []
        self.less = False

    def _connected(self, connection: Any) -> None:
        self.calls.append("connected")

    def _leave(self, connection: Any) -> None:
        self.calls.append("leave")

    def _cancelled(self) -> None:
        self.calls.append("cancelled")

    def _fewer(self, ticket: Any, connection: Any) -> bool:
        self.calls.append("fewer")
        return self.less

    def _beside(self, connection: Any) -> Any:
        return self.beside.pop(0) if self.beside else None

    def _work(self, ticket: Ticket[UploadJob], connection: Any) -> Any:
        end = (self.ends.get(str(ticket.job.source)) or [None]).pop(0)
        if end == "later":
            self._again.append(ticket)
            return None
        return Finished(ticket, result_of(ticket.job), end)

    def _results(self, connection: Any, work: Iterator[Any]) -> Iterator[Finished]:
        for each in work:
            self.seen.append(each.tag.job.source if isinstance(each, Finished) and each.tag else each)
            if isinstance(each, Finished):
                yield each
                if isinstance(each.error, (LinkLost, Timeout)):
                    raise each.error

    def _checkpoint_key(self, result: TransferResult) -> Any:
        return result.source

    def outcomes(self, *names: str | None) -> list[str]:
        jobs = [UploadJob(name, f"/{name}", key=name) if name else None for name in names]
        return [
            f"{each.key}: {each.error}" if isinstance(each, Failure) else f"{each.key} done" for each in self.run(jobs)
        ]


def test_every_job_has_one_outcome_and_its_checkpoint_goes() -> None:
    jobs = Jobs()
    jobs.ends = {"b": [NotFound("gone")]}
    assert jobs.outcomes("a", "b", "c") == ["a done", "b: gone", "c done"]
    assert (jobs.books.forgotten, jobs.books.flushed) == (["a", "c"], 1)
    assert (jobs.calls, jobs.links.dialled) == (["connected"], 1)


def test_without_a_job_nothing_is_asked_of_the_connection() -> None:
    jobs = Jobs()
    assert jobs.outcomes() == []
    assert (jobs.seen, jobs.books.flushed) == ([], 1)


def test_checkpoints_may_be_held() -> None:
    jobs = Jobs(hold=True)
    assert jobs.outcomes("a") == ["a done"]
    assert jobs.books.forgotten == []


@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("late")])
def test_a_job_goes_on_over_the_next_connection(error: TransferError) -> None:
    jobs = Jobs()
    jobs.ends = {"a": [error]}
    assert jobs.outcomes("a", "b") == ["a done", "b done"]
    assert (jobs.calls, jobs.links.dialled) == (["connected"] * 2, 2)
    assert jobs.books.flushed == 2  # what is noted is on the disk before the next connection is made


def test_what_was_interrupted_goes_on_even_if_nothing_was_to_be_resumed() -> None:
    for resume in (True, False):
        jobs, ticket = Jobs(resume=resume), Ticket(UploadJob("a", "/a"))
        assert jobs._resumes(ticket) is resume
        assert not jobs._outcome(Finished(ticket, error=LinkLost("cut")), None)
        assert jobs._resumes(ticket)
    assert Jobs()._resumes(Ticket(UploadJob("a", "/a")))


def test_jobs_in_flight_fail_with_the_link_when_no_attempt_is_left() -> None:
    jobs = Jobs(attempts=2)
    jobs.ends = {"a": [LinkLost("cut")] * 9}
    assert jobs.outcomes("a", "b") == ["a: cut"]
    assert jobs.links.dialled == 2


def test_a_link_that_cannot_be_made_is_raised_where_no_job_waits_for_it() -> None:
    jobs = Jobs(attempts=1)
    jobs.links.script = [LinkLost("refused")]
    with pytest.raises(LinkLost, match="refused"):
        jobs.outcomes("a")
    assert jobs.books.flushed == 1
    jobs = Jobs()
    jobs.links.script = [AuthenticationError("no")]
    with pytest.raises(AuthenticationError):
        jobs.outcomes("a")
    assert jobs.books.flushed == 1


def test_every_success_begins_the_count_of_attempts_anew() -> None:
    jobs = Jobs(attempts=2)
    jobs.ends = {name: [LinkLost("cut")] for name in "abcdef"}
    assert jobs.outcomes(*"abcdef") == [f"{name} done" for name in "abcdef"]


def test_a_link_that_is_lost_when_nothing_is_left_is_left_alone() -> None:
    class Late(Jobs):
        def _results(self, connection: Any, work: Iterator[Any]) -> Iterator[Finished]:
            yield from super()._results(connection, work)
            raise LinkLost("after the last")

    jobs = Late()
    assert jobs.outcomes("a") == ["a done"]
    assert (jobs.calls, jobs.links.dialled, jobs.books.flushed) == (["connected", "leave"], 1, 2)


class Eager(Jobs):
    """Pulls all jobs before the first of them ends."""

    def _results(self, connection: Any, work: Iterator[Any]) -> Iterator[Finished]:
        yield from super()._results(connection, iter([*work]))


def test_a_link_that_is_lost_with_the_last_job_in_flight_is_made_again() -> None:
    jobs = Eager()
    jobs.ends = {"b": [LinkLost("cut")]}
    assert jobs.outcomes("a", "b") == ["a done", "b done"]
    assert jobs.calls == ["connected"] * 2


def test_a_link_that_is_lost_between_two_jobs_is_made_again() -> None:
    class Shaky(Jobs):
        def _results(self, connection: Any, work: Iterator[Any]) -> Iterator[Finished]:
            if self.links.dialled == 1:
                raise LinkLost("before the first")
            return super()._results(connection, work)

    jobs = Shaky()
    assert jobs.outcomes("a") == ["a done"]
    assert jobs.calls == ["connected"] * 2


def test_a_cancel_ends_what_waits_and_asks_for_nothing_more() -> None:
    jobs = Jobs()
    jobs.ends = {"a": ["later"], "b": [LinkLost("cut")]}
    jobs.stop.set()
    told = "stopped on request; what was sent is kept for a resume"
    assert sorted(jobs.outcomes("a", "b", "c")) == ["a done", f"b: {told}"]
    assert jobs.calls == ["connected", "cancelled"]


# -- what is pulled, and when


def test_a_job_that_is_not_to_be_had_yet_is_a_pause() -> None:
    jobs = Jobs()
    jobs.ends = {"b": ["later", None]}
    assert jobs.outcomes(None, "a", "b", None) == ["a done", "b done"]
    assert jobs.seen == [None, "a", None, "b", None]


def test_work_beside_the_jobs_comes_after_each_of_them_and_has_no_outcome() -> None:
    jobs = Jobs()
    jobs.beside = [Finished(None), None, "more"]
    assert jobs.outcomes(None, "a", "b", "c") == ["a done", "b done", "c done"]
    assert jobs.seen == [None, "a", Finished(None), "b", "c", "more"]


def test_attempts_are_numbered_over_all_jobs() -> None:
    jobs, turns = Jobs(), []
    work: Callable[..., Any] = jobs._work
    jobs._work = lambda ticket, link: turns.append(ticket.turn) or work(ticket, link)  # type: ignore[method-assign]
    jobs.ends = {"a": [LinkLost("cut")]}
    jobs.outcomes("a", "b")
    assert turns == [1, 2, 3]
    assert Ticket(UploadJob("a", "/a")).turn == 0


# -- a job that fails, and goes again


def test_a_download_whose_proof_failed_is_fetched_once_more() -> None:
    for fetches, ends in ((True, ["a done", "b: two"]), (False, ["a: one", "b: one"])):
        jobs = Jobs()
        jobs.fetches = fetches
        jobs.ends = {"a": [ProofFailed("one")], "b": [ProofFailed("one"), ProofFailed("two")]}
        assert sorted(jobs.outcomes("a", "b")) == ends
    assert Batch.fetches is False


def test_a_busy_server_is_asked_again_if_less_at_once_may_do() -> None:
    for less, ends in ((True, ["a done"]), (False, ["a: full"])):
        jobs = Jobs()
        jobs.less = less
        jobs.ends = {"a": [ServerBusy("full")]}
        assert jobs.outcomes("a") == ends
        assert jobs.calls == ["connected", "fewer"]
    jobs = Jobs()
    jobs.less = True
    jobs.ends = {"a": [NotFound("gone")]}
    assert jobs.outcomes("a") == ["a: gone"]


def test_a_result_counts_what_all_attempts_have_moved_and_has_the_callers_key() -> None:
    jobs, key = Jobs(), object()
    ticket = Ticket(UploadJob("a", "/a", key=key), moved_bytes=70)
    told = jobs._outcome(Finished(ticket, result_of(ticket.job, 30)), None)
    assert isinstance(told, TransferResult)
    assert (told.sent_bytes, told.key) == (70, key)
    whole = TransferResult("a", "/a", 1, 70, 0, 0.1, None, key=key)
    assert jobs._outcome(Finished(ticket, whole), None) is whole
    assert Ticket(ticket.job).moved_bytes == 0


# -- how a failed job is shown


class Place:
    """A path of the caller's own kind."""

    def __fspath__(self) -> bytes:
        return b"/box/file\xff"


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("file", "file"),
        (b"file\xff", "file\udcff"),
        (Path("/box/file"), "/box/file"),
        (Place(), "/box/file\udcff"),
        (io.BytesIO(), "stream"),
        (SimpleNamespace(seek=len, name="open file"), "open file"),
        (SimpleNamespace(seek=len, name=7), "7"),
        (7, "7"),
    ],
)
def test_a_failure_names_its_job_as_the_caller_wrote_it(place: Any, shown: str) -> None:
    error = NotFound("gone")
    assert failure(UploadJob(place, "/far", key=7), error) == Failure(7, shown, "/far", error)
    assert failure(DownloadJob("/far", place, key=7), error) == Failure(7, "/far", shown, error)

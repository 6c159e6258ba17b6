"""The downloads of one call: what is fetched once more, and after what."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.downloads import Downloads
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.download import Download
from iot.sftp.client.pipeline.job import Job
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.server import Server
from iot.sftp.client.settings import ClientOptions
from iot.transfer.errors import ConfigurationError, LinkLost, NameRefused, NotFound, ProofFailed, ServerBusy, SFTPError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.landing import DownloadTask, Landing
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import DownloadJob, Failure, Finished, TransferResult
from iot.transfer.options import TransferOptions


@dataclass
class Links:
    """Connections; `ends` says how each job ends, in the order in which they are taken up. together: in one flight."""

    folder: Path
    ends: list[SFTPError | None]
    asked: list[tuple[object, bool]] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    connections: int = 1
    together: int = 1

    def __post_init__(self) -> None:
        self.ledger = Checkpoints(Journal(None, CHECKPOINTS), "s", every_bytes=1, every_s=1, clock=lambda: 0.0)
        server = Server("SSH-2.0-test", "key", {})
        context = Context(server, Pace(2**20, 2**15), self.ledger, TransferOptions(), lambda: 0.0)
        self.session = SimpleNamespace(slots=16, context=context, pipeline=self)

    def attempts(self, tick: Callable[[], None], harmless: tuple[type[SFTPError], ...]) -> Links:
        return self

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.connections):
            yield self

    def __enter__(self) -> Any:
        return self.session

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, LinkLost)

    def progressed(self) -> None: ...

    def drop(self) -> None: ...

    def run(self, jobs: Iterator[Any], slots: Callable[[], int], tick: Callable[[], None]) -> Iterator[Finished]:
        while flight := list(itertools.islice(filter(None, jobs), self.together)):
            for job in flight:
                self.slots.append(slots())
                error = self._end_of(job)
                yield Finished(job.tag, None if error else self._result(job.tag.job), error)
                if isinstance(error, LinkLost):
                    raise error

    def _end_of(self, job: Job[Any]) -> SFTPError | None:
        try:
            next(job.work)
        except SFTPError as own:
            return own
        self.asked.append((job.tag.job.key, job.work.gi_frame.f_locals["context"].options.resume))  # type: ignore[attr-defined]
        job.work.close()
        return self.ends.pop(0)

    def _result(self, job: DownloadJob) -> TransferResult:
        return TransferResult(str(job.source), str(job.dest), 1, 1, 0, 0.0, None)

    def fetch(self, count: int = 1, locks: TransferLocks | None = None, **options: Any) -> list[Any]:
        jobs = [DownloadJob(f"/far/{number}", self.folder / str(number), key=number) for number in range(count)]
        return self.fetch_these(jobs, locks, **options)

    def fetch_these(self, jobs: list[Any], locks: TransferLocks | None = None, **options: Any) -> list[Any]:
        settings = ClientOptions()
        made = Downloads(self, self.ledger, locks or TransferLocks(None), settings, **options)  # type: ignore[arg-type]
        return list(made.run(jobs))


def kinds(outcomes: list[Any]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


def test_what_fails_its_proof_is_fetched_once_more_and_only_once(tmp_path: Path) -> None:
    differs = ProofFailed("differs")
    links = Links(tmp_path, [differs, None, None])
    assert [outcome.key for outcome in links.fetch(2)] == [0, 1]
    [told] = Links(tmp_path, [differs, differs]).fetch()
    assert isinstance(told, Failure)
    assert told.error is differs


def test_what_a_lost_link_interrupts_goes_on_even_if_everything_was_to_start_over(tmp_path: Path) -> None:
    links = Links(tmp_path, [LinkLost("cut"), None, None], connections=2)
    assert kinds(links.fetch(2, resume=False)) == [TransferResult] * 2
    assert links.asked == [(0, False), (0, True), (1, False)]


def test_what_all_attempts_have_moved_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Download, "received_bytes", 7)
    [told] = Links(tmp_path, [LinkLost("cut"), None], connections=2).fetch()
    assert told.sent_bytes == 14


def test_checkpoints_are_on_the_disk_before_the_next_connection_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be long in coming."""
    links, told = Links(tmp_path, [LinkLost("cut"), None], connections=2), []
    monkeypatch.setattr(links.ledger, "flush", lambda: told.append("flush"))
    monkeypatch.setattr(Downloads, "_connected", lambda *_: told.append("connected"))
    links.fetch()
    assert told[:3] == ["connected", "flush", "connected"]


def test_a_server_without_handles_gets_half_as_many_at_once_and_the_file_goes_again(tmp_path: Path) -> None:
    links = Links(tmp_path, [ServerBusy("no handle"), None, None])
    assert kinds(links.fetch(2)) == [TransferResult] * 2
    assert links.slots == [16, 8, 8]


def test_one_flight_of_refusals_takes_half_of_the_slots_once(tmp_path: Path) -> None:
    busy = ServerBusy("no handle")
    links = Links(tmp_path, [None, *[busy] * 4, None, None, None], together=4)
    assert kinds(links.fetch(4)) == [TransferResult] * 4
    assert links.slots == [16, 16, *[8] * 3, 4, 4, 4]


def test_a_job_that_cannot_be_carried_out_fails_alone(tmp_path: Path) -> None:
    jobs = [
        DownloadJob("", tmp_path / "a", key="empty"),
        DownloadJob("/far/b", tmp_path / "b", key="hash", sha256="abc"),
        DownloadJob("/far/c", 5, key="number"),  # type: ignore[arg-type]
        DownloadJob("/far/d", tmp_path / "d", key="good"),
    ]
    told = {outcome.key: outcome for outcome in Links(tmp_path, [None]).fetch_these(jobs)}
    assert isinstance(told["good"], TransferResult)
    errors = {key: type(outcome.error) for key, outcome in told.items() if key != "good"}
    assert errors == {"empty": NameRefused, "hash": ConfigurationError, "number": ConfigurationError}


def test_another_refusal_ends_the_file_alone(tmp_path: Path) -> None:
    links = Links(tmp_path, [NotFound("gone"), None])
    assert kinds(links.fetch(2)) == [Failure, TransferResult]
    assert links.slots == [16, 16]


def test_a_destination_that_another_transfer_writes_to_is_refused(tmp_path: Path) -> None:
    locks = TransferLocks(None)
    (tmp_path / "link").symlink_to(tmp_path)
    with_lock = Landing(DownloadTask(b"x", str(tmp_path / "link" / "0")), TransferOptions(), print, print, lambda: 0.0)
    locks.take(with_lock.lock_name)
    [told] = Links(tmp_path, []).fetch(1, locks)
    assert isinstance(told.error, Busy)
    assert str(tmp_path / "0") in str(told.error)

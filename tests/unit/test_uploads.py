"""Many uploads over one connection: what becomes of a job that the server has no handle for right now."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.finals import Finals
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.pipeline import Finished
from iot.sftp.client.protocol.server import Server
from iot.sftp.client.uploads import SMALL_BYTES, Uploads
from iot.transfer.batch import Ticket
from iot.transfer.errors import NameRefused, NotFound, ServerBusy, SFTPError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import Failure, IfExists, Proof, TransferResult, UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.source import Source


@dataclass
class Links:
    """One connection; `ends` says how each job ends, in the order in which they are taken up."""

    ends: list[SFTPError | None]
    slots: list[int] = field(default_factory=list)
    dropped: int = 0
    progress: int = 0

    def __post_init__(self) -> None:
        server = Server("SSH-2.0-test", "key", {})
        ledger = Checkpoints(Journal(None, CHECKPOINTS), "s", every_bytes=1, every_s=1, clock=time.monotonic)
        context = Context(server, Pace(2**20, 2**15), ledger, TransferOptions(), time.monotonic)
        self.engine = SimpleNamespace(slots=16, context=context, pipeline=self)

    def attempts(self, tick: Callable[[], None], harmless: tuple[type[SFTPError], ...]) -> Links:
        return self

    def __iter__(self) -> Iterator[Any]:
        yield self

    def __enter__(self) -> Any:
        return self.engine

    def __exit__(self, *_: object) -> None:
        pass

    def progressed(self) -> None:
        self.progress += 1

    def drop(self) -> None:
        self.dropped += 1

    def run(self, jobs: Iterator[Any], slots: Callable[[], int], tick: Callable[[], None]) -> Iterator[Finished]:
        for job in jobs:
            if job is None:
                continue
            self.slots.append(slots())
            try:
                next(job.work)
                job.work.close()
                error = self.ends.pop(0)
            except SFTPError as own:
                error = own
            yield Finished(job.tag, None if error else _result(job.tag.job), error)


def _result(job: UploadJob) -> TransferResult:
    return TransferResult(job.source, job.dest, 1, 1, 0, 0.0, Proof.SIZE)  # type: ignore[arg-type]


def batch(
    links: Links, tmp_path: Path, count: int, locks: TransferLocks | None = None
) -> list[TransferResult | Failure]:
    jobs = []
    for number in range(count):
        (tmp_path / f"f{number}").write_text("x")
        jobs.append(UploadJob(str(tmp_path / f"f{number}"), f"/up/f{number}", key=number))
    made = Uploads(
        links,  # type: ignore[arg-type]
        links.engine.context.ledger,
        locks or TransferLocks(None),
        stale_part_s=0,
        hold=True,
    )
    return list(made.run(jobs))


def test_a_server_without_handles_left_gets_half_as_many_at_once_and_the_file_goes_again(tmp_path: Path) -> None:
    links = Links([ServerBusy("no handle"), None, None])
    told = batch(links, tmp_path, 2)
    assert [type(outcome) for outcome in told] == [TransferResult, TransferResult]
    assert links.slots == [16, 8, 8]
    assert links.progress == 2, "every file that is delivered says that the connection is good"


@pytest.mark.parametrize(("given", "forgotten"), [({}, 1), ({"hold": False}, 1), ({"hold": True}, 0)])
def test_what_is_delivered_is_forgotten_unless_its_record_is_to_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, bool], forgotten: int
) -> None:
    links = Links([None])
    ledger, keys = links.engine.context.ledger, []
    monkeypatch.setattr(ledger, "forget_keys", keys.extend)
    (tmp_path / "f").write_text("x")
    made = Uploads(links, ledger, TransferLocks(None), stale_part_s=0, **given)  # type: ignore[arg-type]
    assert len(list(made.run([UploadJob(str(tmp_path / "f"), "/up/f")]))) == 1
    assert len(keys) == forgotten


@pytest.mark.parametrize("times", [4, 9])
def test_one_file_at_a_time_is_always_tried(tmp_path: Path, times: int) -> None:
    links = Links([ServerBusy("no handle")] * times + [None])
    assert [type(outcome) for outcome in batch(links, tmp_path, 1)] == [TransferResult]
    assert links.slots[-1] == 1


def test_another_refusal_ends_the_file_and_takes_no_slot_away(tmp_path: Path) -> None:
    links = Links([NotFound("no folder"), None])
    assert [type(outcome) for outcome in batch(links, tmp_path, 2)] == [Failure, TransferResult]
    assert links.slots == [16, 16]


@pytest.mark.needs("proc")
def test_the_source_of_a_transfer_that_is_under_way_elsewhere_is_not_left_open(tmp_path: Path) -> None:
    class Taken(TransferLocks):
        def take(self, name: bytes) -> None:
            raise Busy("under way elsewhere")

    before = os.listdir("/proc/self/fd")
    [told] = batch(Links([]), tmp_path, 1, Taken(None))
    assert isinstance(told, Failure)
    assert isinstance(told.error, Busy), "its traceback keeps all that was not closed"
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_small_files_go_before_large_ones_of_the_same_priority_and_priority_counts_first(tmp_path: Path) -> None:
    urgencies = []
    for name, size, priority in [
        ("small", SMALL_BYTES, 5),
        ("large", SMALL_BYTES + 1, 5),
        ("urgent", 9 * SMALL_BYTES, 1),
    ]:
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        links = Links([None])
        made = Uploads(links, links.engine.context.ledger, TransferLocks(None), stale_part_s=0)  # type: ignore[arg-type]
        job = UploadJob(str(tmp_path / name), f"/up/{name}", priority=priority)
        work = made._work(Ticket(job), links.engine)
        urgencies.append(work.urgency)
        work.work.close()
    small, large, urgent = urgencies
    assert urgent < small < large


def test_each_name_that_a_file_may_get_is_checked(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    context = Links([]).engine.context
    job = UploadJob(str(tmp_path / "f"), "/up/f", if_exists=IfExists.RENAME, alternatives=("/up/g", "/up/" + "h" * 256))
    with contextlib.closing(Source(job.source)) as source:
        finals = Finals(context, job, source)
        with pytest.raises(NameRefused):
            finals.check_names()

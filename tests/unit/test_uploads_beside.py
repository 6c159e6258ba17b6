"""Uploads beside one another: what they have in common, what one waits for, and what it gives back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.remote_commands import command
from unit.scripted import Clock, Files, drive

from iot.sftp.client.batch import SFTPBatch
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.upload import Upload
from iot.sftp.client.pipeline.job import Barrier, Linger, Send
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.pipeline import Finished
from iot.sftp.client.protocol.server import Server
from iot.sftp.client.uploads import Uploads
from iot.transfer.batch import Ticket
from iot.transfer.errors import Cancelled, LinkLost, PermissionDenied, SFTPError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Token, UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.remote_commands import RemoteCommands
from iot.transfer.source import Source

HOUR = 3600.0
FOLLOWED = RemoteCommands(after_success=(command("chmod", "{path}", mode=0o640),), base="/up")


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Checkpoints(Journal(None, CHECKPOINTS), "s", every_bytes=1, every_s=1, clock=time.monotonic)
        self.locks = TransferLocks(None)
        self.files = Files()
        self.general = TransferOptions(owner="me")

    def connection(self) -> Any:
        context = Context(
            Server("SSH-2.0-test", "key", {b"posix-rename@openssh.com": b"1"}),
            Pace(2**20, 2**15),
            self.ledger,
            self.general,
            Clock(),
        )
        return SimpleNamespace(slots=16, context=context)

    def uploads(self, connection: Any = None, **given: Any) -> Uploads:
        links: Any = SimpleNamespace(attempts=lambda *_, **__: None)
        made = Uploads(links, self.ledger, self.locks, **{"stale_part_s": HOUR, **given})
        made._connected(connection or self.connection())
        return made

    def job(self, name: str = "f", content: bytes = b"content", **more: Any) -> UploadJob:
        (self.folder / name).write_bytes(content)
        return UploadJob(self.folder / name, f"/up/{name}", **more)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# -- the options of a job


def test_jobs_with_the_same_options_have_the_same_context(lab: Lab) -> None:
    connection = lab.connection()
    uploads = lab.uploads(connection, sha256=True)
    plain, timed = Ticket(lab.job()), Ticket(lab.job(keep_times=True))
    first = uploads._context(plain, connection)
    assert uploads._context(Ticket(lab.job()), connection) is first
    assert uploads._context(timed, connection) is not first
    assert first.server is connection.context.server
    assert (first.options.resume, first.options.sha256, first.options.keep_times) == (True, True, False)


@pytest.mark.parametrize(("general", "own"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_job_keeps_its_times_if_it_or_the_setting_says_so(lab: Lab, general: bool, own: bool) -> None:
    lab.general = TransferOptions(keep_times=general)
    connection = lab.connection()
    context = lab.uploads(connection)._context(Ticket(lab.job(keep_times=own)), connection)
    assert context.options.keep_times is (general or own)


@pytest.mark.parametrize(("resume", "interrupted"), [(True, False), (False, False), (False, True)])
def test_only_what_is_to_start_over_does_not_resume(lab: Lab, resume: bool, interrupted: bool) -> None:
    connection = lab.connection()
    ticket = Ticket(lab.job(), interrupted=interrupted)
    context = lab.uploads(connection, resume=resume)._context(ticket, connection)
    assert context.options.resume is (resume or interrupted)


def test_a_new_connection_has_contexts_of_its_own(lab: Lab) -> None:
    first, second = lab.connection(), lab.connection()
    uploads = lab.uploads(first)
    ticket = Ticket(lab.job())
    assert uploads._context(ticket, first).server is first.context.server
    uploads._connected(second)
    assert uploads._context(ticket, second).server is second.context.server


# -- its turn


def test_a_job_tells_how_large_it_is_and_whose_share_it_has(lab: Lab) -> None:
    connection = lab.connection()
    uploads = lab.uploads(connection)
    with (lab.folder / "open").open("w+b") as stream:
        jobs = {
            "by its source": lab.job(share="box", content=b"12345"),
            "by what is known": lab.job(fingerprint=Fingerprint(7, 0)),
            "not there": UploadJob(lab.folder / "missing", "/up/missing"),
            "a stream": UploadJob(stream, "/up/stream"),
            "a path in bytes": UploadJob(bytes(lab.folder / "f"), "/up/f"),
        }
        lab.job(content=b"12345")
        work = {name: uploads._work(Ticket(job), connection) for name, job in jobs.items()}
    assert {name: job.payload_bytes for name, job in work.items()} == {
        "by its source": 5,
        "by what is known": 7,
        "not there": 0,
        "a stream": 0,
        "a path in bytes": 5,
    }
    assert (work["by its source"].share, work["by its source"].tag.job) == ("box", jobs["by its source"])


def test_what_was_sent_counts_for_the_ticket_and_the_name_is_free_again(lab: Lab) -> None:
    connection = lab.connection()
    uploads, ticket = lab.uploads(connection), Ticket(lab.job(content=b"12345"))
    for attempt in (1, 2):
        result = drive(uploads._work(ticket, connection).work, lab.files)
        assert result.sent_bytes == 5
        assert ticket.moved_bytes == 5 * attempt


# -- waiting for another one


def test_an_upload_waits_until_its_old_part_is_removed(lab: Lab) -> None:
    connection = lab.connection()
    uploads = lab.uploads(connection)
    job = lab.job()
    other = Upload(job, Source(job.source), connection.context)
    other.source.close()
    work = uploads._work(Ticket(job), connection).work
    uploads._abandoned.removing.add(other.part)
    assert next(work) == Linger(0.05)
    assert work.send([]) == Linger(0.05)
    uploads._abandoned.removing.clear()
    assert isinstance(work.send([]), Send)
    work.close()


@pytest.mark.parametrize(("followed", "waits"), [(True, True), (False, False)])
def test_a_file_for_the_same_name_waits_for_the_commands_that_follow(lab: Lab, followed: bool, waits: bool) -> None:
    connection = lab.connection()
    uploads = lab.uploads(connection)
    commands = {"commands": FOLLOWED} if followed else {}
    first = uploads._work(Ticket(lab.job("f", **commands)), connection).work
    assert isinstance(next(first), Send | Barrier)
    (lab.folder / "g").write_bytes(b"another")
    second = uploads._work(Ticket(UploadJob(lab.folder / "g", "/up/f")), connection).work
    elsewhere = uploads._work(Ticket(lab.job("h")), connection).work
    assert isinstance(next(second), Linger) is waits
    assert not isinstance(next(elsewhere), Linger)
    first.close()
    assert not isinstance(second.send([]), Linger)
    second.close()
    elsewhere.close()


# -- what was sent before


@pytest.mark.parametrize(
    ("sent_before", "version", "as_before"),
    [
        ("same", None, True),
        ("same", "same", True),
        ("same", "other", False),
        ("other", None, False),
        (None, None, False),
    ],
)
def test_content_that_was_delivered_before_is_not_sent_again(
    lab: Lab, sent_before: str | None, version: str | None, as_before: bool
) -> None:
    job = lab.job(content=b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    here = Fingerprint.of((lab.folder / "f").stat())
    given = {
        "sent_before": {"same": digest, "other": "0" * 64, None: None}[sent_before],
        "fingerprint": {"same": here, "other": Fingerprint(1, 1), None: None}[version],
    }
    connection = lab.connection()
    ticket = Ticket(UploadJob(job.source, job.dest, **given))
    work = lab.uploads(connection)._work(ticket, connection).work
    if version == "other":
        with pytest.raises(SFTPError, match="no longer the version"):
            drive(work, lab.files)
    else:
        result = drive(work, lab.files)
        assert (result.already_done, result.sha256 == digest) == (as_before, as_before)
    assert (lab.files.events == []) is (as_before or version == "other")


def test_a_source_that_changes_while_it_is_compared_is_not_called_delivered(lab: Lab) -> None:
    job = lab.job(content=b"content", sent_before=hashlib.sha256(b"content").hexdigest())
    connection = lab.connection()
    work = lab.uploads(connection)._work(Ticket(job), connection).work
    next(work)  # the first block is hashed
    (lab.folder / "f").write_bytes(b"more content")
    with pytest.raises(SFTPError, match="changed during the upload"):
        drive(work, lab.files)
    assert lab.files.events == []


# -- abandoned parts


@pytest.mark.parametrize(("age_s", "is_old"), [(HOUR + 60, True), (HOUR - 60, False)])
def test_parts_are_abandoned_when_nothing_has_happened_for_so_long(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, age_s: float, is_old: bool
) -> None:
    record = Checkpoint(
        Direction.UPLOAD, b"/up/x", bytes(lab.folder / "gone"), Token(b"/up/x.part"), Fingerprint(3, 10**18), 1, 1
    )
    lab.ledger.commit([record])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + age_s)
    removal = lab.uploads()._beside(lab.connection())
    assert (removal is not None) is is_old
    if removal is not None:
        lab.files.content[b"/up/x.part"] = bytearray(b"old")
        drive(removal.work, lab.files)
        assert lab.files.content == {}
        assert removal.urgency > (2**31, 1)


# -- the end of a batch


class Ending(SFTPBatch[UploadJob]):
    def _checkpoint_key(self, result: Any) -> Any:
        return None

    def _work(self, ticket: Any, connection: Any) -> Any:
        return SimpleNamespace(tag=ticket)


class Links:
    """One connection, which ends with an error when everything is done."""

    def __init__(self, error: SFTPError) -> None:
        self.error = error
        self.done: list[str] = []
        self.pipeline = self

    def attempts(self, tick: Any, harmless: tuple[type[SFTPError], ...]) -> Any:
        self.done.append(f"harmless: {len(harmless)}")
        return self

    def __iter__(self) -> Iterator[Any]:
        yield self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, jobs: Iterator[Any], slots: Any, tick: Any) -> Iterator[Finished]:
        for job in jobs:
            yield Finished(job.tag, error=PermissionDenied("no"))
        raise self.error

    def drop(self) -> None:
        self.done.append("drop")

    def close(self) -> None:
        self.done.append("close")


@pytest.mark.parametrize(("error", "then"), [(LinkLost("cut"), "drop"), (Cancelled("stop"), "close")])
def test_a_connection_that_is_lost_at_the_end_is_dropped_and_a_cancel_drops_all(
    lab: Lab, error: SFTPError, then: str
) -> None:
    links: Any = Links(error)
    batch = Ending(links, lab.ledger, lab.locks, resume=True, hold=False, tick=lambda: None)
    assert len(list(batch.run([lab.job()]))) == 1
    assert links.done == ["harmless: 0", then]

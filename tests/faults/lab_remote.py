"""The server as the laboratory's agent sees it: a folder that says everything that is done there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unit.folder_remote import FolderRemote

from iot.folder import FolderClient
from iot.sftp.client import Failure, Journal, LinkLost, PermissionDenied, Proof, TransferResult
from iot.transfer.errors import SFTPError, SourceChanged
from iot.transfer.model import Span
from iot.transfer.source import Source

if TYPE_CHECKING:
    from faults.lab_process import Loop

__all__ = ["LabRemote"]

BLOCK = 1000
IDLE_ROUNDS = 1000


class LabRemote(FolderRemote):
    """Reads a source as the client does, in blocks, and publishes with a rename; says everything it does.

    Downloads are those of the product's client of a folder. Between a look at a remote file and its removal nobody
    acts: no protocol excludes that.
    """

    def __init__(self, root: Path, loop: Loop, journal: Journal) -> None:
        super().__init__(root)
        self._loop = loop
        self._idle = 0
        self._client = FolderClient(root, journal=journal, connections=1, backoff_s=0.0, attempts=1)

    def download_many(self, jobs: Any, **keywords: Any) -> Iterator[Any]:
        self._reach()
        for number, outcome in enumerate(self._client.download_many(jobs, **keywords), 1):
            self._loop.step()  # the answer may be lost
            yield outcome
            if number == self._loop.order.cut_after:
                self._loop.line.send(("cut",))
                self._loop.order = self._loop.order._replace(cut_after=0)
                raise LinkLost("cut")

    def scan(self, path: str, **keywords: Any) -> Any:
        self._reach()
        with self._loop.unseen():
            return self._client.scan(path, **keywords)

    def stat(self, path: str) -> Any:
        self._reach()
        with self._loop.unseen():
            return self._client.stat(path)

    def delete(self, path: str) -> None:
        self._removing(path)
        with self._loop.unseen():
            self._client.delete(path)
        self._loop.step()

    def move(self, source: str, dest: str) -> None:
        self._removing(source)
        with self._loop.unseen():
            self._client.move(source, dest)
        self._loop.step()

    def close(self) -> None:
        self._client.close()

    def _reach(self) -> None:
        self._loop.step()
        if self._loop.order.away:
            raise LinkLost("no route to the server")

    def _removing(self, path: str) -> None:
        with self._loop.unseen():
            content = (self.root / path.lstrip("/")).read_bytes()
        self._loop.line.send(("removed", path.lstrip("/").partition("/")[2], content))
        self._loop.line.recv()

    def upload_many(self, jobs: Any, **keywords: Any) -> Iterator[Any]:
        order = self._loop.order
        self.lose_after = [order.cut_after] if order.cut_after else []
        if order.away:
            raise LinkLost("no route to the server")
        for outcome in super().upload_many(jobs, **keywords):
            if isinstance(outcome, Failure) and isinstance(outcome.error, LinkLost):
                self._loop.line.send(("cut",))
                self._loop.order = self._loop.order._replace(cut_after=0)
            yield outcome

    def _fill(self, jobs: Any) -> bool:
        """While hooks hang, the agent has no file for a connection that stands, for hours."""
        exhausted = super()._fill(jobs)
        self._idle = 0 if self.in_flight or exhausted else self._idle + 1
        if self._idle > IDLE_ROUNDS:
            self._idle = 0
            raise LinkLost("the server has ended a session in which nothing happened")
        return exhausted

    def _deliver(self, job: Any) -> TransferResult | Failure:
        try:
            self._loop.line.send(("begun", job.dest))
            if any(word in job.dest for word in self._loop.order.refused):
                raise PermissionDenied(f"{job.dest!r} is not taken here")
            return self._publish(job)
        except SFTPError as error:
            return Failure(job.key, job.source, job.dest, error)

    def _publish(self, job: Any) -> TransferResult:
        source = Source(job.source)
        try:
            if source.fingerprint != job.fingerprint:
                raise SourceChanged("another version")
            size = source.fingerprint.size
            content = b"".join(source.read(Span(at, min(at + BLOCK, size))) for at in self._blocks(size))
            source.check_unchanged()
        finally:
            source.close()
        target = self.root / job.dest.lstrip("/")
        stands = job.check_final and target.is_file() and target.read_bytes() == content
        if not stands:
            self._put(target, content)
            self._loop.line.send(("published", job.dest, content))
        self._loop.step()  # the answer may be lost
        values = {"key": job.key, "fingerprint": job.fingerprint, "already_done": stands}
        return TransferResult(job.source, job.dest, size, size, 0, 0.0, Proof.SIZE, **values)

    def _blocks(self, size: int) -> Iterator[int]:
        for at in range(0, size, BLOCK):
            self._loop.step()
            yield at

    def _put(self, target: Path, content: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = self.root / "part"
        part.write_bytes(content)
        shutil.move(part, target)

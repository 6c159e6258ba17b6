"""A remote that is a local folder, with failures on request: what the agent's tests run against without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from iot.sftp.client import Cancelled, Failure, Fingerprint, LinkLost, Proof, SourceChanged, TransferResult
from iot.transfer import Wire


class FolderRemote:
    """Keeps up to `slots` jobs in flight and finishes the most urgent one at a time.

    lose_after: a list of numbers; after so many deliveries the link is lost with all that is in flight.
    refuse: destination -> error. before: called with each job before it is delivered.
    """

    def __init__(self, root: Path, slots: int = 8) -> None:
        self.root = root
        self.slots = slots
        self.lose_after: list[int] = []
        self.refuse: dict[str, Exception] = {}
        self.cannot_connect: list[Exception] = []
        self.before = lambda job: None
        self.deliveries: list[str] = []
        self.in_flight: list = []
        self.settled: list = []
        self.given_up: list = []
        self.cancelled = False
        self.rates: list = []
        self.reads = self.disconnects = 0
        self.wire = Wire()
        self.connections = 0

    def upload_many(self, jobs, *, hold_checkpoints=False, tick=lambda: None):
        if self.cannot_connect:
            raise self.cannot_connect.pop(0)
        self.in_flight = []
        count = 0
        exhausted = False
        while self.in_flight or not exhausted:
            tick()
            exhausted = self._fill(jobs) or exhausted
            if self.cancelled or (self.lose_after and count >= self.lose_after[0]):
                error = Cancelled("stopped") if self.cancelled else LinkLost("cut")
                if not self.cancelled:
                    self.lose_after.pop(0)
                yield from [Failure(job.key, job.source, job.dest, error) for job in self.in_flight]
                return
            if self.in_flight:
                job = min(self.in_flight, key=lambda job: job.priority)
                self.in_flight.remove(job)
                outcome = self._deliver(job)
                count += isinstance(outcome, TransferResult)
                yield outcome

    def _fill(self, jobs) -> bool:
        while len(self.in_flight) < self.slots:
            try:
                job = next(jobs)
            except StopIteration:
                return True
            if job is None:
                return False
            self.in_flight.append(job)
        return False

    def _deliver(self, job):
        self.before(job)
        error = self.refuse.get(job.dest) or (Cancelled("suspended") if job.suspended() else None)
        try:
            if error is None and Fingerprint.of(os.stat(job.source)) != job.fingerprint:
                error = SourceChanged("another version")
        except FileNotFoundError:
            error = SourceChanged("gone")
        if error is not None:
            return Failure(job.key, job.source, job.dest, error)
        content = Path(os.fsdecode(job.source)).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest() if job.digest or job.sent_before else None
        if job.sent_before is not None and sha256 == job.sent_before:
            size = job.fingerprint.size
            return TransferResult(
                job.source, job.dest, size, 0, 0, 0.0, None, already_done=True, sha256=sha256, key=job.key
            )
        target = self.root / job.dest.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(job.source, target)
        self.deliveries.append(job.dest)
        self.wire = self.wire.plus(Wire(job.fingerprint.size, 0))
        size = job.fingerprint.size
        return TransferResult(
            job.source,
            job.dest,
            size,
            size,
            0,
            0.0,
            Proof.SIZE,
            sha256=sha256,
            key=job.key,
            fingerprint=job.fingerprint,
        )

    def release_checkpoints(self, results):
        self.settled += results

    def give_up(self, uploads):
        self.given_up += uploads

    def read_small(self, path, most_bytes, *, tick=lambda: None):
        if self.cannot_connect:
            raise self.cannot_connect.pop(0)
        self.reads += 1
        try:
            return (self.root / path.decode()).read_bytes()[: most_bytes + 1]
        except OSError:
            return None

    def disconnect(self):
        self.disconnects += 1

    def limit_rate(self, bytes_per_s):
        self.rates.append(bytes_per_s)

    def cancel(self):
        self.cancelled = True

    def close(self):
        pass

    def is_connected(self):
        return True

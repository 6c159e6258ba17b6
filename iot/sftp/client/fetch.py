"""One download over as many connections as it takes."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from typing import BinaryIO

from iot.sftp.client.connector import Connector
from iot.sftp.client.jobs.download import Download, DownloadTask
from iot.sftp.client.pipeline.job import Job
from iot.sftp.client.session import Engine
from iot.sftp.client.settings import ClientOptions
from iot.transfer.errors import ConfigurationError, LinkLost, ProofFailed, Timeout
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Direction, ProgressCallback, Proof, TransferResult

__all__ = ["Fetch", "download_task"]

log = logging.getLogger(__name__)
SHA256_DIGITS = 64


def download_task(
    source: bytes,
    dest: str | os.PathLike[str] | BinaryIO,
    progress: ProgressCallback | None,
    sha256: bool | str,
    options: ClientOptions,
) -> DownloadTask:
    """What to fetch, with everything refused that could not be kept for this destination.

    sha256: as hex digits, what the content must hash to; True only asks for the digest.

    Raises: ConfigurationError naming the option.
    """
    expected = _expected_sha256(sha256)
    if isinstance(dest, (str, os.PathLike)):
        return DownloadTask(source, os.fspath(dest), progress, expected)
    _check_open_file(dest, options, readable=bool(sha256))
    return DownloadTask(source, dest, progress, expected)


def _expected_sha256(sha256: bool | str) -> str | None:
    if isinstance(sha256, bool):
        return None
    if not re.fullmatch(f"[0-9a-fA-F]{{{SHA256_DIGITS}}}", str(sha256)):
        raise ConfigurationError(f"sha256: must be True, False or {SHA256_DIGITS} hex digits, as sha256sum prints them")
    return sha256.lower()


def _check_open_file(dest: BinaryIO, options: ClientOptions, *, readable: bool) -> None:
    """An open file has no times or mode of its own to keep, and content that cannot be read cannot be proven."""
    for name, kept in (("keep_times", options.keep_times), ("keep_mode", options.keep_mode)):
        if kept:
            raise ConfigurationError(f"{name}: an open file cannot take it over; give the path of a file as dest")
    if not (dest.writable() and dest.seekable()):
        raise ConfigurationError("dest: an open file must be writable and seekable; give the path of a file instead")
    proofs = {"sha256": readable, "sidecar": options.sidecar, "proof": options.proof is not Proof.SIZE}
    for name, wanted in proofs.items():
        if wanted and not dest.readable():
            raise ConfigurationError(f"{name}: cannot prove what is in an open file that is not readable; open it w+b")


class Fetch:
    """One call of download.

    resume: go on behind what an earlier call has brought to the disk. sha256: put the digest into the result.
    """

    def __init__(
        self,
        links: Connector,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        task: DownloadTask,
        *,
        resume: bool,
        sha256: bool,
    ) -> None:
        self._links = links
        self._checkpoints = checkpoints
        self._locks = locks
        self._task = task
        self._resume = resume
        self._sha256 = sha256
        self._received_bytes = 0

    def run(self) -> TransferResult:
        """Fetch over as many connections as it takes; once more from the start where the proof fails.

        Raises: the errors of client.IoTSFTPClient.download.
        """
        try:
            return self._over_lost_links()
        except ProofFailed as error:  # it may be what was stitched together, or a .sha256 that came after its file
            log.warning("fetching once more from the start error=%s", error)
            return self._over_lost_links()

    def _over_lost_links(self) -> TransferResult:
        """A lost link is met with a new connection; progress resets the count of attempts."""
        for attempt in self._links.attempts(harmless=(ProofFailed,)):  # with it every answer has come
            with attempt as engine:
                try:
                    return self._once(engine)
                except (LinkLost, Timeout):
                    self._resume = True
                    raise
                finally:
                    self._checkpoints.flush()
        raise AssertionError("attempts end with a result or an error")

    def _once(self, engine: Engine) -> TransferResult:
        options = replace(engine.context.options, resume=self._resume, sha256=self._sha256)
        download = Download(self._task, replace(engine.context, options=options))
        self._locks.take(download.part)
        try:
            result: TransferResult = engine.pipeline.run_one(Job(download.run()))
        finally:
            self._locks.release(download.part)
            self._received_bytes += download.received_bytes
        self._checkpoints.forget_keys([(Direction.DOWNLOAD.value, self._task.source, result.local_path)])
        return replace(result, sent_bytes=self._received_bytes)

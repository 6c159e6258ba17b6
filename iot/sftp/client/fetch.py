"""One download over as many connections as it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from iot.sftp.client.checkpoints import Checkpoints
from iot.sftp.client.connector import Connector
from iot.sftp.client.engine import Engine
from iot.sftp.client.errors import LinkLost, SFTPError, Timeout
from iot.sftp.client.locks import TransferLocks
from iot.sftp.client.model import Direction, ProgressCallback, TransferResult
from iot.sftp.client.transfer.download import Download, DownloadTask
from iot.sftp.client.wire.job import Job


def fetch(
    links: Connector,
    checkpoints: Checkpoints,
    locks: TransferLocks,
    source: bytes,
    dest: str | BinaryIO,
    progress: ProgressCallback | None,
    resume: bool,
    sha256: bool,
) -> TransferResult:
    """Fetch `source`; a lost link is met with a new connection, progress resets the count of attempts."""
    task = DownloadTask(source, dest, progress)
    attempts = links.attempts()
    first = True
    while True:
        engine = links.engine()
        delivered = engine.pipeline.pace.delivered
        try:
            return _once(engine, checkpoints, locks, task, resume or not first, sha256)
        except (LinkLost, Timeout) as error:
            links.drop()
            attempts.failed(error, progressed=engine.pipeline.pace.delivered > delivered)
            first = False
        except SFTPError:
            links.drop()  # what is still under way there has no owner any more
            raise
        finally:
            checkpoints.flush()


def _once(
    engine: Engine, checkpoints: Checkpoints, locks: TransferLocks, task: DownloadTask, resume: bool, sha256: bool
) -> TransferResult:
    options = replace(engine.context.options, resume=resume, sha256=sha256)
    download = Download(task, replace(engine.context, options=options))
    locks.take(download.part)
    try:
        result: TransferResult = engine.pipeline.run_one(Job(download.run()))
    finally:
        locks.release(download.part)
    checkpoints.forget_keys([(Direction.DOWNLOAD.value, task.source, result.local_path)])
    return result

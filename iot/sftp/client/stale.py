"""Parts of ours whose transfer was given up are removed after a day; parts of others are never touched."""

from __future__ import annotations

import logging
import os
import time

from iot.sftp.client.checkpoints import Checkpoints
from iot.sftp.client.engine import Engine
from iot.sftp.client.errors import LinkLost, SFTPError, Timeout, is_gone
from iot.sftp.client.model import Checkpoint, Direction, Fingerprint
from iot.sftp.client.transfer import operations
from iot.sftp.client.transfer.context import Options
from iot.sftp.client.transfer.names import part_name, remote_path
from iot.sftp.client.wire.job import Job

log = logging.getLogger(__name__)


def remove_stale_parts(engine: Engine, checkpoints: Checkpoints, age_s: float) -> None:
    """A transfer is given up when its source is gone or another version. Raises: LinkLost, Timeout."""
    for checkpoint in checkpoints.given_up(time.time() - age_s):
        if _may_go_on(checkpoint):
            continue
        if checkpoint.part == checkpoint.remote_path:  # direct_write: a final, and perhaps another one by now
            checkpoints.forget(checkpoint)
            continue
        try:
            engine.pipeline.run_one(Job(operations.delete(checkpoint.part)))
            log.info("stale part removed part=%r", checkpoint.part)
        except (LinkLost, Timeout):
            raise
        except SFTPError as error:
            log.info("stale part not removed part=%r error=%s", checkpoint.part, error)
        checkpoints.forget(checkpoint)


def abandoned(source: str, dest: str, options: Options) -> Checkpoint:
    """The record of an upload that will not be tried again, of which a part may be on the server."""
    remote, local = remote_path(dest), os.fsencode(os.path.abspath(source))
    part = remote if options.direct_write else part_name(remote, local, options.owner, options.part_suffix)
    return Checkpoint(Direction.UPLOAD, remote, local, part, Fingerprint(0, 0))


def _may_go_on(checkpoint: Checkpoint) -> bool:
    try:
        now = Fingerprint.of(os.stat(checkpoint.local_path))
    except OSError as error:
        return not is_gone(error)
    return (now.size, now.mtime_ns) == (checkpoint.fingerprint.size, checkpoint.fingerprint.mtime_ns)

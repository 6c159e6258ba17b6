"""How an upload starts: what an earlier attempt, or another program, has left on the far side.

The far side is only asked if there is something to resume. A beginning of the file that another program has left is
compared with the source and renamed to the name of our part; a checkpoint that says so comes first.
"""

from __future__ import annotations

import logging
import stat
from dataclasses import replace

from iot.transfer.errors import PermanentError
from iot.transfer.model import Checkpoint, Phase, RemoteFile, Span, UploadJob
from iot.transfer.names import partial_name, remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.content import agreeing_bytes
from iot.transfer.parallel.finals import Finals
from iot.transfer.parallel.publish import bytes_held
from iot.transfer.parallel.work import Desk
from iot.transfer.plan import Fresh, ProveFinal, ResumeRules, Step, plan
from iot.transfer.remote import Publish, Published, Resume, Store
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

__all__ = ["alike_bytes", "partial_of", "survey", "taken_over"]

log = logging.getLogger(__name__)


def survey(
    store: Store,
    job: UploadJob,
    source: Source,
    known: Checkpoint | None,
    finals: Finals,
    options: TransferOptions,
    *,
    shared: bool,
) -> Step:
    """shared: another device could have a part of this name, too."""
    if known is None and not job.check_final and partial_of(job, store, options) != remote_path(job.dest):
        return Fresh()
    part = None
    if known is not None and known.token:
        standing = store.where(known.token)
        part = bytes_held(standing)
        if isinstance(standing, Published):
            known = replace(known, phase=Phase.PUBLISHING)
        if part is not None and options.trust:
            acked = known.acked_bytes
            known = replace(known, acked_bytes=max(acked, part.size or acked))
        if store.capabilities.resume is Resume.NONE:
            part = RemoteFile(0) if part is not None else None
    final = finals.of_this_size(store)
    verify = "full" if shared else options.verify
    beyond_bytes = source.fingerprint.size
    readable = store.capabilities.reads_back
    rules = ResumeRules(verify, options.trust, options.tail_size, source.identified, beyond_bytes, readable)
    step = plan(source.fingerprint, known, part, final, rules)
    linked = known is not None and known.phase is Phase.PUBLISHING and not finals.overwrites
    if final is not None and linked and not isinstance(step, ProveFinal):
        return ProveFinal(step)  # part and final may be two names of one file
    return step


def partial_of(job: UploadJob, store: Store, options: TransferOptions) -> bytes | None:
    """Where another program may have left a beginning of the file; None where that could not be resumed."""
    able = store.capabilities
    resumes = options.resume and able.resume is Resume.OFFSET and able.publish is Publish.RENAME and able.reads_back
    if job.adopt_partial is None or not resumes:
        return None
    return partial_name(remote_path(job.dest), job.adopt_partial)


def alike_bytes(desk: Desk, store: Store, partial: bytes, source: Source) -> int:
    """The size of the file, if it is a regular one and a beginning of the source; otherwise 0."""
    try:
        there = store.stat(partial)
        if there is None or (there.mode is not None and not stat.S_ISREG(there.mode)):
            return 0
        size = there.size or 0
        if not 0 < size <= source.fingerprint.size:
            return 0
        if agreeing_bytes(desk, store.read(partial, 0), source, Span(0, size)) == size:
            return size
    except PermanentError as error:
        log.info("partial file left alone path=%s reason=%s", quoted(partial), error)
        return 0
    log.info("partial file left alone path=%s reason=%s", quoted(partial), "its content differs")
    return 0


def taken_over(store: Store, partial: bytes, part: bytes, size: int) -> bool:
    """Make it our part, unless that is refused, or it has changed its size meanwhile."""
    try:
        if partial != part:
            store.move(partial, part, make_dirs=False)
        there = store.stat(part)
    except PermanentError as error:
        log.info("partial file left alone path=%s reason=%s", quoted(partial), error)
        return False
    log.info("partial file taken over path=%s bytes=%d", quoted(partial), size)
    return there is not None and there.size in (None, size)

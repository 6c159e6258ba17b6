"""From a complete part to the published file, in an order that never loses data.

Ending    times and mode, fsync, CLOSE answered, size (and what `proof` requires) verified
publish   rename over the final, atomically if the server can
confirm   fsync after the rename: only then is the name on the server's disk as well
"""

from __future__ import annotations

import logging
import posixpath

from iot.sftp.client.jobs.checksum_file import sha256_there
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.opening import open_one, open_to_read
from iot.sftp.client.jobs.proof import same_content, same_file
from iot.sftp.client.pipeline.job import (
    Linger,
    Work,
    ask,
    ask_all,
    ask_at_once,
    expect_attributes,
    expect_ok,
    expect_status,
    handle_or_refusal,
)
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Data, Flag, Reply, Request, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.checksum_file import checksum_line
from iot.transfer.errors import (
    AlreadyExists,
    NameRefused,
    NotFound,
    PermanentError,
    ProofFailed,
    ServerBusy,
    Unsupported,
)
from iot.transfer.model import Proof, Span
from iot.transfer.names import SIDECAR, check_no_folder, sidecar_part
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

log = logging.getLogger(__name__)

BUSY_LOOKS, BUSY_WAIT_S = 20, 0.25

GONE = (Code.NO_SUCH_FILE, Code.NO_SUCH_PATH)


class Ending:
    """Finishes a part: attributes (best effort), fsync, CLOSE, and a check of its size.

    requests: in the order in which the server must handle them. synced: the fsync has succeeded.
    """

    def __init__(self, context: Context, source: Source, part: bytes, handle: bytes) -> None:
        self._context = context
        self._source = source
        self._part = part
        self.synced = False
        attributes = _kept_attributes(context, source)
        self.requests: dict[str, Request] = {}
        if attributes != Attributes():
            self.requests["attributes"] = packets.fsetstat(handle, attributes)
        if not context.options.trust and context.server.can_fsync:
            self.requests["fsync"] = packets.fsync(handle)
        self.requests["close"] = packets.close(handle)
        self.requests["stat"] = packets.stat(part)

    def check(self, replies: dict[str, Reply]) -> Work[Proof]:
        """-> the proof. Raises: ProofFailed, NotFound, Unsupported, PermissionDenied, NoSpaceOnServer, ServerRefused. A
        refusal of attributes is not an error."""
        if "attributes" in replies:
            expect_status(replies["attributes"], f"cannot set times and mode of {quoted(self._part)}")
        synced = replies.get("fsync")
        if isinstance(synced, Status) and synced.code == Code.OP_UNSUPPORTED:
            self._context.server.learn(Refusal.FSYNC)
        elif synced is not None:
            expect_ok(synced, "the server could not sync the part to disk")
            self.synced = True
        expect_ok(replies["close"], f"the server failed to close {quoted(self._part)}")
        return (yield from _prove(self._context, self._source, self._part, replies["stat"]))


def _kept_attributes(context: Context, source: Source) -> Attributes:
    options = context.options
    second = source.fingerprint.mtime_ns // 10**9
    told = options.keep_times and source.fingerprint.mtime_ns and 0 <= second < 2**32  # the range of SFTP version 3
    return Attributes(
        mode=source.mode if options.keep_mode else None,
        mtime_s=second if told else None,
    )


# -- proof


def _prove(context: Context, source: Source, part: bytes, told: Reply) -> Work[Proof]:
    size, options = source.fingerprint.size, context.options
    if isinstance(told, Status) and told.code in GONE:
        raise NotFound(f"{quoted(part)} is gone after CLOSE: does something on the server remove files?")
    yield from _prove_size(context, part, size, told)
    start = max(0, size - options.tail_size) if options.proof is Proof.TAIL else 0
    if options.proof is Proof.SIZE:
        return Proof.SIZE
    try:
        if start:
            same = yield from same_content(context, part, source, Span(start, size))
        else:
            same = yield from same_file(context, part, source)
    except PermanentError as error:
        raise Unsupported(f"proof={options.proof.value} requires reading back, which is refused: {error}") from error
    if not same:
        raise ProofFailed(f"bytes {start} to {size} of {quoted(part)} differ from {source.name}")
    return Proof.TAIL if start else Proof.FULL


def _prove_size(context: Context, part: bytes, size: int, told: Reply) -> Work[None]:
    """By the answer to STAT; if that has no size, by reading: all bytes are there, and none after them."""
    if isinstance(told, Status) and not told.ok:
        ends = yield from _ends_at(context, part, size)
    else:
        stands = expect_attributes(told, f"cannot stat {quoted(part)}").size
        if stands not in (None, size):
            raise ProofFailed(f"{quoted(part)} has {stands} bytes on the server, the source has {size}")
        ends = stands is not None or (yield from _ends_at(context, part, size))
    if not ends:
        raise ProofFailed(f"{quoted(part)} does not have the {size} bytes of the source on the server")


def _ends_at(context: Context, part: bytes, size: int) -> Work[bool]:
    """Whether the last of `size` bytes exists and no byte follows it; True if reading is refused.

    Raises: ServerBusy.
    """
    try:
        opened = yield from open_to_read(context, part, f"cannot read back {quoted(part)}")
    except PermanentError:
        return True
    try:
        replies = yield from ask_at_once([packets.read(opened, at, 1) for at in (size - 1, size) if at >= 0])
        yield from ask(packets.close(opened))
    finally:
        context.handles.discard(opened)
    if any(isinstance(reply, Status) and reply.code != Code.EOF for reply in replies):
        return True
    *last, behind = replies
    return isinstance(behind, Status) and all(isinstance(reply, Data) for reply in last)


# -- rename


def publish(context: Context, part: bytes, dest: bytes, source: bytes, reopen: bool = False) -> Work[bytes]:
    """Give the part its final name. A part that can never get it, because a folder has that name, is removed.

    source: for the message. reopen: open the final for reading in the same flight -> its handle, empty if that was
    refused.

    Raises: AlreadyExists, NameRefused (a folder), NotFound, PermissionDenied, NoSpaceOnServer, ServerRefused.
    """
    try:
        return (yield from replace(context, part, dest, reopen))
    except PermanentError:
        there = yield from look(dest)
        try:
            check_no_folder(there.mode if there else None, dest, source)
        except NameRefused:
            yield from ask(packets.remove(part))
            raise
        raise


def replace(context: Context, part: bytes, dest: bytes, reopen: bool = False) -> Work[bytes]:
    """Rename; a file at `dest` is replaced, atomically if the server can. See `publish`."""
    replaces, doing = context.server.can_replace, f"cannot publish {quoted(dest)}"
    renaming = packets.posix_rename(part, dest) if replaces else packets.rename(part, dest)
    requests = [renaming, packets.open_file(dest, Flag.READ)] if reopen else [renaming]
    answer, *opened = yield from ask_all(requests, context.server.in_order)
    reply = expect_status(answer, doing)
    handle = handle_or_refusal(opened[0], f"cannot open {quoted(dest)}") if opened else b""
    if isinstance(handle, Status):
        handle = b""
    if reply.ok:
        context.handles.update([handle] if handle else [])
        return handle
    if handle:  # it belongs to the old final
        yield from ask(packets.close(handle))
    if replaces and reply.code == Code.OP_UNSUPPORTED:
        context.server.learn(Refusal.POSIX_RENAME)
        return (yield from replace(context, part, dest, reopen))
    if not replaces:
        yield from _rename_over(context, part, dest, reply)
    else:
        expect_ok(reply, doing)
    return b""


def _rename_over(context: Context, part: bytes, dest: bytes, refusal: Status) -> Work[None]:
    """Plain RENAME was refused. If that is because the final exists, the setting may allow removing it first."""
    there = yield from ask(packets.lstat(dest))
    if isinstance(there, Status) and not there.ok:
        expect_ok(refusal, f"cannot publish {quoted(dest)}")
    expect_attributes(there, f"cannot stat {quoted(dest)}")
    if not context.options.replace_by_remove:
        raise AlreadyExists(
            f"{quoted(dest)} exists and this server cannot replace it atomically: it has no posix-rename."
            " Set replace_by_remove to remove the old file first (for a moment, neither file exists)"
        )
    expect_ok((yield from ask(packets.remove(dest))), f"cannot remove the old {quoted(dest)}")
    expect_ok((yield from ask(packets.rename(part, dest))), f"cannot publish {quoted(dest)}")


def write_sidecar(context: Context, dest: bytes, part: bytes, digest: str) -> Work[None]:
    """Publish `<dest>.sha256` in the format of sha256sum.

    Only a checksum file of `dest` itself is replaced: a producer's own file of that name is kept, with a warning.
    """
    name, path = posixpath.basename(dest), dest + SIDECAR
    there = yield from sha256_there(context, path, name)
    if there == "":
        log.warning("no sidecar written: another file has its name path=%s", quoted(path))
    if there in ("", digest):
        return
    unfinished = sidecar_part(part) if part != dest else path
    opening = packets.open_file(unfinished, Flag.WRITE | Flag.CREATE | Flag.TRUNCATE)
    handle = yield from open_one(context, opening, unfinished, f"cannot create {quoted(unfinished)}")
    try:
        written = yield from ask(packets.write(handle, 0, checksum_line(digest, name)))
        closed = yield from ask(packets.close(handle))
    finally:
        context.handles.discard(handle)
    expect_ok(written, f"cannot write {quoted(unfinished)}")
    expect_ok(closed, f"the server failed to close {quoted(unfinished)}")
    if unfinished != path:
        yield from publish(context, unfinished, path, dest)


# -- durable


def wants_confirmation(context: Context) -> bool:
    """Whether an fsync after the rename is needed."""
    return not context.options.trust and context.server.can_fsync


def confirm(context: Context, dest: bytes, size: int, handle: bytes, grace: bool) -> Work[bool]:
    """-> whether the server confirmed that content and name are on its disk.

    handle: of the final, open for reading; empty if there is none.
    Without fsync, and with `grace`, the connection is held for publish_grace_s and the final then checked again: a
    server that crashed meanwhile has broken the connection, and the next attempt verifies the file or sends it again.

    Raises: ProofFailed, PermissionDenied, NoSpaceOnServer, ServerRefused if the server could not sync the final to disk
        or has changed it; the next attempt finds it, compares all of it and requests the fsync again.
    """
    if context.options.trust:
        return False
    # with a handle, too, if another job has learned meanwhile that there is no fsync: it is closed there
    if (handle or wants_confirmation(context)) and (yield from _sync_final(context, dest, handle)):
        return True
    if grace and context.options.publish_grace_s:
        yield Linger(context.options.publish_grace_s)
        yield from _look_again(dest, size)
    return False


def _look_again(dest: bytes, size: int) -> Work[None]:
    told = yield from ask(packets.stat(dest))
    if isinstance(told, Status) and told.code in (*GONE, Code.PERMISSION_DENIED):
        return  # a consumer has taken it, or this is a drop box that allows no STAT
    stands = expect_attributes(told, f"cannot stat {quoted(dest)} again").size
    if stands not in (None, size):
        raise ProofFailed(f"{quoted(dest)} had {size} bytes when published, but now has {stands}")


def _sync_final(context: Context, dest: bytes, handle: bytes) -> Work[bool]:
    """fsync on the final also syncs its name. False: a consumer has taken it, or it may not be opened.

    Where no handle is left it waits for others to close theirs: what is published is not to be sent again for that.
    """
    for _ in range(BUSY_LOOKS):
        try:
            return (yield from _sync_now(context, dest, handle))
        except ServerBusy:
            handle = b""
            yield Linger(BUSY_WAIT_S)
    return False


def _sync_now(context: Context, dest: bytes, handle: bytes) -> Work[bool]:
    """A server that requires a writable handle for fsync gets one. No other failure is retried: operating systems
    report a write error only once, so a second fsync would succeed. Raises: ServerBusy; see `confirm`.
    """
    doing = f"the server could not sync {quoted(dest)} to disk"
    refusal: Status | None = None
    busy: ServerBusy | None = None
    for flags in (Flag.READ, Flag.WRITE):  # a write-only drop box refuses the first
        try:
            opened = handle or (yield from open_one(context, packets.open_file(dest, flags), dest, doing))
        except NotFound:
            return False
        except ServerBusy as error:
            busy = error
            continue
        except PermanentError:
            continue
        handle = b""
        refusal = yield from _synced(context, opened, dest, doing)
        if refusal.ok:
            return True
        if refusal.code == Code.OP_UNSUPPORTED:
            context.server.learn(Refusal.FSYNC)
            return False
        if refusal.code != Code.PERMISSION_DENIED:
            break
    if busy is not None:
        raise busy
    if refusal is not None:
        raise refusal.error(doing)
    return False


def _synced(context: Context, handle: bytes, dest: bytes, doing: str) -> Work[Status]:
    """fsync and CLOSE -> the answer to fsync."""
    try:
        requests = [packets.fsync(handle), packets.close(handle)]
        synced, closed = yield from ask_all(requests, context.server.in_order)
    finally:
        context.handles.discard(handle)
    expect_status(closed, f"cannot close {quoted(dest)}")
    return expect_status(synced, doing)

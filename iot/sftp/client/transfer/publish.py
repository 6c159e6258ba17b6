"""From a complete part to the published file, in the order that loses nothing.

Ending    times and mode, fsync, CLOSE answered, size (and what `proof` asks) proven
publish   rename over the final, in one step where the server can
confirm   fsync behind the rename: only then is the name on the server's disk, too
"""

from __future__ import annotations

import posixpath

from iot.sftp.client.errors import AlreadyExists, NotFound, PermanentError, ProofFailed, Unsupported
from iot.sftp.client.model import Proof, Span
from iot.sftp.client.transfer.context import Context
from iot.sftp.client.transfer.names import SIDECAR, sidecar_part
from iot.sftp.client.transfer.proof import same_content, same_file
from iot.sftp.client.transfer.source import Source
from iot.sftp.client.wire import packets
from iot.sftp.client.wire.job import (
    Linger,
    Work,
    ask,
    ask_all,
    ask_at_once,
    expect_attributes,
    expect_handle,
    expect_ok,
    expect_status,
    handle_or_refusal,
)
from iot.sftp.client.wire.packets import Attributes, Code, Data, Flag, Reply, Request, Status
from iot.sftp.client.wire.server import Refusal

GONE = (Code.NO_SUCH_FILE, Code.NO_SUCH_PATH)


class Ending:
    """What ends the writing of a part: attributes (best effort), fsync, CLOSE, and a look at its size.

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
        """-> what was proven. Raises: ProofFailed, ServerRefused ... An attribute that was refused is let pass."""
        if "attributes" in replies:
            expect_status(replies["attributes"], f"cannot give {self._part!r} its times and mode")
        synced = replies.get("fsync")
        if isinstance(synced, Status) and synced.code == Code.OP_UNSUPPORTED:
            self._context.server.learn(Refusal.FSYNC)
        elif synced is not None:
            expect_ok(synced, "the server could not bring the part to its disk")
            self.synced = True
        expect_ok(replies["close"], f"the server failed to close {self._part!r}")
        return (yield from _prove(self._context, self._source, self._part, replies["stat"]))


def _kept_attributes(context: Context, source: Source) -> Attributes:
    options = context.options
    second = source.fingerprint.mtime_ns // 10**9
    told = options.keep_times and source.fingerprint.mtime_ns and 0 <= second < 2**32  # what version 3 can say
    return Attributes(
        mode=source.mode if options.keep_mode else None,
        mtime_s=second if told else None,
    )


# -- proof


def _prove(context: Context, source: Source, part: bytes, told: Reply) -> Work[Proof]:
    size, options = source.fingerprint.size, context.options
    if isinstance(told, Status) and told.code in GONE:
        raise NotFound(f"{part!r} is gone after CLOSE: does something on the server take files away by their name?")
    yield from _prove_size(part, size, told)
    start = max(0, size - options.tail_size) if options.proof is Proof.TAIL else 0
    if options.proof is Proof.SIZE:
        return Proof.SIZE
    try:
        if start:
            same = yield from same_content(context, part, source, Span(start, size))
        else:
            same = yield from same_file(context, part, source)
    except PermanentError as error:
        raise Unsupported(f"proof={options.proof.value} needs to read back, which is refused: {error}") from error
    if not same:
        raise ProofFailed(f"bytes {start} to {size} of {part!r} are not what {source.name} holds")
    return Proof.TAIL if start else Proof.FULL


def _prove_size(part: bytes, size: int, told: Reply) -> Work[None]:
    """By STAT's answer; where that tells no size, by reading: all bytes are there, and none behind them."""
    if isinstance(told, Status) and not told.ok:
        ends = yield from _ends_at(part, size)
    else:
        stands = expect_attributes(told, f"cannot look at {part!r}").size
        if stands not in (None, size):
            raise ProofFailed(f"{part!r} has {stands} bytes on the server, the source has {size}")
        ends = stands is not None or (yield from _ends_at(part, size))
    if not ends:
        raise ProofFailed(f"{part!r} has not the {size} bytes of the source on the server")


def _ends_at(part: bytes, size: int) -> Work[bool]:
    """Whether the last byte of `size` is there and none behind it; True where reading is refused."""
    opened = handle_or_refusal((yield from ask(packets.open_file(part, Flag.READ))), f"cannot read back {part!r}")
    if isinstance(opened, Status):
        return True
    reads = [packets.read(opened, at, 1) for at in (size - 1, size) if at >= 0]
    replies = yield from ask_at_once(reads)
    yield from ask(packets.close(opened))
    if any(isinstance(reply, Status) and reply.code != Code.EOF for reply in replies):
        return True
    *last, behind = replies
    return isinstance(behind, Status) and all(isinstance(reply, Data) for reply in last)


# -- rename


def publish(context: Context, part: bytes, dest: bytes, reopen: bool = False) -> Work[bytes]:
    """Give the part its final name. Raises: AlreadyExists, PermissionDenied, ServerRefused ...

    reopen: open the final for reading in the same flight -> its handle, empty when that was refused.
    """
    replaces, doing = context.server.can_replace, f"cannot publish {dest!r}"
    renaming = packets.posix_rename(part, dest) if replaces else packets.rename(part, dest)
    requests = [renaming, packets.open_file(dest, Flag.READ)] if reopen else [renaming]
    answer, *opened = yield from ask_all(requests, context.server.in_order)
    reply = expect_status(answer, doing)
    handle = handle_or_refusal(opened[0], f"cannot open {dest!r}") if opened else b""
    if isinstance(handle, Status):
        handle = b""
    if reply.ok:
        return handle
    if handle:  # it is of the old final
        yield from ask(packets.close(handle))
    if replaces and reply.code == Code.OP_UNSUPPORTED:
        context.server.learn(Refusal.POSIX_RENAME)
        return (yield from publish(context, part, dest, reopen))
    if not replaces:
        yield from _rename_over(context, part, dest, reply)
    else:
        expect_ok(reply, doing)
    return b""


def _rename_over(context: Context, part: bytes, dest: bytes, refusal: Status) -> Work[None]:
    """Plain RENAME was refused; where that is because the final exists, it may be removed first, by setting."""
    there = yield from ask(packets.lstat(dest))
    if isinstance(there, Status) and not there.ok:
        expect_ok(refusal, f"cannot publish {dest!r}")
    expect_attributes(there, f"cannot look at {dest!r}")
    if not context.options.replace_by_remove:
        raise AlreadyExists(
            f"{dest!r} exists and this server cannot replace it in one step: it has no posix-rename."
            " Set replace_by_remove to remove the old file first (for a moment there is none)"
        )
    expect_ok((yield from ask(packets.remove(dest))), f"cannot remove the old {dest!r}")
    expect_ok((yield from ask(packets.rename(part, dest))), f"cannot publish {dest!r}")


def write_sidecar(context: Context, dest: bytes, part: bytes, digest: str) -> Work[None]:
    """Publish `<dest>.sha256` in the format of sha256sum."""
    name = posixpath.basename(dest)
    line = digest.encode() + b"  " + name + b"\n"
    if b"\n" in name or b"\\" in name:  # sha256sum marks and escapes such a name
        line = b"\\" + digest.encode() + b"  " + name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") + b"\n"
    unfinished = sidecar_part(part) if part != dest else dest + SIDECAR
    reply = yield from ask(packets.open_file(unfinished, Flag.WRITE | Flag.CREATE | Flag.TRUNCATE))
    handle = expect_handle(reply, f"cannot create {unfinished!r}")
    written = yield from ask(packets.write(handle, 0, line))
    closed = yield from ask(packets.close(handle))
    expect_ok(written, f"cannot write {unfinished!r}")
    expect_ok(closed, f"the server failed to close {unfinished!r}")
    if unfinished != dest + SIDECAR:
        yield from publish(context, unfinished, dest + SIDECAR)


# -- durable


def wants_confirmation(context: Context) -> bool:
    """Whether an fsync behind the rename is due."""
    return not context.options.trust and context.server.can_fsync


def opens_behind(context: Context) -> bool:
    """Whether something is opened behind the part's CLOSE: the final, for its fsync, or a sidecar."""
    return wants_confirmation(context) or context.options.sidecar


def confirm(context: Context, dest: bytes, size: int, handle: bytes, grace: bool) -> Work[bool]:
    """-> whether the server confirmed that content and name are on its disk.

    handle: of the final, open for reading; empty when there is none.
    Without fsync, and with `grace`, the connection is held for publish_grace_s and the final looked at once more:
    a server that crashed in between has cut the connection, and the next attempt proves or sends again.

    Raises: ProofFailed, ServerRefused ... when the server could not bring the final to its disk or has changed it; the
        next attempt finds it there, compares all of it and asks for the fsync again.
    """
    if context.options.trust:
        return False
    if wants_confirmation(context) and (yield from _sync_final(context, dest, handle)):
        return True
    if grace and context.options.publish_grace_s:
        yield Linger(context.options.publish_grace_s)
        yield from _look_again(dest, size)
    return False


def _look_again(dest: bytes, size: int) -> Work[None]:
    told = yield from ask(packets.stat(dest))
    if isinstance(told, Status) and told.code in (*GONE, Code.PERMISSION_DENIED):
        return  # a consumer has taken it, or this is a drop box where nothing may be looked at
    stands = expect_attributes(told, f"cannot look at {dest!r} again").size
    if stands not in (None, size):
        raise ProofFailed(f"{dest!r} had {size} bytes when it was published and has {stands} now")


def _sync_final(context: Context, dest: bytes, handle: bytes) -> Work[bool]:
    """fsync on the final brings its name to the disk, too. False: it was taken by a consumer, or may not be opened.

    A server that wants a writable handle for an fsync gets one. No other failure is tried again here: systems tell of
    bytes that they could not write only once, and a second fsync would succeed.
    """
    doing = f"the server could not bring {dest!r} to its disk"
    refusal: Status | None = None
    for flags in (Flag.READ, Flag.WRITE):  # a write-only drop box refuses the first
        opened = handle or handle_or_refusal((yield from ask(packets.open_file(dest, flags))), f"cannot open {dest!r}")
        handle = b""
        if isinstance(opened, Status):
            if opened.code in GONE:
                return False
            continue
        synced, closed = yield from ask_all([packets.fsync(opened), packets.close(opened)], context.server.in_order)
        expect_status(closed, f"cannot close {dest!r}")
        refusal = expect_status(synced, doing)
        if refusal.ok:
            return True
        if refusal.code == Code.OP_UNSUPPORTED:
            context.server.learn(Refusal.FSYNC)
            return False
        if refusal.code != Code.PERMISSION_DENIED:
            break
    if refusal is not None:
        raise refusal.error(doing)
    return False

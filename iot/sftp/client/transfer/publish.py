"""From a complete part to the published file, in the order that loses nothing.

Ending    times and mode, fsync, CLOSE answered, size (and what `proof` asks) proven
publish   rename over the final, in one step where the server can
confirm   fsync behind the rename: only then is the name on the server's disk, too
"""

from __future__ import annotations

import posixpath

from iot.sftp.client.errors import (
    AlreadyExists,
    NotFound,
    PermanentError,
    ProofFailed,
    Unsupported,
)
from iot.sftp.client.model import Proof, Span
from iot.sftp.client.transfer.context import Context
from iot.sftp.client.transfer.names import SIDECAR, sidecar_part
from iot.sftp.client.transfer.proof import same_content, same_hash
from iot.sftp.client.transfer.source import Source
from iot.sftp.client.wire import packets
from iot.sftp.client.wire.job import Linger, Work, ask, ask_all, expect_handle, expect_ok
from iot.sftp.client.wire.packets import Attributes, Code, Data, Flag, Handle, Reply, Request, Status
from iot.sftp.client.wire.server import Refusal


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

    def check(self, replies: dict[str, Reply]) -> Work[None]:
        """Raises: ProofFailed, NoSpaceOnServer, ServerRefused ... An attribute that was refused is let pass."""
        synced = replies.get("fsync")
        if isinstance(synced, Status) and synced.code == Code.OP_UNSUPPORTED:
            self._context.server.learn(Refusal.FSYNC)
        elif synced is not None:
            expect_ok(synced, "the server could not bring the part to its disk")
            self.synced = True
        expect_ok(replies["close"], f"the server failed to close {self._part!r}")
        yield from _prove(self._context, self._source, self._part, replies["stat"])


def _kept_attributes(context: Context, source: Source) -> Attributes:
    options = context.options
    times = options.keep_times and source.fingerprint.mtime_ns
    return Attributes(
        mode=source.mode if options.keep_mode else None,
        mtime_s=source.fingerprint.mtime_ns // 10**9 & 0xFFFFFFFF if times else None,
    )


# -- proof


def _prove(context: Context, source: Source, part: bytes, told: Reply) -> Work[None]:
    size = source.fingerprint.size
    if isinstance(told, Status) and told.code in (Code.NO_SUCH_FILE, Code.NO_SUCH_PATH):
        raise NotFound(f"{part!r} is gone after CLOSE: does something on the server take files away by their name?")
    stands = told.size if isinstance(told, Attributes) else None
    if stands is None:
        stands = yield from _size_by_reading(part, size)
    if stands is not None and stands != size:
        raise ProofFailed(f"{part!r} has {stands} bytes on the server, the source has {size}")
    if context.options.proof is Proof.FULL:
        yield from _prove_whole(context, source, part)
    elif context.options.proof is Proof.TAIL:
        yield from _prove_span(context, source, part, Span(max(0, size - context.options.tail_size), size))


def _prove_whole(context: Context, source: Source, part: bytes) -> Work[None]:
    same = yield from same_hash(context, part, source)
    if same is None:
        return (yield from _prove_span(context, source, part, Span(0, source.fingerprint.size)))
    if not same:
        raise ProofFailed(f"the server's SHA-256 of {part!r} is not that of {source.name}")


def _prove_span(context: Context, source: Source, part: bytes, span: Span) -> Work[None]:
    try:
        same = yield from same_content(context, part, source, span)
    except PermanentError as error:
        raise Unsupported(
            f"proof={context.options.proof.value} needs to read back, which is refused: {error}"
        ) from error
    if not same:
        raise ProofFailed(f"bytes {span.start} to {span.end} of {part!r} are not what {source.name} holds")


def _size_by_reading(part: bytes, size: int) -> Work[int | None]:
    """For servers that tell no size: the last byte is there, and none behind it. None where reading is refused."""
    reply = yield from ask(packets.open_file(part, Flag.READ))
    if not isinstance(reply, Handle):
        return None
    last = yield from ask(packets.read(reply.value, max(0, size - 1), 2))
    yield from ask(packets.close(reply.value))
    if isinstance(last, Data):
        return max(0, size - 1) + len(last.value)
    return 0 if isinstance(last, Status) and last.code == Code.EOF and size == 0 else -1


# -- rename


def publish(context: Context, part: bytes, dest: bytes, reopen: bool = False) -> Work[bytes]:
    """Give the part its final name. Raises: AlreadyExists, PermissionDenied, ServerRefused ...

    reopen: open the final for reading in the same flight -> its handle, empty when that was refused.
    """
    replaces = context.server.can_replace
    renaming = packets.posix_rename(part, dest) if replaces else packets.rename(part, dest)
    requests = [renaming, packets.open_file(dest, Flag.READ)] if reopen else [renaming]
    reply, *opened = yield from ask_all(requests, context.server.in_order)
    handle = opened[0].value if opened and isinstance(opened[0], Handle) else b""
    if isinstance(reply, Status) and reply.ok:
        return handle
    if handle:  # it is of the old final
        yield from ask(packets.close(handle))
    if replaces and isinstance(reply, Status) and reply.code == Code.OP_UNSUPPORTED:
        context.server.learn(Refusal.POSIX_RENAME)
        return (yield from publish(context, part, dest, reopen))
    if not replaces and isinstance(reply, Status):
        reply = yield from _rename_over(context, part, dest, reply)
    expect_ok(reply, f"cannot publish {dest!r}")
    return b""


def _rename_over(context: Context, part: bytes, dest: bytes, refusal: Status) -> Work[Reply]:
    """Plain RENAME was refused; where that is because the final exists, it may be removed first, by setting."""
    there = yield from ask(packets.lstat(dest))
    if not isinstance(there, Attributes):
        return refusal
    if not context.options.replace_by_remove:
        raise AlreadyExists(
            f"{dest!r} exists and this server cannot replace it in one step: it has no posix-rename."
            " Set replace_by_remove to remove the old file first (for a moment there is none)"
        )
    expect_ok((yield from ask(packets.remove(dest))), f"cannot remove the old {dest!r}")
    return (yield from ask(packets.rename(part, dest)))


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


def confirm(context: Context, dest: bytes, size: int, handle: bytes, grace: bool) -> Work[bool]:
    """-> whether the server confirmed that content and name are on its disk.

    handle: of the final, open for reading; empty when there is none.
    Without fsync, and with `grace`, the connection is held for publish_grace_s and the final looked at once more:
    a server that crashed in between has cut the connection, and the next attempt proves or sends again.
    """
    if context.options.trust:
        return False
    if wants_confirmation(context) and (yield from _sync_final(context, dest, handle)):
        return True
    if grace and context.options.publish_grace_s:
        yield Linger(context.options.publish_grace_s)
        told = yield from ask(packets.stat(dest))
        if isinstance(told, Attributes) and told.size not in (None, size):
            raise ProofFailed(f"{dest!r} had {size} bytes when it was published and has {told.size} now")
    return False


def _sync_final(context: Context, dest: bytes, handle: bytes) -> Work[bool]:
    """fsync on the final brings its name to the disk, too. A final that is gone was taken by a consumer."""
    for flags in (Flag.READ, Flag.WRITE):  # a write-only drop box refuses the first
        if not handle:
            reply = yield from ask(packets.open_file(dest, flags))
            handle = reply.value if isinstance(reply, Handle) else b""
    if not handle:
        return False
    synced, _ = yield from ask_all([packets.fsync(handle), packets.close(handle)], context.server.in_order)
    return isinstance(synced, Status) and synced.ok

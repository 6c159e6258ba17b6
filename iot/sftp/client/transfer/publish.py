"""From a complete part to the published file, in the order that loses nothing.

finish    times and mode, fsync, CLOSE answered, size (and what `proof` asks) proven
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
from iot.sftp.client.transfer.proof import same_content, same_hash
from iot.sftp.client.transfer.source import Source
from iot.sftp.client.wire import packets
from iot.sftp.client.wire.job import Linger, Work, ask, expect_handle, expect_ok, sequence
from iot.sftp.client.wire.packets import Attributes, Code, Data, Flag, Handle, Reply, Request, Status
from iot.sftp.client.wire.server import Refusal


def finish(context: Context, source: Source, part: bytes, handle: bytes) -> Work[None]:
    """Close the part and prove it. Raises: ProofFailed, NoSpaceOnServer, ServerRefused ..."""
    yield from _keep_attributes(context, source, handle)
    requests = [packets.close(handle), packets.stat(part)]
    if not context.options.trust and context.server.can_fsync:
        requests.insert(0, packets.fsync(handle))
    replies = yield from _all_replies(context, requests)
    if len(replies) == 3:
        _expect_synced(context, replies.pop(0))
    expect_ok(replies[0], f"the server failed to close {part!r}")
    yield from _prove(context, source, part, replies[1])


def _all_replies(context: Context, requests: list[Request]) -> Work[list[Reply]]:
    """All answers, also where one is a refusal: an fsync that is refused must not keep CLOSE from being sent."""
    if context.server.in_order:
        return (yield from sequence(requests, in_order=True))
    replies: list[Reply] = []
    for request in requests:
        reply = yield from ask(request)
        replies.append(reply)
    return replies


def _expect_synced(context: Context, reply: Reply) -> None:
    if isinstance(reply, Status) and reply.code == Code.OP_UNSUPPORTED:
        context.server.learn(Refusal.FSYNC)
    else:
        expect_ok(reply, "the server could not bring the part to its disk")


def _keep_attributes(context: Context, source: Source, handle: bytes) -> Work[None]:
    """Best effort: object stores refuse it."""
    options = context.options
    if options.keep_times and source.fingerprint.mtime_ns:
        yield from ask(packets.fsetstat(handle, Attributes(mtime_s=source.fingerprint.mtime_ns // 10**9 & 0xFFFFFFFF)))
    if options.keep_mode and source.mode is not None:
        yield from ask(packets.fsetstat(handle, Attributes(mode=source.mode)))


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


def publish(context: Context, part: bytes, dest: bytes) -> Work[None]:
    """Give the part its final name. Raises: AlreadyExists, PermissionDenied, ServerRefused ..."""
    if context.server.can_replace:
        reply = yield from ask(packets.posix_rename(part, dest))
        if not isinstance(reply, Status) or reply.code != Code.OP_UNSUPPORTED:
            return expect_ok(reply, f"cannot publish {dest!r}")
        context.server.learn(Refusal.POSIX_RENAME)
    reply = yield from ask(packets.rename(part, dest))
    if isinstance(reply, Status) and not reply.ok:
        reply = yield from _rename_over(context, part, dest, reply)
    expect_ok(reply, f"cannot publish {dest!r}")


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
    unfinished = part + b".sha256" if part != dest else dest + b".sha256"
    reply = yield from ask(packets.open_file(unfinished, Flag.WRITE | Flag.CREATE | Flag.TRUNCATE))
    handle = expect_handle(reply, f"cannot create {unfinished!r}")
    written = yield from ask(packets.write(handle, 0, line))
    closed = yield from ask(packets.close(handle))
    expect_ok(written, f"cannot write {unfinished!r}")
    expect_ok(closed, f"the server failed to close {unfinished!r}")
    if unfinished != dest + b".sha256":
        yield from publish(context, unfinished, dest + b".sha256")


# -- durable


def confirm(context: Context, dest: bytes, size: int, grace: bool) -> Work[bool]:
    """-> whether the server confirmed that content and name are on its disk.

    Without fsync, and with `grace`, the connection is held for publish_grace_s and the final looked at once more:
    a server that crashed in between has cut the connection, and the next attempt proves or sends again.
    """
    if context.options.trust:
        return False
    if context.server.can_fsync and (yield from _sync_final(context, dest)):
        return True
    if grace and context.options.publish_grace_s:
        yield Linger(context.options.publish_grace_s)
        told = yield from ask(packets.stat(dest))
        if isinstance(told, Attributes) and told.size not in (None, size):
            raise ProofFailed(f"{dest!r} had {size} bytes when it was published and has {told.size} now")
    return False


def _sync_final(context: Context, dest: bytes) -> Work[bool]:
    """Open the final again and fsync it: that brings its name to the disk, too."""
    for flags in (Flag.READ, Flag.WRITE):  # a write-only drop box refuses the first
        reply = yield from ask(packets.open_file(dest, flags))
        if isinstance(reply, Handle):
            replies = yield from sequence(
                [packets.fsync(reply.value), packets.close(reply.value)], context.server.in_order
            )
            if isinstance(replies[0], Status) and replies[0].ok:
                return True
            if len(replies) < 2:
                yield from ask(packets.close(reply.value))
            return False
        if isinstance(reply, Status) and reply.code == Code.NO_SUCH_FILE:
            return False  # a consumer has taken it already: it was there to be taken
    return False

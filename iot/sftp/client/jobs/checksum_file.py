"""Small remote files: the file `<file>.sha256` beside another, in the format of sha256sum, or any other."""

from __future__ import annotations

import posixpath

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.opening import open_to_read
from iot.sftp.client.pipeline.job import Work, ask, ask_at_once, closing, expect_data, expect_handle
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Flag, Status
from iot.transfer.checksum_file import MOST_BYTES, sha256_alone, sha256_listed
from iot.transfer.errors import NotFound, PermanentError, ProofFailed, ServerRefused
from iot.transfer.names import SIDECAR
from iot.transfer.terminal import quoted

__all__ = ["fetch_sha256_file", "read_small", "sha256_there"]

PIECE_BYTES = 32 * 1024


def fetch_sha256_file(context: Context, source: bytes) -> Work[str]:
    """The SHA-256 that `<source>.sha256` lists for `source`, in lower-case hex.

    Raises: NotFound if there is no such file, ProofFailed if it does not list `source`; ServerBusy (see opening).
    """
    path = source + SIDECAR
    try:
        content = yield from _content(context, path)
    except NotFound as error:
        raise NotFound(f"{quoted(path)} is not on the server, but sidecar requires it") from error
    digest = sha256_listed(content, posixpath.basename(source))
    if digest is None:
        raise ProofFailed(f"{quoted(path)} has no SHA-256 for {quoted(posixpath.basename(source))}")
    return digest


def sha256_there(context: Context, path: bytes, name: bytes) -> Work[str | None]:
    """The SHA-256 that a checksum file lists for `name`; "" if the file is something else, None if there is none.

    A file that cannot be read (a write-only drop box) counts as none. Raises: ServerBusy.
    """
    try:
        return sha256_alone((yield from _content(context, path)), name) or ""
    except ProofFailed:
        return ""
    except PermanentError:
        return None


def read_small(path: bytes, most_bytes: int) -> Work[bytes | None]:
    """The first `most_bytes` + 1 bytes, in two round trips; None if it cannot be read, after one if it is not there."""
    try:
        handle = expect_handle((yield from ask(packets.open_file(path, Flag.READ))), _opening(path))
        reply, _ = yield from ask_at_once([packets.read(handle, 0, most_bytes + 1), packets.close(handle)])
        if isinstance(reply, Status) and reply.code == Code.EOF:
            return b""
        return bytes(expect_data(reply, f"cannot read {quoted(path)}")[: most_bytes + 1])
    except PermanentError:
        return None


def _opening(path: bytes) -> str:
    return f"cannot open {quoted(path)}"


def _content(context: Context, path: bytes) -> Work[bytes]:
    handle = yield from open_to_read(context, path, _opening(path))
    try:
        return (yield from closing(handle, _read(path, handle)))
    finally:
        context.handles.discard(handle)


def _read(path: bytes, handle: bytes) -> Work[bytes]:
    """Read a small remote file. Raises: PermissionDenied, ServerRefused; ProofFailed if it is too long."""
    content = b""
    while len(content) <= MOST_BYTES:
        reply = yield from ask(packets.read(handle, len(content), PIECE_BYTES))
        if isinstance(reply, Status) and reply.code == Code.EOF:
            break
        data = expect_data(reply, f"cannot read {quoted(path)}")
        if not data:
            raise ServerRefused(f"cannot read {quoted(path)}: server sent neither data nor end of file")
        content += data
    if len(content) > MOST_BYTES:
        raise ProofFailed(f"{quoted(path)} is longer than {MOST_BYTES} bytes: not a checksum file")
    return content

"""The `<file>.sha256` beside a remote file, as sha256sum writes and reads it."""

from __future__ import annotations

import posixpath

from iot.sftp.client.pipeline.job import Work, ask, closing, expect_data, expect_handle
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Flag, Status
from iot.transfer.checksum_file import MOST_BYTES, sha256_alone, sha256_listed
from iot.transfer.errors import NotFound, PermanentError, ProofFailed, ServerRefused
from iot.transfer.names import SIDECAR
from iot.transfer.terminal import quoted

__all__ = ["fetch_sha256_file", "sha256_there"]


def fetch_sha256_file(source: bytes) -> Work[str]:
    """The SHA-256 that `<source>.sha256` gives for `source`, as lower-case hex digits.

    Raises: NotFound where there is no such file, ProofFailed where it says nothing of `source`.
    """
    path = source + SIDECAR
    try:
        content = yield from _content(path)
    except NotFound as error:
        raise NotFound(f"{quoted(path)} is not on the server, and sidecar asks for it") from error
    digest = sha256_listed(content, posixpath.basename(source))
    if digest is None:
        raise ProofFailed(f"{quoted(path)} holds no SHA-256 of {quoted(posixpath.basename(source))}")
    return digest


def sha256_there(path: bytes, name: bytes) -> Work[str | None]:
    """The SHA-256 of `name` that a checksum file gives; "" where the file is something else, None where there is none.

    A file that cannot be read (a write-only drop box) counts as none.
    """
    try:
        return sha256_alone((yield from _content(path)), name) or ""
    except ProofFailed:
        return ""
    except PermanentError:
        return None


def _content(path: bytes) -> Work[bytes]:
    """A small remote file as a whole. Raises: NotFound, ProofFailed where it is too long to be a checksum file ..."""
    handle = expect_handle((yield from ask(packets.open_file(path, Flag.READ))), f"cannot open {quoted(path)}")
    return (yield from closing(handle, _read(path, handle)))


def _read(path: bytes, handle: bytes) -> Work[bytes]:
    content = b""
    while len(content) <= MOST_BYTES:
        reply = yield from ask(packets.read(handle, len(content), 32 * 1024))
        if isinstance(reply, Status) and reply.code == Code.EOF:
            break
        data = expect_data(reply, f"cannot read {quoted(path)}")
        if not data:
            raise ServerRefused(f"cannot read {quoted(path)}: server sent no bytes and no end of file")
        content += data
    if len(content) > MOST_BYTES:
        raise ProofFailed(f"{quoted(path)} is longer than {MOST_BYTES} bytes: it is no checksum file")
    return content

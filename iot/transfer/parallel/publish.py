"""From a complete part to the published file: its size, its proof, its name, its `.sha256`."""

from __future__ import annotations

import logging
import posixpath
import stat

from iot.transfer.checksum_file import MOST_BYTES, checksum_line, sha256_alone
from iot.transfer.errors import (
    AlreadyExists,
    NameRefused,
    NotFound,
    PermanentError,
    ProofFailed,
    ServerRefused,
    Unsupported,
)
from iot.transfer.model import Proof, RemoteFile, Span
from iot.transfer.names import SIDECAR, check_no_folder, sidecar_part
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.content import agreeing_bytes, hash_of
from iot.transfer.parallel.work import Desk
from iot.transfer.remote import Meta, Offset, Parts, Standing, Store, Token
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

__all__ = ["abandon", "bytes_held", "check_size", "look_again", "prove_part", "publish_as", "write_sidecar"]

log = logging.getLogger(__name__)


def bytes_held(standing: Standing) -> RemoteFile | None:
    """The size of what the far side has: the bytes up to the first gap."""
    if isinstance(standing, Offset):
        return RemoteFile(standing.end)
    if isinstance(standing, Parts):
        end = 0
        for span in standing.spans:
            end = span.end if span.start == end else end
        return RemoteFile(end)
    return None


def check_size(store: Store, token: Token, expected: int, name: str) -> None:
    """Raises: NotFound, ProofFailed."""
    held = bytes_held(store.where(token))
    if held is None:
        raise NotFound(f"the part of {name} is gone: does something there remove files by name?")
    if held.size != expected:
        raise ProofFailed(f"the far side has {held.size} bytes of {name}, not {expected}")


def look_again(store: Store, final: bytes, size: int) -> None:
    """Whether what was published is still so. Raises: ProofFailed."""
    found = store.stat(final)
    if found is not None and found.size not in (None, size):
        raise ProofFailed(f"{quoted(final)} had {size} bytes when published, but now has {found.size}")


def abandon(store: Store, token: Token, name: str) -> None:
    """Remove a part, if that can be done."""
    try:
        if token:
            store.abandon(token)
    except PermanentError as error:
        log.info("part not removed path=%s error=%s", name, error)


def prove_part(
    desk: Desk, store: Store, token: Token, source: Source, options: TransferOptions
) -> tuple[Proof, str | None]:
    """Verify a part of the right size as far as the settings require -> the proof, and the SHA-256 if computed.

    Raises: ProofFailed; Unsupported if it can be neither hashed nor read back.
    """
    size = source.fingerprint.size
    if options.proof is Proof.SIZE:
        return Proof.SIZE, None
    start = max(0, size - options.tail_size) if options.proof is Proof.TAIL else 0
    digest: str | None = None
    if not start and "sha256" in store.capabilities.hashes:
        digest = hash_of(desk, source)
        if store.verify(token, {"sha256": digest}) is not None:
            return Proof.FULL, digest
    if not store.capabilities.reads_back:
        raise Unsupported(f"proof={options.proof.value}: the server does not allow reading back what was sent")
    span = Span(start, size)
    agreed = agreeing_bytes(desk, store.read_part(token, span), source, span)
    if agreed < span.length:
        raise ProofFailed(f"the part of {source.name} differs from it at offset {start + agreed}")
    return Proof.TAIL if start else Proof.FULL, digest


def publish_as(
    store: Store, token: Token, dest: bytes, meta: Meta, options: TransferOptions, source: bytes = b""
) -> bool:
    """Give the part its name, replacing an existing file -> whether both are on the far side's disk. A part that can
    never get its name, because a folder has it, is removed.

    source: for the message.

    Raises: AlreadyExists if the far side cannot replace a file and replace_by_remove is off; NameRefused if `dest` is a
        folder.
    """
    try:
        return _publish(store, token, dest, meta, options)
    except PermanentError:
        there = store.stat(dest)
        try:
            check_no_folder(there.mode if there else None, dest, source)
        except NameRefused:
            store.abandon(token)
            raise
        raise


def _publish(store: Store, token: Token, dest: bytes, meta: Meta, options: TransferOptions) -> bool:
    try:
        return store.publish(token, dest, meta, replace=True)
    except AlreadyExists:
        there = store.stat(dest)
        if not options.replace_by_remove or (there is not None and stat.S_ISDIR(there.mode or 0)):
            raise
    store.delete(dest)
    return store.publish(token, dest, meta, replace=False)


def write_sidecar(store: Store, dest: bytes, meta: Meta, digest: str, options: TransferOptions) -> None:
    """Publish `<dest>.sha256` in the format of sha256sum.

    Only a checksum file of `dest` itself is replaced: a producer's own file of that name is kept, with a warning.
    """
    name, path = posixpath.basename(dest), dest + SIDECAR
    there = _sha256_there(store, path, name)
    if there == "":
        log.warning("no sidecar written: another file has its name path=%s", quoted(path))
    if there in ("", digest):
        return
    line = checksum_line(digest, name)
    beside = Meta(sidecar_part(meta.part), make_dirs=meta.make_dirs)
    token = store.begin(path, len(line), beside)
    if store.write(token, Span(0, len(line)), [line]).end < len(line):
        raise ServerRefused(f"the far side did not accept all of {quoted(path)}")
    publish_as(store, token, path, beside, options, dest)


def _sha256_there(store: Store, path: bytes, name: bytes) -> str | None:
    """The SHA-256 that a checksum file lists for `name`; "" if the file is something else, None if there is none.

    A file that cannot be read (a write-only drop box) counts as none.
    """
    try:
        content = b""
        for block in store.read(path, 0):
            content += block
            if len(content) > MOST_BYTES:
                return ""
        return sha256_alone(content, name) or ""
    except PermanentError:
        return None

"""From a complete part to the published file: what it holds, what is proven of it, its name, its `.sha256`."""

from __future__ import annotations

import posixpath

from iot.transfer.checksum_file import checksum_line
from iot.transfer.errors import AlreadyExists, ProofFailed, ServerRefused, Unsupported
from iot.transfer.model import Proof, RemoteFile, Span
from iot.transfer.names import SIDECAR, sidecar_part
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.content import agreeing_bytes, hash_of
from iot.transfer.parallel.work import Desk
from iot.transfer.remote import Meta, Offset, Parts, Standing, Store, Token
from iot.transfer.source import Source

__all__ = ["bytes_held", "prove_part", "publish_as", "write_sidecar"]


def bytes_held(standing: Standing) -> RemoteFile | None:
    """What the far side holds, as a file: the bytes up to the first that is missing."""
    if isinstance(standing, Offset):
        return RemoteFile(standing.end)
    if isinstance(standing, Parts):
        end = 0
        for span in standing.spans:
            end = span.end if span.start == end else end
        return RemoteFile(end)
    return None


def prove_part(
    desk: Desk, store: Store, token: Token, source: Source, options: TransferOptions
) -> tuple[Proof, str | None]:
    """Prove a part of the right size as far as the settings ask -> what was proven, and SHA-256 if it was computed.

    Raises: ProofFailed; Unsupported where it can be neither hashed nor read back.
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
        raise Unsupported(f"proof={options.proof.value}: what was sent cannot be read back there")
    span = Span(start, size)
    agreed = agreeing_bytes(desk, store.read_part(token, span), source, span)
    if agreed < span.length:
        raise ProofFailed(f"the part of {source.name} differs at {start + agreed}")
    return Proof.TAIL if start else Proof.FULL, digest


def publish_as(store: Store, token: Token, dest: bytes, meta: Meta, options: TransferOptions) -> bool:
    """Give the part its name, over what stands there -> whether both are on the far side's disk.

    Raises: AlreadyExists where the far side cannot replace, and the old file is not to be removed first.
    """
    try:
        return store.publish(token, dest, meta, replace=True)
    except AlreadyExists:
        if not options.replace_by_remove:
            raise
    store.delete(dest)
    return store.publish(token, dest, meta, replace=False)


def write_sidecar(store: Store, dest: bytes, meta: Meta, digest: str, options: TransferOptions) -> None:
    """Publish `<dest>.sha256` in the format of sha256sum."""
    line = checksum_line(digest, posixpath.basename(dest))
    beside = Meta(sidecar_part(meta.part), make_dirs=meta.make_dirs)
    token = store.begin(dest + SIDECAR, len(line), beside)
    if store.write(token, Span(0, len(line)), [line]).end < len(line):
        raise ServerRefused(f"the far side does not take all of {dest + SIDECAR!r}")
    publish_as(store, token, dest + SIDECAR, beside, options)

"""The calls of a Store on an FTP server.

They are shaped by measurements: after a broken data connection vsftpd, ProFTPD, pure-ftpd and pyftpdlib still say "226
Transfer complete", so SIZE is requested after every write. REST beyond the end leaves a hole on one server and appends
on another, so it is never sent. None confirms that anything is on its disk: `durable` is False.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from iot.ftp.connection import Address, Connection
from iot.ftp.data import Data
from iot.ftp.paths import Paths, sent
from iot.ftp.replies import error_of, is_ambiguous
from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    NotFound,
    PermissionDenied,
    ProofFailed,
    ServerRefused,
    Timeout,
    TransferError,
    Unsupported,
)
from iot.transfer.model import Evidence, RemoteEntry, RemoteFile, Span
from iot.transfer.names import parents, path_text
from iot.transfer.remote import Ack, Capabilities, Gone, Meta, Offset, Publish, Resume, Standing, Token
from iot.transfer.remote_commands import Verb
from iot.transfer.terminal import quoted

__all__ = ["FTPStore"]

log = logging.getLogger(__name__)

BLOCK_BYTES = 64 * 1024
WRITE_S = 60.0
"""Seconds after which a write ends, to be continued by the next: this uses the control connection in between, and
confirms what was sent."""
HASHED_BYTES_PER_S = 10_000_000
"""Bytes per second that a slow server hashes."""


class FTPStore:
    """See remote.Store for the contract of each call. clock: monotonic seconds."""

    def __init__(self, address: Address, *, connections: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = Connection(address)
        self._paths = Paths(self._connection)
        self._clock = clock
        self._folders: set[bytes] = set()  # known on this connection; forgotten after any refusal
        self.capabilities = Capabilities(
            resume=Resume.OFFSET,
            publish=Publish.RENAME,
            block_bytes=BLOCK_BYTES,
            connections=connections,
        )

    # -- the connection

    def connect(self) -> None:
        self._connection.open()
        log.info("connected server=%s %s", self._connection.address, self._connection.described())
        features = self._connection.features
        hashes = ("sha256",) if "SHA-256" in features.get("HASH", "").upper() or "XSHA256" in features else ()
        resume = Resume.OFFSET if "REST" in features or not features else Resume.NONE
        keeps_times = "MFMT" in features
        commands = frozenset(Verb) if keeps_times else frozenset(Verb) - {Verb.TOUCH}
        self.capabilities = replace(
            self.capabilities, hashes=hashes, keeps_times=keeps_times, resume=resume, commands=commands
        )

    def check(self) -> None:
        self._connection.command("NOOP")

    def abort(self) -> None:
        self._connection.abort()

    def close(self) -> None:
        self._connection.goodbye()

    # -- uploads

    def begin(self, dest: bytes, size: int, meta: Meta) -> Token:
        """The first write creates the part."""
        yes, reply = self._connection.ask("DELE", sent(meta.part))
        if not yes and (meta.make_dirs or is_ambiguous(reply)):
            self._make_folder_of(meta.part, make_dirs=meta.make_dirs)
        return Token(meta.part)

    def _make_folder_of(self, path: bytes, *, make_dirs: bool) -> None:
        folder = posixpath.dirname(path)
        if folder in (b"", b"/", b".") or folder in self._folders:
            return
        if self._paths.is_folder(folder):
            self._folders.add(folder)
            return
        if not make_dirs:
            raise NotFound(f"there is no folder {quoted(folder)}")
        self.mkdir(folder)

    def where(self, token: Token) -> Standing:
        size = self._paths.size(token)
        return Gone() if size is None else Offset(size)

    def write(self, token: Token, span: Span, body: Iterable[bytes]) -> Ack:
        if span.start:
            self._check_start(token, span.start)
        data = self._store(token, span.start)
        at, over_at = span.start, self._clock() + WRITE_S
        try:
            for block in body:
                data.send(block)
                at += len(block)
                if self._clock() >= over_at:
                    break
        except BaseException:
            data.break_off()
            raise
        data.done()
        return Ack(self._confirmed(token, span.start, at))

    def _check_start(self, token: Token, start: int) -> None:
        """REST beyond the end would leave a hole, or append. Raises: NotFound, Unsupported."""
        held = self._paths.size(token)
        if held is None:
            raise NotFound(f"the part {quoted(token)} is gone")
        if held < start:
            raise Unsupported(f"the part {quoted(token)} has {held} bytes, so it cannot be resumed at {start}")

    def _store(self, token: Token, start: int) -> Data:
        try:
            return self._connection.transfer("STOR", sent(token), start=start)
        except (LinkLost, Timeout):
            raise
        except ServerRefused as error:
            self._folders.clear()
            if start:  # REST refused
                raise Unsupported(str(error)) from error
            if not is_ambiguous(str(error.__cause__)):
                raise
            folder = posixpath.dirname(token)
            there = folder in (b"", b"/") or self._paths.is_folder(folder)
            raise (PermissionDenied if there else NotFound)(str(error)) from error
        except TransferError:
            self._folders.clear()
            raise

    def _confirmed(self, token: Token, start: int, end: int) -> int:
        """The offset up to which the server has what it was sent. Raises: NotFound."""
        held = self._paths.size(token)
        if held is None:
            raise NotFound(f"the part {quoted(token)} is gone")
        return max(start, min(held, end))

    def read_part(self, token: Token, span: Span) -> Iterator[bytes]:
        left = span.length
        for block in self.read(token, span.start):
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return

    def verify(self, token: Token, digests: Mapping[str, str]) -> Evidence | None:
        expected = digests.get("sha256")
        digest = self.digest(token, "sha256") if expected is not None else None
        if digest is None:
            return None
        if digest != expected:
            raise ProofFailed(f"the server's SHA-256 of the part {quoted(token)} differs")
        return Evidence.SERVER_HASH

    def publish(self, token: Token, dest: bytes, meta: Meta, *, replace: bool) -> bool:
        if not replace and self._paths.stat(dest) is not None:
            raise AlreadyExists(f"{quoted(dest)} already exists")
        self._keep(token, meta)
        self._rename(token, dest)
        return False

    def confirm(self, dest: bytes) -> bool:
        return False

    def abandon(self, token: Token) -> None:
        with contextlib.suppress(NotFound):
            self.delete(token)

    def _keep(self, token: Token, meta: Meta) -> None:
        """Set times and mode, best effort: a refusal is not an error."""
        if meta.mode is not None:
            self._connection.ask(f"SITE CHMOD {meta.mode & 0o777:03o}", sent(token))
        if meta.mtime_s is not None and "MFMT" in self._connection.features:
            with contextlib.suppress(OverflowError, OSError, ValueError):  # a time outside the range of the format
                stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(meta.mtime_s))
                self._connection.ask(f"MFMT {stamp}", sent(token))

    def _rename(self, source: bytes, dest: bytes) -> None:
        yes, reply = self._connection.ask("RNFR", sent(source))
        if not yes:
            raise self._paths.refusal(source, reply, f"RNFR {quoted(source)}")
        yes, reply = self._connection.ask("RNTO", sent(dest))
        if yes:
            return
        error = error_of(reply, f"RNTO {quoted(dest)}")
        if isinstance(error, (LinkLost, AlreadyExists)):
            raise error
        found = self._paths.stat(dest)
        if found is None:
            raise error
        # permanent, even if the server says "not now": a folder is in the way
        kind = ServerRefused if found.is_folder else AlreadyExists
        raise kind(str(error)) from error

    # -- downloads and paths

    def stat(self, path: bytes) -> RemoteFile | None:
        return self._paths.stat(path)

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        if offset:
            held = self._paths.size(path)
            if held is not None and offset >= held:  # pyftpdlib, for one, refuses an offset beyond the end
                return
        try:
            data = self._connection.transfer("RETR", sent(path), start=offset)
        except ServerRefused as error:
            raise self._paths.refusal(path, str(error.__cause__), f"RETR {quoted(path)}") from error
        try:
            while block := data.receive():
                yield block
        except BaseException:
            data.break_off()
            raise
        data.done()

    def digest(self, path: bytes, algorithm: str) -> str | None:
        if algorithm != "sha256" or not self.capabilities.hashes:
            return None
        size = self._paths.size(path)
        if size is None:
            raise NotFound(f"{quoted(path)} does not exist")
        patience_s = self._connection.address.timeout_s + size / HASHED_BYTES_PER_S
        command = "XSHA256"
        if "SHA-256" in self._connection.features.get("HASH", "").upper():
            command = "HASH"  # XSHA256 would take the last words of a name as numbers
            self._connection.command("OPTS HASH SHA-256")
        self._connection.timeout_for(patience_s)
        yes, reply = self._connection.ask(command, sent(path))
        found = re.search(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{64}(?![0-9A-Za-z])", reply) if yes else None
        return found[0].lower() if found is not None else None

    def list(self, path: bytes) -> Iterator[RemoteEntry]:
        listing = self._paths.list(path)
        if listing.unread:
            raise ServerRefused(f"the listing of {quoted(path)} has an unknown format: {quoted(listing.unread[0])}")
        for entry in listing.entries:
            file = entry.file
            if file.mode is None:
                is_folder = self._paths.is_folder(posixpath.join(path, entry.name))
                file = replace(file, mode=stat.S_IFDIR if is_folder else stat.S_IFREG)
            yield RemoteEntry(path_text(entry.name), file, entry.is_link)

    def move(self, source: bytes, dest: bytes, *, make_dirs: bool = True) -> None:
        if make_dirs:
            if self._paths.stat(source) is None:  # make no folders for a missing source
                raise NotFound(f"{quoted(source)} does not exist")
            self._make_folder_of(dest, make_dirs=True)
        self._rename(source, dest)

    def delete(self, path: bytes) -> None:
        self._path_command("DELE", path)

    def mkdir(self, path: bytes) -> None:
        for folder in [*parents(path), path.rstrip(b"/")]:
            if not folder or self._paths.is_folder(folder):
                continue
            yes, reply = self._connection.ask("MKD", sent(folder))
            if yes or self._paths.is_folder(folder):  # another connection may have made it
                continue
            found = self._paths.stat(folder)
            if found is not None and found.is_folder:
                raise PermissionDenied(f"{quoted(folder)} cannot be entered")
            if found is not None:
                raise AlreadyExists(f"{quoted(folder)} exists but is not a folder")
            raise error_of(reply, f"MKD {quoted(folder)}")

    def rmdir(self, path: bytes) -> None:
        self._path_command("RMD", path)

    def chmod(self, path: bytes, mode: int) -> None:
        yes, reply = self._connection.ask(f"SITE CHMOD {mode:03o}", sent(path))
        if yes:
            return
        error = self._paths.refusal(path, reply, f"SITE CHMOD {quoted(path)}")
        if isinstance(error, Unsupported):
            self.capabilities = replace(self.capabilities, commands=self.capabilities.commands - {Verb.CHMOD})
        raise error

    def touch(self, path: bytes, mtime_s: int) -> None:
        if self._paths.stat(path) is None:
            self._make_folder_of(path, make_dirs=True)
            self._store(Token(path), 0).done()
            return
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(mtime_s))
        yes, reply = self._connection.ask(f"MFMT {stamp}", sent(path))
        if not yes:
            raise self._paths.refusal(path, reply, f"MFMT {quoted(path)}")

    def _path_command(self, verb: str, path: bytes) -> None:
        yes, reply = self._connection.ask(verb, sent(path))
        if not yes:
            raise self._paths.refusal(path, reply, f"{verb} {quoted(path)}")

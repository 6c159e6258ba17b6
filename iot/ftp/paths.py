"""Looks up paths with whatever the server offers: MLST, otherwise SIZE, MDTM, CWD and the listing of the folder.

A server without MLST answers 550 to everything it cannot do, so a missing file takes several requests: "not there" is
reported only if its folder was listed, or is itself missing.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import replace

from iot.ftp.connection import Connection
from iot.ftp.listing import Listing, parse_facts, parse_list, parse_mlsd, time_of
from iot.ftp.replies import error_of, is_ambiguous
from iot.transfer.errors import LinkLost, NotFound, PermissionDenied, ServerRefused, TransferError, Unsupported
from iot.transfer.model import RemoteFile
from iot.transfer.terminal import quoted

__all__ = ["Paths", "sent"]

MOST_BYTES = 64 * 1024 * 1024
"""Maximum size of a listing: a hostile server could send one without end."""


class Paths:
    """Path lookups on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._home: bytes | None = None
        self._facts_show_links = False

    @property
    def _has_facts(self) -> bool:
        return "MLST" in self._connection.features

    def stat(self, path: bytes) -> RemoteFile | None:
        """None if the server says, or a listing shows, that nothing is there. Raises: PermissionDenied, ServerRefused,
        LinkLost, Timeout."""
        if self._has_facts:
            yes, reply = self._connection.ask("MLST", sent(path))
            if yes:
                return parse_facts(_facts_in(reply))
            if reply[:3] not in ("500", "502", "504"):
                self._check_absent(path, reply, "MLST")
                return None
        return self._stat_by_size(path)

    def size(self, path: bytes) -> int | None:
        """Size of a file in bytes; None if it does not exist. Raises: ServerRefused if it is not a file; as `stat`."""
        yes, reply = self._connection.ask("SIZE", sent(path))
        found = re.fullmatch(r"213 +(\d{1,19})\s*", reply) if yes else None
        if found is not None:
            return int(found[1])
        if yes:
            raise ServerRefused(f"SIZE {quoted(path)}: {reply!r} is not a size")
        told = self.stat(path)
        if told is None:
            return None
        if told.size is None or told.is_folder:
            raise ServerRefused(f"{quoted(path)} is not a regular file")
        return told.size

    def is_folder(self, path: bytes) -> bool:
        """Whether it can be entered."""
        home = self._login_folder()
        yes, _ = self._connection.ask("CWD", sent(path))
        if yes:
            self._connection.command("CWD", home)
        return yes

    def list(self, path: bytes) -> Listing:
        """The entries of a folder. Changes into it first, because LIST takes a dash as an option and an asterisk as a
        pattern.

        Raises: NotFound, PermissionDenied, ServerRefused, LinkLost, Timeout.
        """
        home = self._login_folder()
        yes, reply = self._connection.ask("CWD", sent(path) if path else home)
        if not yes:
            raise self.refusal(path, reply, f"CWD {quoted(path)}")
        try:
            return self._list_here(path)
        finally:
            self._connection.command("CWD", home)

    def refusal(self, path: bytes, reply: str, what: str) -> TransferError:
        """The error for a refused command; if the reply is ambiguous, the path is looked up."""
        if not is_ambiguous(reply):
            return error_of(reply, what)
        try:
            there = self.stat(path) is not None
        except (PermissionDenied, ServerRefused):
            there = True
        kind: type[TransferError] = PermissionDenied if there else NotFound
        return kind(str(error_of(reply, what)))

    # -- inside

    def _login_folder(self) -> bytes:
        if self._home is None:
            reply = self._connection.command("PWD")
            found = re.match(r'257 "((?:[^"]|"")*)"', reply)
            if found is None:
                raise ServerRefused(f"PWD: {reply!r} does not name a folder")
            self._home = found[1].replace('""', '"').encode("latin-1") or b"/"
        return self._home

    def _list_here(self, path: bytes) -> Listing:
        if self._has_facts:
            try:
                return self._with_links(parse_mlsd(self._lines("MLSD", path)), path)
            except Unsupported:
                pass  # only MLST is offered
        return parse_list(self._lines("LIST -a", path))

    def _with_links(self, listing: Listing, path: bytes) -> Listing:
        """A server may report a link to a folder as a folder (pyftpdlib does); LIST still shows it. Who walks through
        folders, or removes what is in them, has to know."""
        self._facts_show_links |= any(entry.is_link for entry in listing.entries)
        if self._facts_show_links or not any(entry.file.is_folder for entry in listing.entries):
            return listing
        try:
            links = {entry.name for entry in parse_list(self._lines("LIST -a", path)).entries if entry.is_link}
        except ServerRefused:
            return listing
        entries = tuple(replace(entry, is_link=entry.name in links) for entry in listing.entries)
        return replace(listing, entries=entries)

    def _lines(self, command: str, path: bytes) -> Iterator[bytes]:
        data, content = self._connection.transfer(command), bytearray()
        try:
            while block := data.receive():
                content += block
                if len(content) > MOST_BYTES:
                    raise ServerRefused(f"the listing of {quoted(path)} is longer than {MOST_BYTES} bytes")
        except BaseException:
            data.break_off()
            raise
        reply = data.done()
        if re.search(
            r"\bfailed\b", reply, re.IGNORECASE
        ):  # vsftpd: "226 Transfer done (but failed to open directory)."
            raise PermissionDenied(f"cannot list {quoted(path)}: {reply}")
        if content and not content.endswith(b"\n"):
            raise LinkLost(f"the listing of {quoted(path)} broke off in the middle of a line")
        lines = bytes(content).split(b"\r\n" if b"\r\n" in content else b"\n")
        return iter([line for line in lines if line])

    def _stat_by_size(self, path: bytes) -> RemoteFile | None:
        yes, reply = self._connection.ask("SIZE", sent(path))
        found = re.fullmatch(r"213 +(\d{1,19})\s*", reply) if yes else None
        if found is None:
            if self.is_folder(path):
                return RemoteFile(None, mode=stat.S_IFDIR)
            self._check_absent(path, reply, "SIZE")
            return None
        _, told = self._connection.ask("MDTM", sent(path))
        mtime_s = time_of(told.removeprefix("213").encode("latin-1")) if told.startswith("213") else None
        return RemoteFile(int(found[1]), mtime_s, stat.S_IFREG)

    def _check_absent(self, path: bytes, reply: str, what: str) -> None:
        """Return if certainly nothing is there. Raises: PermissionDenied, ServerRefused, or as error_of says."""
        error = error_of(reply, f"{what} {quoted(path)}")
        if isinstance(error, NotFound):
            return
        if not is_ambiguous(reply):
            raise error
        if self._is_listed(path):
            raise PermissionDenied(str(error))

    def _is_listed(self, path: bytes) -> bool:
        """Raises: PermissionDenied if the parent folder exists but cannot be listed; ServerRefused."""
        folder, name = posixpath.split(path.rstrip(b"/"))
        if not name:
            return True
        if folder not in (b"", b"/", b".") and not self.is_folder(folder):
            if self._is_listed(folder):
                raise PermissionDenied(f"{quoted(folder)} exists but cannot be entered")
            return False
        listing = self.list(folder)
        if any(entry.name == name for entry in listing.entries):
            return True
        if listing.unread:
            raise ServerRefused(f"the listing of {quoted(folder)} has an unknown format: {quoted(listing.unread[0])}")
        return False


def sent(path: bytes) -> bytes:
    """A path for a command: a leading dash or space would be taken for something else."""
    return b"./" + path if path[:1] in (b"-", b" ", b"~") else path or b"."


def _facts_in(reply: str) -> bytes:
    """The line with the facts in an MLST reply. Raises: ServerRefused."""
    for line in reply.split("\n")[1:-1]:
        facts, _, _ = line.lstrip(" ").partition(" ")
        if "=" in facts:
            return facts.encode("latin-1")
    raise ServerRefused(f"MLST: {reply!r} contains no facts")

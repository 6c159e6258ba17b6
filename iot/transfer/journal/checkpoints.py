"""Checkpoints in the journal.

The checkpoints of all transfers are noted in memory and written together, by bytes and by time: every commit wears the
flash, and a slightly old checkpoint costs only a few bytes sent again. A barrier writes at once.

Most rows live for a second: between the intent to publish a small file and its delivery. A new row overwrites one that
is to be dropped, and the index is kept in memory only (there are few rows): so a large commit touches few pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from iot.transfer.journal.journal import Journal, Schema
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, Span, Token

__all__ = ["CHECKPOINTS", "Checkpoints", "Key", "keep_for", "kept_with_others"]

log = logging.getLogger(__name__)

TAIL = b"\0"
"""No name and no token starts with it."""

CHECKPOINTS = Schema(
    "checkpoints",
    (
        """
        CREATE TABLE checkpoint (
            id INTEGER PRIMARY KEY, key INTEGER NOT NULL,
            server TEXT NOT NULL, direction TEXT NOT NULL, remote BLOB NOT NULL, local BLOB NOT NULL,
            part BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
            inode INTEGER NOT NULL, acked INTEGER NOT NULL, synced INTEGER NOT NULL, suspect TEXT NOT NULL,
            phase TEXT NOT NULL, noted_at INTEGER NOT NULL, crc INTEGER NOT NULL)
        """,
        "ALTER TABLE checkpoint ADD COLUMN published_as INTEGER",
    ),
)

Key = tuple[str, bytes, bytes]
CHECKED = (
    "server",
    "direction",
    "remote",
    "local",
    "part",
    "size",
    "mtime_ns",
    "ctime_ns",
    "inode",
    "acked",
    "synced",
    "suspect",
    "phase",
    "noted_at",
    "published_as",
)
COLUMNS = ("id", *CHECKED, "crc", "key")
NOTE = (
    f"INSERT OR REPLACE INTO checkpoint ({', '.join(COLUMNS)})"  # noqa: S608  names of this file
    f" VALUES ({', '.join('?' * len(COLUMNS))})"
)


class CheckpointIndex:
    """Which row holds the checkpoint of which transfer with one server; shared by all users of the same journal.

    The index is in memory, so that none has to be written to flash.
    """

    def __init__(self, journal: Journal, server: str) -> None:
        self._journal = journal
        self._server = server
        self._version: int | None = None
        self._places: dict[int, int] = {}

    def current(self) -> dict[int, int]:
        """Hash of the transfer -> row number; reloaded after another process has written."""
        version = self._journal.read("PRAGMA data_version")[0][0]
        if version != self._version:
            rows = self._journal.read("SELECT id, key FROM checkpoint WHERE server = ?", self._server)
            self._places = {row["key"]: row["id"] for row in rows}
            self._version = version
        return self._places

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[int, int | None]]:
        """Apply the changes of a transaction; reload everything if it failed."""
        changes: dict[int, int | None] = {}
        try:
            yield changes
        except BaseException:
            self._version = None
            raise
        self._places.update({key: place for key, place in changes.items() if place is not None})
        for key in [key for key, place in changes.items() if place is None]:
            self._places.pop(key, None)


class Checkpoints:
    """The checkpoints of transfers with one server. `note` keeps one for the next batch, `commit` writes now.

    server: user@host:port. every_bytes, every_s: write at least after this much progress or time.
    """

    def __init__(
        self, journal: Journal, server: str, *, every_bytes: int, every_s: float, clock: Callable[[], float]
    ) -> None:
        self._journal = journal
        self._server = server
        self._every_bytes = every_bytes
        self._every_s = every_s
        self._clock = clock
        self._noted: dict[Key, Checkpoint] = {}
        self._dropped: dict[Key, None] = {}
        self._written: dict[Key, int] = {}
        self._since: float | None = None
        self._places: CheckpointIndex = journal.shared.setdefault((__name__, server), CheckpointIndex(journal, server))

    def load(self, direction: Direction, remote_path: bytes, local_path: bytes) -> Checkpoint | None:
        key = (direction.value, remote_path, local_path)
        if key in self._noted:
            return self._noted[key]
        if key in self._dropped:
            return None
        place = self._places.current().get(_hash(key))
        if place is None:
            return None
        rows = self._journal.read(
            "SELECT * FROM checkpoint WHERE id = ? AND server = ? AND direction = ? AND remote = ? AND local = ?",
            place,
            self._server,
            *key,
        )
        return _from_row(rows[0]) if rows else None  # an invalid one counts as none: start over

    def note(self, checkpoint: Checkpoint, *, now: bool = False) -> None:
        """Keep in memory; write the batch if it is due, or `now`. Raises: JournalUnavailable, DiskFull."""
        key = _key(checkpoint)
        self._noted[key] = checkpoint
        self._dropped.pop(key, None)
        if self._since is None:
            self._since = self._clock()
        ahead = checkpoint.acked_bytes - self._written.setdefault(key, checkpoint.acked_bytes)
        if now or ahead >= self._every_bytes or self._clock() - self._since >= self._every_s:
            self.flush()

    def commit(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Make these durable now, along with everything noted and some of the drops.

        Raises: JournalUnavailable, DiskFull.
        """
        for checkpoint in checkpoints:
            key = _key(checkpoint)
            self._noted[key] = checkpoint
            self._dropped.pop(key, None)
        self._write_all(len(self._noted))

    def forget(self, checkpoint: Checkpoint) -> None:
        self.forget_keys([_key(checkpoint)])

    def forget_keys(self, keys: Iterable[Key]) -> None:
        """Drop with the next batch: nobody has to wait, because a leftover checkpoint is harmless."""
        for key in keys:
            self._noted.pop(key, None)
            self._written.pop(key, None)
            self._dropped[key] = None
            if self._since is None:
                self._since = self._clock()

    def flush(self) -> None:
        """Write everything noted and dropped in one transaction. Raises: JournalUnavailable, DiskFull."""
        self._write_all(len(self._dropped))

    def _write_all(self, drops: int) -> None:
        """Drops beyond `drops` wait for the next batch, whose new rows overwrite them."""
        if not self._noted and not self._dropped:
            return
        dropped = list(itertools.islice(self._dropped, drops))
        with self._places.changing() as changes:
            self._journal.write(lambda db: changes.update(self._write(db, dropped)))
        self._written.update({key: checkpoint.acked_bytes for key, checkpoint in self._noted.items()})
        self._noted.clear()
        for key in dropped:
            del self._dropped[key]
        self._since = self._clock() if self._dropped else None

    def _write(self, db: sqlite3.Connection, dropped: Sequence[Key]) -> dict[int, int | None]:
        """-> the new row numbers; None for rows that are gone"""
        now = int(time.time())
        places = self._places.current()
        old = {key: places[key] for key in map(_hash, dropped) if key in places}
        free = deque(old.values())
        following = itertools.count(db.execute("SELECT coalesce(max(id), 0) + 1 FROM checkpoint").fetchone()[0])
        changes: dict[int, int | None] = dict.fromkeys(old)
        for checkpoint in self._noted.values():
            key = _hash(_key(checkpoint))
            changes[key] = places.get(key) or (free.popleft() if free else next(following))
            db.execute(NOTE, (changes[key], *_row(self._server, checkpoint, now), key))
        db.executemany("DELETE FROM checkpoint WHERE id = ?", [(place,) for place in free])
        return changes

    def abandoned_before(self, before_s: float) -> list[Checkpoint]:
        """Uploads whose last checkpoint is older than `before_s` (seconds since 1970)."""
        rows = self._journal.read(
            "SELECT * FROM checkpoint WHERE server = ? AND direction = ? AND noted_at < ? LIMIT 1000",
            self._server,
            Direction.UPLOAD.value,
            int(before_s),
        )
        found = [checkpoint for checkpoint in map(_from_row, rows) if checkpoint is not None]
        return [checkpoint for checkpoint in found if _key(checkpoint) not in self._dropped]


def kept_with_others(journal: Journal, server: str) -> list[tuple[str, Checkpoint]]:
    """The uploads whose checkpoints are those of another server than this, each with its server."""
    query = "SELECT * FROM checkpoint WHERE server != ? AND direction = ?"
    rows = journal.read(query, server, Direction.UPLOAD.value)
    found = [(str(row["server"]), _from_row(row)) for row in rows]
    return [(owner, checkpoint) for owner, checkpoint in found if checkpoint is not None]


def keep_for(db: sqlite3.Connection, checkpoints: Iterable[tuple[str, Checkpoint]]) -> None:
    """Replace checkpoints of servers that nobody uses now, in their rows and with their times."""
    where = "server = ? AND direction = ? AND remote = ? AND local = ?"
    for server, checkpoint in checkpoints:
        key = _key(checkpoint)
        found = db.execute(f"SELECT id, noted_at FROM checkpoint WHERE {where}", (server, *key)).fetchone()  # noqa: S608
        if found is not None:
            db.execute(NOTE, (found["id"], *_row(server, checkpoint, found["noted_at"]), _hash(key)))


def _key(checkpoint: Checkpoint) -> Key:
    return checkpoint.direction.value, checkpoint.remote_path, checkpoint.local_path


def _row(server: str, checkpoint: Checkpoint, now: int) -> tuple[object, ...]:
    values = (
        server,
        *_key(checkpoint),
        _short(bytes(checkpoint.token), checkpoint.remote_path),
        *checkpoint.fingerprint.columns(),
        checkpoint.acked_bytes,
        checkpoint.synced_bytes,
        json.dumps([(span.start, span.end) for span in checkpoint.suspect]),
        checkpoint.phase.value,
        now,
        checkpoint.published_as,
    )
    return *values, _crc(values)


def _hash(key: Key) -> int:
    """48 bits are enough for a few thousand rows; a row is only used if its names match."""
    direction, remote, local = key
    digest = hashlib.blake2b(b"%s:%d:%s%s" % (direction.encode(), len(remote), remote, local), digest_size=6)
    return int.from_bytes(digest.digest(), "big")


def _short(token: bytes, beside: bytes) -> bytes:
    """Strip the prefix that it shares with the name beside it: every byte is written to flash."""
    return TAIL + token[len(beside) :] if token.startswith(beside) else token


def _long(token: bytes, beside: bytes) -> bytes:
    return bytes(beside + token[len(TAIL) :] if token.startswith(TAIL) else token)


def _crc(values: tuple[object, ...]) -> int:
    """SQLite has no checksums: a bit flipped on flash must not become a trusted offset.

    What a row does not say is left out, so that rows from before a column was added stay valid.
    """
    return zlib.crc32(repr(tuple(value for value in values if value is not None)).encode())


def _from_row(row: sqlite3.Row) -> Checkpoint | None:
    if row["crc"] != _crc(tuple(row[name] for name in CHECKED)):
        log.warning("checkpoint ignored: bad checksum remote=%r", row["remote"])
        return None
    return Checkpoint(
        direction=Direction(row["direction"]),
        remote_path=bytes(row["remote"]),
        local_path=bytes(row["local"]),
        token=Token(_long(row["part"], row["remote"])),
        fingerprint=Fingerprint.from_columns(row["size"], row["mtime_ns"], row["ctime_ns"], row["inode"]),
        acked_bytes=row["acked"],
        synced_bytes=row["synced"],
        suspect=tuple(Span(start, end) for start, end in json.loads(row["suspect"])),
        phase=Phase(row["phase"]),
        published_as=row["published_as"],
    )

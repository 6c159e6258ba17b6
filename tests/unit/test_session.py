"""A connection that stands: what it takes of the server's limits, and what it makes durable."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.scripted import Files, drive

from iot.sftp.client import session as module
from iot.sftp.client.protocol.packets import Code, Extended, Reply, Status
from iot.sftp.client.protocol.server import SAFE_DATA_BYTES, SAFE_SLOTS, Server
from iot.sftp.client.session import MAX_BLOCK, SPARE_HANDLES, Session, ask_limits, commit
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Token

LIMITS = b"limits@openssh.com"


def limits(packet: int, read: int, write: int, handles: int) -> Extended:
    return Extended(struct.pack(">4Q", packet, read, write, handles))


def asked(server: Server, reply: Reply) -> Files:
    files = Files(refuse=lambda event: reply if event.what == LIMITS.decode() else None)
    drive(ask_limits(server), files)
    return files


@pytest.mark.parametrize(
    ("reply", "read", "write", "handles"),
    [
        (limits(0, 100_000, 200_000, 500), 100_000, 200_000, 500),
        (limits(0, 1024, 1024, 1), 1024, 1024, 1),
        (limits(0, 1023, 0, 0), SAFE_DATA_BYTES, SAFE_DATA_BYTES, SAFE_SLOTS),  # 0: not said; 1023: hardly meant
        (Status(Code.OP_UNSUPPORTED, ""), SAFE_DATA_BYTES, SAFE_DATA_BYTES, SAFE_SLOTS),
        (Extended(b"short"), SAFE_DATA_BYTES, SAFE_DATA_BYTES, SAFE_SLOTS),
    ],
)
def test_limits_that_make_sense_are_kept_and_others_leave_the_safe_ones(
    reply: Reply, read: int, write: int, handles: int
) -> None:
    server = Server("SSH-2.0-other", "key", {LIMITS: b"1"})
    asked(server, reply)
    assert (server.max_read, server.max_write, server.max_handles) == (read, write, handles)


@pytest.mark.parametrize(
    ("banner", "extensions", "is_asked"),
    [("SSH-2.0-other", {}, False), ("SSH-2.0-other", {LIMITS: b"1"}, True), ("SSH-2.0-OpenSSH_9.2", {}, True)],
)
def test_only_a_server_that_may_know_its_limits_is_asked(
    banner: str, extensions: dict[bytes, bytes], is_asked: bool
) -> None:
    files = asked(Server(banner, "key", extensions), limits(0, 100_000, 100_000, 9))
    assert bool(files.events) is is_asked


@pytest.mark.parametrize(
    ("handles", "files_allowed", "slots"),
    [(1000, 2**20, 100), (SPARE_HANDLES + 20, 2**20, 20), (1, 2**20, 1), (1000, 60, 30), (1000, 1, 1)],
)
def test_so_many_files_at_once_as_all_sides_allow_and_always_one(
    monkeypatch: pytest.MonkeyPatch, handles: int, files_allowed: int, slots: int
) -> None:
    monkeypatch.setattr(module, "_open_files_allowed", lambda: files_allowed)
    session: Any = object.__new__(Session)
    session.server = Server("SSH-2.0-other", "key", {LIMITS: b"1"})
    blocks: list[int] = []
    session.pace, session._options = SimpleNamespace(allow_blocks=blocks.append), SimpleNamespace(slots=100)
    files = Files(refuse=lambda event: limits(0, 10**6, 10**6, handles))
    drive(session._learn_limits(), files)
    assert session.slots == slots
    assert blocks == [MAX_BLOCK]


def test_what_a_job_waits_for_is_in_the_journal_after_the_commit(tmp_path: Path) -> None:
    ledger = Checkpoints(Journal(None, CHECKPOINTS), "s", every_bytes=1, every_s=1, clock=time.monotonic)
    local = os.fsencode(tmp_path / "f")
    record = Checkpoint(Direction.UPLOAD, b"/up/f", local, Token(b"/up/f.part"), Fingerprint(9, 5), 3, 3)
    commit(ledger, [record])
    found = ledger.load(Direction.UPLOAD, b"/up/f", local)
    assert found is not None
    assert (found.acked_bytes, found.token) == (3, b"/up/f.part")

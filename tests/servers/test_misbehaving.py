"""The misbehaving servers misbehave as they say, seen by a client that asks packet by packet."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from servers.misbehaving import MISBEHAVIOURS
from servers.plain import plain_client
from servers.quirks import KIB, Misbehaving, Quirk

WRITES = 60
CLOSE = 4
EXTENDED = 200
LOST = (OSError, EOFError, paramiko.SSHException, paramiko.SFTPError, struct.error)
BLOCK = bytes(range(256)) * 128
OPTIONS: dict[str, dict[str, float]] = {
    "StopsReading": {"pause_s": 1.0},
    "LateClose": {"delay_s": 1.0},
    "DropsIdle": {"idle_s": 0.5},
    "Late": {"delay_s": 0.05},
}


@contextlib.contextmanager
def started(folder: Path, quirk: type[Quirk]) -> Iterator[Misbehaving]:
    with Misbehaving(folder / "root", quirk, **OPTIONS.get(quirk.__name__, {})) as server:
        yield server


def deliver(sftp: paramiko.SFTPClient) -> None:
    """Write a part in blocks, many in flight, publish it over an existing file, read it back; then rest."""
    sftp.stat("/final")
    with contextlib.suppress(OSError):
        sftp._request(EXTENDED, b"limits@openssh.com")
    files = [sftp.open(f"/part{number}", "wb") for number in range(5)]
    files[0].set_pipelined()
    for _ in range(WRITES):
        files[0].write(BLOCK)
    sftp.open("/part0", "r+b").close()
    for file in files:
        sftp._request(CLOSE, file.handle)
    sftp.posix_rename("/part0", "/final")
    with sftp.open("/final", "rb") as file:
        file.read(KIB)
    time.sleep(0.8)
    sftp.stat("/final")


@pytest.mark.parametrize("said", MISBEHAVIOURS)
def test_each_misbehaviour_happens_in_the_course_of_a_delivery(said: str, tmp_path: Path) -> None:
    with started(tmp_path, MISBEHAVIOURS[said]) as server:
        (server.root / "final").write_bytes(b"old")
        with contextlib.suppress(*LOST), plain_client(server) as sftp:
            channel = sftp.get_channel()
            assert channel is not None
            channel.settimeout(3)
            deliver(sftp)
        assert server.hits, said


def test_a_crash_spares_what_was_synced(tmp_path: Path) -> None:
    quirk = MISBEHAVIOURS["loses the tail in a crash"]
    with Misbehaving(tmp_path / "root", quirk, after=1024 * KIB, damaged=512 * KIB) as server:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), plain_client(server) as sftp:
            file = sftp.open("/part", "wb")
            for number in range(33):
                file.write(BLOCK)
                file.flush()
                if number == 23:
                    sftp._request(200, "fsync@openssh.com", file.handle)
        assert (server.root / "part").stat().st_size == 24 * len(BLOCK)
        with plain_client(server) as sftp:
            assert sftp.stat("/part").st_size == 24 * len(BLOCK)


def test_another_host_key_is_not_the_known_one(tmp_path: Path) -> None:
    with Misbehaving(tmp_path / "root", MISBEHAVIOURS["presents another host key the second time"]) as server:
        with plain_client(server) as sftp:
            assert sftp.listdir("/") == []
        with pytest.raises(paramiko.BadHostKeyException), plain_client(server):
            pass  # never reached


def test_once_inactive_it_behaves(tmp_path: Path) -> None:
    with Misbehaving(tmp_path / "root", MISBEHAVIOURS["fails CLOSE"]) as server:
        server.active = False
        with plain_client(server) as sftp, sftp.open("/file", "wb") as file:
            file.write(b"content")
        assert server.content("file") == b"content"
        assert server.hits == 0

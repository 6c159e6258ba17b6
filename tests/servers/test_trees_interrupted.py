"""Whole folders over links that are cut, by programs that are killed, and over links with a long round trip."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from faults.proxy import BadLink, Fault
from servers.openssh import OpenSSH
from servers.shell import COMMAND, Shell

FILES, FILE_BYTES = 40, 150_000
TOTAL_BYTES = FILES * FILE_BYTES
RATE_BPS = 32e6
DELAY_S = 0.05
FOLDERS = 100
"""Listed one after another, at four round trips each, they would take forty seconds."""
QUIET_S = 0.2
AT_ONCE_S = 10.0


def made(root: Path, seed: int = 1) -> Path:
    content = random.Random(seed)
    for number in range(FILES):
        path = root / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.randbytes(FILE_BYTES))
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_sync_over_a_link_that_is_cut_twice_is_whole(sshd: OpenSSH, tmp_path: Path, direction: str) -> None:
    here, far = tmp_path / "here", sshd.root / "far"
    source, dest = (here, far) if direction == "upload" else (far, here)
    made(source)
    dest.mkdir(exist_ok=True)
    (dest / "old").write_bytes(b"x")
    lane = "up_bytes" if direction == "upload" else "down_bytes"
    script = [Fault("cut", **{lane: TOTAL_BYTES * part // 3}) for part in (1, 2)]
    with sshd.link(rate_bps=RATE_BPS, script=script) as link, sshd.connect(tmp_path, link) as client:
        client.sync(here, sshd.path("far"), direction=direction, prune=True).raise_first()
        assert link.connections >= 3
        assert digests(dest) == digests(source)
        assert client.sync(here, sshd.path("far"), direction=direction, prune=True).done == ()


def quiet_count(link: BadLink) -> int:
    """Bytes in both directions, once what was on the way to one that was killed has been counted."""
    counted = -1
    while counted != (now := link.up_bytes + link.down_bytes):
        counted = now
        time.sleep(QUIET_S)
    return counted


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_killed_sync_has_removed_nothing_and_the_same_command_ends_it(
    sshd: OpenSSH, tmp_path: Path, direction: str
) -> None:
    folder = tmp_path / "here"
    near, far = folder / "near", sshd.root / "far"
    source, dest = (near, far) if direction == "upload" else (far, near)
    made(source)
    dest.mkdir(parents=True, exist_ok=True)
    (dest / "old").write_bytes(b"x")
    with BadLink(sshd.host, sshd.port, rate_bps=RATE_BPS) as link:
        shell = Shell(sshd, folder)
        known = tmp_path / "known"
        known.write_text(sshd.known_hosts.read_text().replace(f":{sshd.port} ", f":{link.port} "))
        shell.environment |= {"SFTP_PORT": str(link.port), "SFTP_KNOWN_HOSTS": str(known)}
        there = f":{sshd.path('far')}"
        words = ["sync", "--prune", *(["near", there] if direction == "upload" else [there, "near"])]
        with subprocess.Popen([*COMMAND, *words], cwd=folder, env=shell.environment) as process:
            while link.up_bytes + link.down_bytes < TOTAL_BYTES * 0.6:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        assert (dest / "old").exists()
        before = quiet_count(link)
        done = shell(*words)
        assert done.returncode == 0, done.stderr
        assert link.up_bytes + link.down_bytes - before < TOTAL_BYTES
    assert digests(dest) == digests(source)


def test_the_folders_of_a_level_are_listed_at_once(sshd: OpenSSH, tmp_path: Path) -> None:
    for number in range(FOLDERS):
        (sshd.root / f"far/{number}").mkdir(parents=True)
        (sshd.root / f"far/{number}/f").write_bytes(b"x")
    with sshd.link(delay_s=DELAY_S) as link, sshd.connect(tmp_path, link) as client:
        client.connect()
        began = time.monotonic()
        plan = client.download_dir(sshd.path("far"), tmp_path / "here", dry_run=True).plan
        assert time.monotonic() - began < AT_ONCE_S
        assert len(plan.transfers) == FOLDERS

"""A small urgent file overtakes a large one in flight, over a slow link with real TCP, from the first seconds on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import cast

import pytest
from faults.proxy import BadLink
from faults.rig import Rig
from faults.tunlink import TunLink
from faults.tunnel import SshdInside, _Counted

pytestmark = [pytest.mark.needs("tun"), pytest.mark.alone]

MIB = 1024 * 1024
KIB = 1024
RATE_BPS = 1e6
ROUND_TRIP_S = 0.2
PUBLISHED_S = 2.5
READY_AT_S = (1.0, 4.0, 9.0, 15.0)
READY_AT_S_OF_AGENT = (1.0, 4.0, 9.0)
PROGRAM = """
import sys, time
from pathlib import Path
from iot.sftp.client import IoTSFTPClient, UploadJob
host, port, user, key, pin, state, root, folder, *ready_at = sys.argv[1:]
client = IoTSFTPClient(host, int(port), user, key_file=key, host_key=pin, state_dir=state)
client.connect()
began = time.monotonic()
def jobs():
    yield UploadJob(Path(folder) / "large", f"{root}/large", key="large", priority=11)
    for at in map(float, ready_at):
        while time.monotonic() - began < at:
            yield None
        yield UploadJob(Path(folder) / "urgent", f"{root}/urgent-{at}", key=at, priority=0)
for outcome in client.upload_many(jobs()):
    assert outcome.size, outcome
    print(time.monotonic() - began - outcome.key, flush=True)
    if outcome.key == float(ready_at[-1]):
        break
client.close()
"""


def test_an_urgent_file_of_1_kib_is_published_within_2_5_s_while_64_mib_are_being_sent(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    with (files / "large").open("wb") as file:
        file.truncate(64 * MIB)
    (files / "urgent").write_bytes(b"x" * KIB)
    link = TunLink(RATE_BPS, rtt_s=ROUND_TRIP_S)
    with link, SshdInside(tmp_path / "server", link) as server:
        login = (server.host, server.port, server.user, server.key_file, server.host_key)
        arguments = map(str, (*login, tmp_path / "state", server.root, files, *READY_AT_S))
        done = link.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=True
        )
        took_s = [float(line) for line in done.stdout.split()]
        assert all((server.root / f"urgent-{at}").stat().st_size == KIB for at in READY_AT_S)
    assert len(took_s) == len(READY_AT_S), done.stderr
    assert max(took_s) <= PUBLISHED_S, took_s


def test_a_ready_urgent_file_is_published_within_2_5_s_by_the_whole_agent(tmp_path: Path) -> None:
    """From the rename into the outbox to the final name on the server: found, queued, sent, synced and renamed."""
    link = TunLink(RATE_BPS, rtt_s=ROUND_TRIP_S)
    urgent = ('urgent = ["urgent-*"]',)
    with link, SshdInside(tmp_path / "server", link) as server:
        counted = cast(BadLink, _Counted(link, server.port))
        box = {"link": counted, "host": server.host, "inside": link.command, "box_settings": urgent}
        with Rig(tmp_path / "device", server, **box) as rig:
            rig.put("large", 64 * MIB)
            rig.start()
            rig.wait(lambda: link.counts().up_bytes > 20 * KIB)
            began = time.monotonic()
            took_s = [_published_s(rig, server.root / rig.destination, began + at) for at in READY_AT_S_OF_AGENT]
            assert not (server.root / rig.destination / "large").exists()
    print("published after", took_s)
    assert max(took_s) <= PUBLISHED_S, took_s


def _published_s(rig: Rig, folder: Path, at: float) -> float:
    time.sleep(max(at - time.monotonic(), 0.0))
    name = f"urgent-{at:.3f}"
    rig.put(name, KIB)
    ready = time.monotonic()
    while not (folder / name).exists():
        time.sleep(0.005)
        assert time.monotonic() - ready < 30, rig.log.read_text()
    return time.monotonic() - ready

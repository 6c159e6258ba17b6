"""What may be wrong on the device itself: journal, disk, a second agent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from faults.proxy import BadLink
from servers.bad_input import Site, clean_environment, mounted, until
from servers.openssh import OpenSSH

from iot.sftp.client import DiskFull, JournalUnavailable

MIB = 1 << 20


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


# -- the journal


def whole(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def somewhere(path: Path) -> None:
    spots = random.Random(1)
    with path.open("r+b") as file:
        for _ in range(8):
            file.seek(spots.randrange(path.stat().st_size))
            file.write(spots.randbytes(200))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [whole, somewhere, cut_short, emptied])
def test_a_corrupt_journal_never_blocks_the_start_and_loses_no_file(site: Site, damage: object) -> None:
    """In the middle of an upload: the part is on the server, and what the journal says of it is rubbish."""
    assert callable(damage)
    content = os.urandom(4 * MIB)
    site.put("large", content)
    for number in range(20):
        site.put(f"small{number}", b"%d" % number)
    with BadLink(site.server.host, site.server.port, rate_bps=24e6) as link:
        settings = {"port": link.port, "known_hosts": None, "host_key": site.server.host_key, "checkpoint_s": 0.1}
        command = site.spooler_command("run", **settings)
        with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL) as agent:
            until(lambda: link.up_bytes > 2 * MIB)
            agent.send_signal(signal.SIGKILL)
    damage(site.state / "journal.db")
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            (site.state / f"journal.db{ending}").unlink()
    drained = site.drain()
    assert drained.returncode == 0, drained.stderr
    assert site.left() == []
    assert site.content("large") == content
    assert {site.content(f"small{number}") for number in range(20)} == {b"%d" % number for number in range(20)}
    assert [name for name in site.arrived() if name.endswith(".part")] == []


def test_the_client_goes_on_with_a_corrupt_journal_set_aside(site: Site) -> None:
    site.state.mkdir()
    (site.state / "journal.db").write_bytes(os.urandom(50_000))
    source = site.put("file")
    assert site.iot_sftp("put", str(source), site.server.path("a")).returncode == 0
    assert len(list(site.state.glob("journal.corrupt-*.db"))) == 1


def test_a_state_directory_that_cannot_be_one_is_told(site: Site) -> None:
    site.state.write_bytes(b"a file")
    source = site.put("file")
    with site.client() as client, pytest.raises(JournalUnavailable, match=str(site.state)):
        client.upload(source, site.server.path("a"))
    assert site.iot_sftp("put", str(source), site.server.path("a")).returncode == 74
    drained = site.drain()
    assert drained.returncode == 75
    assert str(site.state) in drained.stderr
    assert site.left() == ["file"]


# -- a full disk


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


@pytest.mark.needs("mounts")
def test_a_disk_that_is_full_from_the_start_is_told_and_made_good(site: Site) -> None:
    for number in range(50):
        site.put(f"file{number}", b"%d" % number)
    with mounted(site.state, "tmpfs", "size=2m"):
        filler = fill(site.state)
        drained = site.drain()
        assert drained.returncode == 75, drained.stderr
        assert "no space left" in drained.stderr.lower()
        with site.client() as client, pytest.raises(DiskFull, match="free some space"):
            client.upload(site.box / "file1", site.server.path("a"))
        assert len(site.left()) == 50
        filler.unlink()
        assert site.drain().returncode == 0
    assert {site.content(f"file{number}") for number in range(50)} == {b"%d" % number for number in range(50)}
    assert site.left() == []


@pytest.mark.needs("mounts")
def test_a_disk_that_fills_while_the_agent_runs_loses_nothing_and_it_recovers(site: Site) -> None:
    """With the reserve given up deliveries go on for a while; then they are held until there is room."""
    wanted = {}
    with mounted(site.state, "tmpfs", "size=2m"), site.running() as agent:
        for round_ in range(3):
            for number in range(120):
                wanted[f"{round_}-{number}"] = os.urandom(100)
                site.put(f"{round_}-{number}", wanted[f"{round_}-{number}"])
            until(lambda: "delivered" in site.log)
            filler = fill(site.state)
            time.sleep(0.5)
            fill(site.state)  # what the reserve has freed, too
            for number in range(120):
                wanted[f"{round_}+{number}"] = b"later"
                site.put(f"{round_}+{number}", b"later")
            for name, content in wanted.items():
                place = site.box / name
                assert place.exists() or site.content(name) == content
            filler.unlink()
            until(lambda: site.left() == [], 60)
        assert agent.poll() is None
    assert {name: site.content(name) for name in wanted} == wanted
    assert [name for name in site.arrived() if name not in wanted] == []


@pytest.mark.needs("mounts")
def test_a_download_onto_a_full_disk_is_told_and_goes_on_when_there_is_room(site: Site, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    (site.server.root / "file").write_bytes(content)
    with mounted(tmp_path / "small", "tmpfs", "size=2m") as small, site.client() as client:
        with pytest.raises(DiskFull, match="free some space"):
            client.download(site.server.path("file"), small / "file")
        assert not (small / "file").exists()
        os.system(f"mount -o remount,size=8m '{small}'")
        client.download(site.server.path("file"), small / "file")
        assert (small / "file").read_bytes() == content


# -- a second agent


def test_a_second_agent_on_the_same_state_directory_is_kept_out(site: Site) -> None:
    with site.running() as agent:
        site.put("first")
        until(lambda: site.left() == [])
        for words in (("run",), ("run", "--drain")):
            second = site.spooler(*words)
            assert second.returncode == 75
            assert f"another agent (process {agent.pid}) works on {site.state}" in second.stderr
        site.put("second")
        until(lambda: site.left() == [])
        assert agent.poll() is None
    assert site.drain().returncode == 0

"""What the server's folder may be like: missing, not writable, full. And files larger than 4 GiB.

Login as an ordinary user, by key and by password, so that rights count.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from quarantined import quarantined
from servers.bad_input import Site, mounted
from servers.base import client_key
from servers.openssh import OpenSSH

from iot.sftp.client import (
    Fingerprint,
    IoTSFTPClient,
    Journal,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
)
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.model import Checkpoint, Direction
from iot.transfer.names import part_name

MIB = 1 << 20
GIB = 1 << 30
by_key = pytest.mark.parametrize("site", ["key"], indirect=True)


@pytest.fixture(params=["key", "password"])
def site(request: pytest.FixtureRequest, sshd_with_password: OpenSSH, tmp_path: Path) -> Site:
    site = Site(sshd_with_password, tmp_path / "device")
    if request.param == "key":
        site.login |= {"password": None, "key_file": client_key()}
    return site


def own(site: Site, folder: Path, mode: int) -> Path:
    """A folder of the login's user with these rights."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, site.server.user)
    folder.chmod(mode)
    return folder


@by_key
def test_missing_folders_are_made(site: Site) -> None:
    site.outbox["destination"] = site.server.path("not/there/yet")
    source = site.put("file")
    with site.client() as client:
        client.upload(source, site.server.path("a/b/c"))
    assert site.iot_sftp("put", str(source), site.server.path("d/e/f")).returncode == 0
    assert site.drain().returncode == 0
    assert site.server.names() == ["a/b/c", "d/e/f", "not/there/yet/file"]


@by_key
def test_missing_folders_are_not_made_where_that_is_not_wanted(site: Site) -> None:
    source = site.put("file")
    with site.client(make_dirs=False) as client, pytest.raises(NotFound, match=r"a/b"):
        client.upload(source, site.server.path("a/b"))
    assert site.iot_sftp("put", str(source), site.server.path("a/b"), make_dirs=False).returncode == 1
    drained = site.drain(make_dirs=False)
    assert drained.returncode == 75
    assert "NotFound" in drained.stderr
    assert site.server.names() == []
    assert site.left() == ["file"]


def test_a_folder_without_the_right_to_write_is_named_and_the_others_go_on(site: Site) -> None:
    own(site, site.server.root / "up", 0o755)
    own(site, site.server.root / "up/closed", 0o555)
    source = site.put("closed/file")
    for number in range(5):
        site.put(f"file{number}")
    with site.client() as client, pytest.raises(PermissionDenied, match="closed/file"):
        client.upload(source, site.server.path("up/closed/file"))
    assert site.iot_sftp("put", str(source), site.server.path("up/closed/file")).returncode == 77
    for _ in range(2):
        drained = site.drain()
        assert drained.returncode == 75, drained.stderr
        assert "PermissionDenied" in drained.stderr
    assert site.arrived() == [f"file{number}" for number in range(5)]
    assert site.left() == []
    (closed,) = quarantined(site.state / "quarantine")
    assert (closed.path, closed.content) == ("closed/file", b"content")
    assert "PermissionDenied" in closed.record["reason"]
    (site.server.root / "up/closed").chmod(0o755)
    assert site.spooler("retry").returncode == 0
    assert site.drain().returncode == 0
    assert site.content("closed/file") == b"content"


@pytest.mark.needs("mounts")
def test_a_full_server_is_named_waited_for_without_a_strike_and_nothing_half_is_published(site: Site) -> None:
    large, small = os.urandom(3 * MIB), os.urandom(100_000)
    source = site.put("large", large)
    with mounted(site.server.root / "up", "tmpfs", "size=2m,mode=777") as full:
        with site.client() as client, pytest.raises(NoSpaceOnServer, match=r"large.*full|full.*large"):
            client.upload(source, site.server.path("up/large"))
        typed = site.iot_sftp("put", str(source), site.server.path("up/large"))
        assert typed.returncode == 74
        assert "full" in typed.stderr
        site.put("small", small)
        site.retry["max_attempts"] = 1
        drained = site.drain()
        assert drained.returncode == 75
        assert "NoSpaceOnServer" in drained.stderr
        assert site.content("large") is None
        assert not quarantined(site.state / "quarantine")
        assert "large" in site.left()
        for part in full.glob("*.part"):
            part.unlink()
        os.system(f"mount -o remount,size=16m '{full}'")
        assert site.drain().returncode == 0
        assert (site.content("large"), site.content("small")) == (large, small)
        assert sorted(os.listdir(full)) == ["large", "small"]


# -- offsets above 4 GiB

ACKED = 4 * GIB - MIB
SIZE = 4 * GIB + MIB


def sparse(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in pieces.items():
            os.pwrite(file.fileno(), piece[: size - offset], offset)


def pieces() -> dict[int, bytes]:
    return {0: os.urandom(4096), ACKED - 4096: os.urandom(4096), ACKED: os.urandom(2 * MIB)}


def note(site: Site, journal: Journal, checkpoint: Checkpoint) -> None:
    server = f"{site.server.user}@{site.server.host}:{site.server.port}"
    Checkpoints(journal, server, every_bytes=1, every_s=1, clock=lambda: 0.0).commit([checkpoint])
    journal.close()


def same(path: Path, wanted: dict[int, bytes]) -> bool:
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks * 512 < 16 * MIB  # nobody has written 4 GiB
    with path.open("rb") as file:
        return all(os.pread(file.fileno(), len(piece), offset) == piece for offset, piece in wanted.items())


@by_key
def test_an_upload_goes_on_at_four_gibibytes_less_one_mebibyte(site: Site) -> None:
    wanted = pieces()
    for device, source in (("", site.folder / "source"), ("gw", site.box / "file")):
        sparse(source, SIZE, wanted)
        dest = site.server.path("up/client" if not device else "up/file").encode()
        journal = Journal(site.state, CHECKPOINTS)
        part = part_name(dest, bytes(source), journal.owner + device, ".part")
        own(site, Path(os.fsdecode(part)).parent, 0o755)
        sparse(Path(os.fsdecode(part)), ACKED, wanted)
        shutil.chown(os.fsdecode(part), site.server.user)
        version = Fingerprint.of(source.stat())
        note(site, journal, Checkpoint(Direction.UPLOAD, dest, bytes(source), part, version, ACKED, ACKED))
    with site.client() as client:
        result = client.upload(site.folder / "source", site.server.path("up/client"))
    assert (result.resumed_at, result.size) == (ACKED, SIZE)
    assert result.sent_bytes == 2 * MIB
    drained = site.drain()
    assert drained.returncode == 0, drained.stderr
    assert f"sent={2 * MIB} resumed_at={ACKED}" in drained.stderr
    assert site.arrived() == ["client", "file"]
    assert same(site.server.root / "up/client", wanted)
    assert same(site.server.root / "up/file", wanted)


@by_key
def test_a_download_goes_on_at_four_gibibytes_less_one_mebibyte(site: Site) -> None:
    wanted = pieces()
    remote, local = site.server.root / "large", site.folder / "large"
    sparse(remote, SIZE, wanted)
    source, dest = site.server.path("large").encode(), bytes(local)
    journal = Journal(site.state, CHECKPOINTS)
    part = part_name(dest, source, journal.owner, ".part")
    sparse(Path(os.fsdecode(part)), ACKED, wanted)
    version = Fingerprint(SIZE, int(remote.stat().st_mtime) * 10**9)
    note(site, journal, Checkpoint(Direction.DOWNLOAD, source, dest, part, version, ACKED, ACKED))
    with site.client() as client:
        result = download(client, site, local)
    assert result == (ACKED, 2 * MIB)
    assert same(local, wanted)


def download(client: IoTSFTPClient, site: Site, local: Path) -> tuple[int, int]:
    result = client.download(site.server.path("large"), local)
    return result.resumed_at, result.sent_bytes

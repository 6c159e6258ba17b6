"""What a delivery means at a real server: all of it compared, the disk reached, room asked for, no handle left open."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.powercut import PowerCutDisk
from faults.proxy import BadLink, Fault
from paramiko import Message
from servers.base import Server
from servers.device import Device
from servers.openssh import OpenSSH
from servers.quirks import Misbehaving, Quirk
from servers.zoo import start

from iot.sftp.client import Failure, IoTSFTPClient, NameRefused, NoSpaceOnServer, TransferResult, UploadJob
from iot.sftp.server.protocol import DATA, EOF, FAILURE, Reply, status, text

MIB = 1024 * 1024
RING_BYTES = 2 * MIB
HEAD_BYTES = 64 * 1024


def ring(head: bytes) -> bytes:
    """A ring file whose writer is at its beginning: all behind it is zeros yet."""
    return head + bytes(RING_BYTES - len(head))


def connect(server: Server, tmp_path: Path, **changes: Any) -> IoTSFTPClient:
    return IoTSFTPClient(**{**server.login(), "state_dir": tmp_path / "state", "backoff_s": 0.05, **changes})


def through(link: BadLink, server: Server) -> dict[str, Any]:
    """The login that leads over the link: its port is in no known_hosts."""
    return {"sftp_port": link.port, "known_hosts": None, "host_key": server.host_key}


# -- done is only what was compared whole


@pytest.mark.parametrize("kind", ["openssh", "proftpd"])
def test_a_ring_file_of_the_same_size_and_tail_is_sent_although_the_journal_was_damaged(
    kind: str, tmp_path: Path
) -> None:
    """OpenSSH offers no hash, ProFTPD does."""
    newer = ring(os.urandom(HEAD_BYTES))
    with start(kind, tmp_path / "root") as server, Device(tmp_path / "device", server) as device:
        device.put("ring", ring(os.urandom(HEAD_BYTES)))
        device.drain()
        device.put("ring", newer)
        device.put("same", newer)
        damage(device.state / "journal.db")
        (server.root / "up/same").write_bytes(newer)
        told = device.drain()
        assert server.content("up/ring") == newer
        assert list(device.box.iterdir()) == []
    same = [line for line in told.splitlines() if "delivered path=same" in line]
    assert ["sent=0 " in line and "proof=full" in line for line in same] == [True]


def damage(journal: Path) -> None:
    for path in journal.parent.glob("journal.db-*"):
        path.unlink()
    journal.write_bytes(b"no database any more" * 500)


def test_a_kept_file_rewritten_in_place_with_its_time_restored_is_sent_again(sshd: OpenSSH, tmp_path: Path) -> None:
    content = ring(os.urandom(HEAD_BYTES))
    with Device(tmp_path / "device", sshd, outbox='after_upload = "keep"') as device:
        path = device.put("kept", content)
        device.drain()
        times = os.stat(path)
        with path.open("r+b") as file:
            file.write(b"EDITED")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        device.drain()
        assert sshd.content("up/kept") == b"EDITED" + content[6:]


class FailsFinalFsync(Quirk):
    """The disk fails when the published file is to be brought to it."""

    def on_fsync(self, message: Message) -> Reply:
        if not self.file(Message(message.get_remainder())).writable and self.hit():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().on_fsync(message)


def test_a_source_stays_until_its_final_has_reached_the_servers_disk(tmp_path: Path) -> None:
    retry = "[retry]\nbase_s = 0.1\ncap_s = 0.1\nmax_attempts = 1000\n"
    with Misbehaving(tmp_path / "root", FailsFinalFsync) as server:
        with Device(tmp_path / "device", server, settings=retry) as device:
            source = device.put("file", os.urandom(3 * MIB))
            content = source.read_bytes()
            device.start()
            device.wait(lambda: server.hits > 2)
            assert source.exists()
            assert "delivered" not in device.told()
            server.active = False
            device.wait(lambda: not source.exists())
            delivered = [line for line in device.told().splitlines() if "delivered path=file" in line]
        assert ["sent=0 " in line and "proof=full durable=True" in line for line in delivered] == [True]
        assert server.content("up/file") == content


class ShortReads(Quirk):
    """At most 1,000 bytes come for a READ, whatever was asked."""

    def on_read(self, message: Message) -> Reply:
        file, offset, length = self.file(message), message.get_int64(), message.get_int()
        data = os.pread(file.descriptor, min(length, 1000), offset)
        self.hit()
        return (DATA, text(data)) if data else status(EOF, "End of file")


def test_a_server_that_reads_in_small_pieces_proves_as_well(tmp_path: Path) -> None:
    content = os.urandom(MIB // 2)
    (tmp_path / "source").write_bytes(content)
    with Misbehaving(tmp_path / "root", ShortReads) as server:
        with connect(server, tmp_path, proof="full") as client:
            result = client.upload(tmp_path / "source", server.path("file"))
        assert (result.proof.value, server.content("file")) == ("full", content)
        assert server.hits > MIB // 2 // 1000


# -- room on the server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "server", size_mib=24) as disk:
        yield disk


def free_mib(folder: Path) -> float:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize / MIB


def fill(folder: Path, leave_mib: float) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(int((free_mib(folder) - leave_mib) * MIB)))
    return ballast


def fill_up(folder: Path) -> Path:
    """To the last block, also of those that are kept for root, while others write too."""
    ballast = folder / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64K"], check=False, capture_output=True, timeout=60)
    return ballast


def on_disk(disk: PowerCutDisk, kind: str) -> Server:
    return start(kind, disk.path / "root")


@pytest.mark.needs("loop-mounts")
@pytest.mark.parametrize("kind", ["openssh", "proftpd"])
def test_a_file_too_large_for_the_server_waits_and_small_ones_pass(
    kind: str, small_disk: PowerCutDisk, tmp_path: Path
) -> None:
    retry = "[retry]\nbase_s = 0.2\ncap_s = 0.5\nmax_attempts = 1\n"
    with (
        on_disk(small_disk, kind) as server,
        Device(tmp_path / "device", server, settings=retry) as device,
    ):
        ballast = fill(small_disk.path, leave_mib=5)
        large = device.put("large", os.urandom(int(11.4 * MIB)))
        content = large.read_bytes()
        for number in range(20):
            device.put(f"small-{number}", os.urandom(50_000))
        device.start()
        device.wait(lambda: list(device.box.iterdir()) == [large])
        device.wait(lambda: device.told().count("failed path=large") >= 2)
        assert "needs 11.4 MiB, " in device.told()
        assert server.content("up/large") is None
        assert sorted(server.names()) == sorted(f"up/small-{number}" for number in range(20))
        assert "quarantined" not in device.told()
        ballast.unlink()
        device.wait(lambda: not large.exists())
        assert server.content("up/large") == content


@pytest.mark.needs("loop-mounts")
def test_when_the_disk_fills_on_the_way_the_part_gives_its_room_back(small_disk: PowerCutDisk, tmp_path: Path) -> None:
    """Somebody else takes the room that was free at the beginning; the link is slow enough for that."""
    (tmp_path / "large").write_bytes(os.urandom(12 * MIB))
    (tmp_path / "small").write_bytes(os.urandom(100_000))
    filled: list[Path] = []

    def crowd(progress: Any) -> None:
        if not filled:
            filled.append(fill_up(small_disk.path))

    with (
        on_disk(small_disk, "openssh") as server,
        BadLink(server.host, server.port, rate_bps=80e6) as link,  # progress is reported at most ten times a second
        connect(server, tmp_path, **through(link, server)) as client,
    ):
        with pytest.raises(NoSpaceOnServer, match=r"needs 12\.0 MiB, .* free"):
            client.upload(tmp_path / "large", server.path("large"), progress=crowd)
        assert server.names() == []
        client.upload(tmp_path / "small", server.path("small"))
        filled[0].unlink()
        client.upload(tmp_path / "large", server.path("large"))
        assert server.content("large") == (tmp_path / "large").read_bytes()


@pytest.mark.needs("loop-mounts")
def test_of_two_large_files_that_fit_only_one_by_one_one_goes_and_the_other_waits(
    small_disk: PowerCutDisk, tmp_path: Path
) -> None:
    with on_disk(small_disk, "openssh") as server, connect(server, tmp_path) as client:
        fill(small_disk.path, leave_mib=12)
        jobs = []
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(os.urandom(8 * MIB))
            jobs.append(UploadJob(tmp_path / name, server.path(name), key=name))
        outcomes = list(client.upload_many(jobs))
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failure)]
    assert [type(error) for error in errors] == [NoSpaceOnServer], errors
    [result] = [outcome for outcome in outcomes if isinstance(outcome, TransferResult)]
    assert (result.sent_bytes, server.names()) == (8 * MIB, [str(result.key)])


@pytest.mark.needs("loop-mounts")
def test_a_server_without_a_free_inode_is_full_and_not_refusing(small_disk: PowerCutDisk, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 1000)
    many = small_disk.path / "many"
    with on_disk(small_disk, "openssh") as server, connect(server, tmp_path) as client:
        many.mkdir()
        for number in range(os.statvfs(small_disk.path).f_favail):
            (many / f"{number}").touch()
        with pytest.raises(NoSpaceOnServer, match="inode"):
            client.upload(tmp_path / "source", server.path("file"))
        (many / "0").unlink()
        client.upload(tmp_path / "source", server.path("file"))


# -- handles and slots


class Counted(Quirk):
    """Tells its server how many handles are open."""

    def receive(self, data: bytes) -> None:
        super().receive(data)
        self.server.counted = len(self.handles)


class RefusesRename(Counted):
    def on_posix_rename(self, message: Message) -> Reply:
        self.refuse(FAILURE, "no rename now")
        return super().on_posix_rename(message)


class RefusesWrites(Counted):
    def on_write(self, message: Message) -> Reply:
        self.refuse(FAILURE, "no write now")
        return super().on_write(message)


class RefusesReads(Counted):
    def on_read(self, message: Message) -> Reply:
        self.refuse(FAILURE, "no read now")
        return super().on_read(message)


@pytest.mark.parametrize("quirk", [RefusesRename, RefusesWrites, RefusesReads])
def test_no_handle_stays_open_at_the_server_whatever_the_end(quirk: type[Quirk], tmp_path: Path) -> None:
    jobs = []
    with Misbehaving(tmp_path / "root", quirk) as server, connect(server, tmp_path, proof="full") as client:
        for number in range(8):
            (tmp_path / f"f{number}").write_bytes(os.urandom(60_000 if number % 2 else 2 * MIB))
            jobs.append(UploadJob(tmp_path / f"f{number}", server.path(f"f{number}")))
        outcomes = list(client.upload_many(jobs))
        assert [type(outcome) for outcome in outcomes] == [Failure] * 8
        client.exists(server.path("f0"))
        assert server.counted == 0
        server.active = False
        outcomes = list(client.upload_many(jobs))
        assert [type(outcome) for outcome in outcomes] == [TransferResult] * 8
        client.exists(server.path("f0"))
        assert server.counted == 0


# -- resumed where only the classic modes are known


def test_a_resume_at_a_server_of_the_classic_modes_costs_one_refusal_in_its_life(tmp_path: Path) -> None:
    content = os.urandom(4 * MIB)
    (tmp_path / "source").write_bytes(content)
    with start("ssh2", tmp_path / "root") as server:
        for name in ("one", "two"):
            script = [Fault("cut", up_bytes=2 * MIB)]
            with (
                BadLink(server.host, server.port, rate_bps=50e6, script=script) as link,
                connect(server, tmp_path, **through(link, server)) as client,
            ):
                result = client.upload(tmp_path / "source", server.path(name))
                learned = {what.value for what in client._runner.links.session().server.refused}
            assert result.resumed_at > 0
            assert server.content(name) == content
            assert learned == {"write-create"}


# -- a folder has the name


def test_a_move_onto_a_folder_names_it_and_moves_nothing(sshd: OpenSSH, tmp_path: Path) -> None:
    (sshd.root / "folder").mkdir()
    (sshd.root / "file").write_bytes(b"content")
    with (
        connect(sshd, tmp_path) as client,
        pytest.raises(NameRefused, match=r"folder' is a folder; did you mean .*/file'"),
    ):
        client.move(sshd.path("file"), sshd.path("folder"))
    assert (sshd.root / "file").read_bytes() == b"content"

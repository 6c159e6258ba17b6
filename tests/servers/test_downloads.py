"""Downloads against real servers and misbehaving ones: whole, proven as asked, or no file at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink, Fault
from paramiko import Message
from servers.base import Server
from servers.misbehaving import MISBEHAVIOURS
from servers.openssh import OpenSSH
from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import (
    ConfigurationError,
    DiskFull,
    IoTSFTPClient,
    NotFound,
    ProofFailed,
    SourceChanged,
    TransferResult,
)
from iot.sftp.server.protocol import DATA, Reply

MIB = 1024 * 1024
SIZE = 3 * MIB + 77


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    """One running sshd for all tests here: each writes to names of its own."""
    with OpenSSH(tmp_path_factory.mktemp("ssh") / "root") as server:
        yield server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def connect(server: Server, folder: Path, **changes: Any) -> IoTSFTPClient:
    options = {**server.login(), "state_dir": folder.parent / "state", "backoff_s": 0.05, **changes}
    return IoTSFTPClient(**options)


def over(link: BadLink, server: Server) -> dict[str, Any]:
    return {"sftp_port": link.port, "known_hosts": None, "host_key": server.host_key}


def make(server: Server, name: str, size: int = SIZE) -> bytes:
    """A file that has been there for an hour."""
    content = os.urandom(size)
    (server.root / name).write_bytes(content)
    os.utime(server.root / name, (time.time() - 3600,) * 2)
    return content


def by(result: TransferResult) -> str | None:
    """What the proof rests on."""
    return result.evidence.value if result.evidence is not None else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- the size is only a hint


def generated_file() -> Path:
    """A file of the kernel that reports 4096 bytes, whatever it holds."""
    for path in Path("/sys/kernel").glob("*"):
        with contextlib.suppress(OSError):  # not for us to read
            if path.stat().st_size == 4096 and 0 < len(path.read_bytes()) < 4096:
                return path
    raise AssertionError("no file of /sys/kernel reports more bytes than it holds")


def test_a_generated_file_that_reports_no_bytes_comes_as_a_whole(ssh: OpenSSH, here: Path) -> None:
    (here / "version").write_bytes(b"what was here before")
    with connect(ssh, here) as client:
        result = client.download("/proc/version", here / "version")
    assert (here / "version").read_bytes() == Path("/proc/version").read_bytes()
    assert (result.proof, by(result)) == (None, "end of file")


def test_a_generated_file_that_reports_too_many_bytes_comes_as_it_is(ssh: OpenSSH, here: Path) -> None:
    path = generated_file()
    with connect(ssh, here, proof="full") as client:
        result = client.download(str(path), here / "file")
    assert (here / "file").read_bytes() == path.read_bytes()
    assert result.size == len(path.read_bytes())
    assert (result.proven, by(result)) == ("full", "second reading")


def test_a_device_is_not_read_without_end(ssh: OpenSSH, here: Path) -> None:
    with connect(ssh, here) as client:
        assert client.download_file("/dev/zero", here / "file") is False
    assert "not a regular file" in str(client.last_error)
    assert os.listdir(here) == []


@pytest.mark.parametrize("said", ["tells no size", "answers out of order", "has no extension at all"])
def test_a_file_comes_as_a_whole_from_servers_that_misbehave(said: str, here: Path) -> None:
    with Misbehaving(here.parent / "root", MISBEHAVIOURS[said]) as server, connect(server, here) as client:
        content = make(server, "file")
        result = client.download(server.path("file"), here / "file", sha256=True)
        assert server.hits
    assert (here / "file").read_bytes() == content
    assert result.sha256 == sha256(content)
    assert result.proven == ("none" if said == "tells no size" else "size")


def test_a_file_that_changes_while_it_is_fetched_leaves_the_old_one(ssh: OpenSSH, here: Path) -> None:
    make(ssh, "changes")
    (here / "file").write_bytes(b"old")

    def rewrite(progress: object) -> None:
        os.utime(ssh.root / "changes", (1, 1))

    link = BadLink(ssh.host, ssh.port, rate_bps=50e6)
    with link, connect(ssh, here, **over(link, ssh)) as client, pytest.raises(SourceChanged):
        client.download(ssh.path("changes"), here / "file", progress=rewrite)
    assert (here / "file").read_bytes() == b"old"
    assert os.listdir(here) == ["file"]


def test_a_fresh_small_file_rewritten_within_its_second_is_never_mixed(ssh: OpenSSH, here: Path) -> None:
    """Size and time, in whole seconds, tell nothing of it."""
    path = ssh.root / "fresh"
    path.write_bytes(os.urandom(MIB // 2))
    times = os.stat(path)

    def rewrite(progress: object) -> None:
        path.write_bytes(os.urandom(MIB // 2))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    link = BadLink(ssh.host, ssh.port, rate_bps=8e6)
    with link, connect(ssh, here, **over(link, ssh)) as client, pytest.raises(SourceChanged):
        client.download(ssh.path("fresh"), here / "file", progress=rewrite)
    assert os.listdir(here) == []


def test_a_fresh_large_file_rewritten_within_its_second_is_never_mixed(ssh: OpenSSH, here: Path) -> None:
    path, newer = ssh.root / "fresh-large", os.urandom(SIZE)
    time.sleep(1 - time.time() % 1)
    path.write_bytes(os.urandom(SIZE))
    timer = threading.Timer(0.3, path.write_bytes, [newer])
    link = BadLink(ssh.host, ssh.port, rate_bps=50e6)
    with link, connect(ssh, here, **over(link, ssh)) as client:
        client.connect()
        timer.start()
        client.download(ssh.path("fresh-large"), here / "file")
    timer.join()
    assert (here / "file").read_bytes() == newer


def test_a_fresh_small_file_costs_no_waiting(ssh: OpenSSH, here: Path) -> None:
    (ssh.root / "quick").write_bytes(b"just written")
    with connect(ssh, here) as client:
        result = client.download(ssh.path("quick"), here / "file")
    assert result.seconds < 1
    assert (here / "file").read_bytes() == b"just written"


# -- room on this device


@pytest.mark.needs("mounts")
def test_a_file_that_does_not_fit_here_is_refused_before_its_first_byte(ssh: OpenSSH, tmp_path: Path) -> None:
    make(ssh, "too-large")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "none", small], check=True)
    try:
        with connect(ssh, small) as client:
            with pytest.raises(DiskFull, match=r"needs 3\.0 MiB, 2\.0 MiB free"):
                client.download(ssh.path("too-large"), small / "file")
            assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


# -- go on after a cut


@pytest.mark.parametrize("verify", ["size", "timestamp", "tail", "full"])
def test_a_download_over_a_cut_link_goes_on(ssh: OpenSSH, here: Path, verify: str) -> None:
    content = make(ssh, f"cut-{verify}")
    link = BadLink(ssh.host, ssh.port, rate_bps=50e6, script=[Fault("cut", down_bytes=SIZE // 2)])
    with link, connect(ssh, here, verify=verify, **over(link, ssh)) as client:
        result = client.download(ssh.path(f"cut-{verify}"), here / "file")
    assert (here / "file").read_bytes() == content
    assert result.resumed_at > 0
    assert SIZE <= result.sent_bytes < SIZE + MIB  # of both connections
    assert os.listdir(here) == ["file"]


@pytest.mark.parametrize("verify", ["tail", "full"])
def test_a_damaged_part_is_noticed_before_a_resume(ssh: OpenSSH, here: Path, verify: str) -> None:
    name = f"damaged-{verify}"
    content = make(ssh, name)
    link = BadLink(ssh.host, ssh.port, rate_bps=20e6)
    with link, connect(ssh, here, verify=verify, checkpoint_bytes=64 * 1024, **over(link, ssh)) as client:
        damage(stopped(client, ssh.path(name), here), -1 if verify == "tail" else 0)
        result = client.download(ssh.path(name), here / "file")
    assert result.resumed_at == 0
    assert (here / "file").read_bytes() == content


def stopped(client: IoTSFTPClient, source: str, here: Path) -> Path:
    """A download over a link that takes its time, stopped in the middle -> its part."""

    def stop(progress: Any) -> None:
        if progress.done_bytes > MIB:
            client.cancel()

    assert client.download_file(source, here / "file", progress=stop) is False
    [part] = here.glob("*.part")
    return part


def damage(part: Path, at: int) -> None:
    content = bytearray(part.read_bytes())
    content[at] ^= 1
    part.write_bytes(content)


# -- proven


@pytest.mark.parametrize("how", ["sha256", "sidecar"])
def test_the_expected_hash_is_compared_before_the_file_gets_its_name(ssh: OpenSSH, here: Path, how: str) -> None:
    content = make(ssh, f"good-{how}")
    (ssh.root / f"good-{how}.sha256").write_text(f"{sha256(content)}  good-{how}\n")
    with connect(ssh, here, sidecar=how == "sidecar") as client:
        wanted = sha256(content).upper() if how == "sha256" else False
        result = client.download(ssh.path(f"good-{how}"), here / "file", sha256=wanted)
    assert (result.proven, result.sha256) == ("full", sha256(content))
    assert by(result) == {"sha256": "expected SHA-256", "sidecar": "remote .sha256"}[how]


@pytest.mark.parametrize("how", ["sha256", "sidecar"])
def test_another_hash_than_expected_is_fetched_once_more_then_no_file_is_left(
    ssh: OpenSSH, here: Path, how: str
) -> None:
    make(ssh, f"bad-{how}")
    (ssh.root / f"bad-{how}.sha256").write_text(f"{'0' * 64}  bad-{how}\n")
    link = BadLink(ssh.host, ssh.port)
    with link, connect(ssh, here, sidecar=how == "sidecar", **over(link, ssh)) as client:
        with pytest.raises(ProofFailed, match="0" * 64):
            client.download(ssh.path(f"bad-{how}"), here / "file", sha256="0" * 64 if how == "sha256" else False)
        assert 2 * SIZE < link.down_bytes < 3 * SIZE
    assert os.listdir(here) == []


def test_a_sidecar_that_is_missing_or_names_another_file_is_an_error(ssh: OpenSSH, here: Path) -> None:
    content = make(ssh, "alone", 10)
    with connect(ssh, here, sidecar=True) as client:
        with pytest.raises(NotFound, match=r"alone\.sha256"):
            client.download(ssh.path("alone"), here / "file")
        (ssh.root / "alone.sha256").write_text(f"{sha256(content)}  other\n")
        with pytest.raises(ProofFailed, match="no SHA-256 for 'alone'"):
            client.download(ssh.path("alone"), here / "file")
    assert os.listdir(here) == []


def test_what_was_stitched_wrong_is_fetched_once_more_and_arrives(ssh: OpenSSH, here: Path) -> None:
    """A part that another program damaged between two calls: the resume trusts it, the hash does not."""
    content = make(ssh, "stitched")
    link = BadLink(ssh.host, ssh.port, rate_bps=20e6)
    with link, connect(ssh, here, checkpoint_bytes=64 * 1024, **over(link, ssh)) as client:
        damage(stopped(client, ssh.path("stitched"), here), 0)
        result = client.download(ssh.path("stitched"), here / "file", sha256=sha256(content))
    assert (here / "file").read_bytes() == content
    assert result.sent_bytes > SIZE
    assert os.listdir(here) == ["file"]


class Flips(Quirk):
    """Every `every`th READ's answer has one bit turned."""

    every = 5

    def on_read(self, message: Message) -> Reply:
        kind, body = super().on_read(message)
        if kind != DATA or self.count() % self.every or not self.hit():
            return kind, body
        return kind, body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize(("proof", "every"), [("tail", 1), ("full", 7)])
def test_bytes_that_read_differently_a_second_time_are_never_published(here: Path, proof: str, every: int) -> None:
    class FlipsSome(Flips):
        """In the first reading only."""

        def hit(self) -> bool:
            return self.server.active and self.server.counted <= 40 and super().hit()

    quirk = FlipsSome if every == 1 else Flips
    with Misbehaving(here.parent / "root", quirk, every=every) as server:
        make(server, "file", MIB)
        with connect(server, here, proof=proof, chunk_size=32 * 1024) as client:
            if quirk is Flips:
                with pytest.raises(ProofFailed, match="when read again"):
                    client.download(server.path("file"), here / "file")
                assert os.listdir(here) == []
                server.active = False
            client.download(server.path("file"), here / "file")
    assert (here / "file").read_bytes() == server.content("file")


@pytest.mark.parametrize("proof", ["tail", "full"])
def test_the_content_of_a_download_is_proven_when_asked(any_server: Server, here: Path, proof: str) -> None:
    name = f"proven-{proof}"
    content = os.urandom(SIZE)
    (here / "source").write_bytes(content)
    with connect(any_server, here, proof=proof) as client:
        client.upload(here / "source", any_server.path(name))
        result = client.download(any_server.path(name), here / "file")
    assert (here / "file").read_bytes() == content
    hashes = any_server.name == "proftpd" and proof == "full"
    assert (result.proven, by(result)) == (
        proof,
        "server's SHA-256" if hashes else "second reading",
    )


# -- kept, and refused


def test_times_and_mode_of_the_remote_file_are_kept_when_asked(ssh: OpenSSH, here: Path) -> None:
    make(ssh, "kept", 10)
    os.utime(ssh.root / "kept", (1_000_000_000, 1_234_567_890))
    (ssh.root / "kept").chmod(0o4750)
    with connect(ssh, here, keep_times=True, keep_mode=True) as client:
        client.download(ssh.path("kept"), here / "file")
    status = (here / "file").stat()
    assert (status.st_mtime, stat.S_IMODE(status.st_mode)) == (1_234_567_890, 0o750)


class WriteOnlyFile(io.BytesIO):
    def readable(self) -> bool:
        return False


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("option", "options", "digest", "dest"),
    [
        ("keep_times", {"keep_times": True}, False, io.BytesIO()),
        ("keep_mode", {"keep_mode": True}, False, io.BytesIO()),
        ("proof", {"proof": "full"}, False, WriteOnlyFile()),
        ("proof", {"proof": "tail"}, False, WriteOnlyFile()),
        ("sidecar", {"sidecar": True}, False, WriteOnlyFile()),
        ("sha256", {}, True, WriteOnlyFile()),
        ("sha256", {}, "0" * 64, WriteOnlyFile()),
        ("dest", {}, False, Pipe()),
        ("sha256", {}, "12", io.BytesIO()),
        ("sha256", {}, "x" * 64, "file"),
    ],
)
def test_what_cannot_be_kept_for_this_destination_is_refused_by_name(
    here: Path, option: str, options: dict[str, Any], digest: bool | str, dest: Any
) -> None:
    client = IoTSFTPClient("localhost", 1, "nobody", state_dir=here / "state", **options)
    with pytest.raises(ConfigurationError, match=f"^{option}: "):
        client.download("file", dest, sha256=digest)


def test_an_open_file_is_proven_as_a_path_is(ssh: OpenSSH, here: Path) -> None:
    content = make(ssh, "open")
    with open(here / "file", "w+b") as file, connect(ssh, here, proof="full") as client:
        file.write(b"head")
        file.flush()
        result = client.download(ssh.path("open"), file)
        assert by(result) == "second reading"
        file.seek(4)
        with pytest.raises(ProofFailed):
            client.download(ssh.path("open"), file, sha256="0" * 64)
        file.seek(4)
        client.download(ssh.path("open"), file, sha256=sha256(content))
    assert (here / "file").read_bytes() == b"head" + content

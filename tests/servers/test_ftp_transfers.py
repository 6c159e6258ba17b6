"""FTP against four real servers: cuts, kills, full disks, parts that changed, hostile names."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.proxy import Fault
from servers.ftp_base import FTPServer
from servers.zoo import FTP

from iot.ftp import store as store_module
from iot.transfer.errors import (
    AlreadyExists,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    TransferError,
    TransientError,
)
from iot.transfer.model import Span
from iot.transfer.remote import Meta

MIB = 1024 * 1024
LARGE_BYTES = 6 * MIB


@pytest.fixture(params=FTP)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FTPServer]:
    with FTP[request.param](tmp_path / "root") as running:
        yield running


def make(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


def parts(server: FTPServer) -> list[str]:
    return [name for name in server.names() if ".part" in name]


# -- cuts and kills


@pytest.mark.parametrize("action", ["cut", "reset"])
@pytest.mark.parametrize("seed", range(3))
def test_an_upload_survives_data_connections_cut_at_random_offsets(server, tmp_path, action, seed):
    """Where the data connection is cut, the server still says 226: its size decides."""
    content = make(tmp_path / "source", LARGE_BYTES)
    at = random.Random(f"{seed} {action}").randrange(MIB, LARGE_BYTES - MIB)
    with server.link(rate_bps=100e6, script=[Fault(action, up_bytes=at)]) as link:
        with server.connect(tmp_path, link) as client:
            result = client.upload(tmp_path / "source", server.path("file"))
        assert link.connections > 2
    assert server.content("file") == content
    assert result.resumed_at > 0
    assert not parts(server)


def test_a_cut_behind_the_last_byte_is_not_waited_for(server, tmp_path):
    content = make(tmp_path / "source", LARGE_BYTES)
    link = server.link(rate_bps=50e6, script=[Fault("reset", up_bytes=LARGE_BYTES - 20_000)])
    with link, server.connect(tmp_path, link) as client:
        began = time.monotonic()
        client.upload(tmp_path / "source", server.path("file"))
        assert time.monotonic() - began < 12
    assert server.content("file") == content


def test_an_upload_survives_a_killed_server(server, tmp_path):
    content = make(tmp_path / "source", LARGE_BYTES)
    with server.link(rate_bps=30e6) as link, server.connect(tmp_path, link, attempts=20) as client:

        def kill() -> None:
            while link.up_bytes < LARGE_BYTES // 2:
                time.sleep(0.01)
            server.kill()
            server.restart()

        killer = threading.Thread(target=kill)
        killer.start()
        client.upload(tmp_path / "source", server.path("file"))
        killer.join()
    assert server.content("file") == content
    assert not parts(server)


CLIENT = """
import sys
from iot.ftp import FTPClient
host, port, user, password, ca_file, state, source, dest = sys.argv[1:]
with FTPClient(host, int(port), user, password, ca_file=ca_file, state_dir=state) as client:
    client.upload(source, dest)
"""


def test_an_upload_goes_on_after_its_client_was_killed(server, tmp_path):
    content = make(tmp_path / "source", LARGE_BYTES)
    with server.link(rate_bps=30e6) as link:
        words = [link.host, str(link.port), server.user, server.password, str(server.certificate)]
        words += [str(tmp_path / "state"), str(tmp_path / "source"), server.path("file")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen([sys.executable, "-c", CLIENT, *words], env=environment)
        while link.up_bytes < LARGE_BYTES // 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with server.link() as link, server.connect(tmp_path, link) as again:  # the address is the journal's key
        result = again.upload(tmp_path / "source", server.path("file"))
    assert server.content("file") == content
    assert result.resumed_at > 0


def test_a_download_goes_on_after_a_cut(server, tmp_path):
    content = make(server.root / "file", LARGE_BYTES)
    (server.root / "file").chmod(0o644)
    with server.link(rate_bps=100e6, script=[Fault("cut", down_bytes=LARGE_BYTES // 2)]) as link:
        with server.connect(tmp_path, link) as client:
            began = time.monotonic()
            result = client.download(server.path("file"), tmp_path / "back")
            assert time.monotonic() - began < 10  # nothing waits for a connection that is over
        assert link.down_bytes < 1.5 * LARGE_BYTES
    assert (tmp_path / "back").read_bytes() == content
    assert result.sent_bytes <= LARGE_BYTES + 2 * MIB


# -- parts that are not what they were


def interrupted(server: FTPServer, tmp_path: Path) -> tuple[bytes, Path]:
    """An upload that was cut in the middle -> its content, and its part on the server's disk."""
    content = make(tmp_path / "source", LARGE_BYTES)
    link = server.link(rate_bps=100e6, script=[Fault("cut", up_bytes=LARGE_BYTES // 2)])
    with link, server.connect(tmp_path, link, attempts=1) as client, pytest.raises(TransferError):
        client.upload(tmp_path / "source", server.path("file"))
    deadline = time.monotonic() + 10
    while not parts(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    [part] = parts(server)
    return content, server.root / part


def upload_again(server: FTPServer, tmp_path: Path) -> None:
    with server.link() as link, server.connect(tmp_path, link) as client:
        client.upload(tmp_path / "source", server.path("file"))


def test_a_part_that_is_too_long_is_not_published(server, tmp_path):
    content, part = interrupted(server, tmp_path)
    part.write_bytes(content + b"more")
    upload_again(server, tmp_path)
    assert server.content("file") == content


def test_nothing_is_written_behind_the_end_of_a_part_that_lost_bytes(server, tmp_path):
    content, part = interrupted(server, tmp_path)
    os.truncate(part, MIB)
    upload_again(server, tmp_path)
    assert server.content("file") == content


def test_what_a_power_loss_may_have_taken_is_read_back(server, tmp_path):
    content, part = interrupted(server, tmp_path)
    with part.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(MIB))
    upload_again(server, tmp_path)
    assert server.content("file") == content


def test_a_long_transfer_uses_the_control_connection_in_between(server, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "WRITE_S", 0.05)
    content = make(tmp_path / "source", 2 * MIB)
    with server.link(rate_bps=30e6) as link:
        with server.connect(tmp_path, link) as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert link.connections > 4
    assert server.content("file") == content


# -- refusals


def test_a_file_is_replaced(server, tmp_path):
    for size in (200, 100):
        content = make(tmp_path / "source", size)
        with server.connect(tmp_path) as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == content


def test_a_folder_is_not_replaced(server, tmp_path):
    make(tmp_path / "source", 100)
    with server.connect(tmp_path) as client:
        assert client.make_dir(server.path("folder/sub"))
        with pytest.raises(TransferError):
            client.upload(tmp_path / "source", server.path("folder"))
        assert client.list_dirs(server.path("folder")) == [server.path("folder/sub")]


@pytest.mark.needs("root", "mounts")
@pytest.mark.parametrize("kind", FTP)
def test_a_full_disk_is_no_space_on_the_server(kind, tmp_path):
    make(tmp_path / "large", 12 * MIB)
    small = make(tmp_path / "small", 1000)
    (tmp_path / "root").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path / "root")], check=True)
    try:
        with FTP[kind](tmp_path / "root") as server, server.connect(tmp_path, attempts=1) as client:
            tells = kind != "pyftpdlib"  # over TLS it ends the data connection, and says nothing at all
            with pytest.raises(NoSpaceOnServer if tells else TransientError):
                client.upload(tmp_path / "large", server.path("large"))
            assert server.content("large") is None
            if not tells:
                return
            assert not parts(server)
            client.upload(tmp_path / "small", server.path("small"))
            assert server.content("small") == small
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "root")], check=True)


def test_missing_and_forbidden_are_told_apart(server, tmp_path):
    with server.connect(tmp_path) as client:
        assert client.make_dir(server.path("closed"))
        for missing in ("none", "none/deep/er", "closed/none"):
            assert client.exists(server.path(missing)) is False
        with pytest.raises(NotFound):
            client.download(server.path("none"), tmp_path / "back")
        assert client.list_files(server.path("none")) is None
        assert isinstance(client.last_error, NotFound)
        if server.name not in ("vsftpd", "pure-ftpd"):
            return  # these run as root here, to whom nothing is closed
        (server.root / "closed").chmod(0)
        make(tmp_path / "source", 10)
        with pytest.raises(PermissionDenied):  # it cannot be known
            client.exists(server.path("closed/none"))
        with pytest.raises(PermissionDenied):
            client.upload(tmp_path / "source", server.path("closed/file"))


def test_a_folder_that_may_not_be_written_to_is_permission_denied(server, tmp_path):
    if server.name not in ("vsftpd", "pure-ftpd"):
        pytest.skip(f"{server.name} runs as root here, to whom nothing is closed")
    make(tmp_path / "source", 10)
    (server.root / "fixed").mkdir(mode=0o755)
    make(server.root / "fixed/secret", 10)
    (server.root / "fixed/secret").chmod(0o600)
    with server.connect(tmp_path) as client:
        with pytest.raises(PermissionDenied):
            client.upload(tmp_path / "source", server.path("fixed/file"))
        with pytest.raises(PermissionDenied):
            client.download(server.path("fixed/secret"), tmp_path / "back")


@pytest.mark.parametrize("name", ["file", "words 1 2"])
def test_a_server_that_hashes_is_asked_and_others_are_read_back(server, tmp_path, name):
    content = make(tmp_path / "source", 3 * MIB)
    with server.link() as link:
        with server.connect(tmp_path, link, proof="full") as client:
            assert client.upload(tmp_path / "source", server.path(name)).proof.value == "full"
        assert (link.down_bytes < MIB) is server.hashes
    assert server.content(name) == content


def test_times_and_mode_are_kept_where_the_server_can(server, tmp_path):
    make(tmp_path / "source", 10)
    os.utime(tmp_path / "source", (1_600_000_000, 1_600_000_000))
    (tmp_path / "source").chmod(0o640)
    with server.connect(tmp_path, keep_times=True, keep_mode=True) as client:
        client.upload(tmp_path / "source", server.path("file"))
    kept = (server.root / "file").stat()
    if server.name != "vsftpd":  # which knows no MFMT, and lets "anonymous" change no mode
        assert (int(kept.st_mtime), kept.st_mode & 0o777) == (1_600_000_000, 0o640)


# -- names

NAMES = [
    b"a b",
    b" leading",
    b"-dash",
    b"--option",
    b"a;b=c",
    b"*",
    b"[x]?",
    b'quo"te',
    b"caf\xc3\xa9",
    b"~",
    b"a -> b",
]


def spelled(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_arrives_byte_for_byte(server, tmp_path, name):
    content = make(tmp_path / "source", 1000)
    with server.connect(tmp_path) as client:
        client.upload(tmp_path / "source", server.path(f"names/{spelled(name)}"))
        assert os.listdir(os.fsencode(server.root / "names")) == [name]
        assert client.list_files(server.path("names")) == [server.path(f"names/{spelled(name)}")]
        assert client.stat(server.path(f"names/{spelled(name)}")).size == 1000
        client.download(server.path(f"names/{spelled(name)}"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert client.delete_file(server.path(f"names/{spelled(name)}"))
    assert server.names() == []


def test_a_relative_name_that_begins_with_a_dash_is_no_option(server, tmp_path):
    make(tmp_path / "source", 10)
    with server.connect(tmp_path) as client:
        if server.home:  # what is logged in to cannot be written to
            return
        client.upload(tmp_path / "source", "-la")
        assert client.stat("-la").size == 10
        assert client.list_files(".") is not None
        assert client.delete_file("-la")


@pytest.mark.parametrize("name", ["a\r\nDELE b", "a\nb", "a\rb"])
def test_a_line_end_in_a_name_is_refused_before_anything_is_sent(server, tmp_path, name):
    make(tmp_path / "source", 10)
    (server.root / "b").write_bytes(b"stays")
    with server.connect(tmp_path) as client:
        with pytest.raises(NameRefused):
            client.upload(tmp_path / "source", server.path(name))
        for call in (client.stat, lambda path: client.download(path, tmp_path / "back")):
            with pytest.raises(NameRefused):
                call(server.path(name))
    assert server.content("b") == b"stays"
    assert server.names() == ["b"]


def test_replace_false_leaves_what_stands_there(server, tmp_path):
    with server.connect(tmp_path) as client:
        store = client._parallel._make()
        store.connect()
        (server.root / "file").write_bytes(b"old")
        token = store.begin(server.path("file").encode(), 3, Meta(server.path("file.part").encode()))
        assert store.write(token, Span(0, 3), [b"new"]).end == 3
        with pytest.raises(AlreadyExists):
            store.publish(token, server.path("file").encode(), Meta(bytes(token)), replace=False)
        store.abandon(token)
        store.abandon(token)
        store.close()
    assert server.names() == ["file"]
    assert server.content("file") == b"old"

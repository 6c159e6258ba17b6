"""The embedded server is a real one: paramiko's client and OpenSSH's sftp work with it; nobody leaves its folder."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.base import client_key, program
from unit.embedded_wire import Wire

from iot.sftp.client import EmbeddedServer
from iot.sftp.server.files import SFTPSession, open_flags
from iot.sftp.server.protocol import ProtocolBroken

MIB = 1 << 20
HANDLE = 102
NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, OP_UNSUPPORTED = 2, 3, 4, 5, 8
LOST = (OSError, EOFError, paramiko.SSHException)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    root = tmp_path / "root"
    root.mkdir()
    with EmbeddedServer(root) as running:
        yield running


@contextmanager
def connected(server: EmbeddedServer, **login: object) -> Iterator[paramiko.SFTPClient]:
    with paramiko.Transport((server.host, server.port)) as transport:
        transport.start_client(timeout=10)
        key = transport.get_remote_server_key()
        assert f"[{server.host}]:{server.port} {key.get_name()} {key.get_base64()}" == server.host_key_line
        if isinstance(login.get("key"), paramiko.PKey):
            transport.auth_publickey(server.user, login["key"])
        else:
            transport.auth_password(str(login.get("user", server.user)), str(login.get("password", server.password)))
        sftp = paramiko.SFTPClient.from_transport(transport)
        assert sftp is not None
        yield sftp


def test_a_server_that_stopped_leaves_no_thread_and_one_that_never_started_may_be_stopped(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.stop()
    server.start()
    with connected(server):
        server.stop()
    assert [thread for thread in threading.enumerate() if thread.name == "embedded-sftp"] == []
    assert server.threads == set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))
    server.stop()


def test_large_file_goes_up_and_down_within_seconds(server: EmbeddedServer, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(random.Random(1).randbytes(64 * MIB))
    begin = time.monotonic()
    with connected(server) as sftp:
        sftp.put(str(source), "/large")
        sftp.get("/large", str(back))
    assert back.read_bytes() == source.read_bytes()
    assert time.monotonic() - begin < 30


def test_openssh_client_works_with_it(tmp_path: Path) -> None:
    public = Path(f"{client_key()}.pub").read_text()
    (tmp_path / "root").mkdir()
    (tmp_path / "source").write_bytes(b"content")
    with EmbeddedServer(tmp_path / "root", authorized_keys=[public]) as server:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(server.host_key_line + "\n")
        options = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known_hosts}", f"IdentityFile={client_key()}"]
        command = [program("sftp", "openssh-client"), "-F", "none", "-b", "-", "-P", str(server.port)]
        command += [word for option in options for word in ("-o", option)] + [f"{server.user}@{server.host}"]
        batch = f"mkdir d\nput -fp {tmp_path}/source d/a\nrename d/a d/b\nls -l d\ndf d\nget d/b {tmp_path}/back\n"
        done = subprocess.run(command, input=batch, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == b"content"
    assert (tmp_path / "root/d/b").stat().st_mtime == int((tmp_path / "source").stat().st_mtime)


def test_login_takes_the_right_password_or_key_only(tmp_path: Path) -> None:
    line = Path(f"{client_key('rsa')}.pub").read_text()
    with EmbeddedServer(tmp_path, password="right", authorized_keys=[line]) as server:
        with connected(server) as sftp:
            assert sftp.listdir("/") == []
        with connected(server, key=paramiko.RSAKey.from_private_key_file(str(client_key("rsa")))) as sftp:
            assert sftp.listdir("/") == []
        for wrong in ({"password": "wrong"}, {"user": "other"}, {"key": paramiko.RSAKey.generate(2048)}):
            with pytest.raises(paramiko.AuthenticationException), connected(server, **wrong):
                pass  # never reached


def test_fingerprint_is_that_of_the_key_line(server: EmbeddedServer) -> None:
    digest = hashlib.sha256(base64.b64decode(server.host_key_line.split()[2])).digest()
    assert server.host_key == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def test_cut_sessions_fail_and_new_ones_are_welcome(server: EmbeddedServer) -> None:
    with connected(server) as sftp:
        server.drop_connections()
        with pytest.raises(LOST):
            sftp.listdir("/")
    with connected(server) as sftp:
        assert sftp.listdir("/") == []


def test_stop_ends_every_thread_and_start_takes_the_same_port_and_key(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    server = EmbeddedServer(tmp_path)
    with server:
        line = server.host_key_line
        with connected(server) as sftp:
            sftp.open("/file", "wb")
            server.stop()
    end = time.monotonic() + 5.0
    while not set(threading.enumerate()) <= before and time.monotonic() < end:
        time.sleep(0.01)  # the client's own thread sees the end of its connection a moment later
    assert set(threading.enumerate()) <= before
    with server, connected(server) as sftp:
        assert sftp.listdir("/") == ["file"]
        assert server.host_key_line == line


def test_stop_waits_for_sessions_that_are_slow_to_close(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Slow(SFTPSession):
        def close(self) -> None:
            time.sleep(0.2)
            super().close()
            closed.append(True)

    with EmbeddedServer(tmp_path, session=Slow) as server, connected(server):
        server.stop()
        assert closed == [True]


NAMES = [b"with space", b"new\nline", b"\"quotes'", b"-dash", b"\xff\xfe not utf-8", b"n" * 255, "\N{SNOWMAN}".encode()]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_bytes(name: bytes, tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    reply, body = wire.ask(3, b"/" + name, 2 | 8 | 32, 0)
    assert reply == HANDLE
    assert wire.status(4, body[4:]) == 0
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    reply, body = wire.ask(11, b"/")
    assert name in wire.ask(12, body[4:])[1]
    assert wire.ask(16, name)[1][4:].startswith(struct.pack(">I", len(name) + 1) + b"/" + name)
    assert wire.status(13, name) == 0


def test_open_flags_are_respected(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    assert wire.status(3, b"file", 2 | 8 | 32, 0) == FAILURE
    assert wire.status(3, b"none", 2, 0) == NO_SUCH_FILE
    assert wire.status(3, b"/", 1, 0) == FAILURE
    assert wire.ask(3, b"file", 2 | 8, 0)[0] == HANDLE
    assert (tmp_path / "file").read_bytes() == b"content"
    assert wire.ask(3, b"file", 2 | 16, 0)[0] == HANDLE
    assert (tmp_path / "file").read_bytes() == b""
    os.mkfifo(tmp_path / "fifo")
    assert wire.status(3, b"fifo", 1, 0) == FAILURE
    wire.session.close()


def test_no_path_leaves_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(outside)
    (root / "link").symlink_to(outside / "secret")
    wire = Wire(root)
    for path in (b"out/secret", b"link", b"out/new"):
        assert wire.status(3, path, 1, 0) == PERMISSION_DENIED
        assert wire.status(3, path, 2 | 8, 0) == PERMISSION_DENIED
        assert wire.status(17, path) == PERMISSION_DENIED
        assert wire.status(9, path, 1, 0, 0) == PERMISSION_DENIED
    assert wire.status(11, b"out") == PERMISSION_DENIED
    assert wire.status(13, b"out/secret") == PERMISSION_DENIED
    assert wire.status(18, b"link", b"out/moved") == PERMISSION_DENIED
    assert wire.status(20, b"/etc", b"new") == PERMISSION_DENIED
    assert wire.status(3, b"../outside/secret", 1, 0) == NO_SUCH_FILE
    assert wire.status(3, b"a\0b", 1, 0) == BAD_MESSAGE
    for kind in (13, 15):
        assert wire.status(kind, b"/") == PERMISSION_DENIED
    assert wire.status(13, b"link") == 0
    assert (outside / "secret").read_bytes() == b"secret"


def test_rename_keeps_and_posix_rename_replaces_what_exists(server: EmbeddedServer) -> None:
    for name in ("a", "b"):
        Path(server.root, name).write_text(name)
    with connected(server) as sftp:
        with pytest.raises(OSError, match="exists"):
            sftp.rename("/a", "/b")
        sftp.posix_rename("/a", "/b")
        assert sftp.listdir("/") == ["b"]
    assert Path(server.root, "b").read_text() == "a"


def test_announced_extensions_are_the_ones_that_are_answered(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    (tmp_path / "file").touch()
    handle = wire.ask(3, b"file", 2, 0)[1][4:]
    limits = wire.ask(200, b"limits@openssh.com")[1]
    assert struct.unpack(">4Q", limits) == (262_144, 261_120, 261_120, 500)
    assert wire.status(200, b"fsync@openssh.com", handle) == 0
    assert len(wire.ask(200, b"statvfs@openssh.com", b"/")[1]) == 88
    assert len(wire.ask(200, b"fstatvfs@openssh.com", handle)[1]) == 88
    assert wire.status(200, b"nobody@example.com") == OP_UNSUPPORTED
    assert wire.status(99) == OP_UNSUPPORTED
    wire.session.close()


def test_attributes_are_set_and_told(server: EmbeddedServer) -> None:
    with connected(server) as sftp:
        with sftp.open("/file", "wb") as file:
            file.write(b"content")
            file.chmod(0o640)
            file.truncate(3)
        sftp.utime("/file", (1_000_000_000, 1_600_000_000))
        found = sftp.stat("/file")
    assert (found.st_size, (found.st_mode or 0) & 0o777, found.st_mtime) == (3, 0o640, 1_600_000_000)


def test_handles_are_bounded(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    (tmp_path / "file").touch()
    handles = [wire.ask(3, b"file", 1, 0) for _ in range(wire.session.max_handles)]
    assert {reply for reply, _ in handles} == {HANDLE}
    assert wire.status(3, b"file", 1, 0) == FAILURE
    wire.session.close()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*range(3, 21), 200]), st.binary(max_size=60)), max_size=8))
def test_any_request_is_answered_or_ends_the_session(tmp_path: Path, requests: list[tuple[int, bytes]]) -> None:
    root = tmp_path / "fuzz"
    root.mkdir(exist_ok=True)
    session = SFTPSession(os.fsencode(os.path.realpath(root)), lambda data: None)
    for kind, body in requests:
        session.receive(struct.pack(">IBI", len(body) + 5, kind, 1) + body)
    session.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fuzz"]


def test_an_over_long_packet_ends_the_session(tmp_path: Path) -> None:
    session = SFTPSession(os.fsencode(tmp_path), lambda data: None)
    with pytest.raises(ProtocolBroken):
        session.receive(struct.pack(">I", 0x7FFFFFFF))


def test_what_a_client_sends_against_the_protocol_ends_its_session_with_a_line_in_the_log_and_no_other(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with connected(server) as sftp:
        channel = sftp.get_channel()
        assert channel is not None
        channel.sendall(struct.pack(">I", 0x7FFFFFFF))
        with pytest.raises(LOST):
            sftp.listdir("/")
        with connected(server) as other:
            assert other.listdir("/") == []
    assert [line for line in caplog.messages if "session ended reason=" in line]
    assert not [record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()]


def test_a_link_is_told_as_it_is_and_not_followed(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "root" / "f").write_text("x")
    (tmp_path / "root" / "link").symlink_to("f")
    with connected(server) as sftp:
        assert sftp.readlink("link") == "f"
        with pytest.raises(OSError, match=r".*"):
            sftp.readlink("f")


READ, WRITE, APPEND, CREAT, TRUNC, EXCL = 1, 2, 4, 8, 16, 32


@pytest.mark.parametrize("asked", range(64))
def test_every_way_of_opening_a_file_is_the_systems_own(asked: int) -> None:
    expected = {READ | WRITE: os.O_RDWR, WRITE: os.O_WRONLY}.get(asked & (READ | WRITE), os.O_RDONLY)
    expected |= os.O_NOFOLLOW | os.O_NONBLOCK
    for bit, flag in ((APPEND, os.O_APPEND), (CREAT, os.O_CREAT), (TRUNC, os.O_TRUNC), (EXCL, os.O_EXCL)):
        if asked & bit:
            expected |= flag
    assert open_flags(asked) == expected


def test_a_closed_handle_is_gone_with_its_file(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    (tmp_path / "file").touch()
    for _ in range(3):
        handle = wire.ask(3, b"file", READ, 0)[1][4:]
        assert wire.status(4, handle) == 0
        assert wire.status(4, handle) == FAILURE
    assert wire.session.handles == {}


def test_a_disk_that_takes_a_little_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:7], at))
    wire = Wire(tmp_path)
    handle = wire.ask(3, b"file", WRITE | CREAT, 0)[1][4:]
    content = bytes(range(100))
    assert wire.status(6, handle, 0, 5, content) == 0
    assert (tmp_path / "file").read_bytes() == bytes(5) + content
    assert wire.status(4, handle) == 0

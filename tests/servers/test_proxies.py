"""SOCKS5 and HTTP proxies in front of a real sshd, those that refuse, and those that talk nonsense."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.hostile import raw_peer
from servers.openssh import OpenSSH
from servers.shell import Shell

from iot.sftp.client import ConfigurationError, IoTSFTPClient, LinkLost, LoginRefused, SFTPError

USER, PASSWORD = "me", "s3cret"


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path_factory.mktemp("ssh") / "root") as server:
        yield server


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more
        data += more
    return data


def carry(ours: socket.socket, theirs: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other direction has ended it
        while data := ours.recv(65536):
            theirs.sendall(data)
        theirs.shutdown(socket.SHUT_RDWR)


def relay(sock: socket.socket, host: str, port: int, answer: bytes) -> None:
    """The first bytes of the server follow the answer at once: a client that reads too much of it loses them."""
    with socket.create_connection((host, port)) as server:
        sock.sendall(answer + server.recv(65536))
        threading.Thread(target=carry, args=(server, sock), daemon=True).start()
        carry(sock, server)


def socks5(login: bool) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        methods = exactly(sock, exactly(sock, 2)[1])
        if (2 if login else 0) not in methods:
            sock.sendall(b"\x05\xff")
            return
        sock.sendall(b"\x05\x02" if login else b"\x05\x00")
        if login:
            exactly(sock, 1)
            user, password = (exactly(sock, exactly(sock, 1)[0]).decode() for _ in range(2))
            right = (user, password) == (USER, PASSWORD)
            sock.sendall(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        assert exactly(sock, 4) == b"\x05\x01\x00\x03"
        host = exactly(sock, exactly(sock, 1)[0]).decode()
        relay(sock, host, int.from_bytes(exactly(sock, 2), "big"), b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")

    return talk


def http(login: bool) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        header = b""
        while not header.endswith(b"\r\n\r\n"):
            header += exactly(sock, 1)
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode())
        if login and b"Proxy-Authorization: Basic " + token not in header:
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        host, _, port = header.split(b" ")[1].decode().rpartition(":")
        relay(sock, host, int(port), b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")

    return talk


def client(server: OpenSSH, folder: Path, proxy: str, **more: object) -> IoTSFTPClient:
    options = {**server.login(), "state_dir": folder / "state", "attempts": 1, "link_deadline_s": 5, **more}
    return IoTSFTPClient(**options, proxy=proxy)


@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize(("scheme", "kind"), [("socks5", socks5), ("http", http)])
def test_a_server_is_reached_through_a_proxy(
    scheme: str, kind: Callable[[bool], Callable[[socket.socket], None]], login: bool, ssh: OpenSSH, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"content")
    with raw_peer(kind(login)) as port:
        address = f"{scheme}://{USER}@127.0.0.1:{port}" if login else f"{scheme}://127.0.0.1:{port}"
        with client(ssh, tmp_path, address, proxy_password=PASSWORD) as reached:
            reached.upload(str(tmp_path / "f"), ssh.path(f"{scheme}{login}"))
        assert ssh.content(f"{scheme}{login}") == b"content"
        if login:
            for wrong in (f"{scheme}://127.0.0.1:{port}", address):
                with (
                    client(ssh, tmp_path, wrong, proxy_password="no") as refused,
                    pytest.raises(LoginRefused) as caught,
                ):
                    refused.connect()
                assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"\x05\x00\x05\x05\x00\x01",
        b"\x05\x00\x05\xfe\x00\x01",
        b"\x04\x00",
        b"\x05\x02",
        b"x" * 100_000,
        b"\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ],
)
def test_a_proxy_that_refuses_or_talks_nonsense_is_an_error(
    scheme: str, answer: bytes, ssh: OpenSSH, tmp_path: Path
) -> None:
    with (
        raw_peer(lambda sock: sock.sendall(answer)) as port,
        client(ssh, tmp_path, f"{scheme}://127.0.0.1:{port}") as refused,
        pytest.raises((LinkLost, LoginRefused), match=f"proxy 127.0.0.1 port {port}"),
    ):
        refused.connect()


def test_a_proxy_that_says_nothing_is_given_up_in_time(ssh: OpenSSH, tmp_path: Path) -> None:
    with (
        raw_peer(lambda sock: sock.recv(1) and sock.recv(1_000_000) and sock.recv(1)) as port,
        client(ssh, tmp_path, f"socks5://127.0.0.1:{port}", link_deadline_s=1) as refused,
        pytest.raises(SFTPError, match="gave no answer in time"),
    ):
        refused.connect()


@pytest.mark.parametrize("url", ["ftp://h", "socks5://", "http://h:99999", "socks5://u:hunter2@h", "http://h/x", "h:1"])
def test_an_address_that_is_no_proxy_is_refused_and_shows_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        IoTSFTPClient("h", sftp_pass="x", proxy=url)
    assert "hunter2" not in str(caught.value)


def test_the_command_line_takes_the_password_from_a_file(ssh: OpenSSH, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(PASSWORD)
    with raw_peer(socks5(login=True)) as port:
        words = ("--proxy", f"socks5://{USER}@127.0.0.1:{port}", "--proxy-password-file", "pw")
        done = Shell(ssh, tmp_path)("exists", ssh.path(), *words)
    assert done.returncode == 0, done.stderr

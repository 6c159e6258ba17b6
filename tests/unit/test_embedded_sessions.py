"""Who may log in to the embedded server, what a login may do, and what is left when a session ends."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_SUCCEEDED

from iot.sftp.server import EmbeddedServer
from iot.sftp.server import embedded as module
from iot.sftp.server.embedded import _Login, _Subsystem
from iot.sftp.server.protocol import ProtocolBroken


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return module.new_host_key()


def line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()} a comment"


def test_without_password_and_keys_a_password_is_made_up(tmp_path: Path, key: paramiko.PKey) -> None:
    one, other = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    assert one.password != other.password
    assert len(one.password or "") >= 16
    assert (one.user, one.port, one.host, one.authorized_keys) == ("device", 0, "127.0.0.1", [])
    assert EmbeddedServer(tmp_path, authorized_keys=[line(key)]).password is None
    assert EmbeddedServer(tmp_path, password="x").password == "x"
    assert one.host_key != other.host_key
    before = one.host_key
    one.renew_host_key()
    assert one.host_key != before


@pytest.mark.parametrize(
    ("password", "with_key", "offered"),
    [("x", False, "password"), (None, True, "publickey"), ("x", True, "password,publickey")],
)
def test_only_what_can_succeed_is_offered(tmp_path: Path, key: paramiko.PKey, password, with_key, offered) -> None:
    keys = [line(key)] if with_key else []
    login = _Login(EmbeddedServer(tmp_path, password=password, authorized_keys=keys))
    assert login.get_allowed_auths("device") == offered


def test_user_and_password_or_key_have_to_be_the_right_ones(tmp_path: Path, key: paramiko.PKey) -> None:
    login = _Login(EmbeddedServer(tmp_path, user="me", password="right", authorized_keys=[line(key)]))
    other = module.new_host_key()
    passwords = [
        login.check_auth_password(*given)
        for given in (("me", "right"), ("me", "wrong"), ("you", "right"), ("i", "right"))
    ]
    assert passwords == [AUTH_SUCCESSFUL, AUTH_FAILED, AUTH_FAILED, AUTH_FAILED]
    keys = [login.check_auth_publickey(*given) for given in (("me", key), ("me", other), ("you", key), ("i", key))]
    assert keys == [AUTH_SUCCESSFUL, AUTH_FAILED, AUTH_FAILED, AUTH_FAILED]
    by_key = _Login(EmbeddedServer(tmp_path, authorized_keys=[line(key)]))
    assert by_key.check_auth_password("device", "") == AUTH_FAILED


def test_a_login_gets_a_session_and_no_tunnel(tmp_path: Path) -> None:
    login = _Login(EmbeddedServer(tmp_path))
    assert login.check_channel_request("session", 0) == OPEN_SUCCEEDED
    for kind in ("direct-tcpip", "x11"):
        assert login.check_channel_request(kind, 0) == OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class Channel:
    """What a client sends on its channel; an error in its place is raised."""

    def __init__(self, *comes: bytes | Exception) -> None:
        self.comes, self.sent = list(comes), b""

    def recv(self, _: int) -> bytes:
        first = self.comes.pop(0) if self.comes else b""
        if isinstance(first, Exception):
            raise first
        return first

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def get_transport(self) -> None: ...


@pytest.mark.parametrize(
    ("end", "told"),
    [(b"", []), (OSError("cut"), ["session ended reason=cut"]), (EOFError("over"), ["session ended reason=over"])],
)
def test_a_session_gets_what_comes_answers_and_is_closed_whatever_ends_it(tmp_path, caplog, end, told) -> None:
    did: list[Any] = []

    def session(root: bytes, send: Any) -> Any:
        did.append(root)
        send(b"answer")
        return SimpleNamespace(receive=did.append, close=lambda: did.append("closed"))

    server = EmbeddedServer(tmp_path, session=session)  # type: ignore[arg-type]
    channel: Any = Channel(b"one", b"two", end)
    caplog.set_level(logging.INFO)
    subsystem = _Subsystem(channel, "sftp", None, server)  # type: ignore[arg-type]
    assert subsystem.daemon
    subsystem.start_subsystem("sftp", None, channel)  # type: ignore[arg-type]
    assert did == [str(tmp_path).encode(), b"one", b"two", "closed"]
    assert channel.sent == b"answer"
    assert caplog.messages == told
    assert server.threads == set()


def test_a_session_that_breaks_the_protocol_is_closed(tmp_path: Path) -> None:
    def refuse(_: bytes) -> None:
        raise ProtocolBroken("a packet of 0 bytes")

    closed: list[bool] = []
    session = SimpleNamespace(receive=refuse, close=lambda: closed.append(True))
    server = EmbeddedServer(tmp_path, session=lambda *_: session)  # type: ignore[arg-type, return-value]
    channel: Any = Channel(b"x", b"never read")
    _Subsystem(channel, "sftp", None, server).start_subsystem("sftp", None, channel)  # type: ignore[arg-type]
    assert closed == [True]
    assert channel.comes == [b"never read"]


class Transport:
    """In the place of paramiko's: what it was told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.told, self.alive = sock, [], True

    def is_alive(self) -> bool:
        return self.alive

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **how: self.told.append((name, given, how))


@pytest.fixture
def transports(monkeypatch: pytest.MonkeyPatch) -> list[Transport]:
    made: list[Transport] = []
    monkeypatch.setattr(module.paramiko, "Transport", lambda sock: made.append(Transport(sock)) or made[-1])
    return made


def test_a_connection_is_served_at_once_and_forgotten_when_it_is_over(tmp_path: Path, transports: Any) -> None:
    server = EmbeddedServer(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        accepted = [listener.accept()[0] for _ in calls]
    for number, sock in enumerate(accepted):
        server.serve(sock)
        transports[0].alive = number < 1
    assert accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert [one.sock for _, one in server._connections] == accepted[1:]
    told = {name: (given, how) for name, given, how in transports[1].told}
    assert transports[1].daemon is True
    assert told["add_server_key"] == ((server._key,), {})
    assert told["set_log_channel"] == (("iot.sftp.server",), {})
    assert told["set_subsystem_handler"] == (("sftp", _Subsystem, server), {})
    how = told["start_server"][1]
    assert isinstance(how["event"], threading.Event)
    assert isinstance(how["server"], _Login)
    server.drop_connections()
    assert [name for name, *_ in transports[1].told][-2:] == ["close", "join"]
    assert [sock.fileno() for sock in accepted[1:]] == [-1, -1]
    assert server._connections == []
    for sock in (*calls, accepted[0]):
        sock.close()


def test_a_pause_between_two_calls_is_waited_out_and_a_closed_listener_ends_it(tmp_path: Path, monkeypatch) -> None:
    server, served = EmbeddedServer(tmp_path), []
    comes: list[Any] = [TimeoutError(), "first", TimeoutError(), "second", OSError("closed"), "never"]

    def accept() -> Any:
        first = comes.pop(0)
        if isinstance(first, Exception):
            raise first
        return first, None

    monkeypatch.setattr(server, "serve", served.append)
    server._listener = listener = SimpleNamespace(accept=accept)  # type: ignore[assignment]
    server._accept(listener)  # type: ignore[arg-type]
    assert (served, comes) == (["first", "second"], ["never"])
    server._accept(SimpleNamespace())  # type: ignore[arg-type]  # not the one that listens


def test_a_listener_waits_no_longer_than_it_takes_to_see_the_end(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    with server:
        assert server._listener is not None
        assert server._listener.gettimeout() == module.POLL_S
        assert server.port == server._listener.getsockname()[1] > 0
        assert server.host_key_line.startswith(f"[127.0.0.1]:{server.port} ssh-ed25519 ")
        acceptor = server._acceptor
    assert acceptor is not None
    assert acceptor.daemon
    assert not acceptor.is_alive()

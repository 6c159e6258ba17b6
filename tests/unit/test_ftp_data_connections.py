"""How FTP's connections come about and end: data goes to the server or comes from it, and from nobody else."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iot.ftp import connection as module
from iot.ftp.connection import Address, Connection, _no_reply, _text
from iot.ftp.data import CLOSING_S
from iot.transfer.errors import LinkLost, NameRefused, NotFound, ServerBusy, Timeout

SECRET = "correct-horse-battery"


class Trust:
    """In the place of TLS: what it was asked to protect, and how long it may wait."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def wrap(self, sock: socket.socket, host: str, watch: Callable[[Any], Any], session: Any = None) -> socket.socket:
        self.asked.append((sock, host, sock.gettimeout(), session))
        return sock


class Far:
    """A server on loopback, its control connection, and the data connections that it made."""

    def __init__(self, **address: Any) -> None:
        with socket.create_server(("127.0.0.5", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            self.there, _ = listener.accept()
        known = Address("127.0.0.1", 21, "me", SECRET, address.pop("trust", None), connect_timeout_s=5.0, **address)
        self.control = Connection(known)
        self.control._use(here)
        self.calls: list[socket.socket] = []

    def reply(self, *lines: str) -> None:
        self.there.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def calls_back(self, monkeypatch: pytest.MonkeyPatch, *callers: str) -> None:
        """As soon as it is told where, from each of these addresses."""

        def sendport(host: str, port: int) -> str:
            self.calls += [socket.create_connection((host, port), source_address=(each, 0)) for each in callers]
            return str(Connection.sendport(self.control, host, port))

        monkeypatch.setattr(self.control, "sendport", sendport)

    def asked(self) -> list[str]:
        self.there.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return self.there.recv(100_000).decode().splitlines()
        return []

    def close(self) -> None:
        self.control.close()
        for each in (self.there, *self.calls):
            each.close()


@pytest.fixture
def far() -> Iterator[Callable[..., Far]]:
    made: list[Far] = []

    def make(**address: Any) -> Far:
        made.append(Far(**address))
        return made[-1]

    yield make
    for each in made:
        each.close()


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder that is being read
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


# -- active mode


def test_in_active_mode_the_server_calls_and_nobody_else_is_let_in(far, monkeypatch) -> None:
    server = far(active=True, timeout_s=9.0)
    server.calls_back(monkeypatch, "127.0.0.2", "127.0.0.9", "127.0.0.5")
    server.reply("200 ok", "150 here it comes")
    before = sockets()
    data = server.control.transfer("RETR", b"f")
    *strangers, caller = server.calls
    caller.sendall(b"content")
    assert data.receive() == b"content"
    assert [stranger.recv(1) for stranger in strangers] == [b"", b""]
    assert data._sock.gettimeout() == 9.0
    assert sockets() == before + 4, "an end of each of the strangers' and both of the server's"
    assert data._sock in server.control._sockets
    data._close()
    port, command = server.asked()
    assert port.startswith("PORT 127,0,0,")
    assert command == "RETR f"


def test_a_transfer_that_is_refused_leaves_nobody_listening(far, monkeypatch) -> None:
    server = far(active=True)
    server.reply("200 ok", "550 No such file")
    before = sockets()
    with pytest.raises(NotFound):
        server.control.transfer("RETR", b"f")
    assert sockets() == before


def test_a_server_that_does_not_call_is_waited_for_as_long_as_a_connection_may_take(far, monkeypatch) -> None:
    server = far(active=True)
    waited: list[float] = []

    def accept(_: socket.socket, timeout_s: float, check: Callable[[], None]) -> Any:
        waited.append(timeout_s)
        raise Timeout("no connection from the server")

    monkeypatch.setattr(module, "accept", accept)
    server.reply("200 ok", "150 here it comes")
    before = sockets()
    with pytest.raises(Timeout):
        server.control.transfer("RETR", b"f")
    assert (waited, sockets()) == ([5.0], before)


def test_over_version_6_the_server_is_told_where_in_its_own_way(far, monkeypatch) -> None:
    server = far(active=True)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    made: list[Any] = []
    monkeypatch.setattr(module.socket, "create_server", lambda *given, **how: made.append((given, how)) or listener)
    server.control.af = socket.AF_INET6
    server.reply("500 what")
    before = sockets()
    with pytest.raises(Exception, match="500 what"):
        server.control.transfer("RETR", b"f")
    assert server.asked() == [f"EPRT |2|127.0.0.1|{port}|"]
    assert made == [(((server.control.sock.getsockname()[0], 0),), {"family": socket.AF_INET6, "backlog": 4})]
    assert sockets() == before - 1


# -- TLS


def test_with_tls_a_data_connection_is_protected_in_time_as_a_part_of_the_control_connections_session(
    far, monkeypatch
) -> None:
    class Encrypted(socket.socket):
        session = object()

        def cipher(self) -> tuple[str, str, int]:
            return "AES", "TLSv1.3", 256

    trust = Trust()
    server = far(trust=trust, timeout_s=9.0)
    plain = server.control.sock
    monkeypatch.setattr(ssl, "SSLSocket", Encrypted)
    server.control.sock = encrypted = Encrypted(fileno=os.dup(plain.fileno()))
    encrypted.settimeout(9.0)
    data, other = socket.socketpair()
    monkeypatch.setattr(server.control, "makepasv", lambda: ("h", 5))
    monkeypatch.setattr(module, "dial", lambda *given: data)
    server.reply("150 here it comes")
    with encrypted, other, plain:
        server.control.welcome = "220 hello\n220 again"
        assert server.control.described() == "software='220 hello' tls=TLSv1.3 AES"
        found = server.control.transfer("RETR", b"f")
        assert trust.asked == [(data, "127.0.0.1", 9.0, Encrypted.session)]
        found._close()


@pytest.mark.parametrize("implicit", [True, False])
def test_tls_is_begun_before_or_behind_the_greeting(far, monkeypatch, implicit: bool) -> None:
    server = far(trust=Trust(), implicit=implicit)
    did: list[Any] = []
    monkeypatch.setattr(module, "dial", lambda *given: did.append(given[:3]) or server.control.sock)
    for step in ("_protect", "_greeting", "_log_in", "_learn_features"):
        monkeypatch.setattr(server.control, step, lambda step=step: did.append(step))
    monkeypatch.setattr(server.control, "_secure", lambda *, explicit: did.append(f"secure {explicit}"))
    monkeypatch.setattr(server.control, "command", did.append)
    server.control.open()
    begun = ["_protect", "_greeting", "secure False"] if implicit else ["_greeting", "secure True"]
    assert did == [("127.0.0.1", 21, 5.0), *begun, "_log_in", "_learn_features", "TYPE I"]


def test_the_control_connection_is_protected_with_its_host(far) -> None:
    trust = Trust()
    server = far(trust=trust, timeout_s=9.0)
    sock = server.control.sock
    server.control._protect()
    assert trust.asked == [(sock, "127.0.0.1", 9.0, None)]
    server.reply("200 ok")
    assert server.control.command("NOOP") == "200 ok"


# -- what is said


def test_an_address_shows_no_password_and_is_plain_and_passive_unless_said_otherwise() -> None:
    found = Address("h", 21, "me", SECRET, Trust())  # type: ignore[arg-type]
    assert str(found) == "h port 21"
    assert SECRET not in repr(found)
    assert "trust" not in repr(found)
    assert (found.implicit, found.active) == (False, False)
    made = Connection(found)
    assert repr(made) == "Connection(h port 21)"
    assert (made.trust_server_pasv_ipv4_address, made.timeout, made.features) == (False, 60.0, {})


def test_a_greeting_that_refuses_shows_no_password(far) -> None:
    server = far()
    server.reply(f"530 not {SECRET}")
    with pytest.raises(ServerBusy, match=r"^127\.0\.0\.1 port 21 refused the connection: 530 not \*\*\*$") as told:
        server.control._greeting()
    assert SECRET not in str(told.value.__cause__)


@pytest.mark.parametrize(
    ("line", "told"), [("PASS secret", "login: 530"), ("PASSIVE", "PASSIVE: 530"), ("A\nB", "A B: 5")]
)
def test_a_refusal_names_the_command_but_never_a_password(far, line: str, told: str) -> None:
    server = far()
    with pytest.raises(Exception, match=f"^{told}"), server.control._translated(line):
        raise module.ftplib.error_perm("530 no")


@pytest.mark.parametrize(
    ("line", "told"),
    [("SSH-2.0-x", "it is an SSH server (SSH-2.0-x), which offers SFTP, not FTP"), ("SSH", "SSH is no reply")],
)
def test_what_is_no_reply_is_shown(line: str, told: str) -> None:
    assert _no_reply(line) == told


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\xff"])
def test_a_name_that_would_arrive_as_another_is_refused(byte: bytes) -> None:
    with pytest.raises(NameRefused, match="cannot be sent over FTP"):
        _text(b"a" + byte + b"b")
    assert _text(bytes(range(14, 255))) == bytes(range(14, 255)).decode("latin-1")


# -- the end


def test_a_closed_connection_says_so_or_why_it_was_lost(far) -> None:
    server = far()
    server.control.close()
    with pytest.raises(LinkLost, match=r"is lost: the connection was closed$"):
        server.control.check_usable()
    server = far()
    server.control.lose(LinkLost("cut"))
    server.control.lose(LinkLost("later"))
    server.control.close()
    with pytest.raises(LinkLost, match=r"is lost: cut$") as told:
        server.control.check_usable()
    assert str(told.value.__cause__) == "cut"
    assert server.control._sockets == set()


def test_closing_a_connection_that_cannot_be_closed_is_no_error(far, monkeypatch) -> None:
    def refuse(_: object) -> None:
        raise OSError("broken")

    server = far()
    monkeypatch.setattr(module.ftplib.FTP, "close", refuse)
    server.control.close()
    monkeypatch.undo()


def test_a_wait_that_an_abort_ends_is_a_lost_link_and_no_silence(far) -> None:
    server = far()

    def silent(_: str) -> str:
        server.control.abort()
        raise TimeoutError

    server.control.sendcmd = silent
    with pytest.raises(LinkLost, match=r"was aborted$"):
        server.control.command("NOOP")


def test_a_socket_that_was_closed_is_watched_no_longer(far) -> None:
    server = far()
    one, other = socket.socketpair()
    server.control._watch(one)
    one.close()
    server.control._watch(other)
    assert server.control._sockets == {server.control.sock, other}
    other.close()


@pytest.mark.parametrize(
    ("timeout_s", "broken", "waited"), [(60.0, True, CLOSING_S), (2.0, True, 2.0), (60.0, False, 60.0)]
)
def test_the_last_reply_of_what_was_broken_off_is_waited_for_a_moment(far, timeout_s, broken, waited) -> None:
    server = far(timeout_s=timeout_s)
    waits: list[float] = []
    server.control.getresp = lambda: waits.append(server.control.sock.gettimeout()) or "226 done"
    server.control.finish("STOR f", broken=broken)
    assert waits == [waited]
    assert server.control.sock.gettimeout() == timeout_s

"""A connection to an SSH server: from where the settings say, tuned as they say, and nothing open where it fails."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot.sftp.client.ssh import capabilities
from iot.sftp.client.ssh import dial as module
from iot.sftp.client.ssh.dial import INTERFACE_BYTES, _bind_to_interface, _socket, _tune, check_interface, dial
from iot.sftp.client.ssh.packetizer import CHACHA20
from iot.transfer.errors import Cancelled, ConfigurationError, LinkLost
from iot.transfer.stop import StopFlag

TCP = socket.IPPROTO_TCP


class Sock:
    """Notes what it is told; refuses what is in `refuses`."""

    def __init__(self, **refuses: Exception) -> None:
        self.options: dict[tuple[int, int], Any] = {}
        self.refuses, self.bound, self.closed = refuses, [], 0  # type: ignore[var-annotated]

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        if "setsockopt" in self.refuses:
            raise self.refuses["setsockopt"]
        self.options[level, name] = value

    def bind(self, address: Any) -> None:
        if "bind" in self.refuses:
            raise self.refuses["bind"]
        self.bound.append(address)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def call(port: int, **more: Any) -> Any:
    values = {"connect_timeout_s": 5.0, "deadline_s": 7.0, "congestion": None, "cancelled": StopFlag(), **more}
    return dial("127.0.0.1", port, **values)


def test_a_connection_is_tuned_and_ends_when_its_data_is_not_acknowledged_in_time(listener: socket.socket) -> None:
    link = call(listener.getsockname()[1])
    sock = link._sock
    assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 7000
    link.close()


def test_a_system_without_such_a_timeout_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it: Any = Sock()
    without: Any = Sock()
    _tune(with_it, 2.5, None)
    assert with_it.options[TCP, socket.TCP_USER_TIMEOUT] == 2500
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    _tune(without, 2.5, None)
    assert without.options == {(TCP, socket.TCP_NODELAY): 1, (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1}


def test_a_congestion_control_is_set_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sock: Any = Sock()
    _tune(sock, 2.5, "bbr")
    assert sock.options[TCP, socket.TCP_CONGESTION] == b"bbr"
    monkeypatch.delattr(socket, "TCP_CONGESTION")
    capabilities.set_congestion(sock, "reno")
    assert sock.options[TCP, 13] == b"reno"


def test_a_congestion_control_that_is_not_there_is_a_wrong_setting_and_closes_the_call(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[socket.socket] = []
    real = module._tune
    monkeypatch.setattr(module, "_tune", lambda sock, *more: tuned.append(sock) or real(sock, *more))
    with pytest.raises(ConfigurationError, match=r"^congestion: 'nonsense' is not available on this system \(No such"):
        call(listener.getsockname()[1], congestion="nonsense")
    assert tuned[0].fileno() == -1


def test_a_server_that_does_not_answer_is_named_with_the_reason(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(LinkLost, match=rf"^cannot connect to 127\.0\.0\.1 port {port}: .*Connection refused$"):
        call(port)


def test_what_was_cancelled_is_not_dialled(listener: socket.socket) -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(Cancelled, match="stopped on request while connecting"):
        call(listener.getsockname()[1], cancelled=stop)


# -- from where


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("eth0", True),
        ("x" * (INTERFACE_BYTES - 1), True),
        ("x" * INTERFACE_BYTES, False),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 8, False),
        ("", False),
        ("a b", False),
        ("a/b", False),
        ("a\0", False),
    ],
)
def test_an_interface_has_a_name_that_the_system_can_hold(name: str, fine: bool) -> None:
    if fine:
        check_interface(name)
        return
    with pytest.raises(ValueError, match="must be the name of a network interface"):
        check_interface(name)


def test_a_system_that_cannot_bind_to_an_interface_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_BINDTODEVICE")
    with pytest.raises(ValueError, match="only Linux binds to an interface"):
        check_interface("eth0")
    with pytest.raises(ConfigurationError, match=r"^bind_interface: 'eth0' cannot be used on this system"):
        _bind_to_interface(Sock(), "eth0")  # type: ignore[arg-type]


def test_a_socket_is_bound_to_interface_and_address_where_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    sock = Sock()
    monkeypatch.setattr(module.socket, "socket", lambda *kind: made.append(kind) or sock)
    assert _socket("10.0.0.1", "eth0", 2, 1, 6) is sock
    assert (made, sock.bound) == ([(2, 1, 6)], [("10.0.0.1", 0)])
    assert sock.options == {(socket.SOL_SOCKET, socket.SO_BINDTODEVICE): b"eth0\0"}
    sock = Sock()
    _socket(None, None, 2, 1, 6)
    assert (sock.bound, sock.options, sock.closed) == ([], {}, 0)


def test_a_socket_that_cannot_be_bound_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    sock = Sock(bind=OSError(99, "Cannot assign"))
    monkeypatch.setattr(module.socket, "socket", lambda *_: sock)
    with pytest.raises(OSError, match="Cannot assign"):
        _socket("10.0.0.1", None, 2, 1, 6)
    assert sock.closed == 1


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (PermissionError(1, "no"), ConfigurationError, "^bind_interface: 'eth0': before Linux 5.7 only root"),
        (OSError(19, "No such device"), OSError, r"\[Errno 19\] interface 'eth0': No such device$"),
    ],
)
def test_an_interface_that_cannot_be_used_is_told_by_its_name(error: Exception, kind: Any, told: str) -> None:
    with pytest.raises(kind, match=told):
        _bind_to_interface(Sock(setsockopt=error), "eth0")  # type: ignore[arg-type]


# -- what this system can


def test_a_cipher_is_one_that_is_known_here() -> None:
    capabilities.check_ciphers(["aes256-ctr", CHACHA20])
    capabilities.check_ciphers([])
    with pytest.raises(ValueError, match=rf"^unknown 'x', 'y': known are .*aes256-ctr.*, {CHACHA20}$"):
        capabilities.check_ciphers(["x", "aes256-ctr", "y"])
    with pytest.raises(ValueError, match=r"^unknown 'x{199}: known are"):
        capabilities.check_ciphers(["x" * 1000])


def test_a_congestion_control_is_tried_and_the_available_ones_are_named(tmp_path: Path, monkeypatch) -> None:
    controls = tmp_path / "controls"
    controls.write_text("reno cubic\n")
    monkeypatch.setattr(capabilities, "CONTROLS", controls)
    with pytest.raises(ValueError, match=r"^not permitted on this system \(.+\): available are reno, cubic$"):
        capabilities.check_congestion("nonsense")
    controls.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="the available ones are not known"):
        capabilities.check_congestion("nonsense")
    controls.unlink()
    with pytest.raises(ValueError, match="the available ones are not known"):
        capabilities.check_congestion("nonsense")
    tried: list[str] = []
    monkeypatch.setattr(capabilities, "set_congestion", lambda _, name: tried.append(name))
    capabilities.check_congestion("cubic")
    assert tried == ["cubic"]

"""Connect to the server or its proxy: whichever of its addresses answers first, from where the settings say."""

from __future__ import annotations

import functools
import socket

from iot.sftp.client.ssh.capabilities import set_congestion
from iot.sftp.client.ssh.link import Link
from iot.transfer.dialling import Race, resolved
from iot.transfer.errors import Cancelled, ConfigurationError, LinkLost
from iot.transfer.stop import StopFlag

__all__ = ["check_interface", "dial"]

INTERFACE_BYTES = 16
"""IFNAMSIZ, with the NUL at its end."""


def dial(
    host: str,
    port: int,
    *,
    connect_timeout_s: float,
    deadline_s: float,
    congestion: str | None,
    cancelled: StopFlag,
    redial_s: float | None = None,
    bind_address: str | None = None,
    bind_interface: str | None = None,
) -> Link:
    """Connect to the first address of `host` that answers. Raises: LinkLost, ConfigurationError, Cancelled.

    connect_timeout_s: of the resolver, then of each address. redial_s: see Race.
    bind_address, bind_interface: of this device, to connect from and through.
    """

    def check() -> None:
        if cancelled.is_set():
            raise Cancelled("stopped on request while connecting")

    addresses = resolved(host, port, connect_timeout_s, check)
    make = functools.partial(_socket, bind_address, bind_interface)
    with Race(addresses, make, timeout_s=connect_timeout_s, redial_s=redial_s) as race:
        sock = race.winner(check)
    if sock is None:
        raise LinkLost(f"cannot connect to {host} port {port}: {'; '.join(race.failures)}")
    try:
        _tune(sock, deadline_s, congestion)
    except BaseException:
        sock.close()
        raise
    return Link(sock, cancelled)


def check_interface(name: str) -> None:
    """Whether this system can bind to an interface of this name, be it there or not. Raises: ValueError."""
    if not hasattr(socket, "SO_BINDTODEVICE"):
        raise ValueError("cannot be used on this system: only Linux binds to an interface")
    if not 0 < len(name.encode()) < INTERFACE_BYTES or any(char.isspace() or char in "/\0" for char in name):
        raise ValueError("must be the name of a network interface, as `ip link` shows it")


def _socket(
    bind_address: str | None, bind_interface: str | None, family: int, kind: int, protocol: int
) -> socket.socket:
    """Raises: OSError, also for an address of the other family and for an interface that is not there (yet);
    ConfigurationError."""
    sock = socket.socket(family, kind, protocol)
    try:
        if bind_interface:
            _bind_to_interface(sock, bind_interface)
        if bind_address:
            sock.bind((bind_address, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_to_interface(sock: socket.socket, name: str) -> None:
    try:
        check_interface(name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
    except ValueError as error:
        raise ConfigurationError(f"bind_interface: {name!r} {error}") from None
    except PermissionError as error:
        raise ConfigurationError(
            f"bind_interface: {name!r}: before Linux 5.7 only root, or a process with CAP_NET_RAW, may bind to an"
            " interface"
        ) from error
    except OSError as error:
        raise OSError(error.errno, f"interface {name!r}: {error.strerror}") from error


def _tune(sock: socket.socket, deadline_s: float, congestion: str | None) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: end a connection whose data is not acknowledged
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(deadline_s * 1000))
    if congestion:
        try:
            set_congestion(sock, congestion)
        except OSError as error:
            raise ConfigurationError(
                f"congestion: {congestion!r} is not available on this system ({error.strerror}); "
                "see /proc/sys/net/ipv4/tcp_available_congestion_control"
            ) from error

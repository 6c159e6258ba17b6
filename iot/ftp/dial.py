"""TCP connections, opened and read with deadlines; another thread can cancel the attempt."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iot.transfer.dialling import Race, resolved
from iot.transfer.errors import LinkLost, Timeout

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Replies", "accept", "dial", "wait_until_sent"]

SLICE_S = 0.2
POLL_S = 0.01
QUEUED_BYTES = 128 * 1024
INT = struct.Struct("i")
KEEPALIVE_S = 30
"""Keepalive: routers forget a silent connection, and during a transfer the control connection is silent."""


def dial(host: str, port: int, timeout_s: float, check: Callable[[], None]) -> socket.socket:
    """Connect to the first address of `host` that answers. timeout_s: of the resolver, then of each address.

    check: called every SLICE_S; its exception ends the attempt. Raises: LinkLost.
    """
    addresses = resolved(host, port, timeout_s, check)
    with Race(addresses, socket.socket, timeout_s=timeout_s) as race:
        sock = race.winner(check)
    if sock is None:
        raise LinkLost(f"cannot connect to {host} port {port}: {'; '.join(race.failures)}")
    sock.setblocking(True)
    _keep_alive(sock)
    return sock


def accept(listener: socket.socket, timeout_s: float, check: Callable[[], None]) -> tuple[socket.socket, Any]:
    """Accept the next connection -> its socket and address. Raises: Timeout."""
    over_at = time.monotonic() + timeout_s
    while not select.select([listener], [], [], SLICE_S)[0]:
        check()
        if time.monotonic() >= over_at:
            raise Timeout("no connection from the server: is there a firewall? Passive mode avoids this")
    sock, address = listener.accept()
    _keep_alive(sock)
    return sock, address


def wait_until_sent(sock: socket.socket, timeout_s: float | None, check: Callable[[], None]) -> None:
    """Wait until the other side has acknowledged all data, or has accepted none for `timeout_s` seconds: only then does
    the deadline of its reply start. Returns at once if this system cannot tell."""
    left, since = None, time.monotonic()
    while (now_left := _unsent_bytes(sock)) and (timeout_s is None or time.monotonic() - since < timeout_s):
        if now_left != left:
            left, since = now_left, time.monotonic()
        check()
        time.sleep(POLL_S)


class Replies(io.RawIOBase):
    """What a server says on the control connection. The socket's timeout is for a whole reply: a server that drips
    bytes is not waited for without end. The socket is closed by its owner.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout_s = sock.gettimeout()
        self._over_at = float("inf")

    def expect(self) -> None:
        """From now on, the next reply is waited for."""
        self._timeout_s = self._sock.gettimeout()
        self._over_at = time.monotonic() + self._timeout_s if self._timeout_s is not None else float("inf")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Raises: TimeoutError, OSError."""
        left_s = self._over_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the reply was not complete in time")
        if self._timeout_s is not None:
            self._sock.settimeout(left_s)
        try:
            return self._sock.recv_into(buffer)
        finally:
            self._sock.settimeout(self._timeout_s)


def _unsent_bytes(sock: socket.socket) -> int:
    try:
        import fcntl
        import termios

        hung_up = select.poll()
        hung_up.register(sock, 0)
        if hung_up.poll(0):  # hung up: the rest will never be sent
            return 0
        (count,) = INT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(INT.size)))
        return int(count)
    except (ImportError, AttributeError, OSError):
        return 0


def _keep_alive(sock: socket.socket) -> None:
    with contextlib.suppress(OSError, AttributeError):  # queue little, so that time and progress are realistic
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, QUEUED_BYTES)
    with contextlib.suppress(OSError):  # an optimisation, not a requirement
        # otherwise each file waits 40 ms for a delayed ACK
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), KEEPALIVE_S)

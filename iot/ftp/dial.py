"""TCP connections, opened and read with deadlines; another thread can cancel the attempt."""

from __future__ import annotations

import contextlib
import errno
import io
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iot.transfer.errors import LinkLost, Timeout

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Replies", "accept", "dial", "wait_until_sent"]

SLICE_S = 0.2
POLL_S = 0.01
QUEUED_BYTES = 128 * 1024
UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK))
KEEPALIVE_S = 30
"""Keepalive: routers forget a silent connection, and during a transfer the control connection is silent."""


def dial(host: str, port: int, timeout_s: float, check: Callable[[], None]) -> socket.socket:
    """check: called every SLICE_S; its exception ends the attempt. Raises: LinkLost, Timeout."""
    over_at = time.monotonic() + timeout_s
    error: Exception = OSError("the name has no address")
    for family, kind, protocol, _, address in _addresses(host, port, over_at, check):
        sock = socket.socket(family, kind, protocol)
        try:
            _connect(sock, address, over_at, check)
            _keep_alive(sock)
            return sock
        except OSError as failed:
            sock.close()
            error = failed
        except BaseException:
            sock.close()
            raise
    raise LinkLost(f"cannot connect to {host} port {port}: {error}") from error


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


def _addresses(host: str, port: int, over_at: float, check: Callable[[], None]) -> list[Any]:
    """A lookup cannot be cancelled, so it is left to a thread of its own. Raises: LinkLost, Timeout."""
    found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=look_up, name="iot-ftp look-up", daemon=True).start()
    while time.monotonic() < over_at:
        check()
        with contextlib.suppress(queue.Empty):
            addresses = found.get(timeout=SLICE_S)
            if isinstance(addresses, OSError):
                raise LinkLost(f"cannot find {host}: {addresses}") from addresses
            return addresses
    raise Timeout(f"cannot find {host}: no answer")


def _connect(sock: socket.socket, address: Any, over_at: float, check: Callable[[], None]) -> None:
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code not in (0, *UNDER_WAY):
        raise OSError(code, errno.errorcode.get(code, "refused"))
    while not select.select([], [sock], [], SLICE_S)[1]:
        check()
        if time.monotonic() >= over_at:
            raise Timeout(f"no answer from {address[0]} port {address[1]}")
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, errno.errorcode.get(code, "refused"))
    sock.setblocking(True)


def wait_until_sent(sock: socket.socket, timeout_s: float | None, check: Callable[[], None]) -> None:
    """Wait until the other side has acknowledged all data, or has accepted none for `timeout_s` seconds: only then does
    the deadline of its reply start. Returns at once if this system cannot tell."""
    left, since = -1, time.monotonic()
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
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (ImportError, AttributeError, OSError):
        return 0


def _keep_alive(sock: socket.socket) -> None:
    with contextlib.suppress(OSError, AttributeError):  # queue little, so that time and progress are realistic
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, QUEUED_BYTES)
    with contextlib.suppress(OSError):  # an optimisation, not a requirement
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # otherwise each file waits 40 ms for a delayed ACK
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), KEEPALIVE_S)

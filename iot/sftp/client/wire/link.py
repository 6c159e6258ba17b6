"""The TCP socket under SSH: dialled with deadlines, tuned, counted, and never blocked for ever.

paramiko writes in the caller's thread and waits as long as the kernel takes; on a link that died without a
word that is for ever. This socket gives up when nothing moved in either direction for the link's deadline.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from iot.sftp.client.errors import Cancelled, ConfigurationError, LinkLost
from iot.sftp.client.stop import StopFlag
from iot.sftp.client.wire.offers import set_congestion

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

SEND_WAIT_S = 0.1
RECEIVE_BYTES = 256 * 1024
CALLS_MAX = 20
REDIAL_GROWTH = 1.1


class Link:
    """A connected socket, as paramiko wants one.

    deadline_s: seconds without a byte in either direction after which a blocked send fails.
    sent_bytes, received_bytes: all that passed, SSH's own bytes included.
    on_silence: told while a send is blocked for how long nothing came; True ends it.
    last_received: monotonic time of the last byte from the server.
    logs_in: until `settle_in`: a cancel ends a wait, and what comes is acknowledged at once.
    """

    def __init__(self, sock: socket.socket, deadline_s: float, cancelled: StopFlag) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._deadline_s = deadline_s
        self._cancelled = cancelled
        self._ahead = memoryview(b"")
        self._readable = _Waiter(sock, selectors.EVENT_READ)
        self._writable = _Waiter(sock, selectors.EVENT_WRITE)
        self.logs_in = True
        self._receive_wait_s = SEND_WAIT_S
        self.on_silence: Callable[[float], bool] = lambda _: False
        self.sent_bytes = 0
        self.received_bytes = 0
        self.last_received = time.monotonic()

    def send(self, data: bytes) -> int:
        """Raises: TimeoutError when nothing could be sent for a moment; OSError when the link is dead."""
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            count = self._send_later(data)
        self.sent_bytes += count
        return count

    def _send_later(self, data: bytes) -> int:
        blocked_at = time.monotonic()
        while not self._writable(SEND_WAIT_S):
            if self._cancelled.is_set():
                raise OSError(errno.ECANCELED, "cancelled")
            quiet_s = time.monotonic() - max(blocked_at, self.last_received)
            if quiet_s > self._deadline_s:
                raise OSError(errno.ETIMEDOUT, f"nothing could be sent for {self._deadline_s:g} s")
            if self.on_silence(quiet_s):
                raise OSError(errno.ETIMEDOUT, "silent, and another connection stands")
        try:
            return self._sock.send(data)
        except BlockingIOError:
            raise TimeoutError from None  # paramiko asks again

    def recv(self, size: int) -> bytes:
        """Raises: TimeoutError when nothing came for a moment; paramiko does its housekeeping then."""
        if not self._ahead:
            self._ahead = memoryview(self._receive())
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return bytes(data)

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            if not self._readable(self._receive_wait_s):
                if self._cancelled.is_set() and self.logs_in:
                    raise OSError(errno.ECANCELED, "cancelled during login") from None
                raise TimeoutError from None
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                raise TimeoutError from None
        if data:
            self.received_bytes += len(data)
            self.last_received = time.monotonic()
            if self.logs_in:
                _acknowledge(self._sock)
        return data

    def settle_in(self, wakeup_s: float) -> None:
        """Login is over: wake up less often while nothing comes."""
        self.logs_in = False
        self._receive_wait_s = wakeup_s

    @property
    def _closed(self) -> bool:
        """paramiko asks a socket by this name when it ends its thread."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        with contextlib.suppress(OSError):  # not connected any more: nothing to shut down
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in recv
        self._sock.close()

    def settimeout(self, timeout_s: float) -> None:
        """paramiko's own polling interval is replaced by ours: fewer wake-ups while idle."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def getpeername(self) -> object:
        return self._sock.getpeername()


def dial(
    host: str,
    port: int,
    *,
    connect_timeout_s: float,
    deadline_s: float,
    congestion: str | None,
    cancelled: StopFlag,
    redial_s: float | None = None,
) -> Link:
    """Connect to the first address of `host` that answers. Raises: LinkLost, ConfigurationError.

    redial_s: after so many seconds without an answer dial again, and again, beside what was dialled before: when the
    link comes back, a new call is answered at once, while TCP repeats a lost one after 1, 3, 7 ... seconds.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LinkLost(f"cannot find the address of {host!r}: {error}; check the name and the network") from error
    failures = []
    for family, kind, protocol, _, address in addresses:
        try:
            with _Dialling(lambda: socket.socket(family, kind, protocol), address, redial_s) as dialling:  # noqa: B023
                sock = dialling.wait(connect_timeout_s, cancelled)
        except OSError as error:
            failures.append(f"{address[0]}: {_reason(error, connect_timeout_s)}")
            continue
        try:
            _tune(sock, deadline_s, congestion)
        except BaseException:
            sock.close()
            raise
        return Link(sock, deadline_s, cancelled)
    raise LinkLost(f"cannot connect to {host} port {port}: {'; '.join(failures)}")


class _Dialling:
    """One address, called once or, in growing intervals, again; the first call that is answered counts.

    make: a new socket. Raises: OSError when a call is refused.
    """

    def __init__(self, make: Callable[[], socket.socket], address: tuple[object, ...], redial_s: float | None) -> None:
        self._make = make
        self._address = address
        self._redial_s = redial_s
        self._selector = _selector()
        self._calls: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for call in self._calls:
            call.close()
        self._selector.close()

    def wait(self, timeout_s: float, cancelled: StopFlag) -> socket.socket:
        """In small waits, so that a cancel ends it. Raises: TimeoutError, OSError, Cancelled."""
        give_up_at = time.monotonic() + timeout_s
        dial_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= dial_at:
                self._dial()
                dial_at = now + self._next_pause_s()
            for key, _ in self._selector.select(min(SEND_WAIT_S, max(dial_at - now, 0.0))):
                return self._answered(key.fileobj)  # type: ignore[arg-type]
            if cancelled.is_set():
                raise Cancelled("stopped on request while connecting")
            if now > give_up_at:
                raise TimeoutError

    def _dial(self) -> None:
        call = self._make()
        self._calls.append(call)
        call.setblocking(False)
        code = call.connect_ex(self._address)
        if code not in (0, errno.EISCONN, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
        self._selector.register(call, selectors.EVENT_WRITE)

    def _next_pause_s(self) -> float:
        if self._redial_s is None or len(self._calls) >= CALLS_MAX:
            return float("inf")
        pause_s, self._redial_s = self._redial_s, self._redial_s * REDIAL_GROWTH
        return pause_s

    def _answered(self, call: socket.socket) -> socket.socket:
        code = call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._calls.remove(call)
        return call


def _reason(error: OSError, timeout_s: float) -> str:
    return f"no answer in {timeout_s:g} s" if isinstance(error, TimeoutError) else str(error.strerror or error)


def _tune(sock: socket.socket, deadline_s: float, congestion: str | None) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: end a connection whose data is not acknowledged
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(deadline_s * 1000))
    if congestion:
        try:
            set_congestion(sock, congestion)
        except OSError as error:
            raise ConfigurationError(
                f"congestion: this system has no {congestion!r} ({error.strerror}); "
                "see /proc/sys/net/ipv4/tcp_available_congestion_control"
            ) from error


def _acknowledge(sock: socket.socket) -> None:
    """Now, not 40 ms later: sshd's side waits for it (Nagle) with the answer that follows the one just received."""
    if hasattr(socket, "TCP_QUICKACK"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Waiter:
    """Wait until one socket can be read or written; any system's best way (the selectors module)."""

    def __init__(self, sock: socket.socket, event: int) -> None:
        self._selector = _selector()
        self._selector.register(sock, event)

    def __call__(self, wait_s: float) -> bool:
        return bool(self._selector.select(wait_s))


def _selector() -> selectors.BaseSelector:
    return selectors.DefaultSelector() if os.name == "nt" else selectors.PollSelector()

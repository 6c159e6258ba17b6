"""The TCP socket under SSH: dialled with deadlines, tuned, counted, and never blocked for ever.

paramiko writes in the caller's thread and waits as long as the kernel does; on a link that died silently that is for
ever. This socket never waits in a send: a sender with much data asks whether it is ready, and does other work
meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from iot.sftp.client.ssh.capabilities import set_congestion
from iot.transfer.errors import Cancelled, ConfigurationError, LinkLost
from iot.transfer.rate import FULL_PACKETS, Wire
from iot.transfer.stop import StopFlag

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

POLL_S = 0.1
HELD_BYTES = 1024 * 1024
RECEIVE_BYTES = 256 * 1024
CALLS_MAX = 20
REDIAL_GROWTH = 1.1
TCPI_RTT = 68
INTERFACE_BYTES = 16
"""IFNAMSIZ, with the NUL at its end."""
TCPI_BYTES_RECEIVED = 128
TCPI_SEGS_OUT = 136
TCPI_BYTES_SENT = 200
HEADERS = {socket.AF_INET: 52, socket.AF_INET6: 72}
"""Of a packet: IP, TCP, and the time stamps that TCP adds by default."""


class Link:
    """A connected socket, as paramiko needs one; it accepts all data at once, and holds what TCP does not yet accept.

    A sender checks `ready` first, so that little is held; the transport's own small messages may be sent at any time,
    and its thread never waits for a peer that does not read.

    sent_bytes: everything handed to the system, including SSH's own bytes.
    last_received: monotonic time of the last byte from the server.
    logs_in: until `login_over`, a cancel ends a wait, and received data is acknowledged at once.
    """

    def __init__(self, sock: socket.socket, cancelled: StopFlag) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        self._cancelled = cancelled
        self._ahead = memoryview(b"")
        self._held = b""
        self._sending = threading.Lock()
        self._readable = _Waiter(sock, selectors.EVENT_READ)
        self._writable = _Waiter(sock, selectors.EVENT_WRITE)
        self.logs_in = True
        self._receive_wait_s = POLL_S
        self.sent_bytes = self._received_bytes = 0
        self._last_wire: Wire | None = None
        self.last_received = time.monotonic()

    @property
    def round_trip_s(self) -> float | None:
        """As the system has measured it; None where it does not tell (tcp(7), TCP_INFO, tcpi_rtt)."""
        if not hasattr(socket, "TCP_INFO"):
            return None
        with contextlib.suppress(OSError, struct.error):
            told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_RTT + 4)
            return float(struct.unpack_from("=I", told, TCPI_RTT)[0]) / 1e6
        return None

    @property
    def wire(self) -> Wire:
        """What the wire has carried for it: as the system tells, with headers and retransmissions; else an estimate.

        tcp(7), TCP_INFO: tcpi_bytes_received, tcpi_segs_out, tcpi_segs_in, tcpi_bytes_sent (Linux 4.19).
        """
        return self._last_wire or self._wire_now()

    def _wire_now(self) -> Wire:
        if self._is_tcp and hasattr(socket, "TCP_INFO"):
            with contextlib.suppress(OSError, struct.error):
                told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_BYTES_SENT + 8)
                (received,) = struct.unpack_from("=Q", told, TCPI_BYTES_RECEIVED)
                packets_out, packets_in = struct.unpack_from("=II", told, TCPI_SEGS_OUT)
                (sent,) = struct.unpack_from("=Q", told, TCPI_BYTES_SENT)
                header = HEADERS[self._sock.family]
                return Wire(sent + packets_out * header, received + packets_in * header)
        return Wire(int(self.sent_bytes * FULL_PACKETS), int(self._received_bytes * FULL_PACKETS))

    @property
    def over(self) -> bool:
        return self._last_wire is not None

    def send(self, data: bytes) -> int:
        """Accept all of it. Raises: OSError if the link is dead, or too much is held."""
        with self._sending:
            if self._held:
                if len(self._held) > HELD_BYTES:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "the server does not read")
                self._held += data
            else:
                self._held = data[self._send_some(data) :]
        return len(data)

    def ready(self, wait_s: float) -> bool:
        """Whether TCP has accepted everything; waits at most `wait_s` seconds. Raises: OSError."""
        if not self._held:
            return True
        if self._writable(wait_s):
            self._send_held()
        return not self._held

    def _send_held(self) -> None:
        with self._sending:
            self._held = self._held[self._send_some(self._held) :]

    def _send_some(self, data: bytes) -> int:
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            return 0
        self.sent_bytes += count
        return count

    def recv(self, size: int) -> bytes:
        """Raises: TimeoutError if nothing comes for a moment, so that paramiko can do its housekeeping; OSError."""
        if not self._ahead:
            self._ahead = memoryview(self._receive())
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return bytes(data)

    def _receive(self) -> bytes:
        if self._held:
            self._send_held()
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            if not self._readable(POLL_S if self._held else self._receive_wait_s):
                if self._cancelled.is_set() and self.logs_in:
                    raise OSError(errno.ECANCELED, "cancelled during login") from None
                raise TimeoutError from None
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                raise TimeoutError from None
        if data:
            self._received_bytes += len(data)
            self.last_received = time.monotonic()
            if self.logs_in and self._is_tcp:
                _acknowledge(self._sock)
        return data

    def login_over(self, wakeup_s: float) -> None:
        """Login is over: wake up less often while nothing comes in."""
        self.logs_in = False
        self._receive_wait_s = wakeup_s

    @property
    def _closed(self) -> bool:
        """The attribute that paramiko checks on a socket when its thread ends."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        self._last_wire = self.wire
        with contextlib.suppress(OSError):  # no longer connected: nothing to shut down
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in recv
        self._sock.close()

    def settimeout(self, timeout_s: float) -> None:
        """Ignored: paramiko's polling interval is replaced by ours, for fewer wake-ups while idle."""

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
    bind_address: str | None = None,
    bind_interface: str | None = None,
) -> Link:
    """Connect to the first address of `host` that answers. Raises: LinkLost, ConfigurationError, Cancelled.

    redial_s: after this many seconds without an answer dial again, in addition to the earlier calls: when the link
    recovers, a new call is answered at once, while TCP repeats a lost SYN only after 1, 3, 7 and more seconds.
    bind_address, bind_interface: of this device, to connect from and through.
    """
    made = functools.partial(_socket, bind_address, bind_interface)
    failures = []
    for family, kind, protocol, _, address in _addresses(host, port, connect_timeout_s, cancelled):
        try:
            with _Dialling(lambda: made(family, kind, protocol), address, redial_s) as dialling:  # noqa: B023
                sock = dialling.wait(connect_timeout_s, cancelled)
        except OSError as error:
            failures.append(f"{address[0]}: {_reason(error, connect_timeout_s)}")
            continue
        try:
            _tune(sock, deadline_s, congestion)
        except BaseException:
            sock.close()
            raise
        return Link(sock, cancelled)
    raise LinkLost(f"cannot connect to {host} port {port}: {'; '.join(failures)}")


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


def _addresses(host: str, port: int, timeout_s: float, cancelled: StopFlag) -> Sequence[Any]:
    """Resolve a name in a thread that owns nothing: the system's resolver supports neither a deadline nor a cancel.
    Raises: LinkLost, Cancelled.
    """
    answer: queue.SimpleQueue[Sequence[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name="iot-sftp resolving", daemon=True).start()
    found = _awaited(answer, timeout_s, cancelled)
    if found is None:
        raise LinkLost(f"cannot find the address of {host!r}: no answer from the resolver in {timeout_s:g} s")
    if isinstance(found, Exception):
        raise LinkLost(f"cannot find the address of {host!r}: {found}; check the name and the network") from found
    return found


def _awaited(answer: queue.SimpleQueue[T], timeout_s: float, cancelled: StopFlag) -> T | None:
    """Wait in small steps, so that a cancel ends it; None if nothing came in time. Raises: Cancelled."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        with contextlib.suppress(queue.Empty):
            return answer.get(timeout=POLL_S)
        if cancelled.is_set():
            raise Cancelled("stopped on request while connecting")
    return None


class _Dialling:
    """Dials one address, once or repeatedly at growing intervals; the first call that is answered counts.

    make: creates a socket. Raises: OSError if a call is refused.
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
        """Wait in small steps, so that a cancel ends it. Raises: TimeoutError, OSError, Cancelled."""
        give_up_at = time.monotonic() + timeout_s
        dial_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= dial_at:
                self._dial()
                dial_at = now + self._next_pause_s()
            for key, _ in self._selector.select(min(POLL_S, max(dial_at - now, 0.0))):
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
                f"congestion: {congestion!r} is not available on this system ({error.strerror}); "
                "see /proc/sys/net/ipv4/tcp_available_congestion_control"
            ) from error


def _acknowledge(sock: socket.socket) -> None:
    """Acknowledge now, not 40 ms later: sshd (Nagle) holds back its next answer until then."""
    if hasattr(socket, "TCP_QUICKACK"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Waiter:
    """Wait until a socket is readable or writable, by the best means of the system (the selectors module)."""

    def __init__(self, sock: socket.socket, event: int) -> None:
        self._selector = _selector()
        self._selector.register(sock, event)

    def __call__(self, wait_s: float) -> bool:
        return bool(self._selector.select(wait_s))


def _selector() -> selectors.BaseSelector:
    return selectors.DefaultSelector() if os.name == "nt" else selectors.PollSelector()

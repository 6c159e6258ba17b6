"""The TCP socket under SSH: counted, and never blocked for ever.

paramiko writes in the caller's thread and waits as long as the kernel does; on a link that died silently that is for
ever. This socket never waits in a send: a sender with much data asks whether it is ready, and does other work
meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time

from iot.transfer.dialling import new_selector
from iot.transfer.rate import FULL_PACKETS, Wire
from iot.transfer.stop import StopFlag

POLL_S = 0.1
HELD_BYTES = 1024 * 1024
RECEIVE_BYTES = 256 * 1024
TCPI_RTT = 68
TCPI_BYTES_RECEIVED = 128
TCPI_SEGS_OUT = 136
TCPI_BYTES_SENT = 200
TCPI_RTT_END, TCPI_END = TCPI_RTT + 4, TCPI_BYTES_SENT + 8
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
            told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_RTT_END)
            (round_trip_us,) = struct.unpack_from("=I", told, TCPI_RTT)
            return float(round_trip_us) / 1e6
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
                told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_END)
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


def _acknowledge(sock: socket.socket) -> None:
    """Acknowledge now, not 40 ms later: sshd (Nagle) holds back its next answer until then."""
    if hasattr(socket, "TCP_QUICKACK"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, True)


class _Waiter:
    """Wait until a socket is readable or writable, by the best means of the system (the selectors module)."""

    def __init__(self, sock: socket.socket, event: int) -> None:
        self._selector = new_selector()
        self._selector.register(sock, event)

    def __call__(self, wait_s: float) -> bool:
        return bool(self._selector.select(wait_s))

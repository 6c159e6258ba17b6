"""One data connection, from the accepted command to the last reply about it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Protocol

from iot.ftp.dial import wait_until_sent
from iot.ftp.replies import error_of, one_line
from iot.ftp.tls import forget_errors
from iot.transfer.errors import LinkLost, Timeout, TransferError

__all__ = ["CLOSING_S", "Control", "Data"]

BLOCK_BYTES = 64 * 1024
PROGRESS_BYTES = 256
"""Within the deadline, so much has to come."""
CLOSING_S = 5.0
"""Seconds to wait for the last reply about a transfer that was broken off."""


class Control(Protocol):
    """The control connection of a transfer."""

    def finish(self, line: str, *, broken: bool = False) -> str: ...

    def lose(self, error: TransferError) -> None: ...

    def forget(self, sock: socket.socket) -> None: ...

    def check_usable(self) -> None: ...


class Data:
    """An open data connection. It ends with `done` (everything was sent or read) or `break_off`."""

    def __init__(self, control: Control, sock: socket.socket, line: str) -> None:
        self._control = control
        self._sock = sock
        self._timeout_s = sock.gettimeout()
        self._line = line
        self._open = True
        self._has_sent = False
        self._received_bytes, self._waited_s = 0, 0.0

    def send(self, block: bytes) -> None:
        """Raises: LinkLost, Timeout; the server's refusal if it ended the transfer, see replies.error_of."""
        try:
            rest, self._has_sent = memoryview(block), True
            while rest:  # so that the deadline is not for the whole block
                rest = rest[self._sock.send(rest) :]
        except OSError as error:
            raise self._why(error) from error

    def receive(self) -> bytes:
        """The next bytes; b"" at the end. Raises: like send, and Timeout for a server that only drips."""
        began = time.monotonic()
        try:
            block = self._sock.recv(BLOCK_BYTES)
            self._check_progress(len(block), time.monotonic() - began)
            return block
        except OSError as error:
            raise self._why(error) from error

    def _check_progress(self, count: int, waited_s: float) -> None:
        """A byte now and then is no progress. Raises: TimeoutError."""
        self._received_bytes += count
        self._waited_s += waited_s
        if self._received_bytes >= PROGRESS_BYTES:
            self._received_bytes, self._waited_s = 0, 0.0
        elif count and self._timeout_s is not None and self._waited_s > self._timeout_s:
            raise TimeoutError(f"less than {PROGRESS_BYTES} bytes in {self._waited_s:.0f} s")

    def done(self) -> str:
        """End the transfer -> the reply, which proves nothing: servers also say 226 after a broken connection.

        Raises: the refusal, see replies.error_of; LinkLost, Timeout.
        """
        try:
            if self._has_sent:
                wait_until_sent(self._sock, self._timeout_s, self._control.check_usable)
        except BaseException:
            self._close()
            raise
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # many servers just close; the caller checks what arrived
                self._sock.settimeout(CLOSING_S)
                self._sock.unwrap()
        self._close()
        return self._control.finish(self._line)

    def break_off(self) -> None:
        """End a transfer early. The connection can then serve the next command, or raises LinkLost there."""
        if not self._open:
            return
        self._close()
        with contextlib.suppress(TransferError):  # kept for the next call
            self._control.finish(self._line, broken=True)

    def _close(self) -> None:
        self._open = False
        self._control.forget(self._sock)
        self._sock.close()
        if isinstance(self._sock, ssl.SSLSocket):
            forget_errors()  # the control connection is used next

    def _why(self, error: OSError) -> TransferError:
        """A server that ends a transfer says why on the control connection; only a refusal counts as an answer."""
        self._close()
        try:
            reply = self._control.finish(self._line, broken=True)
        except TransferError as lost:
            return lost
        if reply[:1] in "45" and not isinstance(known := error_of(reply, one_line(self._line)), LinkLost):
            return known
        kind = Timeout if isinstance(error, TimeoutError) else LinkLost
        lost_error = kind(f"{one_line(self._line)}: the data connection broke: {error}; {one_line(reply)}")
        self._control.lose(lost_error)
        return lost_error

"""The pipeline's own SSH channel: the byte stream of an SFTP subsystem, and whether its link is alive."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import paramiko
from paramiko.buffered_pipe import BufferedPipe
from paramiko.common import cMSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST

from iot.sftp.client.protocol import packets, parsing
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.sftp.client.ssh.boundary import translated
from iot.sftp.client.ssh.link import Link
from iot.sftp.client.ssh.transport import Target, Transport
from iot.transfer.errors import LinkLost, Timeout

__all__ = ["SFTPChannel"]

VERSION_POLL_S = 0.25
RECEIVE_WINDOW_BYTES = 32 * 1024 * 1024
PACKET_BYTES = 32704  # payload of an SSH packet that every server accepts; paramiko splits there as well
SMALL_BYTES = 1024


class Pieces:
    """In the place of the array in which paramiko's pipe keeps what it has received: the pieces as they came, so that
    they are copied once, when they are read. Small ones are put together: each takes its memory."""

    def __init__(self, data: bytes = b"") -> None:
        self._pieces: list[bytes | bytearray] = [data]
        self._bytes = len(data)

    def __len__(self) -> int:
        return self._bytes

    def frombytes(self, data: bytes) -> None:
        self._bytes += len(data)
        last = self._pieces[-1]
        if len(data) >= SMALL_BYTES:
            self._pieces.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._pieces.append(bytearray(data))

    def tobytes(self) -> bytes:
        return b"".join(self._pieces)

    def __getitem__(self, part: slice) -> Pieces:
        """The beginning, up to `part.stop`."""
        return self if part.stop is None else Pieces(b"".join(self._beginning(part.stop)))

    def __delitem__(self, part: slice) -> None:
        """The beginning, up to `part.stop`; what stays is not copied, for it may be most of a window."""
        left = self._bytes if part.stop is None else min(part.stop, self._bytes)
        self._bytes -= left
        whole = 0
        while whole < len(self._pieces) and len(self._pieces[whole]) <= left:
            left -= len(self._pieces[whole])
            whole += 1
        self._pieces[:whole] = [] if self._bytes else [b""]
        first = self._pieces[0]
        if isinstance(first, bytearray):
            del first[:left]
        else:
            self._pieces[0] = first[left:]

    def _beginning(self, length: int) -> Iterator[bytes | bytearray]:
        for piece in self._pieces:
            if length <= 0:
                return
            yield piece[:length]
            length -= len(piece)


def keep_pieces(pipe: BufferedPipe) -> None:
    with pipe._lock:  # private, but the only way that loses nothing which has come already
        pipe._buffer = Pieces(pipe._buffer.tobytes())


class SFTPChannel:
    """The byte stream of an SFTP subsystem, after the VERSION packet with which the server opens it.

    INIT follows the subsystem request as soon as the server's window allows: at once, which saves a round trip, or with
    sshd, which opens the window in its answer, right after that.

    extensions: as announced in VERSION. If requests are handled in order, the first ones are sent right after INIT, and
    this is empty until the first answer arrives.
    """

    def __init__(self, transport: Transport, link: Link, target: Target, in_order: bool) -> None:
        self._transport = transport
        self._link = link
        self._host = target.host
        self._deadline_s = target.link_deadline_s
        self._probed_at = float("-inf")
        self.extensions: dict[bytes, bytes] = {}
        self._greeting = b""
        with translated(target.host):
            self._channel = transport.open_session(window_size=RECEIVE_WINDOW_BYTES, timeout=target.link_deadline_s)
        keep_pieces(self._channel.in_buffer)
        self._request_subsystem()
        self._version_due_since: float | None = time.monotonic()
        self._begin()
        while not in_order and self._version_due_since is not None:
            self.receive(packets.MAX_PACKET_BYTES, VERSION_POLL_S)
            self._check_version()

    def _begin(self) -> None:
        init = Outgoing(packets.init())
        self.send(init, VERSION_POLL_S)
        while init:
            self._check_version()
            self.send(init, VERSION_POLL_S)

    def send(self, outgoing: Outgoing, wait_s: float) -> None:
        """Send what can be sent, and drop it from `outgoing`; if nothing can, wait at most `wait_s` seconds.

        Some is left if the server does not open its window, or TCP does not accept more: a server that does not read
        never blocks the caller. Raises: LinkLost.
        """
        give_up_at = time.monotonic() + wait_s
        with self._translated():
            while outgoing and self._may_send(left_s := max(0.0, give_up_at - time.monotonic())):
                self._channel.settimeout(left_s)
                try:
                    outgoing.drop(self._send_some(outgoing.first(PACKET_BYTES)))
                except TimeoutError:  # the server's window is closed; the link may be fine
                    break

    def _may_send(self, wait_s: float) -> bool:
        """Not during a key exchange: paramiko would wait for its end."""
        return self._link.ready(wait_s) and self._transport.clear_to_send.wait(wait_s)

    def receive(self, limit: int, timeout_s: float) -> bytes | None:
        """Received data, at most `limit` bytes; None if nothing came in time. Raises: LinkLost."""
        self._channel.settimeout(timeout_s)
        with self._translated():
            try:
                data = self._channel.recv(limit)
            except TimeoutError:
                return None
            if not data:
                raise LinkLost(f"{self._host} closed the connection")
        return self._behind_version(data) if self._version_due_since is not None else bytes(data)

    def check_alive(self, waiting_since: float | None) -> float:
        """Give up if the server owes an answer and nothing at all has come for the link's deadline.

        -> seconds for which nothing has come; 0 if nothing is due.

        A slow server is not a dead link: after a third of the deadline the client asks for any sign of life, which the
        SSH layer gives even while the SFTP server is busy. Raises: LinkLost.
        """
        if not self._transport.is_active():
            raise LinkLost(f"{self._host}: the connection broke")
        self._check_version()
        if waiting_since is None:
            return 0.0
        now = time.monotonic()
        quiet_since = max(waiting_since, self._link.last_received)
        if now - quiet_since > self._deadline_s:
            raise LinkLost(f"{self._host}: nothing came for {self._deadline_s:g} s; the link is dead")
        if now - max(quiet_since, self._probed_at) > self._deadline_s / 3 and self._may_send(0.0):
            self._probed_at = now
            self._probe()
        return now - quiet_since

    def _send_some(self, data: bytes) -> int:
        sent = int(self._channel.send(data))
        if not sent:
            raise LinkLost(f"{self._host} closed the connection")
        return sent

    def _probe(self) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        with translated(self._host):
            self._transport.post(message)

    def _request_subsystem(self) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string("subsystem")
        message.add_boolean(True)
        message.add_string("sftp")
        with translated(self._host):
            self._transport.post(message)

    def _behind_version(self, data: bytes) -> bytes | None:
        """Take VERSION off the front of the stream -> the rest."""
        self._greeting += data
        for packet in parsing.Deframer().feed(self._greeting):
            self.extensions.update(parsing.parse_version(packet))
            rest = self._greeting[4 + len(packet) :]
            self._version_due_since, self._greeting = None, b""
            return rest or None
        return None

    def _check_version(self) -> None:
        due_since = self._version_due_since
        if due_since is not None and time.monotonic() - due_since > self._deadline_s:
            raise Timeout(f"{self._host} did not answer SFTP's first packet in {self._deadline_s:g} s")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self._host):
                yield
        except LinkLost as error:
            if self._version_due_since is None:
                raise
            raise LinkLost(
                f"{self._host} accepted the login but offers no SFTP (subsystem refused?): {error}"
            ) from error

"""One connection to one server: socket, key exchange, host key, login, SFTP channel.

`Connection` is a pysftp.Connection, so that everything pysftp offers stays reachable, on a channel of its own:
pysftp drops answers that it does not know, so it never shares the pipeline's channel. Its hooks that dial, check
keys and log in are replaced, because they have no deadline and check too little (see the hooks' docstrings).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST

from iot.sftp.client.errors import ConfigurationError, LinkLost, ProtocolError, ServerBusy, SFTPError, Timeout
from iot.sftp.client.wire import packets, parsing
from iot.sftp.client.wire._pysftp import pysftp
from iot.sftp.client.wire.hostkeys import HostKeyPolicy, fingerprint
from iot.sftp.client.wire.link import Link, dial
from iot.sftp.client.wire.login import Credentials, load_steps, log_in

log = logging.getLogger(__name__)

AES_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
WITHOUT_AES = ("aes128-ctr", "aes192-ctr", "aes256-ctr", *AES_GCM)
RECEIVE_WINDOW_BYTES = 32 * 1024 * 1024
PACKET_BYTES = 32704  # payload of one SSH packet that every server takes; paramiko cuts there, too
IDLE_WAKEUP_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """Everything a connection needs to know; plain values, checked before."""

    host: str
    port: int
    credentials: Credentials
    host_keys: HostKeyPolicy
    connect_timeout_s: float
    login_deadline_s: float
    link_deadline_s: float
    keepalive_s: float
    ciphers: tuple[str, ...]
    compression: bool
    congestion: str | None


class Transport(paramiko.Transport):
    """paramiko's transport with deadlines in every phase, and the host key checked before any credential is sent."""

    def __init__(self, link: Link, target: Target) -> None:
        super().__init__(link)  # anything with a socket's methods will do
        self.host_key_blob = b""
        self._target = target
        deadline = target.login_deadline_s
        self.banner_timeout = self.handshake_timeout = self.auth_timeout = self.channel_timeout = deadline
        self.clear_to_send_timeout = min(30.0, deadline)
        options = self.get_security_options()
        try:
            options.ciphers = target.ciphers or _default_ciphers(options.ciphers)
        except ValueError as error:
            raise ConfigurationError(f"ciphers: {error}; known are {', '.join(options.ciphers)}") from error
        self._prefer_known_keys()

    def connect(self, *_: Any, **__: Any) -> None:
        """pysftp's one call: negotiate, check who the server is, then log in."""
        target = self._target
        steps = load_steps(target.credentials)
        with _translated(target.host):
            self.start_client(timeout=target.login_deadline_s)
        if not self.initial_kex_done:
            raise Timeout(f"{target.host} did not finish the key exchange in {target.login_deadline_s:g} s")
        target.host_keys.check(target.host, target.port, str(self.host_key_type), self.host_key_blob)
        log_in(self, steps, target.credentials.user, target.host)

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        """Keep the blob as the server showed it: paramiko keeps only the key inside a certificate."""
        super()._verify_key(host_key, sig)  # private, but the one place that sees the blob
        self.host_key_blob = bytes(host_key)

    def post(self, message: paramiko.Message) -> None:
        """Send a message of the SSH layer, after a running key exchange. Raises: what paramiko raises."""
        self._send_user_message(message)

    def _prefer_known_keys(self) -> None:
        wanted = self._target.host_keys.key_types(self._target.host, self._target.port)
        names = [name for kind in wanted for name in _signature_names(kind)]
        if names:
            self.get_security_options().key_types = tuple(names)


class _Options:
    """What pysftp's Connection reads of its CnOpts; the checks are ours, so it has no host keys."""

    def __init__(self, compression: bool) -> None:
        self.log = False
        self.ciphers = None
        self.hostkeys = None
        self.compression = compression


class Connection(pysftp.Connection):  # type: ignore[misc]
    """A logged-in connection. on_dialled: called when TCP is connected.

    Raises: LinkLost, Timeout, AuthenticationError and its kinds, ConfigurationError.
    """

    _sftp_live = False  # class-level: pysftp's __del__ reads them also after a failed connect
    _sftp: paramiko.SFTPClient | None = None
    _transport: Transport | None = None
    _cnopts = _Options(False)

    def __init__(
        self, target: Target, cancelled: threading.Event, on_dialled: Callable[[], None] | None = None
    ) -> None:
        self.target = target
        self.link: Link | None = None
        self._cancelled = cancelled
        self._on_dialled = on_dialled
        load_steps(target.credentials)  # a key that cannot be used is told before anything is sent
        try:
            super().__init__(
                target.host, username=target.credentials.user, port=target.port, cnopts=_Options(target.compression)
            )
        except BaseException:
            self.close()
            raise

    def _start_transport(self, host: str, port: int) -> None:
        """pysftp's hook: ours dials with a deadline, every address of a name, and tunes the socket."""
        target = self.target
        self.link = dial(
            host,
            port,
            connect_timeout_s=min(target.connect_timeout_s, target.link_deadline_s),
            deadline_s=target.link_deadline_s,
            congestion=target.congestion,
            cancelled=self._cancelled,
        )
        if self._on_dialled is not None:
            self._on_dialled()
        with _translated(host):
            self._transport = Transport(self.link, target)

    def _set_authentication(self, password: object, private_key: object, private_key_pass: object) -> None:
        """pysftp's hook: it knows RSA and DSA only; Transport.connect logs in instead."""

    def _sftp_connect(self) -> None:
        """pysftp's hook, on first use of a pysftp method: its own channel, opened with a deadline."""
        if not self._sftp_live:
            assert self._transport is not None
            with _translated(self.target.host):
                self._sftp = paramiko.SFTPClient.from_transport(self._transport)
            self._sftp_live = True

    def close(self) -> None:
        """End the connection. Also closes the socket where paramiko leaves it open."""
        if self._sftp is not None:
            with contextlib.suppress(Exception):  # a dead channel cannot be closed politely
                self._sftp.close()
        self._sftp, self._sftp_live = None, False
        if self._transport is not None:
            self._transport.close()
        if self.link is not None:
            self.link.close()

    def on_silence(self, told: Callable[[float], bool]) -> None:
        """Whom a blocked send tells how long nothing came; the answer True ends it."""
        assert self.link is not None
        self.link.on_silence = told

    def settle_in(self) -> None:
        """Login is over: keep the connection alive, and wake up less often while it is idle."""
        assert self._transport is not None
        assert self.link is not None
        self.link.receive_wait_s = IDLE_WAKEUP_S
        if self.target.keepalive_s:
            self._transport.set_keepalive(self.target.keepalive_s)

    @property
    def banner(self) -> str:
        assert self._transport is not None
        return str(self._transport.remote_version)

    @property
    def host_key(self) -> str:
        """SHA256: fingerprint of the key that the server showed."""
        assert self._transport is not None
        return fingerprint(self._transport.host_key_blob)

    def open_sftp_channel(self) -> SftpChannel:
        """A channel for the pipeline. Raises: LinkLost, Timeout, ServerBusy."""
        assert self._transport is not None
        assert self.link is not None
        return SftpChannel(self._transport, self.link, self.target)


class SftpChannel:
    """An SFTP subsystem's byte stream, with the extensions that the server announced.

    The subsystem is requested and INIT sent in one go: a round trip less than waiting in between.
    """

    def __init__(self, transport: Transport, link: Link, target: Target) -> None:
        self._transport = transport
        self._link = link
        self._host = target.host
        self._deadline_s = target.link_deadline_s
        self._probed_at = 0.0
        try:
            with _translated(target.host):
                self._channel = transport.open_session(window_size=RECEIVE_WINDOW_BYTES, timeout=target.link_deadline_s)
        except paramiko.ChannelException as error:
            raise ServerBusy(f"{target.host} opens no more sessions: {error}") from error
        self._request_subsystem()
        self.send(packets.init())
        self.extensions = self._receive_version()

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises: LinkLost."""
        view = memoryview(data)
        at = 0
        with _translated(self._host):
            while at < len(view):
                self._channel.settimeout(1.0)
                try:
                    at += self._send_some(bytes(view[at : at + PACKET_BYTES]))
                except TimeoutError:  # the server's window is closed; the link may be fine
                    self.check_alive(self._link.last_received)

    def receive(self, limit: int, timeout_s: float) -> bytes | None:
        """What has come, at most `limit` bytes; None when nothing came in time. Raises: LinkLost."""
        self._channel.settimeout(timeout_s)
        try:
            with _translated(self._host):
                data = self._channel.recv(limit)
        except TimeoutError:
            return None
        if not data:
            raise LinkLost(f"{self._host} ended the connection")
        return bytes(data)

    def check_alive(self, waiting_since: float | None) -> float:
        """Give up when the server owes an answer and nothing at all came for the link's deadline.

        -> for how many seconds nothing came; 0 when nothing is due.

        A slow server is not a dead link: after a third of the deadline it is asked for any sign of life,
        which the SSH layer gives even while the SFTP server works. Raises: LinkLost.
        """
        if not self._transport.is_active():
            raise LinkLost(f"{self._host}: the connection broke")
        if waiting_since is None:
            return 0.0
        now = time.monotonic()
        quiet_since = max(waiting_since, self._link.last_received)
        if now - quiet_since > self._deadline_s:
            raise LinkLost(f"{self._host}: nothing came for {self._deadline_s:g} s; the link is dead")
        if now - max(quiet_since, self._probed_at) > self._deadline_s / 3:
            self._probed_at = now
            self._probe()
        return now - quiet_since

    def _send_some(self, data: bytes) -> int:
        sent = int(self._channel.send(data))
        if not sent:
            raise LinkLost(f"{self._host} ended the connection")
        return sent

    def _probe(self) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        with _translated(self._host):
            self._transport.post(message)

    def _request_subsystem(self) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string("subsystem")
        message.add_boolean(True)
        message.add_string("sftp")
        with _translated(self._host):
            self._transport.post(message)

    def _receive_version(self) -> dict[bytes, bytes]:
        deframer = parsing.Deframer()
        started = time.monotonic()
        while time.monotonic() - started < self._deadline_s:
            try:
                chunk = self.receive(packets.MAX_PACKET_BYTES, 0.25)
            except LinkLost as error:
                raise LinkLost(f"{self._host} lets us in but offers no SFTP (subsystem refused?): {error}") from error
            for packet in deframer.feed(chunk) if chunk else ():
                return parsing.parse_version(packet)
        raise Timeout(f"{self._host} did not answer SFTP's first packet in {self._deadline_s:g} s")


def _default_ciphers(offered: Sequence[str]) -> tuple[str, ...]:
    first = AES_GCM if _has_aes() else WITHOUT_AES
    known = [name for name in first if name in offered]
    rest = [name for name in offered if name not in known and "cbc" not in name]
    return tuple(known + rest)


def _has_aes() -> bool:
    """Whether the processor has AES instructions; where that cannot be told, it has not."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any("aes" in line.split() for line in file if line.startswith(("flags", "Features")))
    except OSError:
        return False


def _signature_names(key_type: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    """paramiko's and the socket's errors as ours; timeouts pass, they are answered on the spot."""
    try:
        yield
    except (SFTPError, TimeoutError, paramiko.ChannelException):
        raise
    except (paramiko.SSHException, EOFError, OSError) as error:
        text = str(error) or type(error).__name__
        if "banner" in text:
            raise LinkLost(f"{host}: {text}; is this an SSH server's port?") from error
        raise LinkLost(f"{host}: {text}") from error
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{host} sent what SSH does not allow: {error}") from error


assert socket.timeout is TimeoutError  # since Python 3.10: what paramiko raises is what is caught here

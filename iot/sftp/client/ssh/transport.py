"""SSH below the connection: key exchange, host key, login; every phase has a deadline."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, cMSG_SERVICE_REQUEST

from iot.sftp.client.ssh.boundary import printable, translated
from iot.sftp.client.ssh.hostkeys import HostKeyPolicy
from iot.sftp.client.ssh.link import Link
from iot.sftp.client.ssh.login import AuthHandler, Credentials, Login
from iot.sftp.client.ssh.packetizer import (
    CHACHA20,
    CHACHA20_INFO,
    MAX_PACKET_BYTES,
    BoundedDecompressor,
    Packetizer,
    offers_chacha20,
)
from iot.sftp.client.ssh.proxy import Proxy
from iot.transfer.errors import ConfigurationError, LoginRefused, Timeout

__all__ = ["Target", "Transport"]

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # keeps its tracebacks off standard error

EXTENSIONS_MAX = 256
NO_MORE_METHODS = 14  # SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE (RFC 4253, section 11.1)
LISTED = 280
"""Maximum length of one side's list of algorithms in a message."""
AES_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
WITHOUT_AES = ("aes128-ctr", "aes192-ctr", "aes256-ctr", *AES_GCM)


@dataclass(frozen=True, slots=True)
class Target:
    """Everything a connection needs to know; plain values, checked before.

    proxy_command: instead of TCP. via: another server, through which this one is reached.
    """

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
    redial_s: float | None = None
    bind_address: str | None = None
    bind_interface: str | None = None
    proxy_command: str | None = None
    via: Target | None = None
    proxy: Proxy | None = None


class Transport(paramiko.ServiceRequestingTransport):  # type: ignore[misc]
    """paramiko's transport with a deadline in every phase, and the host key checked before any credential is sent.

    Its thread ends in an orderly way whatever the server sends: the error is kept for the caller, who gets it through
    `boundary.translated`.
    """

    auth_handler: AuthHandler | None
    _cipher_info: ClassVar[dict[str, Any]] = paramiko.Transport._cipher_info | (
        {CHACHA20: CHACHA20_INFO} if offers_chacha20() else {}
    )
    _compression_info: ClassVar[dict[str, Any]] = {
        name: (pair[0], BoundedDecompressor if pair[1] else None)
        for name, pair in paramiko.Transport._compression_info.items()
    }

    _channel_handler_table: ClassVar[dict[int, Any]] = paramiko.Transport._channel_handler_table | {
        MSG_CHANNEL_DATA: lambda channel, message: _feed(channel, paramiko.Channel._feed, message),
        MSG_CHANNEL_EXTENDED_DATA: lambda channel, message: _feed(channel, paramiko.Channel._feed_extended, message),
    }

    def __init__(self, link: Link, target: Target, login: Login) -> None:
        super().__init__(link, packetizer_class=Packetizer)  # only a socket's methods are needed
        self.host_key_blob = b""
        self.key_exchange = ""
        self._target = target
        self._login = login
        self._service_offered = threading.Event()
        deadline = target.login_deadline_s
        self.banner_timeout = self.handshake_timeout = self.auth_timeout = self.channel_timeout = deadline
        self.packetizer.greeting_deadline_s = deadline
        self.clear_to_send_timeout = min(30.0, deadline)
        options = self.get_security_options()
        try:
            options.ciphers = target.ciphers or _default_ciphers((*options.ciphers, CHACHA20), self._cipher_info)
        except ValueError as error:
            raise ConfigurationError(f"ciphers: {error}; known are {', '.join(self._cipher_info)}") from error
        self._prefer_known_keys()

    def connect(self, *_: Any, **__: Any) -> None:
        """pysftp's single call: negotiate, check the host key, then log in."""
        target = self._target
        with translated(target.host):
            self.start_client(timeout=target.login_deadline_s)
        if not self.initial_kex_done:
            raise Timeout(f"{target.host} did not finish the key exchange in {target.login_deadline_s:g} s")
        target.host_keys.check(target.host, target.port, str(self.host_key_type), self.host_key_blob)
        self._login.run(self, target.host)

    def run(self) -> None:
        """paramiko's thread; an unexpected exception would be printed, and leave its callers waiting."""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - raised in the caller's thread
            self.saved_exception = error
            self.close()
            for event in (self.completion_event, *self.channel_events.values()):
                if event is not None:
                    event.set()

    def _log(self, level: int, msg: object, *args: object) -> None:
        """Discard paramiko's log, which has the server's raw text; what matters to a caller is raised."""
        if self.logger.isEnabledFor(logging.DEBUG):
            for line in msg if isinstance(msg, list) else [str(msg) % args if args else msg]:
                self.logger.debug("%s", printable(str(line)))

    def ensure_session(self) -> None:
        """paramiko's hook: request the login service without waiting for the answer, which saves a round trip.
        (Not with sshd, which leaves Nagle's algorithm on: its second answer waits until the first is acknowledged.)

        RFC 4253, section 10: a client must only wait if the key exchange does not authenticate the server.
        """
        if self.auth_handler is None:
            message = paramiko.Message()
            message.add_byte(cMSG_SERVICE_REQUEST)
            message.add_string("ssh-userauth")
            self.post(message)
            self.auth_handler = AuthHandler(self)

    def auth_publickey(self, username: str, key: paramiko.PKey) -> list[str]:
        """RSA has several signature algorithms; the server announces which it accepts before it answers at all."""
        self.ensure_session()
        if "rsa" in key.get_name():
            self._await_service()
        return list(super().auth_publickey(username, key))

    def _await_service(self) -> None:
        give_up_at = time.monotonic() + self._target.login_deadline_s
        while not self._service_offered.wait(0.1):
            if not self.is_active():
                raise EOFError
            if time.monotonic() > give_up_at:
                raise Timeout(f"{self._target.host} did not offer a login in {self._target.login_deadline_s:g} s")

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        super()._parse_service_accept(message)
        self._service_offered.set()

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        """Keep the blob as the server sent it: paramiko only keeps the key inside a certificate."""
        super()._verify_key(host_key, sig)  # private, but the only place that sees the blob
        self.host_key_blob = bytes(host_key)
        engine = type(self.kex_engine)
        self.key_exchange = next((name for name, made in self._kex_info.items() if made is engine), "")

    def _parse_kex_init(self, message: paramiko.Message) -> None:
        """Raises: IncompatiblePeer, which names what both sides offer."""
        try:
            super()._parse_kex_init(message)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            message.rewind()
            theirs = self._really_parse_kex_init(message)
            raise type(error)(_no_agreement(self._get_latest_kex_init(), theirs) or str(error)) from error

    def _parse_ext_info(self, message: paramiko.Message) -> None:
        """paramiko trusts the number of extensions, and reads past the end of the packet."""
        if message.get_int() > EXTENSIONS_MAX:
            raise paramiko.SSHException(f"the server announced more than {EXTENSIONS_MAX} extensions")
        message.rewind()
        super()._parse_ext_info(message)

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        """Keep the reason, whatever its encoding, for callers that wait for an answer."""
        code = message.get_int()
        reason = printable(message.get_string().decode("utf-8", "replace"))
        text = f"the server closed the connection: {reason!r} (code {code})"
        over = self.auth_handler is not None and (code == NO_MORE_METHODS or "authentication" in reason.lower())
        self.saved_exception = LoginRefused(text) if over and not self.authenticated else paramiko.SSHException(text)

    def post(self, message: paramiko.Message) -> None:
        """Send a message of the SSH layer, after any running key exchange. Raises: SSHException, OSError, EOFError."""
        self._send_user_message(message)

    def _prefer_known_keys(self) -> None:
        wanted = self._target.host_keys.key_types(self._target.host, self._target.port)
        names = [name for kind in wanted for name in _signature_names(kind)]
        if names:
            self.get_security_options().key_types = tuple(names)


def _feed(channel: paramiko.Channel, feed: Callable[[Any, Any], None], message: paramiko.Message) -> None:
    """Buffer data until it is read; paramiko accepts any amount. Raises: SSHException beyond the window."""
    feed(channel, message)
    held = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    if held > channel.in_window_size + MAX_PACKET_BYTES:
        raise paramiko.SSHException(f"the server sent {held} bytes; its window is {channel.in_window_size}")


def _default_ciphers(offered: Sequence[str], known: Container[str]) -> tuple[str, ...]:
    """Without the CBC modes; chacha20 last, because it costs Python time for every packet."""
    first = AES_GCM if _has_aes() else WITHOUT_AES
    names = [name for name in dict.fromkeys((*first, *offered)) if name in offered and name in known]
    return tuple(name for name in names if "cbc" not in name)


LISTS = {
    "key exchange": ("kex_algo_list",),
    "host key": ("server_key_algo_list",),
    "cipher": ("client_encrypt_algo_list", "server_encrypt_algo_list"),
    "MAC": ("client_mac_algo_list", "server_mac_algo_list"),
    "compression": ("client_compress_algo_list", "server_compress_algo_list"),
}
"""What must be agreed on, and where KEXINIT lists it (RFC 4253, section 7.1)."""


def _no_agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Which list has nothing in common, with both sides of it."""
    for what, keys in LISTS.items():
        for key in keys:
            if not set(ours[key]) & set(theirs[key]):
                listed = [printable(", ".join(names), LISTED) or "nothing" for names in (ours[key], theirs[key])]
                return f"no common {what}: we offer {listed[0]}; the server offers {listed[1]}"
    return ""


def _has_aes() -> bool:
    """Whether the CPU has AES instructions; False if unknown."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any("aes" in line.split() for line in file if line.startswith(("flags", "Features")))
    except OSError:
        return False


def _signature_names(key_type: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)


assert socket.timeout is TimeoutError  # since Python 3.10, so catching TimeoutError covers paramiko's

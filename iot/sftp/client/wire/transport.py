"""SSH below the connection: key exchange, who the server is, who we are; every phase with a deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.common import cMSG_SERVICE_REQUEST

from iot.sftp.client.errors import ConfigurationError, LinkLost, ProtocolError, SFTPError, Timeout
from iot.sftp.client.wire.hostkeys import HostKeyPolicy
from iot.sftp.client.wire.link import Link
from iot.sftp.client.wire.login import AuthHandler, Credentials, load_steps, log_in

__all__ = ["Target", "Transport", "translated"]

AES_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
WITHOUT_AES = ("aes128-ctr", "aes192-ctr", "aes256-ctr", *AES_GCM)


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
    redial_s: float | None = None


class Transport(paramiko.ServiceRequestingTransport):  # type: ignore[misc]
    """paramiko's transport with deadlines in every phase, and the host key checked before any credential is sent."""

    auth_handler: AuthHandler | None

    def __init__(self, link: Link, target: Target) -> None:
        super().__init__(link)  # anything with a socket's methods will do
        self.host_key_blob = b""
        self._target = target
        self._service_offered = threading.Event()
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
        with translated(target.host):
            self.start_client(timeout=target.login_deadline_s)
        if not self.initial_kex_done:
            raise Timeout(f"{target.host} did not finish the key exchange in {target.login_deadline_s:g} s")
        target.host_keys.check(target.host, target.port, str(self.host_key_type), self.host_key_blob)
        log_in(self, steps, target.credentials.user, target.host)

    def ensure_session(self) -> None:
        """paramiko's hook: ask for the login service without waiting for its answer, which is one round trip less.
        (Not with sshd: its second answer waits until the first was acknowledged, because it leaves Nagle's rule on.)

        RFC 4253, section 10: only a key exchange that does not show who the server is makes a client wait.
        """
        if self.auth_handler is None:
            message = paramiko.Message()
            message.add_byte(cMSG_SERVICE_REQUEST)
            message.add_string("ssh-userauth")
            self.post(message)
            self.auth_handler = AuthHandler(self)

    def auth_publickey(self, username: str, key: paramiko.PKey) -> list[str]:
        """For RSA there are several signatures; which of them the server takes, it says before it answers at all."""
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


@contextlib.contextmanager
def translated(host: str) -> Iterator[None]:
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


assert socket.timeout is TimeoutError  # since Python 3.10: what paramiko raises is what is caught here

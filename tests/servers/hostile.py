"""Peers that break SSH on purpose: raw bytes before the key exchange, and a real server that sends wrong messages.

with raw_peer(lambda sock: sock.sendall(b"...")) as port: ...
with Hostile(mutate=lambda number, message: message) as server: ...
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.packet import Packetizer

from iot.sftp.client.session import target_from
from iot.sftp.client.settings import options_from
from iot.sftp.client.ssh.connection import Connection
from iot.sftp.client.ssh.hostkeys import fingerprint
from iot.sftp.client.ssh.openssh_config import Way
from iot.transfer.rate import Meter

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PASSWORD", "Hostile", "connected", "raw_peer"]

HOST = "127.0.0.1"
PASSWORD = "s3cret"
Mutate = Callable[[int, bytes], bytes | None]


@contextlib.contextmanager
def raw_peer(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port whose every caller is talked to in a thread; an error of the socket ends the talk."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            talk(sock)

    with _listening(serve) as port:
        yield port


@contextlib.contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server((HOST, 0), backlog=64) as listener:

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return  # closed: the test is over
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _host_key() -> paramiko.PKey:
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=io.StringIO(private.decode("ascii")))


class Hostile:
    """paramiko's server, whose messages pass through `mutate` (their number, their bytes) before they are sealed.

    None in place of a message: it is not sent. at_login, at_subsystem: called with the server's transport, or channel.
    """

    def __init__(
        self,
        mutate: Mutate = lambda _, message: message,
        *,
        at_login: Callable[[paramiko.Transport], None] = lambda _: None,
        at_subsystem: Callable[[paramiko.Channel], None] = lambda _: None,
    ) -> None:
        self._key = _host_key()
        self._mutate = mutate
        self._at_login = at_login
        self._at_subsystem = at_subsystem
        self._stack = contextlib.ExitStack()
        self._transports: list[paramiko.Transport] = []
        self.port = 0

    @property
    def host_key(self) -> str:
        return fingerprint(self._key.asbytes())

    def __enter__(self) -> Self:
        self.port = self._stack.enter_context(_listening(self._serve))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for transport in self._transports:
            transport.close()

    def _serve(self, sock: socket.socket) -> None:
        transport = paramiko.Transport(sock, packetizer_class=_packetizer(self._mutate))
        self._transports.append(transport)
        transport.add_server_key(self._key)
        with contextlib.suppress(Exception):  # the client has gone, as it should
            transport.start_server(server=_Interface(self, transport))


class _Interface(paramiko.ServerInterface):
    def __init__(self, server: Hostile, transport: paramiko.Transport) -> None:
        self._server = server
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "password,keyboard-interactive"

    def check_auth_password(self, username: str, password: str) -> int:
        self._server._at_login(self._transport)
        return paramiko.AUTH_SUCCESSFUL if password == PASSWORD else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        threading.Thread(target=self._server._at_subsystem, args=(channel,), daemon=True).start()
        return True


def _packetizer(mutate: Mutate) -> type[Packetizer]:
    class Mutating(Packetizer):  # type: ignore[misc]
        number = 0

        def send_message(self, data: paramiko.Message) -> None:
            changed = mutate(self.number, data.asbytes())
            self.number += 1
            if changed:
                super().send_message(paramiko.Message(changed))

    return Mutating


def connected(port: int, cancelled: threading.Event | None = None, **options: Any) -> Connection:
    """A connection as the client makes it, logged in by PASSWORD; any host key will do unless one is pinned."""
    given = {"host_key": "SHA256:" + "A" * 43, "connect_timeout_s": 5, "link_deadline_s": 5, **options}
    target = target_from(Way(HOST, port, "user"), PASSWORD, options_from(given))
    return Connection(target, cancelled or threading.Event(), Meter())

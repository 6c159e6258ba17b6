"""A real SFTP server in this process: paramiko's server side on loopback, serving one folder.

For the demo, experiments and tests; not for public use: it listens on 127.0.0.1 only.

    with EmbeddedServer("/tmp/remote") as server:
        client = IoTSFTPClient(server.host, server.port, server.user, server.password, host_key=server.host_key)
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import ProtocolBroken

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EmbeddedServer"]

LOG_CHANNEL = "iot.sftp.server"
RECEIVE_BYTES = 1 << 20
POLL_S = 0.5
JOIN_S = 5.0
PASSWORD_BYTES = 12
WAITING = 128
"""Connections that wait to be accepted."""

logging.getLogger(LOG_CHANNEL).addHandler(logging.NullHandler())

SessionFactory = Callable[[bytes, Callable[[bytes], None]], SFTPSession]


def new_host_key() -> paramiko.PKey:
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=io.StringIO(private.decode("ascii")))


class EmbeddedServer:
    """An SFTP server on 127.0.0.1; a context manager that starts and stops it.

    root: the folder that clients see as "/".
    user, password: the login; without password and keys a random password is generated, see `password`.
    authorized_keys: public keys as in an authorized_keys file ("ssh-ed25519 AAAA...").
    port: 0 picks a free one; port and host key stay the same across stop() and start().
    session: creates the object that answers one client's requests, from the root and a function to send.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        user: str = "device",
        password: str | None = None,
        authorized_keys: Iterable[str] = (),
        port: int = 0,
        session: SessionFactory = SFTPSession,
    ) -> None:
        self.root = os.path.realpath(root)
        self.user = user
        self.authorized_keys = [tuple(line.split()[:2]) for line in authorized_keys]
        self.password = password or (None if self.authorized_keys else secrets.token_urlsafe(PASSWORD_BYTES))
        self.port = port
        self.session = session
        self.renew_host_key()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: list[tuple[socket.socket, paramiko.Transport]] = []
        self._lock = threading.Lock()
        self.threads: set[threading.Thread] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def host_key(self) -> str:
        """The fingerprint of the host key, "SHA256:..."."""
        digest = hashlib.sha256(self._key.asbytes()).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    @property
    def host_key_line(self) -> str:
        """The line for a known_hosts file; the port is known once the server has started."""
        return f"[{self.host}]:{self.port} {self._key.get_name()} {self._key.get_base64()}"

    def renew_host_key(self) -> None:
        """Generate a new host key for future connections."""
        self._key = new_host_key()

    def start(self) -> None:
        """Listen; clients may connect once this returns.

        Raises: OSError if the port is taken.
        """
        self._listener = socket.create_server((self.host, self.port), backlog=WAITING)
        self._listener.settimeout(POLL_S)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name="embedded-sftp", daemon=True
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, cut all sessions and wait for their threads; harmless if already stopped."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):  # not every system lets a listening socket be shut down
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if self._acceptor is not None:
            self._acceptor.join(JOIN_S)
        self.drop_connections()
        for thread in self.threads - {threading.current_thread()}:
            thread.join(JOIN_S)

    def drop_connections(self) -> None:
        """Cut all live sessions now; new ones are accepted."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connected, _ in connections:
            with contextlib.suppress(OSError):  # it is cut already
                connected.shutdown(socket.SHUT_RDWR)
        for connected, transport in connections:
            transport.close()
            connected.close()
            transport.join(JOIN_S)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                connected, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return  # stop() closed it
            self.serve(connected)

    def serve(self, connected: socket.socket) -> None:
        """Start SSH on an accepted connection."""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        transport = paramiko.Transport(connected)
        transport.set_log_channel(LOG_CHANNEL)
        transport.daemon = True
        transport.add_server_key(self._key)
        transport.set_subsystem_handler("sftp", _Subsystem, self)
        with self._lock:
            self._connections = [pair for pair in self._connections if pair[1].is_alive()]
            self._connections.append((connected, transport))
        transport.start_server(event=threading.Event(), server=_Login(self))


class _Login(paramiko.ServerInterface):
    """Checks logins, and offers nothing but SFTP."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        offered = {"password": self._server.password, "publickey": self._server.authorized_keys}
        return ",".join(name for name, present in offered.items() if present)

    def check_auth_password(self, username: str, password: str) -> int:
        expected = self._server.password
        same = expected is not None and hmac.compare_digest(password.encode(), expected.encode())
        return AUTH_SUCCESSFUL if same and username == self._server.user else AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = (key.get_name(), key.get_base64()) in self._server.authorized_keys
        return AUTH_SUCCESSFUL if known and username == self._server.user else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class _Subsystem(paramiko.SubsystemHandler):
    """The thread of one SFTP channel: passes bytes from the channel to a session, and answers back."""

    def __init__(
        self, channel: paramiko.Channel, name: str, login: paramiko.ServerInterface, server: EmbeddedServer
    ) -> None:
        super().__init__(channel, name, login)
        self.daemon = True
        self._server = server

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._server.threads.add(self)
        session = self._server.session(os.fsencode(self._server.root), channel.sendall)
        try:
            while data := channel.recv(RECEIVE_BYTES):
                session.receive(data)
        except (OSError, EOFError, ProtocolBroken) as reason:
            logging.getLogger(LOG_CHANNEL).info("session ended reason=%s", reason)
        finally:
            session.close()
            self._server.threads.discard(self)

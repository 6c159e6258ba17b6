"""One control connection and its data connections: ftplib, with what it lacks.

- The data connection resumes the TLS session of the control connection: vsftpd and others refuse it otherwise (522).
- Only the port of a PASV reply is used; the data connection goes to the address of the control connection. In active
  mode, only the server itself may connect.
- Every wait has a deadline, and `abort` ends it from any thread.
- Paths are bytes: ftplib's text is Latin-1 here, byte for byte. CR, LF and NUL are refused because they would start
  another command, and 0xFF because Telnet requires it doubled: ProFTPD agrees, vsftpd and pure-ftpd keep both bytes.
- Foreign errors are translated here, with their cause; none contains the password.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from iot.ftp.data import CLOSING_S, Data
from iot.ftp.dial import Replies, accept, dial
from iot.ftp.replies import code_of, error_of, hide, one_line, without_secrets
from iot.ftp.tls import Trust
from iot.transfer.errors import (
    Incompatible,
    LinkLost,
    LoginRefused,
    NameRefused,
    ProtocolError,
    ServerBusy,
    Timeout,
    TransferError,
)
from iot.transfer.terminal import quoted

__all__ = ["Address", "Connection"]

REPLY_LINES = 500
AnySocket = TypeVar("AnySocket", bound=socket.socket)
REPLY_ERRORS = (ftplib.error_temp, ftplib.error_perm)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and how to log in. trust: None for plain FTP. repr never shows the password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    trust: Trust | None = field(repr=False)
    implicit: bool = False
    active: bool = False
    connect_timeout_s: float = 30.0
    timeout_s: float = 60.0

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


class Connection(ftplib.FTP):
    """See the notes above. Used by one thread; only `abort` may be called from another.

    features: as listed by FEAT, in capitals, with their parameters.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(encoding="latin-1")
        hide(address.password)
        self.address = address
        self.features: dict[str, str] = {}
        self.timeout = address.timeout_s
        self.trust_server_pasv_ipv4_address = False
        self._aborted = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lost: TransferError | None = None

    def __repr__(self) -> str:
        return f"Connection({self.address})"

    # -- the connection

    def open(self) -> None:
        """Connect, start TLS, log in. Raises: LinkLost, Timeout, ServerBusy, AuthenticationError and its subclasses."""
        address = self.address
        try:
            self.host = address.host
            with self._translated(f"cannot connect to {address}"):
                self._use(dial(address.host, address.port, address.connect_timeout_s, self.check_usable))
                if address.implicit:
                    self._protect()
                self._greeting()
            if address.trust is not None:
                self._secure(explicit=not address.implicit)
            self._log_in()
            self._learn_features()
            self.command("TYPE I")
        except BaseException:
            self.close()
            raise

    def described(self) -> str:
        """For a log: what the server calls itself, and what protects the control connection."""
        cipher = self.sock.cipher() if isinstance(self.sock, ssl.SSLSocket) else None
        software = quoted((self.welcome or "").split("\n")[0].encode("latin-1"))
        return f"software={software} tls={f'{cipher[1]} {cipher[0]}' if cipher else 'none'}"

    def _use(self, sock: socket.socket) -> None:
        sock.settimeout(self.address.timeout_s)
        self.sock = self._watch(sock)
        self.af = sock.family
        self._replies = Replies(sock)
        self.file = io.TextIOWrapper(io.BufferedReader(self._replies), encoding=self.encoding)

    def _greeting(self) -> None:
        try:
            self.welcome = self.getresp()
        except REPLY_ERRORS as error:  # usually too many connections; may work later
            error.args = (without_secrets(str(error)),)
            raise ServerBusy(f"{self.address} refused the connection: {one_line(str(error))}") from error

    def _protect(self) -> None:
        """Start TLS on the control connection. Clear text received before is dropped unread: it could be forged."""
        assert self.address.trust is not None
        assert self.sock is not None
        self._use(self.address.trust.wrap(self.sock, self.address.host, self._watch))

    def _secure(self, *, explicit: bool) -> None:
        steps = (["AUTH TLS"] if explicit else []) + ["PBSZ 0", "PROT P"]
        for step in steps:
            try:
                self.command(step)
            except (LinkLost, Timeout):
                raise
            except TransferError as error:
                raise Incompatible(f"{self.address} does not support TLS on this connection: {error}") from error
            if step == "AUTH TLS":
                with self._translated("TLS"):
                    self._protect()

    def _log_in(self) -> None:
        address = self.address
        try:
            with self._translated("login"):
                reply = self.sendcmd(f"USER {_text(address.user.encode())}")
                if reply.startswith("3"):
                    reply = self.sendcmd(f"PASS {_text(address.password.encode())}")
        except ServerBusy:
            raise
        except (LinkLost, Timeout):
            raise
        except TransferError as error:
            raise LoginRefused(f"{address} refused the login of {address.user!r}: {error}") from None
        if not reply.startswith("2"):
            raise LoginRefused(f"{address} requires more than a password: {one_line(reply)}")

    def _learn_features(self) -> None:
        with contextlib.suppress(TransferError):  # no features is fine; a lost link shows with the next command
            lines = self.command("FEAT").splitlines()[1:-1]
            pairs = (line.strip().partition(" ") for line in lines)
            self.features = {name.upper(): parameters for name, _, parameters in pairs if name}
        if "UTF8" in self.features:
            with contextlib.suppress(TransferError):  # some servers always use UTF-8 and refuse the command
                self.command("OPTS UTF8 ON")

    def abort(self) -> None:  # type: ignore[override]  # ftplib's sends ABOR and waits
        """End whatever is running, from any thread: the current call raises LinkLost within a second."""
        self._aborted.set()
        for sock in tuple(self._sockets):
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # ssl's own would remove TLS while it is in use

    def close(self) -> None:
        self._lost = self._lost or LinkLost("the connection was closed")
        self._sockets.clear()
        with contextlib.suppress(OSError):
            super().close()

    def goodbye(self) -> None:
        """Send QUIT if the connection is healthy, without waiting for the answer."""
        if self.sock is not None and self._lost is None and not self._aborted.is_set():
            with contextlib.suppress(OSError, EOFError, ValueError):
                self.sock.settimeout(1.0)
                self.putcmd("QUIT")
        self.close()

    # -- commands

    def command(self, verb: str, path: bytes | None = None) -> str:
        """Send one command -> the complete reply. Raises: the refusal, see replies.error_of; LinkLost, Timeout."""
        line = verb if path is None else f"{verb} {_text(path)}"
        with self._translated(line):
            return self.sendcmd(line)

    def ask(self, verb: str, path: bytes | None = None) -> tuple[bool, str]:
        """-> whether the reply is positive, and the reply; for commands whose refusal needs interpretation."""
        line = verb if path is None else f"{verb} {_text(path)}"
        with self._translated(line):
            try:
                return True, self.sendcmd(line)
            except REPLY_ERRORS as error:
                if code_of(str(error)) == 421:
                    raise
                return False, str(error)

    def getmultiline(self) -> str:
        """Read a reply; a server that never ends it is given up. Raises: ftplib.error_proto, TimeoutError."""
        self._replies.expect()
        first = line = self.getline()
        if not code_of(first):
            raise ftplib.error_proto(_no_reply(first))  # noqa: S321 - an exception class
        lines = [line]
        while first[3:4] == "-" and not (line[:3] == first[:3] and line[3:4] != "-"):
            if len(lines) > REPLY_LINES:
                raise ftplib.error_proto(f"a reply of more than {REPLY_LINES} lines")  # noqa: S321 - as above
            line = self.getline()
            lines.append(line)
        return "\n".join(lines)

    def timeout_for(self, seconds: float) -> None:
        """Set the deadline in seconds of the next reply; hashing a large file takes time."""
        if self.sock is not None:
            self.sock.settimeout(seconds)

    # -- data

    def transfer(self, command: str, path: bytes | None = None, *, start: int = 0) -> Data:
        """Open a data connection for a command. start: offset for REST in bytes; 0 sends no REST.

        Raises: the refusal of REST or the command, see replies.error_of; LinkLost, Timeout.
        """
        line = command if path is None else f"{command} {_text(path)}"
        with self._translated(line), contextlib.ExitStack() as undo:
            source = self._listen(undo) if self.address.active else self._dial_data(undo)
            if start:
                self.sendcmd(f"REST {start}")
            reply = self.sendcmd(line)
            if not reply.startswith("1"):
                raise ProtocolError(f"{line}: {one_line(reply)} without a data connection")
            sock = self._accept_data(source, undo) if self.address.active else source
            if self.address.trust is not None:
                session = self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None
                sock.settimeout(self.address.timeout_s)
                sock = self.address.trust.wrap(sock, self.address.host, self._watch, session)
                undo.callback(sock.close)
            sock.settimeout(self.address.timeout_s)
            undo.pop_all()
            return Data(self, sock, line)

    def _dial_data(self, undo: contextlib.ExitStack) -> socket.socket:
        host, port = self.makepasv()
        sock = self._watch(dial(host, port, self.address.connect_timeout_s, self.check_usable))
        undo.callback(sock.close)
        return sock

    def _listen(self, undo: contextlib.ExitStack) -> socket.socket:
        assert self.sock is not None
        listener = self._watch(socket.create_server((self.sock.getsockname()[0], 0), family=self.af, backlog=4))
        undo.callback(listener.close)
        host, port, *_ = listener.getsockname()  # two more with IPv6
        self.sendport(host, port) if self.af == socket.AF_INET else self.sendeprt(host, port)
        return listener

    def _accept_data(self, listener: socket.socket, undo: contextlib.ExitStack) -> socket.socket:
        """Accept the server's connection; connections from other hosts are closed."""
        assert self.sock is not None
        while True:
            sock, peer = accept(listener, self.address.connect_timeout_s, self.check_usable)
            if ipaddress.ip_address(peer[0]) == ipaddress.ip_address(self.sock.getpeername()[0]):
                break
            sock.close()
        self.forget(listener)
        listener.close()
        undo.callback(sock.close)
        return self._watch(sock)

    def finish(self, line: str, *, broken: bool = False) -> str:
        """Read the last reply about a transfer. broken: we broke it off, so any reply will do.

        Raises: the refusal, see replies.error_of; LinkLost, Timeout.
        """
        with self._translated(line):
            if broken and self.sock is not None:
                self.sock.settimeout(min(CLOSING_S, self.address.timeout_s))
            try:
                return self.getresp()
            except REPLY_ERRORS as error:
                if not broken or code_of(str(error)) == 421:
                    raise
                return str(error)

    def lose(self, error: TransferError) -> None:
        """Give up the connection: every later call fails with `error`."""
        self._lost = self._lost or error

    def check_usable(self) -> None:
        """Raises: LinkLost after the connection was aborted, lost or closed."""
        if self._aborted.is_set():
            raise LinkLost(f"the connection to {self.address} was aborted")
        if self._lost is not None:
            raise LinkLost(f"the connection to {self.address} is lost: {self._lost}") from self._lost

    # -- inside

    def _watch(self, sock: AnySocket) -> AnySocket:
        """From now on, `abort` ends waits on this socket."""
        self._sockets = {one for one in self._sockets if one.fileno() >= 0} | {sock}
        self._check_aborted()
        return sock

    def _check_aborted(self) -> None:
        if self._aborted.is_set():
            raise LinkLost(f"the connection to {self.address} was aborted")

    def forget(self, sock: socket.socket) -> None:
        self._sockets = self._sockets - {sock}

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        what = one_line(what) if not what.startswith("PASS ") else "login"
        self.check_usable()
        try:
            yield
        except (LinkLost, Timeout) as error:
            self.lose(error)
            raise
        except TransferError:
            raise
        except REPLY_ERRORS as error:
            error.args = (without_secrets(str(error)),)  # kept as the cause, which tracebacks show
            translated = error_of(str(error), what)
            if isinstance(translated, LinkLost) and code_of(str(error)) == 421:
                self.lose(translated)
            raise translated from error
        except TimeoutError as error:
            self.lose(Timeout(f"{what}: no answer from {self.address}"))
            self._check_aborted()
            raise Timeout(f"{what}: no answer from {self.address}") from error
        except (OSError, EOFError) as error:
            lost = LinkLost(
                f"{what}: the connection to {self.address} broke: {one_line(str(error)) or 'closed by the server'}"
            )
            self.lose(lost)
            raise lost from error
        except (ftplib.Error, ValueError, UnicodeError) as error:
            error.args = (without_secrets(str(error)),)
            broken = ProtocolError(f"{what}: {self.address} violated the FTP protocol: {one_line(str(error))}")
            self.lose(broken)
            raise broken from error
        finally:
            if self.sock is not None and self._lost is None:
                with contextlib.suppress(OSError):  # a failed handshake has closed it
                    self.sock.settimeout(self.address.timeout_s)


def _no_reply(line: str) -> str:
    if line.startswith("SSH-"):
        return f"it is an SSH server ({one_line(line)}), which offers SFTP, not FTP"
    return f"{one_line(line)} is no reply"


def _text(path: bytes) -> str:
    """A path as ftplib's text. Raises: NameRefused if it would end the command, or arrive as another name."""
    if any(byte in path for byte in b"\r\n\0"):
        raise NameRefused(f"{quoted(path)} cannot be sent over FTP: it contains a line break or NUL")
    if b"\xff" in path:
        raise NameRefused(f"{quoted(path)} cannot be sent over FTP: servers disagree on whether 0xFF must be doubled")
    return path.decode("latin-1")

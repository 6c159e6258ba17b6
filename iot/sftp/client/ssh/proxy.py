"""Through a proxy that connects for us: SOCKS5 (RFC 1928, with the login of RFC 1929) or HTTP CONNECT (RFC 9110)."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from iot.sftp.client.ssh.boundary import printable
from iot.sftp.client.ssh.link import Link
from iot.transfer.errors import ConfigurationError, LinkLost, LoginRefused

__all__ = ["Proxy", "connect_through", "proxy_from"]

PORTS = {"socks5": 1080, "http": 8080}
HEADER_BYTES = 16 * 1024
SOCKS5, NO_LOGIN, PASSWORD_LOGIN, CONNECT, BY_NAME = 5, 0, 2, 1, 3
ADDRESS_BYTES = {1: 4, 4: 16}
REFUSALS = (
    "it failed",
    "its rules forbid it",
    "the network cannot be reached",
    "the host cannot be reached",
    "the connection was refused",
    "the time is over",
    "it knows no such command",
    "it knows no such kind of address",
)
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Proxy:
    """scheme: "socks5" or "http"."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"proxy {self.host} port {self.port}"


def proxy_from(url: str, password: str | None) -> Proxy:
    """From `socks5://[user@]host[:port]` or `http://...`. Raises: ConfigurationError, which shows no password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError("proxy: its port is no port") from None
    if parts.password is not None:
        raise ConfigurationError("proxy: a password does not belong into the address: use proxy_password")
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigurationError("proxy: must be socks5://[user@]host[:port] or http://[user@]host[:port]")
    user = unquote(parts.username or "")
    if max(len(user.encode()), len((password or "").encode())) > 255 or any(char in user for char in ":\r\n\0"):
        raise ConfigurationError("proxy: user and password have 255 bytes at most, and no colon in the user")
    return Proxy(parts.scheme, parts.hostname, port or PORTS[parts.scheme], user, password or "")


def connect_through(link: Link, proxy: Proxy, host: str, port: int, deadline_s: float) -> None:
    """Ask the proxy that is connected to connect to a host, whose name it resolves itself.

    Raises: LinkLost, LoginRefused.
    """
    reader = _Reader(link, proxy, time.monotonic() + deadline_s)
    if proxy.scheme == "http":
        _by_http(reader, proxy, host, port)
    else:
        _by_socks5(reader, proxy, host, port)


class _Reader:
    """Exactly so many bytes, in time: what follows them is the server's."""

    def __init__(self, link: Link, proxy: Proxy, give_up_at: float) -> None:
        self.link = link
        self._proxy = proxy
        self._give_up_at = give_up_at

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self._some(count - len(data))
        return data

    def send(self, data: bytes) -> None:
        try:
            self.link.send(data)
        except OSError as error:
            raise LinkLost(f"{self._proxy}: {error.strerror or error}") from error

    def _some(self, count: int) -> bytes:
        while time.monotonic() < self._give_up_at:
            try:
                data = self.link.recv(count)
            except TimeoutError:  # nothing came for a moment
                continue
            except OSError as error:
                raise LinkLost(f"{self._proxy}: {error.strerror or error}") from error
            if not data:
                raise LinkLost(f"{self._proxy} ended the connection")
            return data
        raise LinkLost(f"{self._proxy} gave no answer in time")


def _by_socks5(reader: _Reader, proxy: Proxy, host: str, port: int) -> None:
    methods = bytes([NO_LOGIN, PASSWORD_LOGIN] if proxy.user else [NO_LOGIN])
    reader.send(bytes([SOCKS5, len(methods)]) + methods)
    version, method = reader.read(2)
    if version != SOCKS5 or method not in methods:
        wants = "asks for a login: give its user and proxy_password" if not proxy.user else "offers no login of ours"
        raise LoginRefused(f"{proxy} {wants}") if version == SOCKS5 else LinkLost(f"{proxy} is no SOCKS5 proxy")
    if method == PASSWORD_LOGIN:
        user, password = proxy.user.encode(), proxy.password.encode()
        reader.send(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if reader.read(2)[1] != 0:
            raise LoginRefused(f"{proxy} refused user {proxy.user!r}")
    name = _name(proxy, host)
    reader.send(bytes([SOCKS5, CONNECT, 0, BY_NAME, len(name)]) + name + port.to_bytes(2, "big"))
    _, code, _, kind = reader.read(4)
    if code:
        reason = REFUSALS[code - 1] if code <= len(REFUSALS) else f"code {code}"
        raise LinkLost(f"{proxy} cannot connect to {host} port {port}: {reason}")
    reader.read((reader.read(1)[0] if kind == BY_NAME else ADDRESS_BYTES.get(kind, 4)) + 2)


def _name(proxy: Proxy, host: str) -> bytes:
    try:
        name = host.encode("ascii" if host.isascii() else "idna")
    except UnicodeError:
        name = b""
    if not 0 < len(name) < 256:
        raise LinkLost(f"{proxy} cannot be asked for {host!r}: it is no host name")
    return name


def _by_http(reader: _Reader, proxy: Proxy, host: str, port: int) -> None:
    name = _name(proxy, host).decode("ascii")
    where = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    if any(char.isspace() or not char.isprintable() for char in where):
        raise LinkLost(f"{proxy} cannot be asked for {host!r}: it is no host name")
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.user:
        token = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {token}")
    reader.send(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
    header = b""
    while not header.endswith(b"\r\n\r\n"):
        header += reader.read(1)
        if len(header) > HEADER_BYTES:
            raise LinkLost(f"{proxy} is no HTTP proxy")
    status = header.partition(b"\r\n")[0].decode("latin-1")
    words = status.split(" ")
    if len(words) < 2 or not words[0].startswith("HTTP/1."):
        raise LinkLost(f"{proxy} is no HTTP proxy")
    if words[1] == "407":
        raise LoginRefused(f"{proxy} refused user {proxy.user!r}" if proxy.user else f"{proxy} asks for a login")
    if words[1][:1] != "2":
        raise LinkLost(f"{proxy} cannot connect to {host} port {port}: {printable(status, SHOWN)}")

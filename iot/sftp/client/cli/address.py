"""Where on which server: `user@host:path`, `user@host`, `sftp://user@host:port/path`, or a path alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from iot.sftp.client.cli.parser import UsageError

__all__ = ["SCHEME", "Place", "Server", "host_from", "one_server", "place_from"]

SCHEME = "sftp://"
PORT_MAX = 65535
LOGIN_FOLDER = "."
HOST = r"\[[0-9A-Fa-f:.%\w]+\]|[^/@:\[\]\s]+"
AT_HOST = re.compile(rf"(?P<user>[^/:]+)@(?P<host>{HOST})(?::(?P<path>.*))?", re.DOTALL)
HOST_PATH = re.compile(rf"(?P<host>{HOST}):(?P<path>.*)", re.DOTALL)
URI = re.compile(rf"(?:(?P<user>[^/@]*)@)?(?P<host>{HOST})(?::(?P<port>\d*))?(?P<path>/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Server:
    """user, port: None where the word does not say."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f" port {self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and the server that the word names, if it names one. An empty path is the login's folder."""

    path: str
    server: Server | None = None


def place_from(word: str, *, host_known: bool) -> Place:
    """A word where a remote path is expected.

    As for scp, what has a slash in front of its first colon is a path: `./a@b:c`. host_known: the server is given
    otherwise, so that `name:more` is a path, too; time stamps in names have colons.

    Raises: UsageError.
    """
    if word.startswith(SCHEME):
        return _from_uri(word)
    found = AT_HOST.fullmatch(word) or (None if host_known else HOST_PATH.fullmatch(word))
    if found is None:
        return Place(word)
    user = found.groupdict().get("user")
    return Place(found["path"] or LOGIN_FOLDER, Server(_bare(found["host"]), user))


def host_from(word: str) -> Server:
    """A word where a host is expected: `host`, `user@host`, `sftp://user@host:port`. Raises: UsageError."""
    if word.startswith(SCHEME):
        place = _from_uri(word)
        if place.path not in ("/", LOGIN_FOLDER):
            raise UsageError(f"a host has no path: {word}")
        assert place.server is not None
        return place.server
    user, _, host = word.rpartition("@")
    return Server(_bare(host), user or None)


def one_server(places: Iterable[Place]) -> Server | None:
    """The server that all words agree on. Raises: UsageError."""
    named = list(dict.fromkeys(place.server for place in places if place.server is not None))
    if len(named) > 1:
        raise UsageError(f"one server at a time: {named[0]} or {named[1]}")
    return next(iter(named), None)


def _from_uri(word: str) -> Place:
    """The path is absolute; `/~/` leads to the login's folder, as for curl and lftp."""
    found = URI.fullmatch(word.removeprefix(SCHEME))
    if found is None:
        raise UsageError("an address looks like sftp://user@host:port/path")
    user = found["user"]
    if user and ":" in user:
        raise UsageError("no password in an address: others can read it; use SFTP_PASSWORD or --password-file")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port <= PORT_MAX:
        raise UsageError(f"port {port}: must be 1 to {PORT_MAX}")
    path = unquote(found["path"] or "/~/", errors="surrogateescape")
    if path == "/~" or path.startswith("/~/"):
        path = path[3:] or LOGIN_FOLDER
    return Place(path, Server(_bare(found["host"]), unquote(user) if user else None, port))


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") else host

"""The socket on which the running agent takes commands: one line of JSON in, one line out, and the connection ends.

Who may: by the mode of the socket its owner and, if there is one, its group; the credentials of the peer, as the kernel
knows them, are compared once more. A client has PATIENCE_S for its line of at most REQUEST_MAX bytes. At most CLIENTS
are served at a time; where more come, the one that has waited longest is dropped. Nothing here waits for a client: what
it has not sent is read when it comes, and an answer that does not fit into the socket's buffer is cut.
"""

from __future__ import annotations

import grp
import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from iot.spooler.naming import shown

__all__ = ["Control", "Request"]

log = logging.getLogger(__name__)

REQUEST_MAX = 64 * 1024
CLIENTS = 16
PATIENCE_S = 3.0
BACKLOG = 16
PEER = struct.Struct("iII")
SO_PEERGROUPS = 59
GROUPS_MAX = 1024
"""Bytes: so much getsockopt() of Python takes."""
Watch = Callable[[int, Callable[[], None]], Callable[[], None]]


class Request(NamedTuple):
    """What a client asks for; `answer` is to be called once. uid: who it is."""

    content: dict[str, Any]
    uid: int
    answer: Callable[[dict[str, Any]], None]


class _Client:
    def __init__(self, peer: socket.socket, uid: int, drop_at: float) -> None:
        self.socket = peer
        self.uid = uid
        self.drop_at = drop_at
        self.line = bytearray()
        self.unwatch: Callable[[], None] = lambda: None


class Control:
    """One socket. watch: see Wakeups. clock: seconds, monotonic. group: the name of the group whose members may, too.

    Raises: OSError where the socket cannot be made.
    """

    def __init__(self, path: Path, group: str | None, watch: Watch, clock: Callable[[], float]) -> None:
        self._path = path
        self._watch = watch
        self._now = clock
        self._clients: list[_Client] = []
        self._requests: list[Request] = []
        self._gid: int | None = None
        self._listener = self._listen(group)
        self._unwatch = watch(self._listener.fileno(), self._accept)

    def requests(self) -> list[Request]:
        """Those that have come since the last call."""
        taken, self._requests = self._requests, []
        return taken

    def drop_late(self) -> float:
        """Drop who has taken too long -> seconds until that is due again."""
        now = self._now()
        for client in [client for client in self._clients if now >= client.drop_at]:
            self._drop(client)
        return min((client.drop_at - now for client in self._clients), default=float("inf"))

    def close(self) -> None:
        self._unwatch()
        for client in list(self._clients):
            self._drop(client)
        try:
            os.unlink(self._path)
        except OSError:
            pass  # its folder went before it
        self._listener.close()

    # -- inside

    def _listen(self, group: str | None) -> socket.socket:
        """Nobody can connect before it listens, and by then it has its owner, group and mode."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self._path.unlink(missing_ok=True)  # of an agent that was killed: this one has the lock
            before = os.umask(0o177)
            try:  # by the folder's descriptor, since the path of a socket may have 107 bytes at most
                listener.bind(f"/proc/self/fd/{folder}/{self._path.name}")
            finally:
                os.umask(before)
            if group is not None:
                self._open_to(group)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(folder)
        return listener

    def _open_to(self, group: str) -> None:
        try:
            gid = grp.getgrnam(group).gr_gid
            os.chown(self._path, -1, gid, follow_symlinks=False)
            os.chmod(self._path, 0o660)
        except (KeyError, OSError) as error:
            log.warning(
                "commands are taken from this user and root alone group=%s error=%s to_do=%s",
                shown(group),
                shown(str(error)),
                shown("make the agent's user a member of the group (SupplementaryGroups= in its unit)"),
            )
            return
        self._gid = gid

    def _accept(self) -> None:
        """A few at a time: the loop goes on in between."""
        for _ in range(BACKLOG):
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # nobody is there any more, or there is no descriptor left for now
            peer.setblocking(False)
            uid = self._permitted(peer)
            if uid is None:
                peer.close()
                continue
            if len(self._clients) >= CLIENTS:
                self._drop(self._clients[0])
            self._add(_Client(peer, uid, self._now() + PATIENCE_S))

    def _add(self, client: _Client) -> None:
        self._clients.append(client)
        client.unwatch = self._watch(client.socket.fileno(), lambda: self._read(client))
        self._read(client)  # it has usually sent all by now

    def _permitted(self, peer: socket.socket) -> int | None:
        """-> the user that may, None for any other"""
        _, uid, gid = PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        if uid in (0, os.geteuid()):
            return int(uid)
        groups = _groups(peer)
        if self._gid is not None and (gid == self._gid or groups is None or self._gid in groups):
            return int(uid)
        log.warning("command refused uid=%d", uid)
        return None

    def _read(self, client: _Client) -> None:
        try:
            received = client.socket.recv(REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        client.line += received
        line, end, _ = client.line.partition(b"\n")
        if end and len(line) <= REQUEST_MAX:
            client.unwatch()
            client.drop_at = float("inf")  # now the answer is ours to give
            self._take(client, bytes(line))
        elif not received or len(client.line) > REQUEST_MAX:
            self._drop(client)

    def _take(self, client: _Client, line: bytes) -> None:
        def answer(content: dict[str, Any]) -> None:
            try:
                client.socket.send(json.dumps(content).encode("ascii") + b"\n", socket.MSG_NOSIGNAL)
            except OSError:
                pass  # it has gone, or does not read
            self._drop(client)

        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            self._requests.append(Request(content, client.uid, answer))
        else:
            answer({"error": "a request is one line of JSON, an object"})

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            client.unwatch()
            client.socket.close()


def _groups(peer: socket.socket) -> list[int] | None:
    """The further groups of the peer; None where there are too many, or the kernel does not tell (before 4.13): then
    the mode of the socket alone decides."""
    try:
        packed = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_MAX)
    except OSError:
        return None
    return [number for (number,) in struct.iter_unpack("I", packed)]

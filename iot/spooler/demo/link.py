"""The demo's bad link: a TCP relay on loopback that counts bytes, limits the rate, and cuts connections on request."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Relay"]

HOST = "127.0.0.1"
BLOCK_BYTES = 16 * 1024
BUFFER_BYTES = 64 * 1024  # small, so that a cut loses little that the sender believes sent


class Relay:
    """Accepts connections on a free loopback port and relays them to (HOST, target_port).

    rate: bytes per second that clients may send, all connections together.
    up_bytes: bytes taken from clients so far, whatever became of them; connections: how many there were.
    """

    host = HOST

    def __init__(self, target_port: int, *, rate: float) -> None:
        self._target_port = target_port
        self._rate = rate
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._free_at_s = 0.0
        self.up_bytes = 0
        self.connections = 0
        self._listener = socket.create_server((HOST, 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="demo-relay", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the listener may be gone already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection now; new ones are accepted."""
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _end(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed: the demo is over
            self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self._target_port))
        except OSError:
            client.close()  # the server refuses, and so does the link
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.connections += 1
            self._open |= {client, server}
        threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
        threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, dest: socket.socket, up: bool) -> None:
        try:
            while block := source.recv(BLOCK_BYTES):
                if up:
                    self._count(len(block))
                dest.sendall(block)
        except OSError:
            pass  # cut, or one side is gone: the other must notice
        _end(source)
        _end(dest)

    def _count(self, size: int) -> None:
        """Count the bytes, and wait as the rate demands."""
        with self._lock:
            self.up_bytes += size
            self._free_at_s = max(self._free_at_s, time.monotonic()) + size / self._rate
            wait_s = self._free_at_s - time.monotonic()
        if wait_s > 0.005:  # shorter sleeps are too imprecise
            time.sleep(wait_s)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        end.shutdown(socket.SHUT_RDWR)
    end.close()

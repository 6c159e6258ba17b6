"""A bad link without root: a TCP proxy on loopback that counts, delays, limits, cuts, falls silent, half-closes.

    with BadLink("127.0.0.1", 22, rate_bps=10e6, delay_s=0.05) as link:
        connect("127.0.0.1", link.port)
        link.silence(); link.restore(); link.reset()
        print(link.up_bytes, link.down_bytes, link.connections)

Up is from the client to the server. Each direction of a connection is a pipe: bytes are read at the link's rate,
spend `delay_s` on the line, and are written. Socket buffers are small where the rate is limited, so a sender cannot
push more ahead than its own kernel buffers. What the proxy hides is TCP's own behaviour (loss, slow start, the
round trip of its handshake): for that there is tunlink.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

__all__ = ["BadLink", "Fault"]

Direction = Literal["up", "down"]
Action = Literal["cut", "reset", "silence", "restore", "half_close", "refuse"]

BUCKET_S = 0.01  # the token bucket holds this much of the rate
LINE_BYTES = 32 * 1024 * 1024  # what may be on the line of an unlimited link
SMALL_BUFFER_BYTES = 16 * 1024
SEGMENT_BYTES = 1400  # loopback's own 64 KiB segments do not get through small buffers evenly


@dataclass(frozen=True, slots=True)
class Fault:
    """One step of a script: do `action` after so many seconds, or once so many bytes have been read from the senders.

    after_s counts from the start of the link, up_bytes and down_bytes over all connections; give exactly one of them.
    lasts_s: restore the link so many seconds later.
    """

    action: Action
    after_s: float | None = None
    up_bytes: int | None = None
    down_bytes: int | None = None
    lasts_s: float | None = None


@final
class BadLink:
    """A link from a fresh loopback port to (target_host, target_port), up at once and until close().

    rate_bps: bits per second in each direction, shared by all connections; None is unlimited.
    delay_s: one way, so a round trip takes twice as long.
    script: faults that happen by themselves.
    also: further ports of the target, for protocols with connections beside the first: they, and the first, then have
        the same numbers here, and `host` is another address of this machine.
    All methods may be called from any thread; each has taken effect when it returns.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        *,
        rate_bps: float | None = None,
        delay_s: float = 0.0,
        script: Iterable[Fault] = (),
        host: str = "127.0.0.1",
        also: Iterable[int] = (),
    ) -> None:
        self.host = host
        self.target = (target_host, target_port)
        self.rate_bps = rate_bps
        self.delay_s = delay_s
        self.connections = 0
        self._lanes: dict[str, _Lane] = {"up": _Lane(rate_bps), "down": _Lane(rate_bps)}
        self._open: set[_Connection] = set()
        self._faults = list(script)
        others = {port: port for port in also}
        own = self._listen(target_port if others else 0)
        self.port: int = own.getsockname()[1]
        self._ports = {self.port: target_port, **others}  # here -> there
        self._listeners = {self.port: own, **{port: self._listen(port) for port in others}}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"badlink-{self.port}", daemon=True)
        self._thread.start()
        self._on_loop(self._start)

    @property
    def up_bytes(self) -> int:
        """Bytes read from clients."""
        return self._lanes["up"].bytes

    @property
    def down_bytes(self) -> int:
        """Bytes read from the server."""
        return self._lanes["down"].bytes

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def cut(self) -> None:
        """End every connection with FIN on both sides; new ones are served."""
        self._on_loop(self._cut)

    def reset(self) -> None:
        """End every connection with RST on both sides; new ones are served."""
        self._on_loop(self._reset)

    def silence(self, direction: Direction | None = None) -> None:
        """A black hole: connections stay, new ones are accepted, nothing is read or written (one way or both)."""
        self._on_loop(lambda: self._set_open(False, direction))

    def half_close(self, direction: Direction = "down") -> None:
        """End one direction of every connection with FIN, as a peer that will send no more; the other goes on."""
        self._on_loop(lambda: self._half_close(direction))

    def refuse(self) -> None:
        """New connections are refused until restore()."""
        self._on_loop(self._refuse)

    def restore(self) -> None:
        """End silence and refusal; what was held goes on."""
        self._on_loop(self._restore)

    def close(self) -> None:
        """Reset what is open and give the port back."""
        if self._loop.is_closed():
            return  # closed already
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> BadLink:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Everything below runs in the link's own thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _on_loop(self, action: Callable[[], None]) -> None:
        if threading.current_thread() is self._thread:
            action()
            return

        async def call() -> None:
            action()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.rate_bps is not None:
            _make_small(listener)
        listener.bind((self.host, port))
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def _start(self) -> None:
        self._listen_all()
        for fault in self._faults:
            if fault.after_s is not None:
                self._loop.call_later(fault.after_s, self._play, fault)
            if fault.up_bytes is not None:
                self._lanes["up"].at(fault.up_bytes, partial(self._play, fault))
            if fault.down_bytes is not None:
                self._lanes["down"].at(fault.down_bytes, partial(self._play, fault))

    def _play(self, fault: Fault) -> None:
        getattr(self, fault.action)()
        if fault.lasts_s is not None:
            self._loop.call_later(fault.lasts_s, self._restore)

    def _listen_all(self) -> None:
        for port, listener in self._listeners.items():
            self._loop.add_reader(listener, self._accept, listener, (self.target[0], self._ports[port]))

    def _accept(self, listener: socket.socket, target: tuple[str, int]) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return  # it gave up before it was accepted
        self.connections += 1
        connection = _Connection(client, self._new_server_socket(), self._lanes, self.delay_s)
        self._open.add(connection)
        connection.task = self._loop.create_task(connection.run(target))
        connection.task.add_done_callback(lambda _: self._open.discard(connection))

    def _new_server_socket(self) -> socket.socket:
        server = socket.socket()
        if self.rate_bps is not None:
            _make_small(server)
        return server

    def _cut(self) -> None:
        for connection in list(self._open):
            connection.end(abort=False)

    def _reset(self) -> None:
        for connection in list(self._open):
            connection.end(abort=True)

    def _half_close(self, direction: Direction) -> None:
        for connection in self._open:
            connection.half_close(direction)

    def _set_open(self, is_open: bool, direction: Direction | None) -> None:
        for name, lane in self._lanes.items():
            if direction in (None, name):
                lane.open.set() if is_open else lane.open.clear()

    def _refuse(self) -> None:
        for listener in self._listeners.values():
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners = {}

    def _restore(self) -> None:
        self._set_open(True, None)
        if not self._listeners:
            self._listeners = {port: self._listen(port) for port in self._ports}
            self._listen_all()

    async def _stop(self) -> None:
        self._refuse()
        self._reset()
        await asyncio.gather(*(connection.task for connection in self._open if connection.task), return_exceptions=True)


class _Lane:
    """One direction of the link: its rate, its count, its silence, shared by all connections."""

    def __init__(self, rate_bps: float | None) -> None:
        self.bytes = 0
        self.open = asyncio.Event()
        self.open.set()
        self._bytes_per_s = rate_bps / 8 if rate_bps else None
        self._free_at = 0.0
        self._marks: list[tuple[int, Callable[[], None]]] = []

    def at(self, mark_bytes: int, action: Callable[[], None]) -> None:
        self._marks = sorted([*self._marks, (mark_bytes, action)], key=lambda mark: mark[0])

    def next_read_bytes(self) -> int:
        """How much to read at once: little where the rate is limited, and never beyond the next mark."""
        step = int(max(SEGMENT_BYTES, self._bytes_per_s * BUCKET_S)) if self._bytes_per_s else 256 * 1024
        return min(step, self._marks[0][0] - self.bytes) if self._marks else step

    def line_bytes(self, delay_s: float) -> int:
        return int(self._bytes_per_s * (delay_s + BUCKET_S)) + SEGMENT_BYTES if self._bytes_per_s else LINE_BYTES

    async def carry(self, size: int) -> None:
        """Count bytes that entered the link, play what was due at this count, wait for as long as they occupy it."""
        self.bytes += size
        while self._marks and self.bytes >= self._marks[0][0]:
            self._marks.pop(0)[1]()
        if self._bytes_per_s:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BUCKET_S) + size / self._bytes_per_s
            await asyncio.sleep(self._free_at - now)


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket, lanes: dict[str, _Lane], delay_s: float) -> None:
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends = (client, server)
        self._pipes: dict[str, _Pipe] = {
            "up": _Pipe(client, server, lanes["up"], delay_s),
            "down": _Pipe(server, client, lanes["down"], delay_s),
        }
        self.task: asyncio.Task[None] | None = None

    async def run(self, target: tuple[str, int]) -> None:
        """Carry bytes until both directions have ended, one side broke, or end() was called."""
        work: list[asyncio.Task[None]] = []
        try:
            await self._pipes["up"].lane.open.wait()
            await asyncio.get_running_loop().sock_connect(self._ends[1], target)
            steps = [step for pipe in self._pipes.values() for step in (pipe.fill(), pipe.drain())]
            work = [asyncio.ensure_future(step) for step in steps]
            _, broken = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
            self._close(abort=bool(broken))
        except (OSError, asyncio.CancelledError):
            self._close(abort=True)  # the target refused, or end() has closed it already
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    def end(self, *, abort: bool) -> None:
        self._close(abort=abort)
        if self.task is not None:
            self.task.cancel()

    def half_close(self, direction: Direction) -> None:
        self._pipes[direction].finish()

    def _close(self, *, abort: bool) -> None:
        loop = asyncio.get_running_loop()
        for end in self._ends:
            if end.fileno() >= 0:
                loop.remove_reader(end)
                loop.remove_writer(end)
                if abort:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    _drop_unread(end)
                end.close()


class _Pipe:
    """One direction of one connection: source -> line (rate, then delay) -> sink."""

    def __init__(self, source: socket.socket, sink: socket.socket, lane: _Lane, delay_s: float) -> None:
        self.lane = lane
        self._source = source
        self._sink = sink
        self._delay_s = delay_s
        self._line: deque[tuple[float, bytes]] = deque()
        self._line_bytes = 0
        self._changed = asyncio.Event()
        self._finished = False

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            with contextlib.suppress(OSError):  # the peer may have gone already
                self._sink.shutdown(socket.SHUT_WR)

    async def fill(self) -> None:
        loop = asyncio.get_running_loop()
        limit = self.lane.line_bytes(self._delay_s)
        block = b"begin"
        while block:
            await self.lane.open.wait()
            await self._until(lambda: self._line_bytes < limit)
            block = await loop.sock_recv(self._source, self.lane.next_read_bytes())
            await self.lane.carry(len(block))
            self._line.append((time.monotonic() + self._delay_s, block))
            self._line_bytes += len(block)
            self._changed.set()

    async def drain(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._until(lambda: bool(self._line))
            due, block = self._line[0]
            await asyncio.sleep(due - time.monotonic())
            await self.lane.open.wait()
            if not block:
                return self.finish()
            if not self._finished:
                await loop.sock_sendall(self._sink, block)
            self._line.popleft()
            self._line_bytes -= len(block)
            self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def _make_small(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)


def _drop_unread(sock: socket.socket) -> None:
    """Closing a socket with unread bytes sends RST: read them away, so that FIN is what the peer sees."""
    with contextlib.suppress(OSError):  # nothing more to read, or the peer has gone already
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

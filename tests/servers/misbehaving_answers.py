"""Servers whose answers come late, twice, garbled or not at all."""

from __future__ import annotations

import queue
import random
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from paramiko import Message
from servers.quirks import KIB, Misbehaving, Quirk

from iot.sftp.server.protocol import Reply

CLOSE = 4
EXTENDED = 200


class OutOfOrder(Quirk):
    """The answers of each batch are shuffled."""

    def __init__(self, root: bytes, send: Callable[[bytes], None], server: Misbehaving) -> None:
        super().__init__(root, send, server)
        self.held: list[tuple[int, Reply]] = []
        self.order = random.Random(1)

    def answer(self, request_id: int, reply: Reply) -> None:
        self.held.append((request_id, reply))

    def flush(self) -> None:
        held, self.held = self.held, []
        if len(held) > 1 and self.hit():
            self.order.shuffle(held)
        for request_id, reply in held:
            super().answer(request_id, reply)
        super().flush()


class Late(Quirk):
    """Answers come `delay_s` after the work was done; other requests are worked on meanwhile."""

    delay_s = 0.3

    def __init__(self, root: bytes, send: Callable[[bytes], None], server: Misbehaving) -> None:
        super().__init__(root, send, server)
        self.waiting: queue.SimpleQueue[tuple[float, int, Reply]] = queue.SimpleQueue()
        threading.Thread(target=self.give, daemon=True).start()

    def is_late(self, kind: int) -> bool:
        return True

    def request(self, kind: int, message: Message) -> None:
        if not self.is_late(kind) or kind == 1 or not self.hit():
            super().request(kind, message)
            return
        request_id = message.get_int()
        self.waiting.put((time.monotonic() + self.delay_s, request_id, self.reply_to(kind, message)))

    def give(self) -> None:
        while not self.closed:
            try:
                due, request_id, reply = self.waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self.answer(request_id, reply)
                self.flush()
            except (OSError, EOFError):
                return  # the client went away


class LateClose(Late):
    """As an object store that moves the file at CLOSE; give three times the link's deadline as delay_s."""

    delay_s = 3.0

    def is_late(self, kind: int) -> bool:
        return kind == CLOSE


class LateExtensions(Late):
    """fsync, rename and hash take their time, as on a server whose disk is busy."""

    delay_s = 1.5

    def is_late(self, kind: int) -> bool:
        return kind == EXTENDED


class Twice(Quirk):
    """Every answer comes two times."""

    def answer(self, request_id: int, reply: Reply) -> None:
        super().answer(request_id, reply)
        if self.hit():
            super().answer(request_id, reply)


class UnknownId(Quirk):
    """Before the tenth answer comes one to a request that was never made."""

    which = 10

    def answer(self, request_id: int, reply: Reply) -> None:
        if self.count() == self.which and self.hit():
            super().answer(request_id ^ 0x5A5A5A5A, reply)
        super().answer(request_id, reply)


class Garbage(Quirk):
    """The tenth answer is a well-framed packet of noise."""

    which = 10

    def answer(self, request_id: int, reply: Reply) -> None:
        if self.count() == self.which and self.hit():
            self.send_packet(random.Random(1).randbytes(200))
        else:
            super().answer(request_id, reply)


class OverLongPacket(Quirk):
    """Instead of the tenth answer the start of a packet of 2 GiB."""

    which = 10

    def answer(self, request_id: int, reply: Reply) -> None:
        if self.count() == self.which and self.hit():
            self.flush()
            self._send(struct.pack(">IBI", 0x7FFFFFFF, reply[0], request_id) + bytes(64 * KIB))
        else:
            super().answer(request_id, reply)


class StopsReading(Quirk):
    """After `after` writes neither socket nor session is read for `pause_s`, then all goes on: alive, but busy."""

    after = 10
    pause_s = 20.0

    def on_write(self, message: Message) -> Reply:
        reply = super().on_write(message)
        if self.count() == self.after and self.hit():
            for _, transport in self.server.embedded._connections:
                pause(transport.packetizer, self.pause_s)
            time.sleep(self.pause_s)
        return reply


def pause(packetizer: Any, seconds: float) -> None:
    """Hold the transport's reading thread at its next packet: TCP's window closes."""
    read_message = packetizer.read_message

    def held() -> Any:
        packetizer.read_message = read_message
        time.sleep(seconds)
        return read_message()

    packetizer.read_message = held


class DropsIdle(Quirk):
    """Connections without a request for `idle_s` are cut."""

    idle_s = 2.0

    def __init__(self, root: bytes, send: Callable[[bytes], None], server: Misbehaving) -> None:
        super().__init__(root, send, server)
        self.last = time.monotonic()
        threading.Thread(target=self.watch, daemon=True).start()

    def receive(self, data: bytes) -> None:
        self.last = time.monotonic()
        super().receive(data)

    def watch(self) -> None:
        while not self.closed:
            if time.monotonic() - self.last > self.idle_s and self.hit():
                self.server.drop_connections()
                return
            time.sleep(0.05)


class NewHostKey(Quirk):
    """From the second connection on the server presents another host key."""

    def __init__(self, root: bytes, send: Callable[[bytes], None], server: Misbehaving) -> None:
        super().__init__(root, send, server)
        if self.hit():
            server.embedded.renew_host_key()

"""A job run without network: its requests are answered from files in memory, as a script wants it.

`drive` plays the pipeline for one job. What the script may do: refuse any request, answer in any order, lose the link
at any request, and look at everything that happened, in order.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from iot.sftp.client.pipeline.job import CLOSED, TURN, Barrier, Command, Linger, Send, Work
from iot.sftp.client.protocol.packets import Attributes, Code, Data, Flag, Handle, Kind, Reply, Request, Status
from iot.transfer.errors import PermanentError, SFTPError
from iot.transfer.landing import Landing, publish_together

T = TypeVar("T")
OK = Status(0, "")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Event:
    """One thing that happened: a request (what: OPEN, WRITE, FSYNC, RENAME ...), or BARRIER with its record."""

    what: str
    path: bytes = b""
    offset: int = 0
    data: bytes = b""
    flags: int = 0
    length: int = 0
    dest: bytes = b""
    record: Any = None


def decode(request: Request) -> Event:
    """Read a request's own bytes, as a server would."""
    head = memoryview(request.head)
    kind = Kind(request.kind)
    first, rest = _string(head)
    if kind is Kind.EXTENDED:
        target, rest = _string(rest) if rest else (b"", rest)
        name = {b"fsync@openssh.com": "FSYNC", b"posix-rename@openssh.com": "RENAME"}.get(first, first.decode())
        dest = _string(rest)[0] if name == "RENAME" else b""
        return Event(name, target, dest=dest)
    if kind is Kind.OPEN:
        return Event("OPEN", first, flags=struct.unpack(">I", rest[:4])[0])
    if kind is Kind.WRITE:
        offset, length = struct.unpack(">QI", rest)
        assert length == len(request.payload)
        return Event("WRITE", first, offset, bytes(request.payload))
    if kind is Kind.READ:
        offset, length = struct.unpack(">QI", rest)
        return Event("READ", first, offset, length=length)
    if kind is Kind.RENAME:
        return Event("PLAIN-RENAME", first, dest=_string(rest)[0])
    return Event(kind.name, first)


def _string(view: memoryview) -> tuple[bytes, memoryview]:
    size = struct.unpack(">I", view[:4])[0]
    return bytes(view[4 : 4 + size]), view[4 + size :]


@dataclass
class Files:
    """A server's files. refuse: asked before each request; a reply of its own is given in place of the act."""

    content: dict[bytes, bytearray] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=lambda: {b"/up"})
    refuse: Callable[[Event], Reply | None] = lambda event: None
    events: list[Event] = field(default_factory=list)
    handles: dict[bytes, tuple[bytes, bytearray]] = field(default_factory=dict)
    number: int = 0

    def answer(self, request: Request) -> Reply:
        reply = self._answer(request)
        return Status(int(reply.code), reply.message) if isinstance(reply, Status) else reply  # as off the wire

    def _answer(self, request: Request) -> Reply:
        event = decode(request)
        if event.path in self.handles:  # tell the path in place of the handle
            name = self.handles[event.path][0]
            shown = Event(event.what, name, event.offset, event.data, event.flags, event.length, event.dest)
        else:
            shown = event
        self.events.append(shown)
        refused = self.refuse(shown)
        if refused is not None:
            if event.what == "CLOSE":
                self.handles.pop(event.path, None)
            return refused
        act = getattr(self, "_" + event.what.lower().replace("-", "_"), None)
        return act(event) if act else Status(Code.OP_UNSUPPORTED, "")

    def check_closed(self) -> None:
        left = [name for name, _ in self.handles.values()]
        assert not left, f"still open on the server: {left}"

    def did(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]

    def _open(self, event: Event) -> Reply:
        there = event.path in self.content
        if event.path.rpartition(b"/")[0] not in self.folders:
            return Status(Code.NO_SUCH_FILE, "No such folder")
        if there and event.flags & Flag.EXCLUSIVE:
            return Status(Code.FAILURE, "Failure")
        if not there and not event.flags & Flag.CREATE:
            return Status(Code.NO_SUCH_FILE, "No such file")
        if not there or event.flags & Flag.TRUNCATE:
            self.content[event.path] = bytearray()
        self.number += 1
        handle = b"handle-%d" % self.number
        self.handles[handle] = (event.path, self.content[event.path])
        return Handle(handle)

    def _write(self, event: Event) -> Reply:
        _, content = self.handles[event.path]
        end = event.offset + len(event.data)
        content.extend(bytes(max(0, end - len(content))))
        content[event.offset : end] = event.data
        return OK

    def _read(self, event: Event) -> Reply:
        data = bytes(self.handles[event.path][1][event.offset : event.offset + event.length])
        return Data(memoryview(data)) if data else Status(Code.EOF, "")

    def _close(self, event: Event) -> Reply:
        return OK if self.handles.pop(event.path, None) else Status(Code.FAILURE, "no such handle")

    def _fsync(self, event: Event) -> Reply:
        return OK if event.path in self.handles else Status(Code.FAILURE, "no such handle")

    def _fsetstat(self, event: Event) -> Reply:
        return OK

    def _setstat(self, event: Event) -> Reply:
        there = event.path in self.content or event.path in self.folders
        return OK if there else Status(Code.NO_SUCH_FILE, "")

    def _stat(self, event: Event) -> Reply:
        if event.path in self.folders:
            return Attributes(mode=0o040755)
        if event.path not in self.content:
            return Status(Code.NO_SUCH_FILE, "")
        return Attributes(len(self.content[event.path]), 0o100644, 5)

    _lstat = _stat

    def _mkdir(self, event: Event) -> Reply:
        if event.path in self.folders or event.path.rpartition(b"/")[0] not in {b"", *self.folders}:
            return Status(Code.FAILURE, "Failure")
        self.folders.add(event.path)
        return OK

    def _remove(self, event: Event) -> Reply:
        return OK if self.content.pop(event.path, None) is not None else Status(Code.NO_SUCH_FILE, "")

    def _rename(self, event: Event) -> Reply:
        if event.path not in self.content:
            return Status(Code.NO_SUCH_FILE, "")
        self.content[event.dest] = self.content.pop(event.path)
        return OK

    def _plain_rename(self, event: Event) -> Reply:
        return Status(Code.FAILURE, "Failure") if event.dest in self.content else self._rename(event)


def drive(work: Work[T], files: Files, *, hands_over: bool = False, **script: Any) -> T:
    """Run a job to its end, as `_driven`. However it ends, it has closed what it opened, unless the link was lost, or
    it hands a handle over."""
    try:
        result: T = _driven(work, files, **script)
    except PermanentError:
        files.check_closed()
        raise
    if not hands_over:
        files.check_closed()
    return result


def _driven(
    work: Work[T],
    files: Files,
    *,
    lose_at: Callable[[Event], bool] = lambda event: False,
    error: SFTPError | None = None,
    answered: bool = False,
    order: random.Random | None = None,
    at_barrier: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
) -> T:
    """Its requests are handled in order, their answers come in the order that `order` draws.

    lose_at: at this request the link is lost: `error` is thrown into the job, as the pipeline does; `answered` tells
        whether the server still handled it.
    """
    draw = order or random.Random(0)
    waiting: list[tuple[Any, Reply]] = []
    try:
        command = next(work)
        while True:
            inbox: list[tuple[Any, Reply]] = []
            if isinstance(command, Send):
                if lose_at(_named(files, decode(command.request))):
                    if answered:
                        files.answer(command.request)
                    raise_into(work, error)
                waiting.append((command.token, files.answer(command.request)))
            elif isinstance(command, Barrier):
                files.events.append(Event("BARRIER", record=command.record))
                _commit(command.record)
                at_barrier()
            else:
                _noted(files, command, clock)
            if command is not TURN and (not isinstance(command, Send) or draw.random() < 0.3):
                inbox = _some(waiting, draw, in_order=order is None)
            command = work.send(inbox)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        work.close()


def _noted(files: Files, command: Command, clock: Clock | None) -> None:
    if command is CLOSED:
        files.events.append(Event("CLOSED"))
    elif isinstance(command, Linger):
        files.events.append(Event("LINGER"))
        if clock is not None:
            clock.now += command.seconds


def _commit(record: Any) -> None:
    """As session.py does it; a checkpoint is only recorded."""
    if isinstance(record, Landing):
        publish_together([record])


def raise_into(work: Work[Any], error: SFTPError | None) -> None:
    """As the pipeline does when the link is lost: what the job asks for after that is not done any more."""
    assert error is not None
    try:
        work.throw(error)
    finally:
        work.close()
    raise error


def _some(waiting: list[tuple[Any, Reply]], draw: random.Random, in_order: bool) -> list[tuple[Any, Reply]]:
    taken: list[tuple[Any, Reply]] = []
    while waiting and (not taken or draw.random() < 0.5):
        taken.append(waiting.pop(0 if in_order else draw.randrange(len(waiting))))
    return taken


def _named(files: Files, event: Event) -> Event:
    if event.path not in files.handles:
        return event
    return Event(
        event.what, files.handles[event.path][0], event.offset, event.data, event.flags, event.length, event.dest
    )

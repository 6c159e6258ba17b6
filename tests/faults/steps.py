"""The crash points: each row of "what is true when" of the design, before and after. One list, in a delivery's order.

No hooks in the product: `install` wraps a function by its import path in the process that it runs in (see crash.py),
and calls `reached` at the n-th time that the step comes by. A step on the wire is reached when the request's bytes have
been handed to the system (SENT), when its answer has been read (ARRIVED), or when its job has acted on it (HANDLED).
"""

from __future__ import annotations

import enum
import functools
import importlib
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iot.sftp.client.protocol.packets import Flag, Handle, Kind

__all__ = ["BY_NAME", "ONCE", "PART_STEPS", "STEPS", "Call", "Moment", "Packet", "Step", "install", "wrap"]

CHANNEL = "iot.sftp.client.ssh.channel:SFTPChannel"
PIPELINE = "iot.sftp.client.pipeline.pipeline:Pipeline"
REQUEST = "iot.sftp.client.protocol.packets:Request"
QUEUE = "iot.spooler.queue.queue:Queue"
REMOVAL = "iot.spooler.leaving.removal"
UNLINKING = "iot.spooler.leaving.unlinking"
PACKING = "iot.spooler.compression"
INBOX = "iot.spooler.inbox"
CHECKPOINTS = "iot.transfer.journal.checkpoints:Checkpoints"
COMMIT = "iot.transfer.journal.journal:Journal._transact"

Reached = Callable[[], None]
Undo = Callable[[], object]


def always(*_: object, **__: object) -> bool:
    return True


def second_is_not_empty(_self: object, entries: Any, *_: object) -> bool:
    return bool(entries)


def third_is_not_empty(_self: object, _db: object, entries: Any, *_: object) -> bool:
    return bool(entries)


def fifth_is_not_empty(_self: object, _db: object, _outbox: object, _batch: object, entries: Any) -> bool:
    return bool(entries)


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its import path, "module:name.name". when: which of its calls count, by their arguments."""

    path: str
    when: Callable[..., bool] = always


class Moment(enum.Enum):
    SENT = "sent"
    ARRIVED = "answer arrived"
    HANDLED = "answer handled"


@dataclass(frozen=True, slots=True)
class Packet:
    """A kind of request. flags: how the handle that it speaks of was opened, or is to be; extension: its name."""

    kind: Kind
    flags: Flag | None = None
    extension: bytes = b""


@dataclass(frozen=True, slots=True)
class Step:
    """One crash point.

    at: what happens there. side: "before" or "after" of a Call, a Moment of a Packet. since: only after this was
    called. files: the kinds of upload that come by it, "large" and "small". nth: which time.
    """

    name: str
    at: Call | Packet
    side: str | Moment
    since: Call | None = None
    files: tuple[str, ...] = ("large", "small")
    nth: int = 1


def _around(name: str, call: Call) -> list[Step]:
    return [Step(f"before {name}", call, "before"), Step(f"after {name}", call, "after")]


def _committed(name: str, write: Call, files: tuple[str, ...] = ("large", "small")) -> list[Step]:
    """A transaction in which `write` takes part: before it, within it, after it."""
    return [
        Step(f"before {name} is written", write, "before", files=files),
        Step(f"{name} written, not committed", write, "after", files=files),
        Step(f"{name} committed", Call(COMMIT), "after", since=write, files=files),
    ]


def _asked(name: str, packet: Packet, files: tuple[str, ...] = ("large", "small"), nth: int = 1) -> list[Step]:
    return [Step(f"{name} {moment.value}", packet, moment, files=files, nth=nth) for moment in Moment]


STEPS: tuple[Step, ...] = (
    *_around("entry queued", Call(f"{QUEUE}.add", second_is_not_empty)),
    *_around("attempt begun", Call(f"{QUEUE}.begin")),
    *_asked("part opening", Packet(Kind.OPEN, Flag.WRITE)),
    *_asked("first write", Packet(Kind.WRITE)),
    *_asked("later write", Packet(Kind.WRITE), nth=8),
    *_committed("checkpoint", Call(f"{CHECKPOINTS}._write"), files=("large",)),
    *_asked("fsync of the part", Packet(Kind.EXTENDED, Flag.WRITE, b"fsync@openssh.com")),
    *_asked("CLOSE of the part", Packet(Kind.CLOSE, Flag.WRITE)),
    *_around("publish intent committed", Call(f"{CHECKPOINTS}.commit")),
    *_asked("rename", Packet(Kind.EXTENDED, None, b"posix-rename@openssh.com")),
    *_asked("fsync of the final", Packet(Kind.EXTENDED, Flag.READ, b"fsync@openssh.com")),
    *_committed("delivered", Call(f"{QUEUE}.deliver", third_is_not_empty)),
    *_around("source renamed to its private name", Call(f"{REMOVAL}:rename_noreplace")),
    *_around("source unlinked", Call(f"{UNLINKING}:_unlink_all", second_is_not_empty)),
    Step("outbox synced", Call(f"{UNLINKING}:Unlinking.run"), "after"),
    *_committed("row forgotten", Call(f"{QUEUE}.forget", third_is_not_empty)),
)
PART_STEPS: dict[str, tuple[Step, ...]] = {
    "compressed": (
        *_around("file compressed", Call(f"{PACKING}.packer:Packer._packed")),
        *_around("compressed file removed", Call(f"{PACKING}.folder:Folder.remove")),
    ),
    "chain": (
        *_around("file put into the next outbox", Call("iot.spooler.leaving.moving:Arrivals.put")),
        *_around("next outbox synced", Call("iot.spooler.leaving.moving:Arrivals.sync")),
    ),
    "batch": (
        *_committed("batch", Call("iot.spooler.batches.marked_files:MarkedFiles.add", fifth_is_not_empty)),
        *_around("marker released", Call("iot.spooler.batches.markers:Markers._list")),
    ),
    "inbox": (
        *_around("content sealed", Call(f"{INBOX}.place:Place.seal")),
        *_committed("record of an inbox", Call(f"{INBOX}.records:Records._put")),
        *_around("file of an inbox published", Call(f"{INBOX}.place:Place.publish")),
        *_around("file removed from the server", Call(f"{INBOX}.removal:_away")),
    ),
}
"""Of what an agent does beside plain uploads: see power_parts."""
BY_NAME = {step.name: step for step in [*STEPS, *itertools.chain(*PART_STEPS.values())]}
# Every step once: in turn with a large file and with small ones. The short forms do with that.
ONCE = {
    "large": [step for number, step in enumerate(STEPS) if number % 2 == 0 or "small" not in step.files],
    "small": [step for number, step in enumerate(STEPS) if number % 2 == 1 and "small" in step.files],
}


# -- wrapping


def wrap(path: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Undo:
    """Replace the function at "module:name.name" by wrapper(function) -> what puts it back."""
    module, _, names = path.partition(":")
    *owners, name = names.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)
    setattr(owner, name, functools.wraps(function)(wrapper(function)))
    return lambda: setattr(owner, name, function)


def install(step: Step, reached: Reached, nth: int | None = None) -> Undo:
    """Call `reached` at the n-th time that the step comes by, once -> what takes the wrappers away again."""
    count = Countdown(step.nth if nth is None else nth, reached)
    if isinstance(step.at, Packet):
        assert isinstance(step.side, Moment)
        undos = PacketWatch(step.at, step.side, count).install()
    else:
        armed: list[bool] = [step.since is None]
        undos = []
        if step.since is not None:
            arm = _call_wrapper(step.since.when, "after", lambda: armed.append(True))
            undos.append(wrap(step.since.path, arm))
        act = _call_wrapper(step.at.when, str(step.side), lambda: count() if armed[-1] else None)
        undos.append(wrap(step.at.path, act))
    return lambda: [undo() for undo in reversed(undos)]


class Countdown:
    def __init__(self, nth: int, reached: Reached) -> None:
        self._left = nth
        self._reached = reached

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._reached()


def _call_wrapper(when: Callable[..., bool], side: str, act: Callable[[], object]) -> Callable[..., Any]:
    def wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            counts = when(*arguments, **keywords)
            if counts and side == "before":
                act()
            result = function(*arguments, **keywords)
            if counts and side == "after":
                act()
            return result

        return wrapped

    return wrapper


class PacketWatch:
    """Follows the requests of one kind through the pipeline, and every OPEN, to know handles by their flags."""

    def __init__(self, packet: Packet, moment: Moment, count: Callable[[], None]) -> None:
        self._packet = packet
        self._moment = moment
        self._count = count
        self._unsent = 0
        self._handled = 0
        self._asked: set[int] = set()
        self._opening: dict[int, int] = {}
        self._flags: dict[bytes, int] = {}

    def install(self) -> list[Undo]:
        return [
            wrap(f"{REQUEST}.encode", self._on_encode),
            wrap(f"{CHANNEL}.send", self._on_send),
            wrap("iot.sftp.client.pipeline.pipeline:parse_reply", self._on_reply),
            wrap(f"{PIPELINE}._communicate", self._on_communicate),
        ]

    def _matches(self, request: Any) -> bool:
        packet = self._packet
        if request.kind != packet.kind:
            return False
        if packet.kind == Kind.OPEN:
            return packet.flags is None or bool(_open_flags(request.head) & packet.flags)
        name, behind = _string(request.head, 0) if packet.extension else (b"", 0)
        if name != packet.extension:
            return False
        return packet.flags is None or bool(self._flags.get(_string(request.head, behind)[0], 0) & packet.flags)

    def _on_encode(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(request: Any, request_id: int) -> Any:
            if request.kind == Kind.OPEN:
                self._opening[request_id] = _open_flags(request.head)
            if self._matches(request):
                self._asked.add(request_id)
                self._unsent += 1
            return encode(request, request_id)

        return wrapped

    def _on_send(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            gone = send(*arguments, **keywords)
            self._note(Moment.SENT, self._unsent)
            self._unsent = 0
            return gone

        return wrapped

    def _on_reply(self, parse: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(packet: Any) -> Any:
            request_id, reply = parse(packet)
            flags = self._opening.pop(request_id, None)
            if flags is not None and isinstance(reply, Handle):
                self._flags[bytes(reply.value)] = flags
            if request_id in self._asked:
                self._asked.remove(request_id)
                self._handled += 1
                self._note(Moment.ARRIVED, 1)
            return request_id, reply

        return wrapped

    def _on_communicate(self, communicate: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> None:
            self._note(Moment.HANDLED, self._handled)
            self._handled = 0
            communicate(*arguments, **keywords)

        return wrapped

    def _note(self, moment: Moment, times: int) -> None:
        for _ in range(times if moment is self._moment else 0):
            self._count()


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """The string at this place, and the place behind it."""
    (size,) = struct.unpack_from(">I", data, at)
    return bytes(data[at + 4 : at + 4 + size]), at + 4 + size


def _open_flags(head: bytes) -> int:
    return int(struct.unpack_from(">I", head, _string(head, 0)[1])[0])

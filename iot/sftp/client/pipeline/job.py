"""What a job may ask of the pipeline, and helpers for writing jobs.

A job is a plain generator. It yields one of the commands below and is sent the answers that have since arrived for it,
as (token, reply) pairs; it does no network I/O itself, so a test can feed it anything.

    Send(request, token)   send this request as soon as there is room; continue at once
    Room(cost)             continue when there is room for a payload of this size, which the next Send carries: so a
                           job that has to wait holds no payload
    WAIT                   continue when there is at least one answer
    TURN                   let the others have a turn, then continue (long local work)
    CLOSED                 continue at once; it will open nothing more on the server, nor linger, and takes no slot from
                           now on
    Barrier(record)        continue when this record is durable; records of many jobs share one commit
    Linger(seconds)        continue after a while, without occupying a slot
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Data, Handle, Names, Reply, Request, Status
from iot.transfer.errors import PermanentError, ProtocolError

R = TypeVar("R")


class Pause(Enum):
    WAIT = "wait"
    TURN = "turn"
    CLOSED = "closed"


WAIT = Pause.WAIT
TURN = Pause.TURN
CLOSED = Pause.CLOSED


class Send(NamedTuple):
    request: Request
    token: Any = None

    @property
    def cost(self) -> int:
        return self.request.cost


class Room(NamedTuple):
    cost: int


class Barrier(NamedTuple):
    record: Any


class Linger(NamedTuple):
    seconds: float


Command: TypeAlias = Send | Room | Barrier | Linger | Pause
Answers: TypeAlias = "list[tuple[Any, Reply]]"
Work: TypeAlias = Generator[Command, Answers, R]


@dataclass(slots=True)
class Job(Generic[R]):
    """A piece of work for the pipeline.

    work: the generator, not yet started.
    urgency: jobs with a lower value are served first; (priority, size class) in practice.
    payload_bytes: how much it will transfer, as far as known.
    tag: the owner's own handle. share: jobs of one share have the turns of one job.
    """

    work: Work[R]
    urgency: tuple[int, ...] = (0,)
    tag: Any = None
    payload_bytes: int = 0
    share: Hashable = None


def ask(request: Request) -> Work[Reply]:
    """Send one request and wait for its answer; only for a job that has no other request outstanding."""
    answers = yield Send(request)
    while not answers:
        answers = yield WAIT
    return answers[0][1]


def ask_all(requests: list[Request], in_order: bool) -> Work[list[Reply]]:
    """Send several requests, each relying on the one before -> all answers, including refusals.

    Takes one round trip if the server handles requests in order, otherwise one each.
    """
    if in_order and len(requests) > 1:
        return (yield from ask_at_once(requests))
    replies: list[Reply] = []
    for request in requests:
        reply = yield from ask(request)
        replies.append(reply)
    return replies


def ask_at_once(requests: list[Request]) -> Work[list[Reply]]:
    """Send several independent requests -> all answers in the same order, including refusals."""
    replies: dict[int, Reply] = {}
    for number, request in enumerate(requests):
        replies.update((yield Send(request, number)))
    while len(replies) < len(requests):
        replies.update((yield WAIT))
    return [replies[number] for number in range(len(requests))]


def closing(handle: bytes, work: Work[R]) -> Work[R]:
    """Run `work` with an open handle and close the handle afterwards, even if the server refused something."""
    try:
        result = yield from work
    except PermanentError:
        yield from ask(packets.close(handle))
        raise
    yield from ask(packets.close(handle))
    return result


def expect_ok(reply: Reply, doing: str) -> None:
    """Raises: the typed error of a refusal (see Status.error); ProtocolError for an answer of another type."""
    if not isinstance(reply, Status):
        raise _unexpected(reply, doing)
    if not reply.ok:
        raise reply.error(doing)


def expect_status(reply: Reply, doing: str) -> Status:
    """For requests that may be refused. Raises: ProtocolError for an answer of another type."""
    if isinstance(reply, Status):
        return reply
    raise _unexpected(reply, doing)


def expect_handle(reply: Reply, doing: str) -> bytes:
    if isinstance(reply, Handle):
        return reply.value
    raise _refusal(reply, doing)


def handle_or_refusal(reply: Reply, doing: str) -> bytes | Status:
    """Raises: ProtocolError for an answer of another type."""
    if isinstance(reply, Status) and not reply.ok:
        return reply
    return expect_handle(reply, doing)


def expect_attributes(reply: Reply, doing: str) -> Attributes:
    if isinstance(reply, Attributes):
        return reply
    raise _refusal(reply, doing)


def expect_names(reply: Reply, doing: str) -> Names:
    if isinstance(reply, Names):
        return reply
    raise _refusal(reply, doing)


def expect_data(reply: Reply, doing: str) -> memoryview:
    if isinstance(reply, Data):
        return reply.value
    raise _refusal(reply, doing)


def _refusal(reply: Reply, doing: str) -> Exception:
    if isinstance(reply, Status) and not reply.ok:
        return reply.error(doing)
    return _unexpected(reply, doing)


def _unexpected(reply: Reply, doing: str) -> ProtocolError:
    return ProtocolError(f"{doing}: server answered with {type(reply).__name__}, which does not answer this request")

"""What a job may ask of the pipeline, and the small phrases that jobs are written in.

A job is a plain generator. It yields one of the commands below and is sent the answers that have come
for it since, as (token, reply) pairs; it does no network I/O itself, so a test can feed it anything.

    Send(request, token)   put this request on the wire as soon as there is room; go on at once
    WAIT                   go on when at least one answer is there
    TURN                   let the others have a turn, then go on (long local work)
    FREE                   nothing is open any more, here or there, nor will be: another job may have the slot; go on
    Barrier(record)        go on when this record is durable; records of many jobs share one commit
    Linger(seconds)        go on after a while, without taking a slot meanwhile
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from iot.sftp.client.errors import PermanentError, ProtocolError
from iot.sftp.client.wire import packets
from iot.sftp.client.wire.packets import Attributes, Data, Extended, Handle, Names, Reply, Request, Status

R = TypeVar("R")


class Pause(Enum):
    WAIT = "wait"
    TURN = "turn"
    FREE = "free"


WAIT = Pause.WAIT
TURN = Pause.TURN
FREE = Pause.FREE


class Send(NamedTuple):
    request: Request
    token: Any = None


class Barrier(NamedTuple):
    record: Any


class Linger(NamedTuple):
    seconds: float


Command: TypeAlias = Send | Barrier | Linger | Pause
Answers: TypeAlias = "list[tuple[Any, Reply]]"
Work: TypeAlias = Generator[Command, Answers, R]


@dataclass(slots=True)
class Job(Generic[R]):
    """A piece of work for the pipeline.

    work: the generator, not yet started.
    urgency: jobs with the lower value get room first; (priority, size class) in practice.
    payload_bytes: what it is going to move, as far as that is known.
    tag: the owner's own handle.
    """

    work: Work[R]
    urgency: tuple[int, ...] = (0,)
    tag: Any = None
    payload_bytes: int = 0


def ask(request: Request) -> Work[Reply]:
    """Send one request and wait for its answer; only for a job that has nothing else under way."""
    answers = yield Send(request)
    while not answers:
        answers = yield WAIT
    return answers[0][1]


def ask_all(requests: list[Request], in_order: bool) -> Work[list[Reply]]:
    """Several requests, each relying on the one before being handled first; all their answers, refusals included.

    One round trip where the server handles requests in order, else one each.
    """
    if in_order:
        return (yield from ask_at_once(requests))
    replies: list[Reply] = []
    for request in requests:
        reply = yield from ask(request)
        replies.append(reply)
    return replies


def ask_at_once(requests: list[Request]) -> Work[list[Reply]]:
    """Several requests that do not rely on one another; all their answers, in their order, refusals included."""
    replies: dict[int, Reply] = {}
    for number, request in enumerate(requests):
        replies.update((yield Send(request, number)))
    while len(replies) < len(requests):
        replies.update((yield WAIT))
    return [replies[number] for number in range(len(requests))]


def closing(handle: bytes, work: Work[R]) -> Work[R]:
    """Do this work with an open handle, and close the handle after it, also when the server refused something."""
    try:
        result = yield from work
    except PermanentError:
        yield from ask(packets.close(handle))
        raise
    yield from ask(packets.close(handle))
    return result


def expect_ok(reply: Reply, doing: str) -> None:
    """Raises: the typed error of a refusal; ProtocolError for an answer of another kind."""
    if not isinstance(reply, Status):
        raise _unexpected(reply, doing)
    if not reply.ok:
        raise reply.error(doing)


def expect_status(reply: Reply, doing: str) -> Status:
    """Yes or no, where both are fine. Raises: ProtocolError for an answer of another kind."""
    if isinstance(reply, Status):
        return reply
    raise _unexpected(reply, doing)


def expect_handle(reply: Reply, doing: str) -> bytes:
    if isinstance(reply, Handle):
        return reply.value
    raise _refusal(reply, doing)


def handle_or_refusal(reply: Reply, doing: str) -> bytes | Status:
    """Raises: ProtocolError for an answer of another kind."""
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


def expect_extended(reply: Reply, doing: str) -> bytes:
    if isinstance(reply, Extended):
        return reply.value
    raise _refusal(reply, doing)


def _refusal(reply: Reply, doing: str) -> Exception:
    if isinstance(reply, Status) and not reply.ok:
        return reply.error(doing)
    return _unexpected(reply, doing)


def _unexpected(reply: Reply, doing: str) -> ProtocolError:
    return ProtocolError(f"{doing}: server answered with {type(reply).__name__}, which is no answer to that")

"""A channel that is a script in memory, and the jobs that are run on it.

It decodes the requests by itself, and answers when and in what order a test wants.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from iot.sftp.client.pipeline.job import WAIT, Job, Send, Work, ask, expect_ok
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.pipeline import Finished, Pipeline
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.transfer.errors import SFTPError
from iot.transfer.rate import RateLimit

__all__ = ["KIB", "Asked", "Script", "check", "names", "refused", "run", "status", "until_it_ends", "writes"]

KIB = 1024


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire; data: its payload's size."""

    request_id: int
    kind: int
    handle: bytes
    data: int = 0


@dataclass
class Script:
    """A channel and its clock. answer: what to give at a receive; by default every request in order, with OK."""

    now: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    open: list[Asked] = field(default_factory=list)
    sends: list[int] = field(default_factory=list)
    commits: list[list[Any]] = field(default_factory=list)
    answer: Callable[[], bytes | None] | None = None
    at_commit: Callable[[], None] = lambda: None
    round_trip_s: float = 0.01
    cancelled: threading.Event = field(default_factory=threading.Event)
    max_bytes: int = 256 * KIB
    in_flight_at_most: int = 0

    def clock(self) -> float:
        return self.now

    def send(self, outgoing: Outgoing, wait_s: float) -> None:
        data = outgoing.first(len(outgoing))
        outgoing.drop(len(data))
        self.sends.append(len(data))
        at = 0
        while at < len(data):
            size, kind, request_id = struct.unpack_from(">IBI", data, at)
            name = struct.unpack_from(">I", data, at + 9)[0]
            handle = data[at + 13 : at + 13 + name]
            payload = struct.unpack_from(">QI", data, at + 13 + name)[1] if kind in (5, 6) else 0
            item = Asked(request_id, kind, handle, payload)
            self.asked.append(item)
            self.open.append(item)
            at += 4 + size
        assert at == len(data)
        self.in_flight_at_most = max(self.in_flight_at_most, sum(item.data for item in self.open))

    def receive(self, limit: int, timeout_s: float) -> bytes | None:
        data = self.answer() if self.answer else self.all_in_order()
        self.now += self.round_trip_s if data else timeout_s
        return data

    def check_alive(self, waiting_since: float | None) -> Any:
        """The link lives, and is not silent."""
        return 0.0

    def all_in_order(self) -> bytes | None:
        return self.give(list(self.open))

    def give(self, items: list[Asked], code: int = 0) -> bytes | None:
        for item in items:
            self.open.remove(item)
        return b"".join(status(item.request_id, code) for item in items) or None

    def commit(self, records: Sequence[Any]) -> None:
        self.at_commit()
        self.commits.append(list(records))

    def pipeline(self, reply_deadline_s: float = 600, limit: RateLimit | None = None, **given: Any) -> Pipeline:
        return Pipeline(
            self,
            Pace(self.max_bytes, 32 * KIB, limit=limit),
            clock=self.clock,
            commit=self.commit,
            reply_deadline_s=reply_deadline_s,
            cancelled=self.cancelled,
            **given,
        )


def until_it_ends(results: Iterator[Finished], error: type[SFTPError]) -> list[Finished]:
    """All that is told before the run ends with this error."""
    told: list[Finished] = []
    with pytest.raises(error):
        _collect(results, told)
    return told


def _collect(results: Iterator[Finished], told: list[Finished]) -> None:
    for item in results:
        told.append(item)  # noqa: PERF402  # what came before the error stays


def status(request_id: int, code: int = 0) -> bytes:
    return struct.pack(">IBII", 9, 101, request_id, code)


def run(script: Script, jobs: list[Job[Any]], slots: int = 256) -> list[Finished]:
    return list(script.pipeline().run(iter(jobs), lambda: slots))


def writes(name: bytes, count: int, size: int = KIB) -> Work[list[tuple[int, int]]]:
    """Send numbered blocks; -> (number, code) of each answer, as they came."""
    heard: list[tuple[int, int]] = []
    for number in range(count):
        answers = yield Send(packets.write(name, number * size, bytes(size)), (name, number))
        heard += [(token[1], reply.code) for token, reply in answers if check(token[0], name)]  # type: ignore[union-attr]
    while len(heard) < count:
        answers = yield WAIT
        heard += [(token[1], reply.code) for token, reply in answers if check(token[0], name)]  # type: ignore[union-attr]
    return heard


def check(found: bytes, wanted: bytes) -> bool:
    assert found == wanted, "an answer went to another job"
    return True


def names(count: int) -> list[bytes]:
    return [b"job-%d" % number for number in range(count)]


def refused(name: bytes) -> Work[None]:
    expect_ok((yield from ask(packets.close(name))), "closing")

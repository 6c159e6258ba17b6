"""Which requests are on their way, who asked, and what of the window they take."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from iot.sftp.client.errors import ProtocolError
from iot.sftp.client.wire.job import Answers, Command, Job, Send
from iot.sftp.client.wire.pace import Mark, Pace
from iot.sftp.client.wire.packets import Reply


@dataclass(slots=True, eq=False)
class Running:
    """A job under way. inbox: answers that it has not seen yet. waits: it goes on with the next one.

    silent: nobody is told of its end. free: it needs no slot any more.
    """

    job: Job[Any]
    started_at: float
    inbox: Answers = field(default_factory=list)
    started: bool = False
    waits: bool = False
    silent: bool = False
    free: bool = False
    ended: bool = False

    def resume(self) -> Command:
        if not self.started:
            self.started = True
            return next(self.job.work)
        answers, self.inbox = self.inbox, []
        return self.job.work.send(answers)


@dataclass(slots=True)
class Asked:
    """Without the request: its payload may go when it is sent."""

    owner: Running
    token: Any
    kind: int
    cost: int
    mark: Mark


class Outstanding:
    """Numbers the requests of all jobs, and hands each answer to the job that asked."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._numbers = itertools.count(1)
        self._asked: dict[int, Asked] = {}

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def oldest(self) -> Asked | None:
        return next(iter(self._asked.values()), None)

    def ask(self, owner: Running, send: Send, now: float) -> tuple[bytes | memoryview, ...]:
        """-> the request's bytes, which are on their way from now on."""
        number = next(self._numbers) & 0xFFFFFFFF
        mark = self._pace.sent(now, send.request.cost)
        self._asked[number] = Asked(owner, send.token, send.request.kind, send.request.cost, mark)
        return send.request.encode(number)

    def answered(self, number: int, reply: Reply, now: float) -> Running | None:
        """Put the answer in its job's inbox -> that job, if it has waited for one. Raises: ProtocolError."""
        asked = self._asked.pop(number, None)
        if asked is None:
            raise ProtocolError(f"server answered request {number}, which was never asked or is answered already")
        self._pace.answered(asked.mark, asked.cost, now)
        owner = asked.owner
        if owner.ended:
            return None
        owner.inbox.append((asked.token, reply))
        waited, owner.waits = owner.waits, False
        return owner if waited else None

"""Which requests are outstanding, which job made them, and how much of the window they use."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from iot.sftp.client.pipeline.job import Answers, Job, Send
from iot.sftp.client.pipeline.pace import Mark, Pace
from iot.sftp.client.protocol.packets import Reply
from iot.transfer.errors import ProtocolError


@dataclass(slots=True, eq=False)
class Running:
    """A running job. inbox: answers that it has not seen yet. waits: it continues with the next answer.

    silent: its end is not reported. small: it has others stand back. has_room: its next payload has been given room.
    closed: it takes no slot.
    """

    job: Job[Any]
    started_at: float
    inbox: Answers = field(default_factory=list)
    started: bool = False
    waits: bool = False
    silent: bool = False
    ended: bool = False
    small: bool = field(init=False)
    has_room: bool = False
    closed: bool = False

    def news(self) -> Answers | None:
        """What its work is to be sent now; None at its start."""
        if not self.started:
            self.started = True
            return None
        answers, self.inbox = self.inbox, []
        return answers


@dataclass(slots=True)
class Asked:
    """An outstanding request, without its data: the payload may be freed once it is sent."""

    owner: Running
    token: Any
    kind: int
    cost: int
    mark: Mark


class Outstanding:
    """Numbers the requests of all jobs, and passes each answer to the job that made the request."""

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
        """-> the bytes of the request, which counts as outstanding from now on."""
        number = next(self._numbers) & 0xFFFFFFFF
        mark = self._pace.sent(now, send.request.cost, asks=not send.request.payload)
        self._asked[number] = Asked(owner, send.token, send.request.kind, send.request.cost, mark)
        return send.request.encode(number)

    def answered(self, number: int, reply: Reply, now: float) -> Running | None:
        """Put the answer in its job's inbox -> the job, if it was waiting for one. Raises: ProtocolError."""
        asked = self._asked.pop(number, None)
        if asked is None:
            raise ProtocolError(f"server answered request {number}, which was never sent or is already answered")
        self._pace.answered(asked.mark, asked.cost, now)
        owner = asked.owner
        if owner.ended:
            return None
        owner.inbox.append((asked.token, reply))
        waited, owner.waits = owner.waits, False
        return owner if waited else None

"""A fleet after a common outage, on a fake clock: the product's own waits against models of the servers."""

from __future__ import annotations

import enum
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from herd.sshd import Door, Login, MaxStartups

from iot.spooler.agent import assembly
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.config.settings import Settings
from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability
from iot.spooler.server.herd import Phased
from iot.transfer import LinkLost, ServerBusy, Timeout

__all__ = ["Came", "Outage", "Plan", "come_back", "device", "naive"]

DOWN = LinkLost("no answer")
TOO_SLOW = Timeout("no answer in time")
BUSY = ServerBusy("Exceeded MaxStartups")
HOUR_S = 3600.0
PATIENCE_S = 24 * HOUR_S
DEFAULT_LIMITS = MaxStartups()
USUAL_LOGIN = Login()


class Outage(enum.Enum):
    """What was away, and what the devices know of its end."""

    SERVER = "the server was away"
    NETWORK = "the network was away, and is there for all at the same moment"
    POWER = "a power cut, at its end all start at the same moment"
    POWER_UNKNOWN = "the same, and no device knows how long it was"


@dataclass(frozen=True)
class Plan:
    """agents: how many. gateways: servers, of which each try meets any.

    alike: every device's own generator gives the same numbers. naive: no jitter, no phase, no window, for contrast.
    """

    agents: int
    outage: Outage
    gateways: int = 1
    window_s: float = 1200.0
    outage_s: float = 2 * HOUR_S
    limits: MaxStartups = DEFAULT_LIMITS
    login: Login = USUAL_LOGIN
    seed: int = 1
    alike: bool = False
    naive: bool = False


@dataclass(frozen=True)
class Came:
    """What became of it. last_s: after the outage, all were connected; None: some were not within a day."""

    last_s: float | None
    nine_of_ten_s: float | None
    tries: int
    refused: int
    most_under_way: int

    @property
    def refused_percent(self) -> float:
        return 100 * self.refused / self.tries if self.tries else 0.0


@lru_cache(maxsize=8)
def settings(window_s: float) -> Settings:
    return Settings.model_validate(
        {
            "state_dir": "/state",
            "server": {"kind": "folder", "path": "/far"},
            "retry": {"herd_window_s": window_s},
            "outbox": [OutboxSettings.model_validate({"path": "/box", "destination": "/up"})],
        }
    )


def device(name: str, chance: Callable[[], float], window_s: float) -> Availability:
    """As an agent has it."""
    return assembly.server(settings(window_s), Phased(name, chance), drain=False)


def naive() -> Availability:
    """Doubling waits and nothing else."""
    retry = settings(0.0).retry
    hold = Backoff(retry.auth_hold_s, retry.auth_hold_max_s, jitter=0.0)
    return Availability(Backoff(retry.base_s, retry.cap_s, jitter=0.0), hold, lambda: 0.0)


def come_back(plan: Plan) -> Came:
    """The outage ends at 0."""
    dice = random.Random(plan.seed)
    agents = [_agent(plan, number, dice) for number in range(plan.agents)]
    doors = [Door(plan.limits, plan.login, dice.random) for _ in range(plan.gateways)]
    due = [(max(agent.ready_at, 0.0), number) for number, agent in enumerate(agents)]
    heapq.heapify(due)
    connected: list[float] = []
    tries = refused = 0
    while due and due[0][0] < PATIENCE_S:
        now, number = heapq.heappop(due)
        tries += 1
        entered = doors[int(dice.random() * plan.gateways)].connect(now)
        if entered is not None and entered[1]:
            agents[number].progressed()
            connected.append(entered[0])
            continue
        refused += entered is None
        failed_at = now if entered is None else entered[0]
        agents[number].lost(BUSY if entered is None else TOO_SLOW, failed_at)
        heapq.heappush(due, (agents[number].ready_at, number))
    connected.sort()
    return Came(
        connected[-1] if len(connected) == plan.agents else None,
        connected[plan.agents * 9 // 10 - 1] if len(connected) >= plan.agents * 9 // 10 else None,
        tries,
        refused,
        max(door.most_under_way for door in doors),
    )


def _agent(plan: Plan, number: int, dice: random.Random) -> Availability:
    """At the end of the outage."""
    chance = (lambda: 0.5) if plan.alike else dice.random
    agent = naive() if plan.naive else device(f"device-{number}", chance, plan.window_s)
    match plan.outage:
        case Outage.POWER:
            agent.power_up(0.0, plan.outage_s)
        case Outage.POWER_UNKNOWN:
            agent.power_up(0.0, None)
        case Outage.SERVER | Outage.NETWORK:
            _wait_in_vain(agent, -plan.outage_s)
            if plan.outage is Outage.NETWORK:
                agent.network_up(0.0)
    return agent


def _wait_in_vain(agent: Availability, since: float) -> None:
    agent.progressed()
    now = since
    while now < 0:
        agent.lost(DOWN, now)
        now = max(agent.ready_at, now)

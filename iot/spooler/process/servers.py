"""The servers of a process, of which each agent has one: see fallback for which one that is, and when it changes.

A change is the end of one agent and the start of the next, as with a reload: so nothing of a connection, no hint, hold
or wait of one server ever meets the other one. Which one is used survives the process; a drain begins with the first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iot.spooler.agent.agent import Agent
from iot.spooler.agent.assembly import HOLD_JITTER
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown
from iot.spooler.queue.policy import Admission, Backoff
from iot.spooler.server.availability import TO_DO, Availability, ServerState
from iot.spooler.server.fallback import Failover, FailoverRules, Step
from iot.spooler.server.probe import Probe
from iot.spooler.state import held
from iot.transfer import AuthenticationError, ConfiguredRemote, TransferError

__all__ = ["Servers"]

log = logging.getLogger(__name__)

FILE = "fallback.json"
LEAVE_S = 3600.0
"""For what is in flight to end, before it is started over on the other server."""
AskOther = Callable[[ConfiguredRemote, str, "str | None", Callable[[], None]], Probe]


class Servers:
    """settings: all of them. clock: seconds, monotonic. poke: ends a pause of the loop, from any thread."""

    def __init__(
        self,
        settings: Settings,
        random: Callable[[], float],
        clock: Callable[[], float],
        poke: Callable[[], None],
        *,
        drain: bool,
        probe: AskOther = Probe,
    ) -> None:
        self._settings = settings
        self._now = clock
        self._poke = poke
        self._drain = drain
        self._make_probe = probe
        self._probe: Probe | None = None
        self._failover: Failover | None = None
        self._late_at = float("inf")
        self._told = ""
        if settings.fallback is not None:
            self._failover = Failover(_rules(settings), random, is_second=not drain and self._was_second())

    @property
    def is_second(self) -> bool:
        return self._failover is not None and self._failover.is_second

    @property
    def is_leaving(self) -> bool:
        """Whether the agent is to end what is in flight, and to begin nothing any more."""
        return self._failover is not None and self._failover.leaving_since is not None

    @property
    def in_use(self) -> Settings:
        """For the next agent: as if the server that is used were the only one."""
        if not self.is_second:
            return self._settings
        return self._settings.model_copy(update={"server": self._settings.fallback})

    @property
    def hold_file(self) -> str:
        """The record of a hold of the server that is used."""
        return held.FALLBACK_FILE if self.is_second else held.FILE

    def look(self, agent: Agent, cancel: Callable[[], None]) -> bool:
        """At each step of the loop -> whether there is news. cancel: ends what is in flight at once."""
        if self._failover is None or self._drain:
            return False
        now = self._now()
        has_news = self._take_answer(agent, now)
        step = self._failover.look(agent.server, now, may_send=_may_send(agent))
        if step is Step.PROBE:
            self._ask()
        elif step is Step.LEAVE:
            self._leave(agent.server, now, cancel)
        return has_news

    def next_s(self, agent: Agent) -> float:
        """Seconds until the next `look` is due."""
        if self._failover is None or self._drain:
            return float("inf")
        return self._failover.next_s(agent.server, self._now()) if _may_send(agent) else float("inf")

    def wake(self) -> None:
        """Somebody asks for a try at once, or the network is back."""
        if self._failover is not None:
            self._failover.wake()

    def switch(self, link: Availability) -> None:
        """The agent has ended: the next one has the other server. link: what was known of the one that is left."""
        assert self._failover is not None
        before, error = self._address(other=False), link.last_error
        self._failover.switched(link, self._now())
        self._late_at, self._told = float("inf"), ""
        if not self._drain:
            self._record()
        reason = "it answers again" if not self.is_second else error or "it does not answer"
        log.warning("server changed to=%s from=%s reason=%s", shown(self._address(other=False)), before, shown(reason))

    def drains_on(self, link: Availability) -> bool:
        """A drain has ended without the first server -> whether to go on with the second one, which is tried once."""
        if self._failover is None or not self._drain or self.is_second:
            return False
        is_held = link.state is ServerState.HELD
        return self._settings.fallback_when_held if is_held else link.failures >= self._settings.retry.drain_attempts

    def figures(self, wall: float) -> dict[str, Any] | None:
        """For the status: the server that is not used. wall: seconds, the wall clock."""
        if self._failover is None:
            return None
        next_s = self._failover.next_at - self._now()
        error = self._failover.error
        return {
            "server": self._address(other=True),
            "table": "server" if self.is_second else "fallback",
            "next_attempt_at": round(wall + next_s) if next_s > 0 else None,
            "error": shown(str(error)) if error is not None else None,
        }

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    # -- inside

    def _ask(self) -> None:
        other = self._server(other=True)
        log.debug("asking the other server server=%s", shown(other.address))
        self._probe = self._make_probe(other, self._settings.device_id, self._settings.hint_file, self._poke)
        self._probe.start()

    def _take_answer(self, agent: Agent, now: float) -> bool:
        assert self._failover is not None
        probe = self._probe
        if probe is None or not probe.is_over:
            return False
        self._probe = None
        agent.quota.carried_also(probe.wire)
        self._failover.asked(probe.error, agent.server, now, probe.wait_s)
        self._tell(probe.error, now)
        return True

    def _tell(self, error: TransferError | None, now: float) -> None:
        """Each news once; what goes on as it was is for those who debug."""
        assert self._failover is not None
        address, next_s = shown(self._address(other=True)), self._failover.next_at - now
        words = "" if error is None else f"{type(error).__name__}: {error}"
        if isinstance(error, AuthenticationError):
            log.error("other server held server=%s error=%s next_s=%.0f to_do=%s", address, shown(words), next_s, TO_DO)
        elif words:
            level = logging.DEBUG if words == self._told else logging.WARNING
            log.log(level, "other server down server=%s error=%s next_s=%.0f", address, shown(words), next_s)
        else:
            log.info("other server answers server=%s", address)
        self._told = words

    def _leave(self, link: Availability, now: float, cancel: Callable[[], None]) -> None:
        if self._late_at == float("inf"):
            self._late_at = now + (LEAVE_S if link.state is ServerState.CONNECTED else 0.0)
        if now >= self._late_at:
            cancel()

    def _server(self, *, other: bool) -> ConfiguredRemote:
        fallback = self._settings.fallback
        assert fallback is not None
        return fallback if self.is_second is not other else self._settings.server

    def _address(self, *, other: bool) -> str:
        return self._server(other=other).address

    @property
    def _path(self) -> Path:
        return self._settings.state_dir / FILE

    def _was_second(self) -> bool:
        """Another fallback than the one that was used is not used before it is needed."""
        try:
            found = json.loads(self._path.read_bytes())
            return bool(self._settings.fallback and found["account"] == self._settings.fallback.account)
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def _record(self) -> None:
        try:
            if not self.is_second:
                self._path.unlink(missing_ok=True)
                return
            fresh = self._path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(json.dumps({"account": self._server(other=False).account}), encoding="utf-8")
            fresh.rename(self._path)
        except OSError as error:
            log.warning("cannot record which server is used error=%s", shown(str(error)))


def _may_send(agent: Agent) -> bool:
    return any(allowed.admission is not Admission.NONE for allowed in agent.gates.allowed_up_to(Admission.ALL).values())


def _rules(settings: Settings) -> FailoverRules:
    retry = settings.retry
    check = Backoff(settings.fallback_check_s, max(settings.fallback_check_s, retry.cap_s))
    hold = Backoff(retry.auth_hold_s, retry.auth_hold_max_s, HOLD_JITTER)
    after_s, back_after_s = settings.fallback_after_s, settings.fallback_back_after_s
    return FailoverRules(after_s, back_after_s, settings.fallback_when_held, check, hold)

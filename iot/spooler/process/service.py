"""The process around the loop: lock, journal, signals, systemd.

Signals: TERM and INT end it within seconds (parts and checkpoints stay for the resume), HUP reloads the configuration,
USR1 means "scan and try now" (the network is up), USR2 also "send past the schedule" (`flush`). It sends READY, STATUS,
RELOADING and STOPPING to systemd, and feeds the watchdog only when the loop has made progress, never by a timer.

A configuration that is refused changes nothing: it is read while the agent goes on. While the server is held, a change
of the configuration or of a file that the login depends on is taken for a HUP.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from sdnotify import SystemdNotifier

from iot.spooler.agent.agent import Agent, Wake
from iot.spooler.agent.draining import End
from iot.spooler.agent.sender import Totals
from iot.spooler.config.changes import Changes
from iot.spooler.config.exposure import exposed_secrets
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.process.nudges import Nudges, nudges_of
from iot.spooler.process.obeying import Commands, commands
from iot.spooler.process.servers import Servers
from iot.spooler.process.starting import allow_open_files, refuse_taken_outboxes, tell_start
from iot.spooler.process.wakeups import Wakeups
from iot.spooler.server.availability import TO_DO, Availability, Remote, ServerState
from iot.spooler.server.herd import Phased
from iot.spooler.state.contact import LastContact
from iot.spooler.state.held import Held
from iot.spooler.state.journal_location import JournalLocation
from iot.spooler.state.lock import locked
from iot.spooler.state.power_cut import PowerCut, running
from iot.spooler.state.running import STATUS, announced, control_path, status_path
from iot.spooler.status.status import StatusFile, summary
from iot.transfer import Journal, TransferError

__all__ = ["Service", "run"]

log = logging.getLogger(__name__)

MENDED_MAX = 16
EARLY = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What may be sent to an agent that is not ready yet, since its lock names it before: kept until it is."""
CLOCKS = Clocks(time.monotonic, time.time)
MakeRemote = Callable[[Settings, Journal], Remote]


def run(config: Path | None, environment: Mapping[str, str], *, drain: bool) -> End:
    """Run the agent until it is stopped or drained.

    Raises: BadConfiguration, AlreadyRunning, DiskFull, JournalUnavailable.
    """
    service = Service(config, environment, drain=drain)
    with service.handled(*EARLY):
        settings = load(config, environment)
        logging.getLogger().setLevel(settings.log_level.upper())
        allow_open_files()
        for line in exposed_secrets(settings, config, environment):
            log.warning("secret exposed reason=%s", shown(line))
        tell_start(settings)
        state = settings.state_dir
        status, _ = status_path(config, state, environment)
        with locked(state), running(state) as service.power_cut, announced(config, state, status, environment):
            location = JournalLocation(settings, time.monotonic)
            path = control_path(config, state, environment)
            try:
                with commands(path, settings.control.group, service.watch, CLOCKS.monotonic) as service.control:
                    return service.run(settings, location)
            finally:
                location.close()


class Service:
    """Signals and systemd for a series of agents: a reload starts a new one on the same journal, and so does free space
    for the journal on a disk that was full."""

    def __init__(
        self,
        config: Path | None,
        environment: Mapping[str, str],
        *,
        drain: bool = False,
        make_remote: MakeRemote | None = None,
    ) -> None:
        self._config = config
        self._environment = environment
        self._drain = drain
        self._make_remote = make_remote or (
            lambda settings, journal: settings.server.remote(journal, settings.device_id)
        )
        self._notify: Callable[[str], None] = SystemdNotifier().notify
        self._watchdog_s = int(environment.get("WATCHDOG_USEC") or 0) / 2e6
        self._fed_at = float("-inf")
        self._terminate = self._reload_asked = self._ready = self._started = self._held = False
        self._wake: Wake | None = None
        self._mended, self._mended_again_at = 0, float("-inf")
        self._fresh: Settings | None = None
        self._changes = Changes((), CLOCKS.monotonic)
        self._totals = Totals()
        self._began_at = CLOCKS.monotonic()
        self._settings: Settings | None = None
        self._location: JournalLocation | None = None
        self._hold: Held | None = None
        self._may_be_held = True
        self._contact: LastContact | None = None
        self._remote: Remote | None = None
        self._server: Availability | None = None
        self._servers: Servers | None = None
        self._status: StatusFile | None = None
        self._wakeups = Wakeups()
        self._agent: Agent | None = None
        self.control: Commands | None = None
        self._nudges: Nudges | None = None
        self.power_cut: PowerCut | None = None

    def run(self, settings: Settings, location: JournalLocation) -> End:
        """One agent after another, until stopped or drained."""
        self._location = location
        with self.handled(signal.SIGTERM, signal.SIGINT, *EARLY):
            self._servers = servers = self._servers_of(settings)
            while True:
                end = self._one_agent(servers.in_use, location.journal)
                location.move()
                if self._changes_server(servers, end):
                    continue
                if end is not End.STOPPED or self._terminate:
                    servers.close()
                    self._notify("STOPPING=1")
                    self._tell_stop(end)
                    if self._contact is not None:
                        self._contact.end()
                    if self._status is not None:
                        self._status.keep(settings.state_dir / STATUS)
                    return end
                if self._fresh is not None:
                    servers.close()
                    settings, self._fresh, self._server = self._fresh, None, None
                    self._servers = servers = self._servers_of(settings)

    def _servers_of(self, settings: Settings) -> Servers:
        chance = Phased(settings.device_id, random.random)
        return Servers(settings, chance, CLOCKS.monotonic, self._wakeups.poke, drain=self._drain)

    def _changes_server(self, servers: Servers, end: End) -> bool:
        """Whether the next agent is there for the other server, of which nothing is known yet."""
        if self._terminate or self._fresh is not None or self._server is None:
            return False
        if not servers.is_leaving and not (end is End.REMAINS and servers.drains_on(self._server)):
            return False
        servers.switch(self._server)
        self._server, self._may_be_held = None, self._drain  # a service has just been let in
        return True

    def _one_agent(self, settings: Settings, journal: Journal) -> End:
        path, in_memory = status_path(self._config, settings.state_dir, self._environment)
        self._status = StatusFile(path, CLOCKS, in_memory=in_memory)
        self._settings = settings
        files = [self._config] if self._config is not None else []
        self._changes = Changes(files + settings.server.login_files(), CLOCKS.monotonic)
        remote = self._remote = self._make_remote(settings, journal)
        chance = Phased(settings.device_id, random.random)
        agent = self._agent = Agent(  # a reload is somebody's wish to try now
            settings, journal, remote, self, CLOCKS, chance, drain=self._drain, totals=self._totals, anew=self._started
        )
        if self._server is not None:
            agent.server.take_over(self._server)
        self._server = agent.server
        for intake in agent.intakes:
            intake.cut = self.power_cut
        assert self._servers is not None
        agent.other_server = self._servers.figures
        self._hold = Held(settings, self._config, file=self._servers.hold_file)
        if not self._started:
            refuse_taken_outboxes(agent)
        if self._may_be_held:
            self._take_over_hold(self._hold, agent)
        if not self._started and not self._drain:
            self._contact = LastContact(settings.state_dir)
            self._contact.take_turn(agent.server, CLOCKS.monotonic())
        self._started, self._may_be_held = True, False
        self._ready = self._ready and self._say_ready(agent)
        self._nudges = nudges_of(settings, self._environment, self._wakeups.watch, agent.server, CLOCKS.monotonic)
        try:
            return agent.run()
        finally:
            self._nudges.close()
            self._remote = None
            remote.close()

    def _tell_stop(self, end: End) -> None:
        backlog = self._status.latest["backlog"] if self._status is not None and self._status.latest else {}
        log.info(
            "stopped reason=%s delivered=%d bytes=%d left=%s s=%.0f",
            end.name.lower(),
            self._totals.files,
            self._totals.bytes,
            backlog.get("files", "unknown"),
            time.monotonic() - self._began_at,
        )

    def _take_reload(self) -> None:
        """Read the configuration; a good one ends this agent for the next, a bad one is told and nothing else."""
        self._reload_asked = False
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        self._fresh = self._read_again()
        if self._fresh is None:
            self._notify("READY=1")
            return
        self._ready = True  # said again by the next agent
        if self._remote is not None:
            self._remote.cancel()

    def _read_again(self) -> Settings | None:
        try:
            fresh = load(self._config, self._environment)
        except BadConfiguration as error:
            for problem in error.problems:
                log.error("reload refused setting=%s", shown(problem))
            return None
        if self._settings is not None and fresh.state_dir != self._settings.state_dir:
            log.error("reload refused setting=state_dir reason=%s", shown("needs a restart"))
            return None
        logging.getLogger().setLevel(fresh.log_level.upper())
        log.info("reloaded")
        return fresh

    def _take_over_hold(self, hold: Held, agent: Agent) -> None:
        """Of an earlier process; a reload tries at once, since somebody has asked for it."""
        left_s = hold.restore(agent.server, CLOCKS.monotonic())
        if left_s is not None:
            log.warning(
                "link held since an earlier run error=%s next_s=%.0f to_do=%s",
                shown(agent.server.last_error or ""),
                left_s,
                shown(TO_DO),
            )

    def _record_hold(self, agent: Agent) -> None:
        if self._hold is None:
            return
        try:
            self._hold.follow(agent.server, CLOCKS.monotonic())
        except OSError as error:
            log.warning("cannot record the hold error=%s", shown(str(error)))
            self._hold = None  # said once

    def _watch_hold(self, agent: Agent) -> None:
        """A file that somebody rewrites all the time must not lead to a login each time: the server would ban us."""
        self._record_hold(agent)
        self._held = agent.server.state is ServerState.HELD
        if agent.server.state is ServerState.CONNECTED:
            self._mended = 0
        now = CLOCKS.monotonic()
        changed = self._changes.next() if self._held and now >= self._mended_again_at else None
        if changed is not None:
            self._tell_change(changed)
            self._reload_asked = True
            wait_s = min(Changes.every_s * 2**self._mended, agent.settings.retry.auth_hold_s)
            self._mended_again_at = now + max(wait_s, Changes.every_s)
            self._mended = min(self._mended + 1, MENDED_MAX)

    def _tell_change(self, changed: Path) -> None:
        log.info("changed while the server is held path=%s", shown(str(changed)))

    # -- what the loop asks (agent.Loop)

    def stopping(self) -> bool:
        return (
            self._terminate
            or self._fresh is not None
            or (self._servers is not None and self._servers.is_leaving)
            or (self._location is not None and self._location.has_room_again())
        )

    def alive(self) -> None:
        if self._reload_asked and self._fresh is None:
            self._take_reload()
        now = time.monotonic()
        if self._watchdog_s and now - self._fed_at >= self._watchdog_s / 2:
            self._fed_at = now
            self._notify("WATCHDOG=1")

    def pause(self, seconds: float) -> None:
        limit_s = min(seconds, self._watchdog_s / 2) if self._watchdog_s else seconds
        if self.control is not None:
            limit_s = min(limit_s, self.control.drop_late())
        if self._status is not None:
            limit_s = min(limit_s, self._status.due_s())
        if self._held:
            limit_s = min(limit_s, Changes.every_s)
        if self._nudges is not None:
            limit_s = min(limit_s, self._nudges.next_s())
        if self._servers is not None and self._agent is not None:
            limit_s = min(limit_s, self._servers.next_s(self._agent))
        self._act(min(limit_s, 3600.0))

    def _act(self, seconds: float) -> None:
        for act in self._wakeups.wait(seconds):
            act()

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        return self._wakeups.watch(descriptor, act)

    def woken(self) -> Wake | None:
        """Who asks for a try at a held server has mended the login: that is read first, and the next agent tries."""
        self._act(0.0)
        if self.control is not None and self._agent is not None and self._fresh is None:
            self._wake = self.control.obeyed(self._agent) or self._wake
        if self._wake is not None and self._held and self._fresh is None:
            changed = self._changes.look_now()
            if changed is not None:
                self._tell_change(changed)
                self._take_reload()
                self._wakeups.poke()  # the next agent does not wait for the pause of this one
        if self._fresh is not None:
            return None
        why, self._wake = self._wake, None
        why = why or (Wake.NUDGE if self._nudges is not None and self._nudges.due() else None)
        if why is not None and self._servers is not None:
            self._servers.wake()
        return why

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        if not self._ready:
            self._ready = self._say_ready(agent)
        self._watch_hold(agent)
        if self._servers is not None and self._remote is not None:
            changed = self._servers.look(agent, self._remote.cancel) or changed
        if self._contact is not None:
            self._contact.follow(agent.server.state, self._totals.files + self._totals.bytes, CLOCKS.monotonic())
        try:
            news = self._status is not None and self._status.report(agent, changed=changed, final=final)
        except TransferError as error:
            log.warning("cannot write the status error=%s", shown(str(error)))  # the loop reports it, too
            return
        if news:
            self._notify(f"STATUS={summary(self._status.latest if self._status else None)}")

    def _say_ready(self, agent: Agent) -> bool:
        """READY when the settings are valid and an outbox can be read; the status reports the others."""
        for intake in agent.intakes:
            try:
                os.close(intake.outbox.open())
            except SourceFailed:
                continue
            self._notify("READY=1")
            return True
        return False

    # -- signals

    @contextlib.contextmanager
    def handled(self, *numbers: signal.Signals) -> Iterator[None]:
        """These signals count for the time of a with-block, also before there is an agent."""
        handlers = {
            signal.SIGTERM: self._on_terminate,
            signal.SIGINT: self._on_terminate,
            signal.SIGHUP: self._on_reload,
            signal.SIGUSR1: self._on_wake,
            signal.SIGUSR2: self._on_flush,
        }
        before = {number: signal.signal(number, handlers[number]) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._terminate = True
        if self._remote is not None:
            self._remote.cancel()
        self._wakeups.poke()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True
        self._wakeups.poke()

    def _on_wake(self, _number: int, _frame: FrameType | None) -> None:
        self._wake = self._wake or Wake.TRY
        self._wakeups.poke()

    def _on_flush(self, _number: int, _frame: FrameType | None) -> None:
        self._wake = Wake.FLUSH
        self._wakeups.poke()

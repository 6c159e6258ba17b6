"""A device in this process: the real agent and client, with a clock, a disk and a life that a test decides about.

It is started, run for a while, and crashes at a chosen step: then its objects are dropped as they are, and the next one
works on what its files were at that moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from unlinked_at_once import UnlinkedAtOnce

from iot.sftp.client import EmbeddedServer, Journal, LocalStateError
from iot.spooler.agent.agent import Agent
from iot.spooler.config.settings import Settings
from iot.spooler.leaving import owed, removal
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.spooler.server.availability import Remote
from iot.transfer import beneath
from iot.transfer.journal import checkpoints
from iot.transfer.model import Span
from iot.transfer.source import Source

__all__ = ["Crash", "Device"]

TICKS_MAX = 20_000


class Crash(BaseException):
    """The process ends here: nobody catches this."""


class Life:
    """What surrounds the agent's loop (agent.Loop): fake time, crashes, and what others do meanwhile.

    later: what happens after so many signs of life of the agent, while it works.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall_offset_s = time.time() - self.now
        self.pauses_left = 0
        self.ticks = 0
        self.later: list[tuple[int, Callable[[], None]]] = []

    def clock(self) -> float:
        self.now += 1e-5
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset_s

    def stopping(self) -> bool:
        return self.pauses_left <= 0 or self.ticks > TICKS_MAX

    def alive(self) -> None:
        """A sign of life, also given with every block that is read to be sent."""
        self.ticks += 1
        due = [act for at, act in self.later if at <= self.ticks]
        self.later = [(at, act) for at, act in self.later if at > self.ticks]
        for act in due:
            act()

    def pause(self, seconds: float) -> None:
        self.pauses_left -= 1
        self.now += max(seconds, 0.001)

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def woken(self) -> None:
        """Nobody wakes it."""

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        pass


class Device:
    """folder: its files. outbox: further settings of the outbox."""

    def __init__(self, folder: Path, server: EmbeddedServer, **outbox: Any) -> None:
        self.box = folder / "box"
        self.box.mkdir(parents=True)
        self.life = Life()
        self.disk_full = False
        self._folder = folder
        self._server = server
        self._outbox = {"path": str(self.box), "destination": "/up", **outbox}
        self._boots = 0
        self._crash_in = 0
        self._journal: Journal | None = None
        self._remote: Remote | None = None
        self._agent: Agent | None = None
        self._patches = contextlib.ExitStack()
        self._install()

    @property
    def state(self) -> Path:
        return self._folder / f"state{self._boots}"

    def run(self, pauses: int, *, crash_in: int = 0) -> bool:
        """Let the agent work until it has paused so often, or crash at its n-th durable step; whether it crashed."""
        self.life.pauses_left, self.life.ticks = pauses, 0
        self._crash_in = crash_in
        try:
            if self._agent is None:
                self._start()
            assert self._agent is not None
            self._agent.run()
        except LocalStateError:
            self._drop()  # the start was refused: a full disk. systemd tries again
        except Crash:
            self._drop()
            return True
        finally:
            self._crash_in = 0
        assert self.life.ticks <= TICKS_MAX, "the agent works and works and never pauses"
        return False

    def shut_down(self) -> None:
        self._drop()
        self._patches.close()

    def lose_journal(self) -> None:
        """Between two boots its content turns to rubbish."""
        self._snapshot()
        self._drop()
        path = self.state / "journal.db"
        if path.exists():
            path.write_bytes(os.urandom(path.stat().st_size))
            (self.state / "journal.db-wal").unlink(missing_ok=True)

    # -- inside

    def _start(self) -> None:
        settings = Settings.model_validate(
            {
                "state_dir": str(self.state),
                "device_id": "gw",
                "small_file_bytes": 1000,
                "server": {
                    "host": self._server.host,
                    "port": self._server.port,
                    "user": self._server.user,
                    "password": self._server.password,
                    "host_key": self._server.host_key,
                    "link_deadline_s": 5,
                    "checkpoint_s": 0.01,
                    "chunk_size": 100_000,
                },
                "retry": {"max_attempts": 3},
                "outbox": [self._outbox],
            }
        )
        self._journal = Journal(settings.state_dir, QUEUE_SCHEMA)
        self._remote = settings.server.remote(self._journal, settings.device_id)
        clocks = Clocks(self.life.clock, self.life.wall)
        self._agent = Agent(settings, self._journal, self._remote, self.life, clocks, lambda: 0.0)

    def _drop(self) -> None:
        """The kernel closes the sockets of a process that died; nothing else is done for it."""
        if self._remote is not None:
            self._remote.disconnect()
        for intake in self._agent.intakes if self._agent is not None else ():
            intake.outbox.release()
        self._agent = self._remote = self._journal = None

    def _snapshot(self) -> None:
        """What the files of the state directory are now is what the next boot finds."""
        before = self.state
        self._boots += 1
        if not before.exists():
            return
        self.state.mkdir()
        for path in before.iterdir():
            if not path.name.endswith("-shm") and path.is_file():
                shutil.copy2(path, self.state / path.name)
            elif path.is_dir():
                path.rename(self.state / path.name)  # archive and quarantine: files that were moved, not state

    def _install(self) -> None:
        """Every durable step of the agent's thread is a place to die at; the journal's disk may be full."""
        transact = Journal._transact

        def on_this_disk(journal: Journal, work: Callable[[sqlite3.Connection], Any]) -> Any:
            if self.disk_full:
                raise sqlite3.OperationalError("database or disk is full")
            self._step()
            try:
                return transact(journal, work)
            finally:
                self._step()

        read = Source.read

        def and_meanwhile(source: Source, span: Span) -> bytes:
            data = read(source, span)
            if threading.current_thread() is threading.main_thread():
                self._step()
                self.life.alive()
            return data

        wall = SimpleNamespace(time=self.life.wall, monotonic=time.monotonic)
        for target, name, value in (
            (Journal, "_transact", on_this_disk),
            (Source, "read", and_meanwhile),
            (removal, "rename_noreplace", self._dying(beneath.rename_noreplace)),
            (owed, "Unlinker", UnlinkedAtOnce),
            (os, "unlink", self._dying(os.unlink)),
            (os, "fsync", self._dying(os.fsync)),
            (checkpoints, "time", wall),
        ):
            self._patches.enter_context(patch.object(target, name, value))

    def _dying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            self._step()
            result = call(*arguments, **keywords)
            self._step()
            return result

        return wrapped

    def _step(self) -> None:
        if not self._crash_in or threading.current_thread() is not threading.main_thread():
            return
        self._crash_in -= 1
        if self._crash_in == 0:
            self._snapshot()
            raise Crash


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())

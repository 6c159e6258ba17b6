"""The agent's process in the laboratory: it pauses when it is told to, and every step that it takes is seen."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faults.lab_hooks import commands_of
from faults.lab_remote import LabRemote
from faults.lab_world import Clock, Order, User
from unlinked_at_once import UnlinkedAtOnce

from iot.sftp.client import Journal, LocalStateError
from iot.spooler.agent.agent import Agent
from iot.spooler.config.load import load
from iot.spooler.hooks import calls
from iot.spooler.leaving import owed
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA

__all__ = ["Loop", "be_agent", "be_quiet"]

CALLS = ("fsync", "unlink", "rename", "replace", "link", "mkdir", "rmdir", "open", "stat", "scandir")
STEPS_MAX = 200_000


def be_agent(line: Connection, config: Path, root: Path, clock: Clock, user: User, log: Path) -> None:
    try:
        be_quiet(log)
        os.closerange(3, line.fileno())
        os.closerange(line.fileno() + 1, 4096)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        loop = Loop(line, clock)
        with _every_step_seen(loop.step), patch.object(calls, "Command", commands_of(loop)):
            _work(loop, config, root, clock)
        line.send(("ended",))
    except LocalStateError as error:
        traceback.print_exc()
        line.send(("refused", str(error)))  # systemd tries again
    except BaseException:  # noqa: BLE001  a process ends here
        line.send(("broken", traceback.format_exc()))


def be_quiet(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  for the life of this process
    faulthandler.enable(sys.stderr)
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stderr, force=True)


def _work(loop: Loop, config: Path, root: Path, clock: Clock) -> None:
    loop.wait()
    settings = load(config, {})
    journal = Journal(settings.state_dir, QUEUE_SCHEMA)
    remote = LabRemote(root, loop, journal)
    try:
        clocks = Clocks(clock.tick, lambda: clock.wall)
        Agent(settings, journal, remote, loop, clocks, lambda: 0.0).run()
    finally:
        remote.close()
        journal.close()


class Loop:
    """What surrounds the agent: it pauses when the laboratory says so, and every step is counted."""

    def __init__(self, line: Connection, clock: Clock) -> None:
        self.line = line
        self.order = Order(0, 0, frozenset(), 0, away=False, mood="good", stop=False)
        self._clock = clock
        self._thread = threading.get_ident()
        self._is_seen = True
        self._steps = 0
        self._left = 0

    def wait(self) -> None:
        """For the next order."""
        self.order = self.line.recv()
        self._left = self.order.pauses
        self._steps = 0

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """What is done meanwhile is no step: nobody acts there."""
        self._is_seen = False
        try:
            yield
        finally:
            self._is_seen = True

    def step(self) -> None:
        if not self._is_seen or threading.get_ident() != self._thread:
            return
        self._steps += 1
        assert self._steps < STEPS_MAX, "the agent works and works and never pauses"
        if self._steps == self.order.at_step:
            self.line.send(("step",))
            self.line.recv()

    def stopping(self) -> bool:
        return self.order.stop

    def alive(self) -> None:
        pass

    def pause(self, seconds: float) -> None:
        self._clock.passes(max(seconds, 0.001))
        self._left -= 1
        if self._left <= 0 and not self.order.stop:
            self.line.send(("paused",))
            self.wait()

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def woken(self) -> None:
        """Nobody wakes it."""

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        pass


@contextlib.contextmanager
def _every_step_seen(step: Callable[[], None]) -> Iterator[None]:
    """Before each call of CALLS, each commit, and each rename that replaces nothing."""

    def seen(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            step()
            return call(*arguments, **keywords)

        return wrapped

    targets = [(os, name) for name in CALLS] + [(Journal, "_transact")]
    rooms = [module for name, module in sys.modules.items() if name.startswith("iot.spooler.")]
    renaming = [(room, "rename_noreplace") for room in rooms if hasattr(room, "rename_noreplace")]
    assert renaming, "renaming without replacing has another name now: tell it here"
    with contextlib.ExitStack() as patches:
        for target, name in targets + renaming:
            patches.enter_context(patch.object(target, name, seen(getattr(target, name))))
        can = {getattr(os, name) for name in CALLS}
        patches.enter_context(patch.object(os, "supports_dir_fd", os.supports_dir_fd | can))
        patches.enter_context(patch.object(owed, "Unlinker", UnlinkedAtOnce))  # steps come one after the other
        yield

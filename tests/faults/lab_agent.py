"""The real agent in a process of its own, stopped between any two steps so that others can act there, or killed there.

    agent = LabAgent(config, server, user)
    agent.run(5)                            # until it has paused so often
    agent.run(5, at_step=17, act=append)    # and before its 17th step the producer appends
    agent.run(5, at_step=17)                # or it is killed there

A step is a call that looks at or changes a file, a commit of the journal, or a block that is sent. Both processes never
run together. Time is a number that both see; it passes while the agent pauses. The remote is a folder.
"""

from __future__ import annotations

import codecs
import functools
import importlib
import os
import pkgutil
import signal
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faults.lab_process import be_agent, be_quiet
from faults.lab_world import Clock, Order, Published, Server, User

import iot.folder
import iot.sftp.client
import iot.spooler
import iot.transfer
from iot.spooler.cli import main as cli
from iot.spooler.leaving import release

__all__ = ["LabAgent"]

HANGS_S = 60.0
LOG_CHARACTERS = 40_000


class LabAgent:
    """config: its configuration file. user: whom it runs as. log: where its log goes. on_death: called when a hook has
    killed it."""

    def __init__(
        self, config: Path, server: Server, clock: Clock, user: User, log: Path, on_death: Callable[[], None]
    ) -> None:
        self.kills = 0
        self._on_death = on_death
        self._config = config
        self._server = server
        self._clock = clock
        self._user = user
        self._log = log
        self._pid = 0
        self._line: Connection | None = None

    @property
    def running(self) -> bool:
        return self._line is not None

    def run(self, pauses: int, *, at_step: int = 0, act: Callable[[], None] | None = None) -> bool:
        """Let it work until it has paused so often -> whether step `at_step` came (and was acted at, or its last)."""
        server = self._server
        order = Order(
            pauses, at_step, frozenset(server.refused), server.cut_after, server.away, server.mood, stop=False
        )
        return self._go(order, act)

    def stop(self) -> None:
        """Ask it to end, as SIGTERM and SIGHUP do."""
        if self.running:
            self._go(Order(0, 0, frozenset(), 0, away=False, mood=self._server.mood, stop=True), None)
        assert not self.running, "it does not stop"

    def kill(self) -> None:
        if self._line is None:
            return
        os.kill(self._pid, signal.SIGKILL)
        self.kills += 1
        self._over()

    def tell(self, words: str) -> None:
        """A line in its log."""
        with self._log.open("a") as log:
            log.write(f"-- {self._clock.now:.3f} {words}\n")

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:] if self._log.exists() else ""

    def operator(self, *command: str) -> int:
        """Run a command of iot-spooler as root (or as who we are) -> its exit code."""
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                be_quiet(self._log)
                release.LOCK_WAIT_S = 0.0  # the agent may stand still in the middle of a move until we are done
                code = cli.main([*command, "--config", str(self._config)])
            except BaseException:  # noqa: BLE001  a process ends here
                traceback.print_exc()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # -- inside

    def _go(self, order: Order, act: Callable[[], None] | None) -> bool:
        if self._line is None:
            self._start()
        assert self._line is not None
        self._line.send(order)
        stepped = False
        while True:
            word, *rest = self._heard()
            if self._is_noted(word, rest):
                continue
            if word == "dying":
                self._over()
                self._on_death()
                return stepped
            elif word == "step":
                stepped = True
                if act is None:
                    self.kill()
                    return True
                act()
                self._line.send(None)
            elif word == "paused":
                return stepped
            else:
                self._over()
                assert word in ("ended", "refused"), f"the agent broke:\n{rest[0]}"
                return stepped

    def _is_noted(self, word: str, rest: list[Any]) -> bool:
        """Whether that was news of the server, or of a hook."""
        server = self._server
        if word == "begun":
            server.begun.append(*rest)
        elif word == "published":
            server.published.append(Published(*rest, self._clock.wall))
        elif word == "cut":
            server.cut_after = 0
        elif word == "judged":
            server.judged.append(*rest)
        elif word == "removed":
            server.removes(*rest)
            assert self._line is not None
            self._line.send(None)
        else:
            return False
        return True

    def _heard(self) -> tuple[Any, ...]:
        assert self._line is not None
        if not self._line.poll(HANGS_S):
            os.kill(self._pid, signal.SIGABRT)
            self._over()
            raise AssertionError("the agent hangs")
        try:
            return tuple(self._line.recv())
        except EOFError:
            self._over()
            raise AssertionError("the agent died") from None

    def _start(self) -> None:
        _import_all()
        ours, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                be_agent(theirs, self._config, self._server.root, self._clock, self._user, self._log)
            finally:
                os._exit(0)
        theirs.close()
        self._line = ours

    def _over(self) -> None:
        assert self._line is not None
        self._line.close()
        self._line = None
        os.waitpid(self._pid, 0)


@functools.cache
def _import_all() -> None:
    """The agent's user may have no way to where Python's own files lie."""
    for package in (iot.transfer, iot.folder, iot.sftp.client, iot.spooler):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in ("ascii", "latin-1", "idna"):
        codecs.lookup(name)

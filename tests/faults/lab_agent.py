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
import contextlib
import faulthandler
import functools
import importlib
import logging
import mmap
import os
import pkgutil
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from faults.lab_hooks import Judged, commands_of
from unit.folder_remote import FolderRemote
from unlinked_at_once import UnlinkedAtOnce

import iot.folder
import iot.sftp.client
import iot.spooler
import iot.transfer
from iot.folder import FolderClient
from iot.sftp.client import Failure, Journal, LinkLost, LocalStateError, PermissionDenied, Proof, TransferResult
from iot.spooler.agent.agent import Agent
from iot.spooler.cli import main as cli
from iot.spooler.config.load import load
from iot.spooler.hooks import calls
from iot.spooler.leaving import owed, release
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.transfer.errors import SFTPError, SourceChanged
from iot.transfer.model import Span
from iot.transfer.source import Source

__all__ = ["Clock", "LabAgent", "Published", "Server", "User", "as_root", "as_user"]

CALLS = ("fsync", "unlink", "rename", "replace", "link", "mkdir", "rmdir", "open", "stat", "scandir")
BLOCK = 1000
HANGS_S = 60.0
FAT_TIME_S = 2
"""A life begins at a whole time of FAT, so that what is cut off its times is always the same."""
LOG_CHARACTERS = 40_000
STEPS_MAX = 200_000


class User(NamedTuple):
    uid: int
    gid: int


ROOT = User(0, 0)


@contextlib.contextmanager
def as_user(user: User) -> Iterator[None]:
    """What this process does meanwhile, it does as that user."""
    if os.geteuid() != 0 or user.uid == 0:
        yield
        return
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextlib.contextmanager
def as_root() -> Iterator[None]:
    """Within as_user: what no user may hide from the laboratory."""
    uid = os.geteuid()
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(uid)


class Clock:
    """Monotonic and wall clock of the laboratory, seen by the agent's process and by ours."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self._set(1000.0, time.time() // FAT_TIME_S * FAT_TIME_S - 1000.0)

    @property
    def now(self) -> float:
        return self._get()[0]

    @property
    def wall(self) -> float:
        return sum(self._get())

    def passes(self, seconds: float) -> None:
        now, offset = self._get()
        self._set(now + seconds, offset)

    def tick(self) -> float:
        """A look at the monotonic clock takes a moment, too."""
        self.passes(1e-5)
        return self.now

    def _get(self) -> tuple[float, float]:
        values: tuple[float, float] = struct.unpack("dd", self._memory[:])
        return values

    def _set(self, *values: float) -> None:
        self._memory[:] = struct.pack("dd", *values)


class Removed(NamedTuple):
    """What the agent has taken away from the server; local: what had its name in the inbox at that moment."""

    name: str
    content: bytes
    local: bytes | None


class Published(NamedTuple):
    """wall: when, on the laboratory's wall clock."""

    dest: str
    content: bytes
    wall: float


@dataclass
class Server:
    """A server that is a folder. published: everything that ever got a final name. begun: destinations of jobs.

    refused: parts of names that it refuses for good. cut_after: the link is lost after so many deliveries, once.
    away: it cannot be reached. mood: of the hooks; judged: what they said. inbox: where files of it go.
    """

    root: Path
    refused: set[str] = field(default_factory=set)
    cut_after: int = 0
    away: bool = False
    published: list[Published] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    mood: str = "good"
    judged: list[Judged] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)
    inbox: Path | None = None

    def removes(self, name: str, content: bytes) -> None:
        assert self.inbox is not None
        place = self.inbox / name
        self.removed.append(Removed(name, content, place.read_bytes() if place.is_file() else None))


class Order(NamedTuple):
    """What the agent's process is told: how often it may pause, which step to stop at, how the server is."""

    pauses: int
    at_step: int
    refused: frozenset[str]
    cut_after: int
    away: bool
    mood: str
    stop: bool


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
                _quiet(self._log)
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
                _be_agent(theirs, self._config, self._server.root, self._clock, self._user, self._log)
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


# -- in the agent's process


def _be_agent(line: Connection, config: Path, root: Path, clock: Clock, user: User, log: Path) -> None:
    try:
        _quiet(log)
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


def _quiet(log: Path) -> None:
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


class LabRemote(FolderRemote):
    """Reads a source as the client does, in blocks, and publishes with a rename; says everything it does.

    Downloads are those of the product's client of a folder. Between a look at a remote file and its removal nobody
    acts: no protocol excludes that.
    """

    def __init__(self, root: Path, loop: Loop, journal: Journal) -> None:
        super().__init__(root)
        self._loop = loop
        self._client = FolderClient(root, journal=journal, connections=1, backoff_s=0.0, attempts=1)

    def download_many(self, jobs: Any, **keywords: Any) -> Iterator[Any]:
        self._reach()
        for number, outcome in enumerate(self._client.download_many(jobs, **keywords), 1):
            self._loop.step()  # the answer may be lost
            yield outcome
            if number == self._loop.order.cut_after:
                self._loop.line.send(("cut",))
                self._loop.order = self._loop.order._replace(cut_after=0)
                raise LinkLost("cut")

    def scan(self, path: str, **keywords: Any) -> Any:
        self._reach()
        with self._loop.unseen():
            return self._client.scan(path, **keywords)

    def stat(self, path: str) -> Any:
        self._reach()
        with self._loop.unseen():
            return self._client.stat(path)

    def delete(self, path: str) -> None:
        self._removing(path)
        with self._loop.unseen():
            self._client.delete(path)
        self._loop.step()

    def move(self, source: str, dest: str) -> None:
        self._removing(source)
        with self._loop.unseen():
            self._client.move(source, dest)
        self._loop.step()

    def close(self) -> None:
        self._client.close()

    def _reach(self) -> None:
        self._loop.step()
        if self._loop.order.away:
            raise LinkLost("no route to the server")

    def _removing(self, path: str) -> None:
        with self._loop.unseen():
            content = (self.root / path.lstrip("/")).read_bytes()
        self._loop.line.send(("removed", path.lstrip("/").partition("/")[2], content))
        self._loop.line.recv()

    def upload_many(self, jobs: Any, **keywords: Any) -> Iterator[Any]:
        order = self._loop.order
        self.lose_after = [order.cut_after] if order.cut_after else []
        if order.away:
            raise LinkLost("no route to the server")
        for outcome in super().upload_many(jobs, **keywords):
            if isinstance(outcome, Failure) and isinstance(outcome.error, LinkLost):
                self._loop.line.send(("cut",))
                self._loop.order = self._loop.order._replace(cut_after=0)
            yield outcome

    def _deliver(self, job: Any) -> TransferResult | Failure:
        try:
            self._loop.line.send(("begun", job.dest))
            if any(word in job.dest for word in self._loop.order.refused):
                raise PermissionDenied(f"{job.dest!r} is not taken here")
            return self._publish(job)
        except SFTPError as error:
            return Failure(job.key, job.source, job.dest, error)

    def _publish(self, job: Any) -> TransferResult:
        source = Source(job.source)
        try:
            if source.fingerprint != job.fingerprint:
                raise SourceChanged("another version")
            size = source.fingerprint.size
            content = b"".join(source.read(Span(at, min(at + BLOCK, size))) for at in self._blocks(size))
            source.check_unchanged()
        finally:
            source.close()
        target = self.root / job.dest.lstrip("/")
        stands = job.check_final and target.is_file() and target.read_bytes() == content
        if not stands:
            self._put(target, content)
            self._loop.line.send(("published", job.dest, content))
        self._loop.step()  # the answer may be lost
        values = {"key": job.key, "fingerprint": job.fingerprint, "already_done": stands}
        return TransferResult(job.source, job.dest, size, size, 0, 0.0, Proof.SIZE, **values)

    def _blocks(self, size: int) -> Iterator[int]:
        for at in range(0, size, BLOCK):
            self._loop.step()
            yield at

    def _put(self, target: Path, content: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = self.root / "part"
        part.write_bytes(content)
        shutil.move(part, target)

"""A device with its agent, as a laboratory: files are put into an outbox, the real agent runs as a process of its own,
is killed, stopped and started again, and everything that came of it is counted.

    with OpenSSH(folder / "server") as server, Rig(folder / "device", server) as rig:
        rig.put("large", 16 * MIB)
        rig.start()
        rig.wait(lambda: rig.link.up_bytes > 4 * MIB)
        rig.kill()
        rig.drain()
        row = rig.row("SIGKILL of the agent", injected=1)

Everything runs with the default settings; files are older than settle_s, as those that a producer renames into place.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from faults.proxy import BadLink, Fault
from faults.table import Row
from faults.watch import PART, Final, Watch, files
from servers.base import Server
from servers.guard import Guard

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KIB", "MIB", "Rig", "judge", "sync_folder", "wait_for"]

KIB = 1024
MIB = 1024 * KIB
TESTS = Path(__file__).parents[1]
DEADLINE_S = 120.0
SETTLED_S = 10
MARKED = re.compile(r"delivered path=(?P<name>\S+) .*\bbytes=(?P<size>\d+) .*\brepeat=True")
Marks: TypeAlias = "Counter[tuple[str, int]]"


class Rig:
    """One device.

    home: its disk: outboxes and state. notes: where configuration and log are, beside it where not given.
    server: where to send; the destination there is watched.
    link: what lies between, made by rate_bps, delay_s and script where it is not given. host: where it begins.
    inside: what to make of the agent's command to have it run in another network namespace.
    settings, server_settings: lines of TOML for the top of the configuration and for [server]; box_settings: for each
    outbox, in which its destination may stand; tables: further ones.
    named: under which names a file is to arrive at the destination.
    """

    def __init__(
        self,
        home: Path,
        server: Server,
        *,
        link: BadLink | None = None,
        rate_bps: float | None = None,
        delay_s: float = 0.0,
        script: Iterable[Fault] = (),
        device_id: str = "device",
        boxes: Sequence[str] = ("outbox",),
        destination: str = "up",
        settings: str = "",
        server_settings: str = "",
        box_settings: Sequence[str] = (),
        tables: str = "",
        named: Callable[[str], Sequence[str]] = lambda name: (name,),
        host: str = "127.0.0.1",
        inside: Callable[[Sequence[str]], list[str]] = list,
        watch: Watch | None = None,
        notes: Path | None = None,
        seed: int | None = None,
    ) -> None:
        self.home = home
        self.server = server
        self.destination = destination
        self.seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        self.random = random.Random(self.seed)
        self.agent: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self.starts = 0
        self.versions: dict[str, list[str]] = {}
        self.payload_bytes = 0
        notes = notes or home.parent
        self.log = notes / f"{home.name}.log"
        self.link = link or BadLink(server.host, server.port, rate_bps=rate_bps, delay_s=delay_s, script=script)
        self.watch = watch or Watch(server.root / destination)
        self._owned = [item for item, given in ((self.link, link), (self.watch, watch)) if given is None]
        self.contents: dict[str, dict[str, int]] = {}
        self._boxes = [home / name for name in boxes]
        self._marker = notes / f"{home.name}.reached"
        self._configuration = notes / f"{home.name}.toml"
        self._host = host
        self._inside = inside
        self._device_id = device_id
        self._settings = settings
        self._server_settings = server_settings
        self._box_settings = box_settings or ("",) * len(boxes)
        self._tables = tables
        self._named = named
        self._configure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        for item in self._owned:
            item.close()

    # -- the producer

    def put(self, name: str, size: int, *, box: int = 0, content: bytes | None = None) -> bytes:
        """Rename a file of random content into the outbox, durably, as a producer that lost nothing in a power cut."""
        data = self.random.randbytes(size) if content is None else content
        folder = self._boxes[box]
        fresh = self.home / f".{name}.writing"  # not in the outbox: a scan would take it for ready
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            old_ns = time.time_ns() - SETTLED_S * 10**9
            os.utime(file.fileno(), ns=(old_ns, old_ns))
            os.fsync(file.fileno())
        os.replace(fresh, folder / name)
        sync_folder(folder)
        for final in self._named(name):
            self._remember(final, data)
        return data

    def put_many(self, count: int, size: int, *, prefix: str = "small") -> None:
        for number in range(count):
            self.put(f"{prefix}-{number:04}", size)

    def _remember(self, name: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self.versions.setdefault(name, []).append(digest)
        self.contents.setdefault(name, {})[digest] = len(data)
        self.payload_bytes += len(data)

    def left(self) -> list[Path]:
        """What still lies in the outboxes, also under a private name."""
        return [path for box in self._boxes for path in files(box)]

    # -- the agent

    def start(self, step: str | None = None, *, nth: int = 0, action: str = "die", drain: bool = False) -> None:
        """Start the agent; with a step of steps.py, it kills (or stops) itself there. nth 0: as the step says.

        drain: it ends by itself when all is delivered.
        """
        assert self.agent is None, "one agent at a time"
        self._marker.unlink(missing_ok=True)
        crash = ["faults.crash", step, str(nth), action, str(self._marker)] if step else ["iot.spooler"]
        run = ["run", "--drain"] if drain else ["run"]
        command = [sys.executable, "-m", *crash, *run, "--config", str(self._configuration)]
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(self._inside(command), stdout=log, stderr=log, env=environment(), cwd=TESTS)
        self._guard = Guard(self.agent.pid)
        self.starts += 1

    def kill(self) -> int | None:
        """SIGKILL; how it ended -> minus the signal, or its exit code when it had ended by itself."""
        agent, self.agent = self.agent, None
        if agent is None or self._guard is None:
            return None
        self._guard.dismiss()
        agent.kill()
        return agent.wait()

    def wait(self, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> bool:
        """Wait until it holds; False when the agent ended or the deadline passed first."""
        return wait_for(lambda: condition() or not self._runs(), deadline_s) and condition()

    def died_at(self, step: str, deadline_s: float = DEADLINE_S) -> bool:
        """Whether the agent came to the step and died there."""
        wait_for(lambda: not self._runs(), deadline_s)
        code = self.kill()
        return code == -signal.SIGKILL and self._reached() == step

    def stopped_at(self, step: str, deadline_s: float = DEADLINE_S) -> bool:
        """Whether the agent came to the step and stands still there."""
        return self.wait(lambda: self._reached() == step and self._state() == "T", deadline_s)

    def go_on(self) -> None:
        assert self.agent is not None
        self.agent.send_signal(signal.SIGCONT)

    def drain(self, deadline_s: float = DEADLINE_S) -> None:
        """Deliver all there is, with a fresh agent, and end it. Raises: AssertionError with its log's end."""
        self.kill()
        self.start(drain=True)
        wait_for(lambda: not self._runs(), deadline_s)
        code = self.kill()
        assert code == 0, f"exit code {code}; {self.told()}"
        assert not self.left(), f"left {len(self.left())} files {self.left()[:3]}; {self.told()}"

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "no log"

    def _runs(self) -> bool:
        return self.agent is not None and self.agent.poll() is None

    def _reached(self) -> str:
        return self._marker.read_text() if self._marker.exists() else ""

    def _state(self) -> str:
        assert self.agent is not None
        try:
            return Path(f"/proc/{self.agent.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    def _configure(self) -> None:
        server = self.server
        for box in self._boxes:
            box.mkdir(parents=True, exist_ok=True)
            sync_folder(box.parent)
        login = {"key_file": server.key_file, "password": server.password}
        lines = [
            f'state_dir = "{self.home}/state"\ndevice_id = "{self._device_id}"\n{self._settings}\n[server]',
            f'host = "{self._host}"\nport = {self.link.port}\nuser = "{server.user}"\nhost_key = "{server.host_key}"',
            *[f'{key} = "{value}"' for key, value in login.items() if value is not None],
            self._server_settings,
        ]
        for box, more in zip(self._boxes, self._box_settings, strict=True):
            destination = "" if "destination" in more else f'destination = "{server.path(self.destination)}"'
            lines += [f'[[outbox]]\npath = "{box}"', destination, more]
        lines.append(self._tables)
        self._configuration.write_text("\n".join(lines))

    # -- what came of it

    def row(self, fault: str, injected: int) -> Row:
        """Judge everything that was seen; to be called when the outbox is empty."""
        row = Row(fault, injected, len(self.versions), payload_bytes=self.payload_bytes)
        row.up_bytes, row.down_bytes = self.link.up_bytes, self.link.down_bytes
        last = {name: {versions[-1]} for name, versions in self.versions.items()}
        self.watch.look()
        judge(row, self.watch, self.contents, last, self.marked())
        return row

    def marked(self) -> Marks:
        """Deliveries that the agent marked as possible repeats."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        found = [match for match in map(MARKED.search, lines) if match]
        return Counter((match["name"], int(match["size"])) for match in found)


class Finals(Protocol):
    """What was seen of them, and the names of what is there now."""

    seen: list[Final]

    def names(self) -> set[str]: ...


def judge(
    row: Row,
    watch: Finals,
    contents: dict[str, dict[str, int]],
    last: dict[str, set[str]],
    marked: Marks | None = None,
) -> None:
    """Count what is wrong with the finals in the folder that is watched.

    contents: of each name, its versions by hash with their sizes. last: of each name, what may stand there at the end.
    marked: how often a repeat was announced, by name and size: no other file's, nor another version's, excuses one.
    """
    stands: dict[str, str] = {}
    published: Counter[tuple[str, str]] = Counter()
    inodes: dict[str, int] = {}
    for final in watch.seen:
        name = final.name
        known = contents.get(name, {})
        if final.sha256 not in known:
            kind = "mixed" if final.size in known.values() else "half"
            setattr(row, kind, getattr(row, kind) + 1)
            row.notes.append(f"{kind}: {final}")
        if inodes.get(name) != final.inode:
            published[name, final.sha256] += 1
        inodes[name], stands[name] = final.inode, final.sha256
    there = watch.names()
    lost = [name for name, digests in last.items() if name not in there or stands.get(name) not in digests]
    parts = [name for name in there if name.endswith(PART)]
    again = {key: times - 1 for key, times in published.items() if times > 1}
    row.lost, row.left = len(lost), len(parts)
    announced = Counter(marked or {})
    for (name, digest), times in again.items():
        key = name, contents.get(name, {}).get(digest, -1)
        excused = min(times, announced[key])
        announced[key] -= excused
        row.repeats += excused
        row.twice += times - excused
    row.notes += [f"lost: {name}" for name in lost] + [f"left: {name}" for name in parts]
    row.notes += [f"twice: {name} {digest[:8]}" for name, digest in again]


def wait_for(condition: Callable[[], bool], deadline_s: float) -> bool:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def environment() -> dict[str, str]:
    """The agent imports what the tests import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}

"""Everything may happen in any order - to files, link, agent, server, disk and clocks - and the promise holds.

    every file that was ready and not taken back by its producer is on the server, still in the outbox, or in quarantine
    with a reason; what is on the server under a final name is some complete version of its source

The agent and the client are the real ones, the server is the embedded one over a disk that forgets what no fsync has
brought to it. IOT_SFTP_MACHINE_EXAMPLES sets how many lives are tried (CI: 30).
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from faults.machine_device import Device, files_below
from faults.machine_disk import ForgetfulDisk
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from quarantined import quarantined

from iot.sftp.client import EmbeddedServer

EXAMPLES = int(os.environ.get("IOT_SFTP_MACHINE_EXAMPLES", "30"))
MEMORY = "/dev/shm"  # where an fsync costs nothing: what a power cut does is tested elsewhere
YEAR_S = 365 * 86400.0
names = st.sampled_from(["a", "b", "d/c", "d/e/large"])
sizes = st.sampled_from([0, 10, 10, 4096, 300_000, 1_500_000])
moments = st.integers(0, 20)
TICK_S = 0.01  # file times move in steps of a few milliseconds


class Producer:
    """Knows what it wrote: every content that a name ever had, and the one that must not get lost."""

    def __init__(self, box: Path, aside: Path) -> None:
        self.box = box
        self.aside = aside
        self.versions: dict[str, set[bytes]] = {}
        self.wanted: dict[str, bytes] = {}

    def write(self, name: str, size: int) -> None:
        self.make(name, os.urandom(size), self.place(name))

    def rename_in(self, name: str, size: int) -> None:
        self.make(name, os.urandom(size), self.aside)
        os.replace(self.aside, self.place(name))

    def append(self, name: str, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was delivered: nothing there to append to
            self.make(name, self.place(name).read_bytes() + os.urandom(size + 1), self.place(name))

    def rewrite(self, name: str, *, old_time: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            before = self.place(name).stat()
            self.make(name, os.urandom(before.st_size), self.place(name))
            if old_time:
                os.utime(self.place(name), ns=(before.st_atime_ns, before.st_mtime_ns))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.place(name).unlink()
            self.wanted.pop(name, None)

    def make(self, name: str, content: bytes, path: Path) -> None:
        time.sleep(TICK_S)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.truncate()
        self.versions.setdefault(name, set()).add(content)
        self.wanted[name] = content

    def place(self, name: str) -> Path:
        path = self.box / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class Machine(RuleBasedStateMachine):
    @initialize(
        settle_s=st.sampled_from([0, 0, 2]),
        after_upload=st.sampled_from(["delete", "delete", "archive", "keep"]),
    )
    def begin(self, settle_s: float, after_upload: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iot-sftp-machine-", dir=MEMORY if os.path.isdir(MEMORY) else None))
        self.root = self.folder / "root"
        self.root.mkdir()
        self.disk = ForgetfulDisk(self.folder / "backup")
        self.server = EmbeddedServer(self.root, session=self.disk.session)
        self.server.start()
        self.up = True
        self.device = Device(self.folder / "device", self.server, settle_s=settle_s, after_upload=after_upload)
        self.producer = Producer(self.device.box, self.folder / "aside")
        self.keeps = after_upload == "keep"

    # -- the producer, at rest and while the agent works

    @rule(name=names, size=sizes, at=moments)
    def writes(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, lambda: self.producer.write(name, size))

    @rule(name=names, size=sizes, at=moments)
    def renames_in(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, lambda: self.producer.rename_in(name, size))

    @rule(name=names, size=sizes, at=moments)
    def appends(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, lambda: self.producer.append(name, size))

    @rule(name=names, size=sizes, old_time=st.booleans(), at=moments)
    def rewrites_in_the_same_size(self, name: str, size: int, old_time: bool, at: int) -> None:
        self.when(at, name, size, lambda: self.producer.rewrite(name, old_time=old_time))

    @rule(name=names, size=sizes, at=moments)
    def deletes(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, lambda: self.producer.delete(name))

    def when(self, at: int, name: str, size: int, act: Callable[[], None]) -> None:
        """At rest, or while the agent has a file to send: after so many of its signs of life."""
        if at == 0:
            act()
        else:
            self.producer.rename_in(name, size)
            self.device.life.later.append((at, act))
            self.device.run(3)

    # -- link and server

    @rule(name=names, size=sizes, at=moments)
    def link_is_cut(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, self.server.drop_connections)

    @precondition(lambda self: self.up)
    @rule(name=names, size=sizes, at=moments, crash=st.booleans())
    def server_goes(self, name: str, size: int, at: int, crash: bool) -> None:
        """It, or the way to it, is away until it comes back; after a crash, without what was not on its disk."""
        self.when(at, name, size, lambda: self.stop(crash=crash))

    @precondition(lambda self: not self.up)
    @rule(name=names, size=sizes, at=moments)
    def server_comes_back(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, self.start)

    @rule(name=names, size=sizes, at=moments)
    def server_crashes_and_is_back_at_once(self, name: str, size: int, at: int) -> None:
        self.when(at, name, size, self.reboot)

    @rule(name=names)
    def server_refuses_or_takes_a_name(self, name: str) -> None:
        self.disk.refused ^= {os.fsencode(os.path.basename(name))}

    def start(self) -> None:
        if not self.up:
            self.server.start()
            self.up = True

    def reboot(self) -> None:
        self.stop(crash=True)
        self.start()

    def stop(self, *, crash: bool) -> None:
        self.server.stop()
        self.up = False
        if crash:
            self.disk.crash(self.root)

    # -- the device

    @rule(pauses=st.integers(1, 6))
    def agent_works(self, pauses: int) -> None:
        self.device.run(pauses)

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.start()
        self.disk.refused.clear()
        self.device.disk_full = False
        self.device.run(6)

    @rule(name=names, size=sizes, step=st.integers(1, 30))
    def agent_crashes(self, name: str, size: int, step: int) -> None:
        self.producer.rename_in(name, size)
        self.device.run(4, crash_in=step)

    @rule(name=names, size=sizes, at=st.integers(1, 20), step=st.integers(1, 30))
    def agent_crashes_after_a_cut(self, name: str, size: int, at: int, step: int) -> None:
        self.producer.rename_in(name, size)
        self.device.life.later.append((at, self.server.drop_connections))
        self.device.run(4, crash_in=step)

    @rule(name=names, size=sizes, at=moments, full=st.booleans())
    def disk_fills_or_has_room_again(self, name: str, size: int, at: int, full: bool) -> None:
        self.when(at, name, size, lambda: setattr(self.device, "disk_full", full))

    @rule(years=st.sampled_from([-30, -10, -1, 1, 10, 30]), name=names, size=sizes, at=moments)
    def clock_jumps(self, years: int, name: str, size: int, at: int) -> None:
        def jump() -> None:
            self.device.life.wall_offset_s += years * YEAR_S

        self.when(at, name, size, jump)

    @rule()
    def journal_turns_to_rubbish(self) -> None:
        self.device.lose_journal()

    # -- what always holds

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "producer"):
            return
        for name, content in self.producer.wanted.items():
            assert self.is_safe(name, content), f"{name} is lost"

    @invariant()
    def what_is_published_is_a_complete_version(self) -> None:
        if not hasattr(self, "producer"):
            return
        seen = [(path, path.read_bytes()) for path in files_below(self.root) if not path.name.endswith(".part")]
        seen += [(Path(os.fsdecode(path)), content) for path, content in self.disk.published]
        self.disk.published.clear()
        for path, content in seen:
            name = str(path.relative_to(self.root / "up"))
            assert content in self.producer.versions[name], f"{name} was published half or mixed"

    def is_safe(self, name: str, content: bytes) -> bool:
        final = self.root / "up" / name
        if final.is_file() and final.read_bytes() == content:
            return True
        place = self.device.box / name
        in_outbox = [place, *place.parent.glob(f".iot-sent.#*.{glob.escape(place.name)}")]
        if any(path.is_file() and path.read_bytes() == content for path in in_outbox):
            return True
        return content in self.quarantined()

    def quarantined(self) -> set[bytes]:
        return {file.content for file in quarantined(self.device.state / "quarantine")}

    # -- and when all is well again, everything goes

    def teardown(self) -> None:
        if not hasattr(self, "producer"):
            return
        try:
            self.heal()
            self.nothing_is_lost()
            self.what_is_published_is_a_complete_version()
            given_up = self.quarantined()
            for name, content in self.producer.wanted.items():
                final = self.root / "up" / name
                assert content in given_up or final.read_bytes() == content, f"{name} stayed behind"
        finally:
            self.device.shut_down()
            self.server.stop()
            shutil.rmtree(self.folder)

    def heal(self) -> None:
        self.device.life.later.clear()
        self.all_is_well_for_a_while()
        for _ in range(12):
            self.device.run(20)
            if not self.left():
                return
        assert not self.left(), "it never becomes quiet"

    def left(self) -> list[str]:
        """What is still to be delivered."""
        waiting = [str(path.relative_to(self.device.box)) for path in files_below(self.device.box)]
        if not self.keeps:
            return waiting
        return [name for name in waiting if not self.is_delivered(name)]

    def is_delivered(self, name: str) -> bool:
        final = self.root / "up" / name
        return final.is_file() and final.read_bytes() == (self.device.box / name).read_bytes()


Machine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase

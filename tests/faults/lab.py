"""Producers, operators, agent and file system in any order - and the promise holds.

    Every version that was complete is on the server, or in its outbox, in quarantine or in the archive. Nobody else's
    files move or change. Nothing is published that no producer wrote. Nothing is sent twice unless an answer was lost
    or the agent was killed. Nothing multiplies.

`laboratory(disk)` is the rule machine over one file system (see lab_disk.KINDS). Its choices depend on nothing but the
seed, but a kernel's clock and a file system with a past do not repeat: a life that fails is neither replayed nor made
shorter. The failure says its steps, between the lines of the agent's log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from faults.lab_agent import LabAgent
from faults.lab_disk import LabDisk, in_memory, tree
from faults.lab_files import File
from faults.lab_moves import Moves
from faults.lab_producers import Producers
from faults.lab_promise import WINDOW_H, Promise, content_of
from faults.lab_setup import MARKER, POLICIES, PRODUCER, ROOT, STRANGER, Setup
from faults.lab_world import Clock, Server
from faults.table import Row
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    run_state_machine_as_test,
)

__all__ = ["Laboratory", "laboratory", "lives"]

SETTLED_ROUNDS = 12


class Laboratory(Setup, Moves, Promise, RuleBasedStateMachine):
    """One life of a device.

    disk: where its outboxes lie. policies: of which a life has one. steps, versions: counted over all lives. failure:
    the first one, with its log.
    """

    disk: ClassVar[LabDisk]
    policies: ClassVar[Sequence[str]]
    steps: ClassVar[int] = 0
    versions: ClassVar[int] = 0
    failure: ClassVar[str] = ""

    @initialize(
        who=st.sampled_from(["root", "same user", "other user", "sticky folder"]),
        after_upload=st.sampled_from(["delete", "delete", "archive", "keep"]),
        settle_s=st.sampled_from([0, 2]),
        same_disk=st.booleans(),
        folders=st.sampled_from(["default", "default", "shared", "other disk"]),
        policy=st.runner().flatmap(lambda life: st.sampled_from(life.policies)),
        after_download=st.sampled_from(["keep", "delete", "move"]),
    )
    def begin(
        self,
        who: str,
        after_upload: str,
        settle_s: float,
        same_disk: bool,
        folders: str,
        policy: str = "none",
        after_download: str = "keep",
    ) -> None:
        assert not self.failure, "failed already"
        self.life = Path(tempfile.mkdtemp(prefix="life-", dir=self.disk.folder))
        self.life.chmod(0o755)
        self.disk.make_room()
        self.here = self.disk.path / "life"
        self.user = {"root": ROOT, "same user": PRODUCER}.get(who, STRANGER)
        self.clock = Clock()
        self.outside = self.here / "outside"
        self.state = (self.here if same_disk and self.disk.has_owners else self.life) / "state"
        self.boxes = [self.here / "box0", self.here / "box1"]
        self.may_rename = who != "sticky folder" or not self.disk.has_owners
        self._make_folders(who, folders)
        self.settings = {"settle_s": settle_s, "after_upload": f'"{after_upload}"', **POLICIES[policy], **self._places}
        self.policy = policy
        self.include = [False, False]
        self.destinations = [0, 0]
        self.server = Server(self._made(self.life / "server", self.user))
        self.config = self.life / "config.toml"
        self.after_download = after_download
        self._make_remotes(settle_s)
        self._configure()
        self.agent = LabAgent(self.config, self.server, self.clock, self.user, self.life / "log", self.an_incident)
        mode = 0o777 if self.may_rename else 0o1777
        self.producers = Producers(self.boxes, self.aside, PRODUCER, self.clock, not self.disk.has_owners, mode)
        if self.disk.has_owners:  # FAT has no links that could lead to them, and inodes that become another file's
            self.producers.foreign = {(status.st_dev, status.st_ino) for _, status in tree(self.outside)}
        self.leases = self._offers_leases()
        self.chowned = self.is_read_only = False
        self.seen = 0
        self.messes = self.heard = 0
        self.batches: dict[bytes, tuple[set[bytes], int]] = {}
        self.passed: set[bytes] = set()
        self.sent: Counter[tuple[File, bytes]] = Counter()
        self.dropped: set[tuple[File, int]] = set()
        self.begun_before: set[str] = set()
        self.agent.tell(f"begin {who}, {folders}, {policy}, same_disk={same_disk}, {self.settings}")
        self.before = self._outside()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Keep how it came to a failure in here."""
        try:
            yield
        except Exception as error:
            type(self).failure = type(self).failure or f"{type(error).__name__}: {error}\n{self.agent.log()}"
            raise

    # -- what always holds

    @invariant()
    def the_promise_holds(self) -> None:
        if not hasattr(self, "before"):
            return
        type(self).steps += 1
        with self.failing():
            self._look()

    # -- and when all is well again, everything goes

    def teardown(self) -> None:
        if not hasattr(self, "before"):
            return
        try:
            if not self.failure:
                with self.failing():
                    self._end_well()
        finally:
            self._clean_up()

    def _end_well(self) -> None:
        self.agent.tell("all is well again")
        self.close_all()
        self._look()
        self._heal()
        for _ in range(SETTLED_ROUNDS):
            self._put_markers()
            self.agent.run(60)
            self._look()
            self.clock.passes(WINDOW_H / 2 * 3600)
            if not self._left() and not self.remotes.left():
                break
        assert not self._left(), f"stayed behind: {self._left()}"
        if self.policy == "hooks" and not self.messes and not self.producers.incidents:
            told = {each.remote_path for each in self.server.judged if each.hook == "after_success"}
            untold = {dest for dest, *_ in self.server.published} - told
            assert not untold, f"after_success was not run for {untold}"
        assert not self.remotes.left(), f"stayed on the server: {self.remotes.left()}"
        type(self).versions += len(self.sent) + len(self.remotes.published)

    def _put_markers(self) -> None:
        """The files of a batch that went to quarantine come back, and it is complete."""
        if self.policy == "markers" and self._left():
            self.operator("retry")
            for box in range(len(self.boxes)):
                self.producers.rename_in(File(box, MARKER), 20)

    def _heal(self) -> None:
        assert self.writable(), "the file system stays read-only"
        self.agent.stop()
        self.disk.make_room()
        self.server.refused.clear()
        self.server.cut_after = 0
        self.server.away = False
        self.server.mood = "good"
        self.include = [False, False]
        self._configure()
        for box in self.boxes:
            box.chmod(self.producers.folder_mode)
            for path, status in tree(box):
                if stat.S_ISDIR(status.st_mode):
                    os.chmod(path, self.producers.folder_mode)
                elif stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in self.producers.foreign:
                    content = content_of(path, status)
                    self.producers.touched[content] += 1
                    os.chmod(path, 0o666)

    def writable(self) -> bool:
        if self.is_read_only:
            self.is_read_only = not self.disk.read_only(False)
        return not self.is_read_only

    def _clean_up(self) -> None:
        self.agent.kill()
        for handle in self.producers.handles.values():
            os.close(handle.descriptor)
        self.writable()
        for folder in (self.here, self.life):
            shutil.rmtree(folder)


def lives(folder: Path, *, kind: str, count: int, policies: Sequence[str] = tuple(POLICIES)) -> Row:
    """So many lives of a device on a file system of this kind. Raises: AssertionError, with the way to it."""
    del folder  # the disk lies in memory
    with LabDisk(Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory())), kind) as disk:
        machine = laboratory(disk, policies)
        chosen = settings(
            max_examples=count,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
            report_multiple_bugs=False,
        )
        try:
            run_state_machine_as_test(machine, settings=chosen)
        except Exception:
            if machine.failure:
                raise AssertionError(machine.failure) from None
            raise
        return Row(f"producers on {disk.type}", injected=machine.steps, files=machine.versions)


def laboratory(disk: LabDisk, policies: Sequence[str] = tuple(POLICIES)) -> type[Laboratory]:
    """The machine over this disk."""
    own = {"disk": disk, "policies": policies, "steps": 0, "versions": 0, "failure": ""}
    return type(f"LaboratoryOn{disk.kind.capitalize()}", (Laboratory,), own)

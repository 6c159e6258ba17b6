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
import functools
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from faults.lab_agent import Clock, LabAgent, Server, User
from faults.lab_disk import LabDisk, in_memory, tree
from faults.lab_hooks import MOODS
from faults.lab_producers import DATES_S, NAMES, File, Producers
from faults.lab_promise import WINDOW_H, Promise, content_of
from faults.lab_pull import REMOTE_NAMES
from faults.lab_setup import MARKER, POLICIES, PRODUCER, PULLS, ROOT, STRANGER, THIRD, Setup
from faults.table import Row
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

__all__ = ["Laboratory", "laboratory", "lives"]

HOLD_S = 60.0
SETTLED_ROUNDS = 12
MESSY = (
    *("renames", "hard_links", "chmods", "chowns", "plants_a_link", "links_somebody_elses_file", "folder_modes"),
    *("swaps_a_folder_for_a_link", "pauses_with_the_file_open", "disk_fills_up", "is_read_only_for_a_while"),
    *("medium_is_put_in_again", "journal_is_lost", "operator_edits_the_configuration", "operator_retries"),
)
"""Steps after which it is not told in simple words which files a batch has, or which hooks must have run."""

files = st.builds(File, st.integers(0, 1), st.sampled_from(NAMES))
names = st.sampled_from(NAMES)
boxes = st.integers(0, 1)
sizes = st.sampled_from([8, 20, 20, 999, 1500, 5000])
remote_names = st.sampled_from(REMOTE_NAMES)
moments = st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 300))


def step(**choices: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that is told in the log, and a failure of it with the log."""

    def decorated(act: Callable[..., None]) -> Any:
        @functools.wraps(act)
        def told(self: Laboratory, **chosen: Any) -> None:
            self.agent.tell(f"{act.__name__} {', '.join(f'{name}={value}' for name, value in chosen.items())}")
            with self.failing():
                self.messes += act.__name__ in MESSY
                act(self, **chosen)

        return rule(**choices)(told)

    return decorated


collects = precondition(lambda self: self.policy == "markers")
fetches = precondition(lambda self: self.policy in PULLS)
asks_hooks = precondition(lambda self: self.policy in ("hooks", "judged pull"))


class Laboratory(Setup, Promise, RuleBasedStateMachine):
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

    # -- producers, at rest and between any two steps of the agent

    @step(file=files, size=sizes, at=moments)
    def writes(self, file: File, size: int, at: int) -> None:
        self.when(at, file, lambda: self.producers.write(file, size))

    @step(file=files, size=sizes, at=moments)
    def renames_in(self, file: File, size: int, at: int) -> None:
        self.when(at, file, lambda: self.producers.rename_in(file, size))

    @step(file=files, size=sizes, at=moments)
    def appends(self, file: File, size: int, at: int) -> None:
        self.when(at, file, lambda: self.producers.append(file, size))

    @step(file=files, old_time=st.booleans(), at=moments)
    def rewrites_in_place(self, file: File, old_time: bool, at: int) -> None:
        self.when(at, file, lambda: self.producers.rewrite(file, old_time=old_time))

    @step(file=files, at=moments)
    def truncates(self, file: File, at: int) -> None:
        self.when(at, file, lambda: self.producers.truncate(file))

    @step(file=files, size=sizes, pauses=st.integers(1, 8), at=moments)
    def pauses_with_the_file_open(self, file: File, size: int, pauses: int, at: int) -> None:
        self.producers.open(file, size)
        self.agent.run(pauses)
        self.when(at, None, lambda: self.producers.write_on(file, size))

    @step(at=moments)
    def closes_all(self, at: int) -> None:
        self.when(at, None, self.close_all)

    @step(file=files, to=names, at=moments)
    def renames(self, file: File, to: bytes, at: int) -> None:
        self.when(at, file, lambda: self.producers.rename(file, to))

    @step(file=files, to=names, at=moments)
    def hard_links(self, file: File, to: bytes, at: int) -> None:
        self.when(at, file, lambda: self.producers.hard_link(file, to))

    @step(file=files, at=moments)
    def deletes(self, file: File, at: int) -> None:
        self.when(at, file, lambda: self.producers.delete(file))

    @step(file=files, seconds=st.sampled_from(DATES_S), at=moments)
    def dates(self, file: File, seconds: int, at: int) -> None:
        self.when(at, file, lambda: self.producers.date(file, seconds))

    @step(file=files, mode=st.sampled_from([0o000, 0o400, 0o600, 0o666]), at=moments)
    def chmods(self, file: File, mode: int, at: int) -> None:
        self.when(at, file, lambda: self.producers.chmod(file, mode))

    @step(file=files, user=st.sampled_from([ROOT, THIRD]))
    def chowns(self, file: File, user: User) -> None:
        self.chowned = True
        self.producers.chown(file, user)

    @step(
        box=boxes,
        name=st.sampled_from([b"link", b"a", b"d/link", b".quarantine", b".archive"]),
        where=st.sampled_from(["outside", "outside/file", "outside/folder", "box0", "nowhere"]),
        at=moments,
    )
    def plants_a_link(self, box: int, name: bytes, where: str, at: int) -> None:
        place = os.fsencode(self.here / where)
        self.when(at, None, lambda: self.producers.plant_link(File(box, name), place))

    @step(file=files, at=moments)
    def links_somebody_elses_file(self, file: File, at: int) -> None:
        self.when(at, None, lambda: self.producers.link_in(file, self.outside / "open"))

    @step(box=boxes, where=st.sampled_from(["outside", "outside/folder"]), at=moments)
    def swaps_a_folder_for_a_link(self, box: int, where: str, at: int) -> None:
        place = os.fsencode(self.here / where)
        self.when(at, File(box, b"d/c"), lambda: self.producers.swap_folder(box, b"d", place))

    # -- the folder

    @step(inodes=st.booleans())
    def disk_fills_up(self, inodes: bool) -> None:
        if not self.is_read_only:
            self.disk.fill(inodes=inodes)

    @step()
    def disk_has_room(self) -> None:
        if not self.is_read_only:
            self.disk.make_room()

    @step(file=files, mode=st.sampled_from([0o000, 0o555, 0o777]))
    def folder_modes(self, file: File, mode: int) -> None:
        """The folder of a file cannot be read, or not be changed, for a while."""
        if not self.is_read_only:
            path = os.fsencode(self.boxes[file.box]) + b"/" + file.path
            with contextlib.suppress(OSError):
                if not os.path.islink(os.path.dirname(path)):
                    os.chmod(os.path.dirname(path), mode)

    @step(pauses=st.integers(1, 6))
    def is_read_only_for_a_while(self, pauses: int) -> None:
        if self.disk.read_only(True):
            self.is_read_only = True
            self.agent.run(pauses)
        assert self.writable(), "the file system stays read-only"

    @step()
    def medium_is_put_in_again(self) -> None:
        self.agent.stop()
        self.disk.remount()

    @step(hours=st.sampled_from([1, 3, 7]))
    def hours_pass(self, hours: int) -> None:
        """Windows open and close, whatever the agent is doing."""
        self.clock.passes(hours * 3600)

    # -- agent, server and operators

    @step(pauses=st.integers(1, 40))
    def agent_works(self, pauses: int) -> None:
        self.agent.run(pauses)

    @step(file=files, size=sizes, step=st.one_of(st.integers(1, 60), st.integers(1, 600)))
    def agent_is_killed(self, file: File, size: int, step: int) -> None:
        self.producers.rename_in(file, size)
        self.agent.run(4, at_step=step)
        self.producers.incidents += 1

    @step(rubbish=st.booleans())
    def journal_is_lost(self, rubbish: bool) -> None:
        self.agent.stop()
        self._look_at_the_dropped()
        self.producers.incidents += 1
        for path in self.state.glob("journal.db*"):
            size = path.stat().st_size
            path.unlink()
            if rubbish and path.name == "journal.db":
                with contextlib.suppress(OSError):  # the disk is full
                    path.write_bytes(os.urandom(size))
                    os.chown(path, *self.user)

    @step(word=st.sampled_from(["/a", "x", "d/"]))
    def server_refuses_or_takes_a_name(self, word: str) -> None:
        self.server.refused ^= {word}

    @step(after=st.integers(1, 3))
    def link_is_cut(self, after: int) -> None:
        self.server.cut_after = after

    @step()
    def server_goes_away_or_comes_back(self) -> None:
        self.server.away = not self.server.away

    @step(at=moments)
    def operator_retries(self, at: int) -> None:
        self.when(at, None, lambda: self.operator("retry"))

    @step(box=boxes, what=st.sampled_from(["destination", "include"]))
    def operator_edits_the_configuration(self, box: int, what: str) -> None:
        self.agent.stop()
        self.begun_before |= set(self.server.begun)
        if what == "include":
            self.include[box] = not self.include[box]
        else:
            self.destinations[box] += 1
        self._configure()
        self.operator("check", 78)  # a folder that a producer has closed is an obstacle

    @collects
    @step(box=boxes, size=sizes, at=moments)
    def a_batch_is_written(self, box: int, size: int, at: int) -> None:
        """Files, and then their marker, which is to be sent last."""
        names = (b"a", b"b c", b"-dash")
        for name in names:
            self.producers.rename_in(File(box, name), 5000)
        self.when(at, None, lambda: self.producers.rename_in(File(box, MARKER), size))
        wanted = {file: content for content, file in self.producers.wanted.items()}
        files = {wanted[File(box, name)] for name in names if File(box, name) in wanted}
        self.batches[wanted.get(File(box, MARKER), b"")] = files, self.messes

    # -- hooks, and files of the server

    @asks_hooks
    @step(mood=st.sampled_from(MOODS))
    def hooks_change_their_mind(self, mood: str) -> None:
        self.server.mood = mood

    @fetches
    @step(name=remote_names, size=sizes, bad=st.booleans(), at=moments)
    def server_gets_a_file(self, name: str, size: int, bad: bool, at: int) -> None:
        self.while_it_fetches(at, name, lambda: self.remotes.put(name, size, bad=bad))

    @fetches
    @step(name=remote_names, at=moments)
    def server_rewrites_a_file(self, name: str, at: int) -> None:
        self.while_it_fetches(at, name, lambda: self.remotes.rewrite(name))

    @fetches
    @step(name=remote_names, size=sizes, pauses=st.integers(1, 8), at=moments)
    def server_file_grows(self, name: str, size: int, pauses: int, at: int) -> None:
        self.while_it_fetches(at, name, lambda: self.remotes.grow(name, size))
        self.agent.run(pauses)
        self.while_it_fetches(at, name, lambda: self.remotes.finish(name, size))

    @fetches
    @step(name=remote_names, at=moments)
    def server_loses_a_file(self, name: str, at: int) -> None:
        self.while_it_fetches(at, name, lambda: self.remotes.remove(name))

    @fetches
    @step(name=remote_names, at=moments)
    def consumer_takes_a_file(self, name: str, at: int) -> None:
        self.while_it_fetches(at, name, lambda: self.remotes.take(name))

    @fetches
    @step(name=remote_names, size=sizes, step=st.one_of(st.integers(1, 60), st.integers(1, 600)))
    def agent_is_killed_while_it_fetches(self, name: str, size: int, step: int) -> None:
        self.remotes.put(name, size, bad=False)
        self.agent.run(4, at_step=step)
        self.an_incident()

    def while_it_fetches(self, at: int, name: str, act: Callable[[], None]) -> None:
        """At rest, or before that step of the agent while it has this file to fetch."""
        if at:
            self.remotes.put(name, 20, bad=False)
        self.when(at, None, act)

    def an_incident(self) -> None:
        self.producers.incidents += 1

    def operator(self, command: str, *more_codes: int) -> None:
        code = self.agent.operator(command)
        assert code in (0, 1, *more_codes), f"iot-spooler {command} ended with {code}"

    def when(self, at: int, file: File | None, act: Callable[[], None]) -> None:
        """At rest, or before that step of the agent while it has this file to send."""
        if at and file is not None:
            self.producers.rename_in(file, 20)

        def now() -> None:
            self.agent.tell("  now")
            act()

        if at == 0 or not self.agent.run(4, at_step=at, act=now):
            act()

    def close_all(self) -> None:
        for file, handle in list(self.producers.handles.items()):
            quiet_s = self.clock.now - handle.written_at
            there = self.producers.close(file)
            assert there or not (self.known or quiet_s < HOLD_S), f"{file} left while its writer had it open"

    @property
    def known(self) -> bool:
        """Whether a lease can tell that nobody is writing: offered there, and to this user."""
        return self.leases and not self.chowned and self.user in (ROOT, PRODUCER)

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

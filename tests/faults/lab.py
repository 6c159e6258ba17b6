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
import fcntl
import functools
import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from faults.lab_agent import Clock, LabAgent, Server, User, as_user
from faults.lab_disk import FAT_OWNER, LabDisk, in_memory, tree
from faults.lab_producers import DATES_S, NAMES, File, Producers
from faults.table import Row
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from iot.spooler.leaving.trust import open_trusted

__all__ = ["Laboratory", "laboratory", "lives"]

ROOT, PRODUCER, STRANGER, THIRD = User(0, 0), User(FAT_OWNER, FAT_OWNER), User(4002, 4002), User(4003, 4003)
HOLD_S = 60.0
SETTLED_ROUNDS = 12
POLICIES: dict[str, dict[str, str]] = {
    "none": {},
    "windows": {"schedule": '["06:00-12:00", "18:00-24:00"]'},
    "batches": {"batch_interval_s": "20"},
    "budget": {"budget": '{max_files = 2, max_bytes = 6000, evict_urgent = "oldest", preserve = ["*x*"]}'},
    "chain": {},
    "batches in windows": {"schedule": '["06:00-12:00", "18:00-24:00"]', "batch_interval_s": "20"},
}
FORWARD = {"after_upload": '"forward"', "forward_to": '"box1"'}
WINDOW_H, GRACE_S = 6, 30.0
"""Windows open and close every so many hours; a jump of the clock is noticed within so many seconds."""
PRIVATE = b"/.iot-sent."
BESIDE = re.compile(rb"-\d+(?=(\.[^./]*)?$)")
"""The number that a name gets in the next outbox where another file has it."""
NAME_MAX = 255
LIST = "-dropped-"
"""In the names of the lists of what was dropped, and in no other."""

files = st.builds(File, st.integers(0, 1), st.sampled_from(NAMES))
names = st.sampled_from(NAMES)
boxes = st.integers(0, 1)
sizes = st.sampled_from([8, 20, 20, 999, 1500, 5000])
moments = st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 300))


def step(**choices: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that is told in the log, and a failure of it with the log."""

    def decorated(act: Callable[..., None]) -> Any:
        @functools.wraps(act)
        def told(self: Laboratory, **chosen: Any) -> None:
            self.agent.tell(f"{act.__name__} {', '.join(f'{name}={value}' for name, value in chosen.items())}")
            with self.failing():
                act(self, **chosen)

        return rule(**choices)(told)

    return decorated


class Laboratory(RuleBasedStateMachine):
    """One life of a device.

    disk: where its outboxes lie. steps, versions: counted over all lives. failure: the first one, with its log.
    """

    disk: ClassVar[LabDisk]
    steps: ClassVar[int] = 0
    versions: ClassVar[int] = 0
    failure: ClassVar[str] = ""

    @initialize(
        who=st.sampled_from(["root", "same user", "other user", "sticky folder"]),
        after_upload=st.sampled_from(["delete", "delete", "archive", "keep"]),
        settle_s=st.sampled_from([0, 2]),
        same_disk=st.booleans(),
        folders=st.sampled_from(["default", "default", "shared", "other disk"]),
        policy=st.sampled_from(list(POLICIES)),
    )
    def begin(
        self, who: str, after_upload: str, settle_s: float, same_disk: bool, folders: str, policy: str = "none"
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
        self._configure()
        self.agent = LabAgent(self.config, self.server, self.clock, self.user, self.life / "log")
        mode = 0o777 if self.may_rename else 0o1777
        self.producers = Producers(self.boxes, self.aside, PRODUCER, self.clock, not self.disk.has_owners, mode)
        if self.disk.has_owners:  # FAT has no links that could lead to them, and inodes that become another file's
            self.producers.foreign = {(status.st_dev, status.st_ino) for _, status in tree(self.outside)}
        self.leases = self._offers_leases()
        self.chowned = self.is_read_only = False
        self.seen = 0
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

    def _look(self) -> None:
        self.look_at_the_server()
        self._look_at_the_dropped()
        copies = self._copies()
        for content, file in self.producers.wanted.items():
            assert content in copies or content in self.delivered or self._was_dropped(content), f"{file} is lost"
        for content, count in copies.items():
            most = 1 + self.producers.linked[content] + self._excused(content)
            assert count <= most or not content, f"there are {count} copies of one file"
        assert self._outside() == self.before, "somebody else's files were touched"

    def look_at_the_server(self) -> None:
        for dest, content, wall in self.server.published[self.seen :]:
            if LIST in dest:
                continue  # _look_at_the_dropped reads it
            assert self._in_window(wall), f"{dest} was sent outside its window"
            file = self._whose(dest)
            good = self.producers.wrote(file, content) or (self.policy == "chain" and self._came_on(file, content))
            if not good and not self.known:
                good = self.producers.paused_at(file, content)  # complete is guessed there, and was not
            assert good, f"{dest} was published, and no producer wrote that: {content[:20]!r}"
            # another inode is another file: it is compared at its present destination
            place = File(file.box, os.fsencode(dest)) if self.disk.kind == "fat" else file
            self.sent[place, content] += 1
            # of two names of one file, sending the first changes the time of change of the second
            most = 1 + self._excused(content) + self.producers.touched[content] + self.producers.linked[content]
            times = self.sent[place, content]
            assert times <= most or not content, f"{dest} was sent {times} times"
        self.seen = len(self.server.published)

    @property
    def delivered(self) -> set[bytes]:
        return {content for _, content, _ in self.server.published}

    def _look_at_the_dropped(self) -> None:
        """What the journal and the lists, sent or not, say was dropped: only what may be."""
        for box, line in {*self._listed(), *self._tombstones()}:
            told = json.loads(line)
            file = File(box, os.fsencode(told["path"]))
            assert b"x" not in file.path, f"{file} was dropped, and was to be preserved"
            self.dropped.add((file, int(told["bytes"])))

    def _listed(self) -> Iterator[tuple[int, bytes]]:
        """The lines of all lists of dropped files, each with the outbox that it is about."""
        lists = [(Path(dest).name, content) for dest, content, _ in self.server.published if LIST in dest]
        lists += [(path.name, path.read_bytes()) for path in (self.state / "dropped").glob(f"*/*{LIST}*")]
        for name, content in lists:
            box = next(number for number, path in enumerate(self.boxes) if name.startswith(path.name))
            yield from ((box, line) for line in content.splitlines())

    def _tombstones(self) -> Iterator[tuple[int, bytes]]:
        """Of the journal: a copy, since a database that is looked at may be changed by that."""
        if "budget" not in self.settings or not (self.state / "journal.db").exists():
            return
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(sqlite3.DatabaseError):
            for path in self.state.glob("journal.db*"):
                shutil.copy(path, folder)
            with contextlib.closing(sqlite3.connect(Path(folder) / "journal.db")) as db:
                rows = db.execute("SELECT path, line FROM tombstone JOIN outbox ON outbox.id = tombstone.outbox")
                yield from [(self.boxes.index(Path(os.fsdecode(path))), bytes(line)) for path, line in rows]

    def _was_dropped(self, content: bytes) -> bool:
        return any(size == len(content) and self.producers.wrote(file, content) for file, size in self.dropped)

    def _in_window(self, wall: float) -> bool:
        if "schedule" not in self.settings:
            return True
        return any(moment // 3600 // WINDOW_H % 2 == 1 for moment in (wall, wall - GRACE_S))

    def _came_on(self, file: File, content: bytes) -> bool:
        """Whether it was sent from the first outbox before: there under this name, or under one that was taken here."""
        earlier = [dest for dest, sent, _ in self.server.published if sent == content and dest.startswith("/up0-")]
        paths = {os.fsencode(dest.lstrip("/").partition("/")[2]) for dest in earlier}
        plain = BESIDE.sub(b"", file.path)
        cut = any(path.startswith(plain) for path in paths) and len(file.path.rpartition(b"/")[2]) == NAME_MAX
        return file.box == 1 and (cut or bool(paths & {file.path, plain}))

    def _excused(self, content: bytes) -> int:
        """How often an answer may have been lost since it was written."""
        return self.producers.incidents - self.producers.born.get(content, 0)

    def _whose(self, dest: str) -> File:
        base, _, path = dest.lstrip("/").partition("/")
        box, _, edit = base.removeprefix("up").partition("-")
        late = int(edit) != self.destinations[int(box)]
        assert not late or dest in self.begun_before, f"{dest} was sent to where it should not go any more"
        return File(int(box), os.fsencode(path))

    def _copies(self) -> Counter[bytes]:
        """Every regular file in an outbox, in quarantine or in an archive, by its content."""
        places = {*self.boxes, self.state, *(Path(place.strip('"')) for place in self._places.values())}
        found: Counter[bytes] = Counter()
        for place in places:
            for path, status in tree(place):
                if stat.S_ISREG(status.st_mode) and status.st_size <= 1 << 18 and b"journal." not in path:
                    found[Path(os.fsdecode(path)).read_bytes()] += 1
        return found

    def _outside(self) -> dict[bytes, tuple[object, ...]]:
        return {
            path: (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, _content(path, status))
            for path, status in tree(self.outside)
        }

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
            self.agent.run(60)
            self._look()
            self.clock.passes(WINDOW_H / 2 * 3600)
            if not self._left():
                break
        assert not self._left(), f"stayed behind: {self._left()}"
        type(self).versions += len(self.sent)

    def _left(self) -> list[File]:
        """What is neither on the server nor in quarantine; a private name that the agent cannot rename is not sent."""
        left = set().union(*(self._left_in(number) for number in range(len(self.boxes))))
        if not self.may_rename:  # nor can it take out what was dropped
            left = {content for content in left if not self._was_dropped(content)}
        return [file for content, file in self.producers.wanted.items() if content in left]

    def _left_in(self, number: int) -> set[bytes]:
        """What lies in an outbox and was not sent from there."""
        box = self.boxes[number]
        hidden = tuple(os.fsencode(box / name) for name in (".quarantine", ".archive"))
        files = [(path, status) for path, status in tree(box) if stat.S_ISREG(status.st_mode)]
        waiting = [(path, status) for path, status in files if self.may_rename or PRIVATE not in path]
        contents = {_content(path, status) for path, status in waiting if not path.startswith(hidden)}
        sent = self.server.published
        return contents - {content for dest, content, _ in sent if dest.startswith(f"/up{number}-")}

    def _heal(self) -> None:
        assert self.writable(), "the file system stays read-only"
        self.agent.stop()
        self.disk.make_room()
        self.server.refused.clear()
        self.server.cut_after = 0
        self.server.away = False
        self.include = [False, False]
        self._configure()
        for box in self.boxes:
            box.chmod(self.producers.folder_mode)
            for path, status in tree(box):
                if stat.S_ISDIR(status.st_mode):
                    os.chmod(path, self.producers.folder_mode)
                elif stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in self.producers.foreign:
                    content = _content(path, status)
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

    # -- setting up

    def _make_folders(self, who: str, folders: str) -> None:
        self._made(self.here, ROOT)
        for box in self.boxes:
            self._made(box, ROOT if who == "sticky folder" else PRODUCER, 0o1777 if who == "sticky folder" else 0o777)
        self.aside = self._made(self.here / "aside", PRODUCER)
        self._made(self.state, self.user, 0o700)
        for name in ("outside", "outside/folder"):
            self._made(self.here / name, ROOT)
        for name, mode in (("file", 0o600), ("folder/inner", 0o644), ("open", 0o666), ("x.reason.txt", 0o644)):
            (self.outside / name).write_bytes(b"somebody else's " + os.fsencode(name))
            if self.disk.has_owners:
                (self.outside / name).chmod(mode)
        self._places: dict[str, str] = {}
        if folders != "default":
            # On FAT everybody may write, so no agent trusts a quarantine there: what is to go to it stays in its outbox
            # for good, as it should, and would not be told from what was forgotten.
            base = self.here if folders == "shared" and self.disk.has_owners else self.life
            for name in ("quarantine", "archive"):
                place = self._made(base / name, self.user, 0o700)
                with as_user(self.user):
                    os.close(open_trusted(place))
                self._places[name] = f'"{place}"'

    def _made(self, folder: Path, user: User, mode: int = 0o755) -> Path:
        folder.mkdir(parents=True)
        with contextlib.suppress(PermissionError):  # FAT has no owners
            os.chown(folder, *user)
            folder.chmod(mode)
        return folder

    def _configure(self) -> None:
        lines = [
            f'state_dir = "{self.state}"',
            'time_zone = "UTC"',
            "small_file_bytes = 1000",
            '[server]\nhost = "server"',
            "[retry]\nbase_s = 1\ncap_s = 5\nmax_attempts = 2",
        ]
        for box, path in enumerate(self.boxes):
            lines += ["[[outbox]]", f'path = "{path}"', f'destination = "/up{box}-{self.destinations[box]}"']
            forward = (
                {"after_upload": '"forward"', "forward_to": '"box1"'} if self.policy == "chain" and box == 0 else {}
            )
            lines += [f"{key} = {value}" for key, value in (self.settings | forward).items()]
            lines += ['include = ["*a*"]'] * self.include[box]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o644)

    def _offers_leases(self) -> bool:
        if not self.disk.tells_writers:
            return False
        path = self.aside / "lease"
        path.write_bytes(b"")
        with path.open("rb") as file:
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except OSError:
                return False
        return True


def _content(path: bytes, status: os.stat_result) -> bytes:
    """What a file holds, or where a link leads."""
    try:
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(path)
        return Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError:
        return b""


def lives(folder: Path, *, kind: str, count: int) -> Row:
    """So many lives of a device on a file system of this kind. Raises: AssertionError, with the way to it."""
    del folder  # the disk lies in memory
    with LabDisk(Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory())), kind) as disk:
        machine = laboratory(disk)
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


def laboratory(disk: LabDisk) -> type[Laboratory]:
    """The machine over this disk."""
    own = {"disk": disk, "steps": 0, "versions": 0, "failure": ""}
    return type(f"LaboratoryOn{disk.kind.capitalize()}", (Laboratory,), own)

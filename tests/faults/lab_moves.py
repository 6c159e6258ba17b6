"""What producers, operators, servers and disks do in the laboratory, at rest or between any two steps of the agent."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

from faults.lab_files import DATES_S, NAMES, File
from faults.lab_hooks import MOODS
from faults.lab_pull import REMOTE_NAMES
from faults.lab_setup import MARKER, PRODUCER, PULLS, ROOT, THIRD
from faults.lab_world import User
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

__all__ = ["Moves"]

HOLD_S = 60.0
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
        def told(self: Moves, **chosen: Any) -> None:
            self.agent.tell(f"{act.__name__} {', '.join(f'{name}={value}' for name, value in chosen.items())}")
            with self.failing():
                self.messes += act.__name__ in MESSY
                act(self, **chosen)

        return rule(**choices)(told)

    return decorated


collects = precondition(lambda self: self.policy == "markers")
fetches = precondition(lambda self: self.policy in PULLS)
asks_hooks = precondition(lambda self: self.policy in ("hooks", "judged pull"))


class Moves:
    """For the machine: its rules, each told in the log before it acts."""

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

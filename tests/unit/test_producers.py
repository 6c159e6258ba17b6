"""The table of iot.spooler.outbox.readiness, producer by producer, on real file systems with a real agent.

One run a file system and kind of agent: all producers work beside each other, each on a file of its own, in pauses that
are longer than settle_s. What was published is recorded, version by version.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conditions import missing
from faults.lab_disk import KINDS, LabDisk, cannot_mount, in_memory
from unit.folder_remote import FolderRemote
from unit.other_user import without_capabilities

from iot.sftp.client import Journal
from iot.spooler.agent.agent import Agent
from iot.spooler.config.settings import Settings
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA

pytestmark = pytest.mark.needs("root", "mounts")

RECORD_S = 0.3
HOLD_S = 4.0
PAUSE_S = 1.0
LINES = 6
END_S = 120
OTHER = 65534
AGENTS = ("with CAP_LEASE", "owner without it", "another user without it")


# -- producers: each writes `path`; `folder` is on the same file system, outside of the outbox


def line(number: int) -> bytes:
    return b"line %d\n" % number


WHOLE = b"".join(map(line, range(LINES)))


def renames_in(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    (folder / path.name).write_bytes(WHOLE)
    pause()
    os.rename(folder / path.name, path)


def writes_and_closes(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    path.write_bytes(WHOLE)


def keeps_it_open(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    with path.open("wb", buffering=0) as file:
        for number in range(LINES):
            file.write(line(number))
            pause()


def opens_again_to_append(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    for number in range(LINES):
        with path.open("ab") as file:
            file.write(line(number))
        pause()


def writes_through_a_mapping(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    with path.open("w+b") as file:
        file.truncate(len(WHOLE))
        mapping = mmap.mmap(file.fileno(), len(WHOLE))
    for number in range(LINES):
        start = len(line(0)) * number
        mapping[start : start + len(line(0))] = line(number)
        pause()
    mapping.close()


def rewrites_in_place(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    for number in range(LINES):
        with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
            file.write(WHOLE[: len(WHOLE) // 2].replace(b"line", b"%4d" % number))
            pause()
            file.write(WHOLE[len(WHOLE) // 2 :].replace(b"line", b"%4d" % number))


def truncates(path: Path, folder: Path, pause: Callable[[], None]) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(WHOLE + b"rest")
        pause()
        file.truncate(len(WHOLE))
        pause()


PRODUCERS = (
    renames_in,
    writes_and_closes,
    keeps_it_open,
    opens_again_to_append,
    writes_through_a_mapping,
    rewrites_in_place,
    truncates,
)


# -- the agent, in a process of its own


class Recorder(FolderRemote):
    """Writes down each version that is published."""

    def _deliver(self, job: Any) -> Any:
        outcome = super()._deliver(job)
        if self.deliveries and outcome.dest == self.deliveries[-1] and not hasattr(outcome, "error"):
            with (self.root / "log").open("a") as log:
                log.write(json.dumps([outcome.dest, (self.root / job.dest.lstrip("/")).read_text()]) + "\n")
        return outcome


class Loop:
    """Real time; ends when it is told by a file."""

    def __init__(self, end: Path) -> None:
        self._end = end

    def stopping(self) -> bool:
        return self._end.exists()

    def alive(self) -> None:
        pass

    def pause(self, seconds: float) -> None:
        time.sleep(min(max(seconds, 0.0), 0.02))

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def woken(self) -> None:
        """Nobody wakes it."""

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        if final:
            completeness = agent.intakes[0].outbox.completeness
            (self._end.parent / "completeness").write_text(str(completeness))


FAST = {"settle_s": RECORD_S, "hold_s": HOLD_S}


def run_agent(outbox: Path, home: Path, options: dict[str, float], scan_s: float = 0.1) -> None:
    settings = Settings.model_validate(
        {
            "state_dir": str(home / "state"),
            "scan_s": scan_s,
            "server": {"host": "h"},
            "outbox": [{"path": str(outbox), "destination": "/up", **options}],
        }
    )
    journal = Journal(settings.state_dir, QUEUE_SCHEMA)
    clocks = Clocks(time.monotonic, time.time)
    Agent(settings, journal, Recorder(home / "remote"), Loop(home / "end"), clocks, lambda: 0.0).run()
    journal.close()


class Outcome:
    """known: whether completeness could be known. versions: of each producer's file, what was published in turn."""

    def __init__(self, home: Path, *, known: bool) -> None:
        self.known = known
        self.completeness = (home / "completeness").read_text()
        self.versions: dict[str, list[bytes]] = {producer.__name__: [] for producer in PRODUCERS}
        for text in (home / "remote" / "log").read_text().splitlines():
            dest, content = json.loads(text)
            self.versions[dest.rpartition("/")[2]].append(content.encode())


@functools.cache
def outcome_of(kind: str, agent: str) -> Outcome:
    """One run, which all tests of this kind of file system and agent look at."""
    home = Path(tempfile.mkdtemp(prefix="iot-sftp-producers-", dir=in_memory()))
    (home / "remote").mkdir()
    try:
        with LabDisk(home / "lab", kind) as disk:
            known = disk.tells_writers and (agent != AGENTS[2] or not disk.has_owners)
            _produce(disk.path, home, agent)
            return Outcome(home, known=known)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _produce(disk: Path, home: Path, agent: str) -> None:
    outbox, stage = disk / "box", disk / "stage"
    outbox.mkdir()
    stage.mkdir()
    run = functools.partial(run_agent, outbox, home, FAST)
    watcher = threading.Thread(target=(run if agent == AGENTS[0] else lambda: without_capabilities(run)))
    producers = [threading.Thread(target=_work, args=(producer, outbox, stage, agent)) for producer in PRODUCERS]
    for thread in (watcher, *producers):
        thread.start()
    for thread in producers:
        thread.join(END_S)
    end = time.monotonic() + END_S
    while any(outbox.iterdir()) and time.monotonic() < end and watcher.is_alive():
        time.sleep(0.05)
    left = sorted(path.name for path in outbox.iterdir())
    (home / "end").touch()
    watcher.join(END_S)
    assert left == []


def _work(producer: Callable[..., None], outbox: Path, stage: Path, agent: str) -> None:
    path = outbox / producer.__name__

    def pause() -> None:
        if agent == AGENTS[2]:
            for place in (path, stage / path.name):
                try:
                    os.chown(place, OTHER, OTHER)
                    place.chmod(0o644)
                except OSError:
                    pass  # it is not there, or FAT knows no owners
        time.sleep(PAUSE_S)

    producer(path, stage, pause)


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KINDS)
def outcome(request: pytest.FixtureRequest, agent: str) -> Outcome:
    reason = cannot_mount(request.param)
    if reason is not None:
        missing(reason)
    return outcome_of(request.param, agent)


def test_whether_completeness_is_known_is_said(outcome: Outcome) -> None:
    assert outcome.completeness.startswith("known" if outcome.known else "guessed")


@pytest.mark.parametrize("producer", [renames_in, writes_and_closes])
def test_a_finished_file_is_sent_once(outcome: Outcome, producer: Callable[..., None]) -> None:
    assert outcome.versions[producer.__name__] == [WHOLE]


@pytest.mark.parametrize("producer", [keeps_it_open, truncates])
def test_a_file_that_is_kept_open_in_pauses_arrives_whole(outcome: Outcome, producer: Callable[..., None]) -> None:
    versions = outcome.versions[producer.__name__]
    assert versions[-1] == WHOLE
    if outcome.known:
        assert len(versions) == 1
    else:
        assert len(versions) <= 2 + LINES * PAUSE_S / HOLD_S


def test_every_line_of_a_producer_that_opens_again_arrives(outcome: Outcome) -> None:
    versions = outcome.versions["opens_again_to_append"]
    assert set(b"".join(versions).splitlines()) == set(WHOLE.splitlines())
    if not outcome.known:
        assert versions[-1] == WHOLE  # it stays while it grows


def test_what_is_written_through_a_mapping_arrives_where_completeness_is_known(outcome: Outcome) -> None:
    versions = outcome.versions["writes_through_a_mapping"]
    if outcome.known:
        assert versions == [WHOLE]
    assert versions


def test_the_last_of_many_versions_written_in_place_arrives_and_none_is_half_where_that_is_known(
    outcome: Outcome,
) -> None:
    versions = outcome.versions["rewrites_in_place"]
    expected = [WHOLE.replace(b"line", b"%4d" % number) for number in range(LINES)]
    assert versions[-1] == expected[-1]
    if outcome.known:
        assert [version for version in versions if version not in expected] == []


def test_a_logger_that_pauses_for_longer_than_settle_s_loses_no_line_with_the_defaults(tmp_path: Path) -> None:
    """A line every 2.6 s into a file that stays open."""
    (tmp_path / "box").mkdir()
    (tmp_path / "remote").mkdir()
    watcher = threading.Thread(target=run_agent, args=(tmp_path / "box", tmp_path, {}, 2.0))
    watcher.start()
    keeps_it_open(tmp_path / "box" / "log", tmp_path, lambda: time.sleep(2.6))
    end = time.monotonic() + END_S
    while any((tmp_path / "box").iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    (tmp_path / "end").touch()
    watcher.join(END_S)
    assert [json.loads(text)[1] for text in (tmp_path / "remote" / "log").read_text().splitlines()] == [WHOLE.decode()]

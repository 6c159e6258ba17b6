"""Where completeness is guessed, a delivered file is held for a while; and what a remount of FAT changes: nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import missing
from faults.lab_disk import LabDisk, cannot_mount, in_memory
from unit.agent_rig import Rig
from unit.other_user import without_capabilities

from iot.sftp.client import Journal
from iot.spooler.agent.draining import End
from iot.spooler.outbox.departure import Why

OTHER = 65534


def foreign(rig: Rig, name: str, content: bytes = b"x") -> Path:
    """A file of another user, of which nobody can know whether he still writes to it."""
    path: Path = rig.put(name, content)
    path.chmod(0o666)
    os.chown(path, OTHER, OTHER)
    return path


@pytest.mark.needs("root")
def test_a_held_file_survives_a_restart_costs_no_writes_and_leaves_when_its_time_is_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    foreign(rig, "f")

    def work() -> None:
        real, written = Journal.write, []

        def write(self: Journal, work: object) -> object:
            written.append(rig.loop.now)
            return real(self, work)  # type: ignore[arg-type]

        Journal.write = write  # type: ignore[method-assign, assignment]
        start = rig.loop.now
        rig.loop.stop_at = start + 50
        assert rig.run(drain=False) is End.STOPPED
        assert (rig.left(), rig.arrived(), rig.agent.owed.waiting.count(Why.RESTING)) == (["f"], ["f"], 1)
        assert [at for at in written if start + 5 < at < start + 49] == []
        restarted = rig.loop.now
        rig.loop.stop_at = 1e9
        assert rig.run(drain=True) is End.DRAINED  # it waits for the hold: nothing is left for anybody to look after
        assert (rig.left(), len(rig.remote.deliveries)) == ([], 1)
        assert 59 < rig.loop.now - restarted < 70

    without_capabilities(work)


@pytest.mark.needs("root")
def test_a_held_file_that_leaves_when_the_agent_is_woken_leaves_once(tmp_path: Path) -> None:
    """By its quiet time it may go a few seconds before its wait is over; then nobody asks for it again."""
    rig = Rig(tmp_path)
    rig.outbox["settle_s"] = 5
    path = foreign(rig, "f")
    os.utime(path, (rig.loop.wall(),) * 2)

    def pause(seconds: float) -> None:
        rig.loop.now += max(min(seconds, 0.5), 0.05)
        assert rig.agent is not None
        rig.agent.wake()  # SIGUSR1, again and again

    def work() -> None:
        rig.loop.pause = pause  # type: ignore[method-assign]
        rig.loop.stop_at = rig.loop.now + 90
        assert rig.run(drain=False) is End.STOPPED
        assert (rig.left(), len(rig.remote.deliveries), len(rig.agent.owed.waiting)) == ([], 1, 0)

    without_capabilities(work)


@pytest.mark.needs("root")
def test_a_held_file_that_changes_is_sent_again_whole(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = foreign(rig, "f", b"line 1\n")

    def work() -> None:
        rig.loop.stop_at = rig.loop.now + 30
        rig.run(drain=False)
        assert rig.arrived() == ["f"]
        with path.open("ab") as late:
            late.write(b"line 2\n")
        rig.loop.stop_at = 1e9
        assert rig.run(drain=True) is End.DRAINED
        assert (rig.base / "remote/up/f").read_bytes() == b"line 1\nline 2\n"
        assert (rig.left(), len(rig.remote.deliveries)) == ([], 2)

    without_capabilities(work)


@pytest.mark.needs("root")
def test_a_held_file_whose_change_is_hidden_by_a_restored_time_is_sent_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = foreign(rig, "f", b"1" * 10)

    def work() -> None:
        rig.loop.stop_at = rig.loop.now + 30
        rig.run(drain=False)
        before = path.stat()
        path.write_bytes(b"2" * 10)

        rig.loop.stop_at = 1e9
        assert rig.run(drain=True) is End.DRAINED
        assert (rig.base / "remote/up/f").read_bytes() == b"2" * 10
        assert before.st_size == 10

    without_capabilities(work)


@pytest.mark.needs("root")
def test_an_archived_file_is_held_as_well(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.outbox["after_upload"] = "archive"
    foreign(rig, "f")

    def work() -> None:
        rig.loop.stop_at = rig.loop.now + 30
        rig.run(drain=False)
        assert rig.left() == ["f"]
        rig.loop.stop_at = 1e9
        assert rig.run(drain=True) is End.DRAINED
        assert rig.left() == []

    without_capabilities(work)


def test_a_drain_does_not_wait_where_completeness_is_known(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for number in range(20):
        rig.put(f"f{number}")
    start = rig.loop.now
    assert rig.run(drain=True) is End.DRAINED
    assert rig.loop.now - start < 30


def test_a_drain_leaves_a_file_that_is_open_for_writing_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = rig.put("log", b"line\n")
    with path.open("ab"):
        assert rig.run(drain=True) is End.REMAINS
        assert rig.agent.intakes[0].readiness.open_files == 1
    assert (rig.left(), rig.arrived()) == (["log"], [])
    assert rig.run(drain=True) is End.DRAINED
    assert rig.arrived() == ["log"]


def test_a_file_that_is_opened_after_its_delivery_stays_and_leaves_when_it_is_closed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = rig.put("log", b"line\n")
    rig.remote.before = lambda job: writers or writers.append(path.open("ab", buffering=0))
    writers: list[object] = []
    rig.loop.stop_at = rig.loop.now + 60
    rig.run(drain=False)
    assert (rig.left(), rig.arrived()) == (["log"], ["log"])
    assert rig.agent.owed.held[rig.agent.intakes[0].number]
    writers[0].close()  # type: ignore[attr-defined]
    rig.loop.stop_at = 1e9
    assert rig.run(drain=True) is End.DRAINED
    assert (rig.left(), len(rig.remote.deliveries)) == ([], 1)


def test_a_delivered_file_that_was_only_touched_is_compared_and_its_first_entry_goes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = rig.put("f")
    checked: list[bool] = []

    def before(job: object) -> None:
        checked.append(job.check_final)  # type: ignore[attr-defined]
        if len(checked) == 1:
            writers.append(path.open("ab"))

    writers: list[object] = []
    rig.remote.before = before
    rig.loop.stop_at = rig.loop.now + 20
    rig.run(drain=False)
    os.rename(path, tmp_path / "aside")
    os.rename(tmp_path / "aside", path)  # its time of change has moved
    writers[0].close()  # type: ignore[attr-defined]
    rig.loop.stop_at = 1e9
    assert rig.run() is End.DRAINED
    assert checked == [False, True]
    assert rig.left() == []


@pytest.mark.parametrize("kept", [False, True])
def test_a_file_that_is_touched_while_it_is_compared_is_compared_again(tmp_path: Path, kept: bool) -> None:
    rig = Rig(tmp_path)
    path = rig.put("f")
    checked: list[bool] = []

    def before(job: object) -> None:
        checked.append(job.check_final)  # type: ignore[attr-defined]
        if len(checked) == 1 and not kept:
            writers.append(path.open("ab"))
        elif len(checked) in (2, 3):
            path.chmod(0o600 + len(checked))

    writers: list[object] = []
    rig.outbox["after_upload"] = "keep" if kept else "delete"
    rig.remote.before = before
    rig.loop.stop_at = rig.loop.now + 20
    rig.run(drain=False)
    path.chmod(0o600)
    for writer in writers:
        writer.close()  # type: ignore[attr-defined]
    rig.loop.stop_at = 1e9
    assert rig.run() is End.DRAINED
    assert checked == [kept, True, True, True]  # a new outbox whose files are kept is compared first
    assert rig.left() == ["f"] * kept


def test_a_new_version_that_comes_during_a_comparison_is_sent_at_once_and_is_no_failure(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.outbox["after_upload"] = "keep"
    path = rig.put("f")
    assert rig.run() is End.DRAINED
    path.chmod(0o600)
    checked: list[bool] = []

    def before(job: object) -> None:
        checked.append(job.check_final)  # type: ignore[attr-defined]
        if len(checked) == 1:
            path.write_bytes(b"another")

    rig.remote.before = before
    assert rig.run() is End.DRAINED
    assert checked == [True, False]
    assert rig.agent.outcomes.last_error is None
    assert (tmp_path / "remote" / "up" / "f").read_bytes() == b"another"


@pytest.mark.needs("root")
def test_a_held_file_that_was_only_touched_is_not_sent_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = foreign(rig, "f")

    def work() -> None:
        rig.loop.stop_at = rig.loop.now + 20
        rig.run(drain=False)
        assert rig.remote.deliveries == ["/up/f"]
        (tmp_path / "remote" / "up" / "f").unlink()  # the consumer
        os.rename(path, tmp_path / "aside")
        os.rename(tmp_path / "aside", path)  # its time of change has moved
        rig.loop.stop_at = 1e9
        assert rig.run() is End.DRAINED
        assert rig.remote.deliveries == ["/up/f"]
        assert rig.left() == []

    without_capabilities(work)


@pytest.fixture
def fat() -> Iterator[LabDisk]:
    reason = cannot_mount("fat")
    if reason is not None:
        missing(reason)
    folder = tempfile.mkdtemp(prefix="iot-sftp-fat-", dir=in_memory())
    try:
        with LabDisk(Path(folder) / "lab", "fat") as disk:
            yield disk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def on_fat(tmp_path: Path, fat: LabDisk) -> Rig:
    rig = Rig(tmp_path)
    rig.box.rmdir()
    rig.box = fat.path / "box"
    rig.box.mkdir()
    rig.outbox["path"] = str(rig.box)
    return rig


def inodes(rig: Rig) -> dict[str, int]:
    """Looked at from the last to the first: where they are numbered as they are looked at, each gets another one."""
    return {path.name: path.stat().st_ino for path in sorted(rig.box.iterdir(), reverse=True)}


@pytest.mark.needs("root")
def test_kept_files_on_fat_are_neither_sent_again_nor_forgotten_at_a_remount(tmp_path: Path, fat: LabDisk) -> None:
    rig = on_fat(tmp_path, fat)
    rig.outbox["after_upload"] = "keep"
    for number in range(5):
        rig.put(f"f{number}")
    assert rig.run() is End.DRAINED
    before = {name: (rig.box / name).stat().st_ino for name in rig.left()}
    for number in range(3):
        assert fat.remount()
        assert inodes(rig) != before
        rig.put(f"new{number}")
        assert rig.run() is End.DRAINED
        assert len(rig.remote.deliveries) == 6 + number
    rig.put("f0", b"another version")
    assert rig.run() is End.DRAINED
    assert rig.remote.deliveries[-1] == "/up/f0"


@pytest.mark.needs("root")
def test_files_on_fat_that_were_delivered_before_a_remount_are_compared_not_sent_again(
    tmp_path: Path, fat: LabDisk
) -> None:
    rig = on_fat(tmp_path, fat)
    for number in range(5):
        rig.put(f"f{number}")
    rig.loop.stop_at = rig.loop.now + 30
    rig.run(drain=False)
    assert len(rig.remote.deliveries) == 5
    if not fat.tells_writers:
        assert len(rig.left()) == 5  # held
    assert fat.remount()
    inodes(rig)
    checked: list[bool] = []
    rig.remote.before = lambda job: checked.append(job.check_final)
    rig.loop.stop_at = 1e9
    assert rig.run() is End.DRAINED
    assert False not in checked
    assert rig.left() == []

"""No room for the journal at the start: the agent delivers all the same, and moves in when there is room."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.folder_remote import FolderRemote

from iot.sftp.client import DiskFull, LoginRefused
from iot.spooler.agent.draining import End
from iot.spooler.config.settings import Settings
from iot.spooler.process.service import Service
from iot.spooler.state.journal_location import LOOK_EVERY_S, JournalLocation


def settings(base: Path, **outbox: object) -> Settings:
    (base / "box").mkdir(exist_ok=True)
    return Settings.model_validate(
        {
            "state_dir": str(base / "state"),
            "server": {"host": "h"},
            "outbox": [{"path": str(base / "box"), "destination": "/up", "settle_s": 0, **outbox}],
        }
    )


def drain(given: Settings, remote: FolderRemote) -> tuple[End, JournalLocation]:
    location = JournalLocation(given, lambda: 0.0)
    service = Service(None, {}, drain=True, make_remote=lambda *_: remote)
    return service.run(given, location), location


@contextlib.contextmanager
def tiny_files() -> Iterator[None]:
    """A limit of this process that is as good as a quota: no file longer than 2 KiB. pytest's own output, where it
    goes to a file, is under it too: so only for part of a test's body."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_deliveries_go_on_without_a_journal_and_it_moves_in_when_there_is_room(tmp_path):
    given = settings(tmp_path)
    for number in range(30):
        (tmp_path / "box" / f"{number}").write_bytes(b"content")
    remote = FolderRemote(tmp_path / "remote")
    now = 0.0
    with tiny_files():
        end, location = drain(given, remote)
        location.close()
        again = JournalLocation(given, lambda: now)
        without_room = (again.journal.state_dir, again.has_room_again())
    assert (end, len(remote.deliveries), os.listdir(tmp_path / "box")) == (End.DRAINED, 30, [])
    assert without_room == (None, False)
    assert not again.has_room_again()  # not looked at yet
    now += LOOK_EVERY_S
    assert again.has_room_again()
    again.move()
    assert again.journal.state_dir == tmp_path / "state"
    again.close()


def test_a_refused_login_is_not_tried_anew_because_the_journal_moves(tmp_path, monkeypatch):
    given = settings(tmp_path)
    (tmp_path / "box" / "f").write_bytes(b"content")
    remote, now, pauses = FolderRemote(tmp_path / "remote"), 0.0, 0
    remote.cannot_connect = [LoginRefused("no")] * 9
    service = Service(None, {}, make_remote=lambda *_: remote)

    def pause(_: float) -> None:
        nonlocal now, pauses
        pauses += 1
        if len(remote.cannot_connect) < 9:  # refused once
            now += LOOK_EVERY_S
        service._terminate = pauses > 60

    monkeypatch.setattr(service, "pause", pause)
    with tiny_files():
        location = JournalLocation(given, lambda: now)
    assert location.journal.state_dir is None
    service.run(given, location)
    assert location.journal.state_dir == tmp_path / "state"
    assert len(remote.cannot_connect) == 9 - 1
    location.close()


@pytest.mark.parametrize("after_upload", ["keep", "archive"])
def test_an_agent_whose_deliveries_make_no_room_waits_for_it(tmp_path, after_upload):
    given = settings(tmp_path, after_upload=after_upload)
    with tiny_files(), pytest.raises(DiskFull):
        JournalLocation(given, lambda: 0.0)


@pytest.mark.needs("mounts")
def test_on_a_full_disk_deliveries_make_the_room_that_the_journal_needs(tmp_path):
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    command = ["unshare", "-m", "--propagation", "private", sys.executable, __file__, str(disk), str(away)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "in memory DRAINED 40 0 on disk\n"


def _on_a_full_disk(disk: Path, away: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    given = settings(disk)
    for number in range(100):
        try:
            (disk / "box" / f"{number:03d}").write_bytes(bytes(100_000))
        except OSError:
            break  # that was the last that had room
    for name in sorted(os.listdir(disk / "box"))[40:]:
        os.truncate(disk / "box" / name, 0)
    while True:
        try:
            with open(disk / "filler", "ab", buffering=0) as file:
                file.write(bytes(4096))
        except OSError:
            break
    (away).mkdir()
    remote = FolderRemote(away)
    end, location = drain(given, remote)
    print("in memory" if location.journal.state_dir is None else "on disk", end.name, end=" ")
    print(sum(1 for name in remote.deliveries if os.stat(away / name.lstrip("/")).st_size), end=" ")
    print(len(os.listdir(disk / "box")), end=" ")
    location.close()
    os.unlink(disk / "filler")
    again = JournalLocation(given, lambda: 0.0)
    print("on disk" if again.journal.state_dir else "in memory")
    again.close()
    shutil.rmtree(away)


if __name__ == "__main__":
    _on_a_full_disk(Path(sys.argv[1]), Path(sys.argv[2]))

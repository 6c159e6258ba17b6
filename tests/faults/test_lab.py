"""The laboratory of producers and file systems, in its short form; `sh tests/run faults` runs the long one.

IOT_SFTP_LAB_LIVES sets how many lives are tried on each file system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from conditions import missing
from faults.lab import laboratory, lives
from faults.lab_disk import KINDS, LabDisk, cannot_mount, in_memory
from faults.lab_files import File

LIVES = int(os.environ.get("IOT_SFTP_LAB_LIVES", "0"))
LIVES_SHORT = {"ext4": 8, "tmpfs": 8, "overlay": 8, "fat": 6}  # FUSE takes twice as long
GONE_S = 10.0
LOOPS = Path("/sys/block")

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_producers_and_operators_do_nothing_is_lost_mixed_or_multiplied(kind: str, tmp_path: Path) -> None:
    reason = cannot_mount(kind)
    if reason is not None:
        missing(reason)
    count = LIVES or LIVES_SHORT[kind]
    row = lives(tmp_path, kind=kind, count=count)
    assert row.files >= count, "the laboratory did nothing"


@pytest.mark.parametrize("pauses", [1, 2])
def test_delivered_files_on_fat_are_not_sent_again_however_often_the_medium_is_put_in_again(pauses: int) -> None:
    """A life that the laboratory found: between two remounts the agent learns of the files and compares none yet."""
    reason = cannot_mount("fat")
    if reason is not None:
        missing(reason)
    with LabDisk(Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory())), "fat") as disk:
        life = laboratory(disk)()
        life.begin("other user", "archive", 2, same_disk=True, folders="default")
        for file in (File(0, b"a"), File(1, b"x.json")):
            life.producers.rename_in(file, 20)
        life.agent.run(8)
        assert [dest for dest, *_ in life.server.published] == ["/up0-0/a", "/up1-0/x.json"]
        for number in range(3):
            life.medium_is_put_in_again()
            life.producers.write(File(1, b"a.%d" % number), 8)  # which makes the agent pause before it sends
            life.agent.run(pauses)
        life.agent.run(8)
        life.teardown()
        assert sorted(dest for dest, *_ in life.server.published) == sorted(
            ["/up0-0/a", "/up1-0/x.json", *(f"/up1-0/a.{number}" for number in range(3))]
        )


@pytest.mark.parametrize("after_upload", ["delete", "keep"])
def test_delivered_files_on_fat_with_a_time_that_it_cannot_hold_are_not_sent_again(after_upload: str) -> None:
    """A device whose clock stands at 1970: after a remount through FUSE its files are from 1980."""
    reason = cannot_mount("fat")
    if reason is not None:
        missing(reason)
    with LabDisk(Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory())), "fat") as disk:
        life = laboratory(disk)()
        life.begin("same user", after_upload, 0, same_disk=True, folders="default")
        for file, seconds in ((File(0, b"a"), 0), (File(1, b"a"), 34_359_738_368)):
            life.producers.rename_in(file, 20)
            life.producers.date(file, seconds)
        for _ in range(3):
            life.agent.run(4)
            life.medium_is_put_in_again()
        life.teardown()
        assert sorted(dest for dest, *_ in life.server.published) == ["/up0-0/a", "/up1-0/a"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_laboratory_stays_mounted(kind: str) -> None:
    reason = cannot_mount(kind)
    if reason is not None:
        missing(reason)
    folder = Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory()))
    with contextlib.suppress(KeyboardInterrupt), LabDisk(folder, kind) as disk:
        assert os.fspath(disk.path) in Path("/proc/self/mounts").read_text()
        raise KeyboardInterrupt
    assert os.fspath(folder) not in Path("/proc/self/mounts").read_text()
    assert os.fspath(folder) not in "".join(path.read_text() for path in LOOPS.glob("loop*/loop/backing_file"))
    assert not folder.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_laboratory_outlives_its_process_when_that_is_killed(kind: str) -> None:
    reason = cannot_mount(kind)
    if reason is not None:
        missing(reason)
    folder = Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory()))
    pid = os.fork()
    if pid == 0:
        try:
            with LabDisk(folder, kind):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # whatever happened: it must not go on as the tests
    os.waitpid(pid, 0)
    end = time.monotonic() + GONE_S
    while time.monotonic() < end and (folder.exists() or os.fspath(folder) in _seen_by_anybody()):
        time.sleep(0.02)
    assert not folder.exists()
    assert os.fspath(folder) not in _seen_by_anybody()


def _seen_by_anybody() -> str:
    """The mounts of all processes, and the images of all loop devices."""
    texts = []
    for path in [*Path("/proc").glob("[0-9]*/mounts"), *LOOPS.glob("loop*/loop/backing_file")]:
        with contextlib.suppress(OSError):  # it ended meanwhile
            texts.append(path.read_text(errors="replace"))
    return "".join(texts)

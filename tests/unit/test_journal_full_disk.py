"""A full disk costs the journal its reserve and nothing else: a real one, a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL_DISK = """
import subprocess, sys
sys.path[:0] = {path!r}
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from iot.sftp.client import DiskFull, Journal, Schema
state = Path(sys.argv[1])
if {disk!r} == "tmpfs":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(state)], check=True)
else:  # smaller blocks than a page, as on every small ext4
    image = str(state.with_name("image"))
    make = ["mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", "-m", "0", image, "3m"]
    subprocess.run(make, capture_output=True, check=True)
    subprocess.run(["mount", "-o", "loop", image, str(state)], check=True)
schema = Schema("notes", ("CREATE TABLE note (id INTEGER PRIMARY KEY, text BLOB)",))
put = lambda journal: journal.write(lambda db: db.execute("INSERT INTO note (text) VALUES (?)", (bytes(3000),)))
count = lambda journal: journal.read("SELECT count(*) FROM note")[0][0]

def fill():
    with open(state / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
{script}
"""


GOES_ON = """
journal = Journal(state, schema)
reserve = state / "journal.reserve"
assert reserve.stat().st_size == 512 * 1024
put(journal)
fill()
done = 1
try:
    while done < 1000:
        put(journal)
        done += 1
        if not reserve.exists() and done > 20:
            print("went on")
except DiskFull as error:
    print("full", str(state) in str(error))
assert count(journal) == done
assert not reserve.exists()
(state / "filler").unlink()
put(journal)
assert count(journal) == done + 1
journal.close()
journal = Journal(state, schema)
assert count(journal) == done + 1 and journal.moved_aside is None
print("reserve again", reserve.exists())
"""


STARTS = """
journal = Journal(state, schema)
put(journal)
owner = journal.owner
journal.close()
fill()
journal = Journal(state, schema)
assert journal.moved_aside is None and journal.owner == owner and count(journal) == 1
put(journal)
assert count(journal) == 2
print("started")
"""


NO_ROOM = """
fill()
try:
    Journal(state, schema)
except DiskFull as error:
    print("told", str(state) in str(error))
(state / "filler").unlink()
journal = Journal(state, schema)
put(journal)
print("recovered", journal.moved_aside)
"""


DISKS = pytest.mark.parametrize("disk", ["tmpfs", "ext4"])


def on_a_full_disk(folder: Path, disk: str, script: str) -> str:
    (folder / "state").mkdir()
    code = FULL_DISK.format(path=sys.path, disk=disk, script=script)
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", code, str(folder / "state")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("mounts")
@DISKS
def test_a_full_disk_costs_the_reserve_and_deliveries_are_still_settled(tmp_path: Path, disk: str) -> None:
    said = on_a_full_disk(tmp_path, disk, GOES_ON)
    assert "went on" in said
    assert "full True" in said
    assert "reserve again True" in said


@pytest.mark.needs("mounts")
@DISKS
def test_a_start_on_a_full_disk_gives_up_the_reserve_and_keeps_the_journal(tmp_path: Path, disk: str) -> None:
    assert "started" in on_a_full_disk(tmp_path, disk, STARTS)


@pytest.mark.needs("mounts")
@DISKS
def test_a_disk_without_room_for_a_journal_is_told_and_cured_by_room(tmp_path: Path, disk: str) -> None:
    assert on_a_full_disk(tmp_path, disk, NO_ROOM) == "told True\nrecovered None\n"

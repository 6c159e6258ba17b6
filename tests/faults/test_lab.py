"""The laboratory of producers and file systems, in its short form; `sh tests/run faults` runs the long one.

IOT_SFTP_LAB_LIVES sets how many lives are tried on each file system.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from conditions import missing
from faults.lab import lives
from faults.lab_disk import KINDS, LabDisk, cannot_mount, in_memory

LIVES = int(os.environ.get("IOT_SFTP_LAB_LIVES", "15"))
LOOPS = Path("/sys/block")

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_producers_and_operators_do_nothing_is_lost_mixed_or_multiplied(kind: str, tmp_path: Path) -> None:
    reason = cannot_mount(kind)
    if reason is not None:
        missing(reason)
    row = lives(tmp_path, kind=kind, count=LIVES)
    assert row.files >= LIVES, "the laboratory did nothing"


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

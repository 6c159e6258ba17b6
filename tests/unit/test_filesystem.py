"""What the kernel says of a folder's file system, and what may be believed there."""

from __future__ import annotations

import os
from pathlib import Path

from iot.spooler.outbox.mounts import KNOWN, ORDINARY, file_system

NETWORK = {"fuse", "nfs", "smb", "cifs", "smb3", "9p", "ceph", "afs", "coda", "ocfs2", "gfs2", "vboxsf"}


def test_where_other_machines_may_write_this_kernel_is_never_believed_to_know_all_writers() -> None:
    shared = {kind.name for kind in KNOWN.values() if kind.shared}
    assert shared == NETWORK
    assert not any(kind.shared for kind in KNOWN.values() if kind.name not in NETWORK)


def test_only_of_fat_and_fuse_inodes_do_not_last_and_only_of_fat_the_times() -> None:
    assert {kind.name for kind in KNOWN.values() if not kind.inodes} == {"vfat", "exfat", "fuse"}
    assert {kind.name for kind in KNOWN.values() if not kind.times} == {"vfat", "exfat"}


def test_what_cannot_be_told_is_ordinary(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    assert file_system(folder) in (*KNOWN.values(), ORDINARY)
    os.close(folder)
    assert file_system(folder) is ORDINARY

"""What stands in for a small device: a flash disk whose writes are counted, a memory limit, one core."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["Flash", "flash", "small_cell"]

Wrap = Callable[[Sequence[str]], list[str]]
SECTOR_BYTES = 512  # of /sys/block/*/stat, whatever the device's own is
IMAGE_BYTES = 1024**3


class Flash:
    """A loop-mounted ext4; it counts what reaches the block device, the file system's own writes included."""

    def __init__(self, device: str, mount: Path) -> None:
        self._stat = Path("/sys/block", Path(device).name, "stat")
        self._mount = mount

    def written_bytes(self) -> int:
        """Bytes written so far, with all that is still in memory flushed first."""
        subprocess.run(["sync", "-f", str(self._mount)], check=True)
        return int(self._stat.read_text().split()[6]) * SECTOR_BYTES


@contextlib.contextmanager
def flash(mount: Path) -> Iterator[Flash]:
    """A fresh ext4 at `mount`, unmounted at the end. Needs root."""
    mount.mkdir()
    image = mount.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    now = "lazy_itable_init=0,lazy_journal_init=0"  # or the kernel would go on writing in the background
    _do("mkfs.ext4", "-q", "-E", now, str(image))
    device = _do("losetup", "--find", "--show", str(image))
    try:
        _do("mount", "-o", "noatime", device, str(mount))
        try:
            yield Flash(device, mount)
        finally:
            _do("umount", "--lazy", str(mount))
    finally:
        _do("losetup", "--detach", device)
        image.unlink()


@contextlib.contextmanager
def small_cell(limit_bytes: int) -> Iterator[Wrap]:
    """Commands wrapped by it run on one core and share a memory limit. Needs root."""
    with _memory_cgroup(limit_bytes) as members:
        enter = 'echo $$ >"$0" && exec taskset -c 0 "$@"'
        yield lambda command: ["sh", "-c", enter, str(members), *command]


@contextlib.contextmanager
def _memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    version_1 = Path("/sys/fs/cgroup/memory")
    top, limit = (version_1, "memory.limit_in_bytes") if version_1.is_dir() else (version_1.parent, "memory.max")
    if top != version_1:
        (top / "cgroup.subtree_control").write_text("+memory")
    group = top / f"bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def _do(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()

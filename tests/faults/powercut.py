"""A disk whose power can be cut: ext4 in a file, shut down without its log flushed. Root on Linux.

    with PowerCutDisk(tmp_path / "device") as disk:
        ...                      # let a process work in disk.path
        disk.cut()               # what was not on the disk is gone; every call on it fails with EIO now
        ...                      # end the processes that work there, as the power cut ended them
        disk.remount()           # the next boot: the journal is replayed

The mounts live in a mount namespace of the process that made the first disk, so that nobody else's namespace can keep a
dead file system alive, and nothing is left behind when that process is killed. Threads that were there before the
first disk do not see it.

Source: EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, Linux fs/ext4/ioctl.c.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PowerCutDisk"]

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MIB = 1 << 20
SECTOR_BYTES = 512
UNMOUNT_S = 5.0


@functools.lru_cache(maxsize=1)
def enter_private_namespace() -> None:
    """Once in a process: mounts made from here on are seen by this thread and what it starts, and by nobody else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class PowerCutDisk:
    """folder: holds the image and the mount point. size_mib: what fits on the disk."""

    def __init__(self, folder: Path, *, size_mib: int = 256) -> None:
        self.folder = folder
        self.path = folder / "disk"
        self.image = folder / "image"
        self.cuts = 0
        self._mounted = False
        self._size_bytes = size_mib * MIB

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def mount(self) -> None:
        """Mount the disk; made anew when there is none yet."""
        enter_private_namespace()
        if not self.image.exists():
            self.path.mkdir(parents=True)
            with self.image.open("wb") as image:
                image.truncate(self._size_bytes)
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image))
        run("mount", "-t", "ext4", "-o", "loop", str(self.image), str(self.path))
        self._mounted = True

    def cut(self) -> None:
        """Cut the power: nothing more reaches the disk, what was not there yet is lost."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        self.cuts += 1

    def remount(self) -> None:
        """The next boot.

        Raises: OSError when a process still works on the disk.
        """
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        end = time.monotonic() + UNMOUNT_S
        while self._mounted:
            try:
                run("umount", str(self.path))
                self._mounted = False
            except OSError as error:
                if time.monotonic() > end:
                    raise OSError(f"{error}; used by {users(self.path)}") from error
                time.sleep(0.02)  # a process that was killed is still on its way out

    def close(self) -> None:
        """Unmount, also when something still works there: it keeps a detached file system, no one else sees it."""
        try:
            self.unmount()
        except OSError:
            run("umount", "--lazy", str(self.path))
            self._mounted = False
            raise
        finally:
            self.image.unlink(missing_ok=True)

    def written_bytes(self) -> int:
        """What was written to the block device since it was mounted."""
        device = os.stat(self.path).st_dev
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        return int(fields[6]) * SECTOR_BYTES


def users(folder: Path) -> list[str]:
    """The processes with an open file or their working folder below this one."""
    found = set()
    for link in [*Path("/proc").glob("[0-9]*/fd/*"), *Path("/proc").glob("[0-9]*/cwd")]:
        try:
            used = os.readlink(link)
        except OSError:
            continue  # it ended meanwhile
        if used.startswith(f"{folder}/") or used == str(folder):
            pid = link.parts[2]
            found.add(f"{pid} {Path(f'/proc/{pid}/comm').read_text().strip()} {used}")
    return sorted(found)

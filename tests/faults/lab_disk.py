"""Small file systems of every kind that outboxes lie on, for the laboratory of producers. Root on Linux.

    with LabDisk(folder, "ext4") as disk:
        ...                       # work in disk.path
        disk.read_only(True)

Small, so that filling one up is quick; the images lie in memory, where an fsync costs nothing. The mounts live in the
private mount namespace of faults.powercut, so that nobody else sees them. A FUSE daemon would keep that alive when this
process is killed: a guard waits for our end of a pipe to close, unmounts, and removes the folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from conditions import why_not
from faults.powercut import enter_private_namespace, run

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KINDS", "LabDisk", "cannot_mount", "in_memory"]

MIB = 1 << 20
SIZE_MIB = 12
INODES = 400
MEMORY = "/dev/shm"
DAEMON_ENDS_S = 5.0
GUARD = 'cat; umount --lazy "$0"/* 2>/dev/null; rm -rf "$0"'
FAT_OWNER = 4001
FAT_OPTIONS = f"uid={FAT_OWNER},gid={FAT_OWNER},umask=000"
"""Of all files, since FAT keeps no owners; anybody may write, but only the owner may set times."""

KINDS = ("ext4", "tmpfs", "overlay", "fat")
"""fat: the kernel's vfat, or exFAT through FUSE where the kernel has none: no links, no owners, no inodes that last."""
SILLY = b"/.fuse_hidden"


def in_memory() -> str | None:
    """A folder for temporary folders, in memory where there is one."""
    return MEMORY if os.path.isdir(MEMORY) else None


@functools.cache
def cannot_mount(kind: str) -> str | None:
    """Why there can be no such file system here; None when there can."""
    reason = why_not("mounts")
    if reason is not None:
        return reason
    with tempfile.TemporaryDirectory(prefix="iot-sftp-lab-", dir=in_memory()) as folder:
        try:
            with LabDisk(Path(folder), kind):
                return None
        except OSError as error:
            return f"{kind}: {error}"


class LabDisk:
    """folder: holds the image and the mount point `path`. kind: one of KINDS; type: what was mounted for it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.path = folder / "disk"
        self.folder = folder
        self._guard: subprocess.Popen[bytes] | None = None
        self._device = ""
        self._image = folder / "image"
        self._mounted: list[Path] = []
        self.type = kind

    def __enter__(self) -> Self:
        enter_private_namespace()
        self.path.mkdir(parents=True)
        self.folder.chmod(0o755)
        self._guard = subprocess.Popen(["sh", "-c", GUARD, self.folder], stdin=subprocess.PIPE, start_new_session=True)
        try:
            getattr(self, f"_mount_{self.kind}")()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def has_owners(self) -> bool:
        """Whether files have owners, modes, links and a time of change; FAT has none of them."""
        return self.kind != "fat"

    @property
    def tells_writers(self) -> bool:
        """Whether it can know who has a file open: through FUSE others may write to what lies below."""
        return self.type != "exfat"

    def close(self) -> None:
        """Unmount, also when something still works there; nothing is left behind."""
        while self._mounted:
            path = self._mounted.pop()
            try:
                run("umount", str(path))
            except OSError:
                with contextlib.suppress(OSError):
                    run("umount", "--lazy", str(path))
        self._wait_for_daemon()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard is not None:
            self._guard.communicate()

    def read_only(self, on: bool) -> bool:
        """Whether that could be done: a file that is open for writing keeps a file system writable."""
        try:
            run("mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path))
        except OSError:
            return False
        return bool(os.statvfs(self.path).f_flag & os.ST_RDONLY) == on

    def remount(self) -> bool:
        """As when the medium is put in again: on FAT every file has another inode then. -> whether it could be"""
        if self.kind != "fat":
            return False  # there is no medium, or it changes nothing
        try:
            run("umount", str(self.path))
        except OSError:
            return False  # a producer holds a file open
        self._wait_for_daemon()
        self._mount_image(self.type)
        return True

    def fill(self, *, inodes: bool = False) -> None:
        """Leave no room, or no inodes, until `make_room`."""
        folder = self.path / "ballast"
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # the disk is full, as it shall be
            for number in range(2 * INODES if inodes and self.has_owners else 0):
                (folder / f"{number}").touch()
        for block in () if inodes else (MIB, 16 * 1024, 512):
            with contextlib.suppress(OSError), (folder / "ballast").open("ab", buffering=0) as file:
                while file.write(bytes(block)) == block:
                    pass

    def make_room(self) -> None:
        shutil.rmtree(self.path / "ballast", ignore_errors=True)

    # -- inside

    def _mount_ext4(self) -> None:
        self._make_image("mkfs.ext4", "-q", "-F", "-b", "1024", "-N", str(INODES), "-E", "lazy_itable_init=0")
        self._mount_image("ext4")
        self._mounted.append(self.path)
        shutil.rmtree(self.path / "lost+found")

    def _mount_tmpfs(self, path: Path | None = None) -> None:
        options = f"size={SIZE_MIB}m,nr_inodes={INODES},mode=755"
        run("mount", "-t", "tmpfs", "-o", options, "laboratory", str(path or self.path))
        self._mounted.append(path or self.path)

    def _mount_overlay(self) -> None:
        below = self.folder / "below"
        below.mkdir()
        self._mount_tmpfs(below)
        for name in ("lower", "upper", "work"):
            (below / name).mkdir()
        options = f"lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work"
        run("mount", "-t", "overlay", "-o", options, "laboratory", str(self.path))
        self._mounted.append(self.path)

    def _mount_fat(self) -> None:
        try:
            self._make_image("mkfs.vfat")
            self._mount_image("vfat")
        except OSError:  # this kernel has no vfat
            self.type = "exfat"
            self._make_image("mkfs.exfat")
            self._mount_image("exfat")
        self._mounted.append(self.path)

    def _make_image(self, *command: str) -> None:
        with self._image.open("wb") as image:
            image.truncate(SIZE_MIB * MIB)
        try:
            run(*command, str(self._image))
        except FileNotFoundError as error:
            raise OSError(f"{command[0]} is missing") from error

    def _mount_image(self, kind: str) -> None:
        if kind == "exfat":
            self._mount_exfat()
        else:
            options = f"loop,{FAT_OPTIONS}" if kind == "vfat" else "loop"
            run("mount", "-t", kind, "-o", options, str(self._image), str(self.path))

    def _mount_exfat(self) -> None:
        found = subprocess.run(
            ["losetup", "--find", "--show", self._image], check=False, capture_output=True, text=True
        )
        device = found.stdout.strip()
        if not device:
            raise OSError(f"no loop device: {found.stderr.strip()}")
        try:
            run("mount.exfat-fuse", "-o", f"allow_other,default_permissions,{FAT_OPTIONS}", device, str(self.path))
        finally:
            run("losetup", "--detach", device)  # it goes when the mount does
        self._device = device

    def _wait_for_daemon(self) -> None:
        """FUSE unmounts before its daemon lets the device go."""
        end = time.monotonic() + DAEMON_ENDS_S
        backing = Path("/sys/block", Path(self._device).name, "loop/backing_file")
        while self._device and backing.exists() and time.monotonic() < end:
            time.sleep(0.002)


def tree(folder: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Everything below a folder, without following a link: path and status; not what FUSE keeps of a removed file."""
    stack = [os.fsencode(folder)]
    while stack:
        here = stack.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(here) as entries:
            for entry in entries:
                if SILLY in entry.path:
                    continue
                status = entry.stat(follow_symlinks=False)
                yield entry.path, status
                if stat.S_ISDIR(status.st_mode):
                    stack.append(entry.path)

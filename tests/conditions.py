"""What tests need of the machine: asked once, by trying it; and one place decides what follows.

    pytestmark = pytest.mark.needs("root", "mounts")     # a whole file, or a decorator of one test
    missing("rclone is missing: apt-get install rclone")  # from inside a test

Under CI=true a missing condition is a failure; elsewhere it is a skip with the reason. A container may have no loop
devices, CI has them.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["CONDITIONS", "missing", "require", "why_not"]

TRY_S = 30
STEADY_TRY_S = 3.0
STANDSTILL_S = 0.1


def missing(message: str) -> NoReturn:
    """What a test needs is not here: a failure under CI, a skip elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def require(*names: str) -> None:
    """End the test here when one of these conditions does not hold."""
    for name in names:
        reason = why_not(name)
        if reason is not None and name in OF_THE_MACHINE:
            pytest.skip(reason)
        if reason is not None:
            missing(reason)


@functools.cache
def why_not(name: str) -> str | None:
    """Why a condition does not hold here; None where it does."""
    return CONDITIONS[name]()


def _no_root() -> str | None:
    is_root = sys.platform == "linux" and os.geteuid() == 0
    return None if is_root else "needs root on Linux"


def _no_proc() -> str | None:
    return None if os.path.isdir("/proc/self/fd") else "needs /proc"


def _no_dev_full() -> str | None:
    return None if os.path.exists("/dev/full") else "needs /dev/full"


def _no_mounts() -> str | None:
    return _no_root() or _tried("mount -t tmpfs none {folder}", "mounting does not work here")


def _no_loop_mounts() -> str | None:
    return _no_root() or _tried(
        "truncate -s 8M {folder}/image && mkfs.ext4 -q -F {folder}/image && mkdir {folder}/disk"
        " && mount -t ext4 -o loop {folder}/image {folder}/disk",
        "mounting a file through a loop device does not work here",
    )


def _no_vfat() -> str | None:
    return _no_root() or _tried(
        "truncate -s 8M {folder}/image && mkfs.vfat {folder}/image >/dev/null && mkdir {folder}/disk"
        " && mount -t vfat -o loop {folder}/image {folder}/disk",
        "mounting a vfat file system does not work here",
    )


def _no_overlay() -> str | None:
    return _no_root() or _tried(
        "mount -t tmpfs none {folder} && mkdir {folder}/lower {folder}/upper {folder}/work {folder}/disk && mount -t"
        " overlay -o lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work none {folder}/disk",
        "mounting overlayfs does not work here",
    )


def _no_tun() -> str | None:
    """A device node that is there may still be forbidden, and a namespace that can be made may have no devices."""
    if _no_root():
        return "a link at IP level needs root on Linux"
    from faults.tunlink import TunLink

    try:
        with TunLink(rate_bps=1e6, rtt_s=0.0):
            return None
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"a link between two network namespaces does not work here: {error}"


def _not_steady() -> str | None:
    """A virtual machine whose host holds it back stands still, for much longer than what a link is to be timed by."""
    worst_s, began = 0.0, time.monotonic()
    while time.monotonic() < began + STEADY_TRY_S:
        before = time.monotonic()
        time.sleep(0.005)
        while time.monotonic() < before + 0.01:
            pass  # the host counts what is used
        worst_s = max(worst_s, time.monotonic() - before)
    if worst_s < STANDSTILL_S:
        return None
    return f"this machine stands still for {worst_s * 1000:.0f} ms at a time: links cannot be timed on it"


CONDITIONS: dict[str, Callable[[], str | None]] = {
    "root": _no_root,
    "proc": _no_proc,
    "dev-full": _no_dev_full,
    "mounts": _no_mounts,
    "loop-mounts": _no_loop_mounts,
    "vfat": _no_vfat,
    "overlay": _no_overlay,
    "tun": _no_tun,
    "steady": _not_steady,
}

OF_THE_MACHINE = ("vfat", "steady")
"""What cannot be installed: a kernel was built with it or not, a host leaves a machine its time or not. Skipped, with
the reason, under CI too."""


def _tried(commands: str, reason: str) -> str | None:
    """The commands, in a mount namespace that ends with them -> why they do not work."""
    folder = Path(tempfile.mkdtemp(prefix="iot-sftp-try-"))
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", commands.format(folder=folder)]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True, timeout=TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{reason}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None if done.returncode == 0 else f"{reason}: {done.stderr.strip()}"

"""Work done by another process that file permissions stop: root's, too, once it has no capabilities."""

from __future__ import annotations

import ctypes
import os
import struct
import traceback
from collections.abc import Callable

__all__ = ["in_child", "without_capabilities"]

VERSION_3 = 0x20080522


def in_child(work: Callable[[], None]) -> None:
    """Do it in a child process. Raises: AssertionError when it failed there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  it is shown, and the parent fails
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "failed in the child process, see above"


def without_capabilities(work: Callable[[], None]) -> None:
    """Do it in a child process that may do no more than an ordinary user: capset(2) takes all of them away."""

    def powerless() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capset(struct.pack("Ii", VERSION_3, 0), bytes(24)):
            raise OSError(ctypes.get_errno(), "capset")
        work()

    in_child(powerless)

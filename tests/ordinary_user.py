"""A piece of a test as an ordinary user, where file permissions count. Root on Linux.

What it needs is imported before: the interpreter's own files may be root's alone.
"""

from __future__ import annotations

import encodings.ascii  # noqa: F401
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

__all__ = ["AGENT", "PRODUCER", "as_user", "open_folder"]

AGENT, PRODUCER = 54321, 54322


def as_user(user: int, work: Callable[[], str]) -> str:
    """What `work` returns in a child process without any rights of root. Raises: AssertionError with its traceback."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            answer, status = work(), 0
        except BaseException:  # noqa: BLE001  the parent says it
            answer = traceback.format_exc()
        with open(write, "w", encoding="utf-8") as pipe:
            pipe.write(answer)
        os._exit(status)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, answer
    return answer


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="iot-sftp-tests-user-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        rmtree(folder)

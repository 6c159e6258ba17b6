"""Runs one command and tells what it took: wall time, CPU of its whole process tree, peak memory.

It is done in a small process of its own (this file run as a program), which also adopts and waits for what the
command leaves behind, so no descendant is missed and no process of the server is counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "measure", "peak_bytes", "process_tree"]

SAMPLE_S = 0.05
ORPHANS_S = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one or several commands took.

    cpu_s: user and system time of the process and all its descendants.
    peak_bytes: the sum of the resident peaks of the processes that lived at the same time.
    exit_code: None when it was killed at its limit.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    exit_code: int | None

    def then(self, later: Usage) -> Usage:
        """This command and another one after it, as one."""
        peak = max(self.peak_bytes, later.peak_bytes)
        return Usage(self.wall_s + later.wall_s, self.cpu_s + later.cpu_s, peak, later.exit_code)


def measure(command: Sequence[str], *, log: Path, environment: Mapping[str, str], limit_s: float) -> Usage:
    """Run a command to its end, or kill it and its descendants at the limit. Its output goes to the end of `log`."""
    meter = [sys.executable, __file__, str(limit_s), str(log), *command]
    done = subprocess.run(meter, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return Usage(**json.loads(done.stdout))


def process_tree(pid: int) -> Iterator[int]:
    """The process and all its descendants."""
    yield pid
    try:
        children = [text for path in Path(f"/proc/{pid}/task").glob("*/children") for text in path.read_text().split()]
    except OSError:
        return  # it ended meanwhile
    for child in children:
        yield from process_tree(int(child))


def peak_bytes(pid: int) -> int:
    """The largest resident size that the process has had (ru_maxrss would count its parent's, from before exec)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0  # it ended meanwhile
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def main(limit_s: float, log: str, command: list[str]) -> Usage:
    _adopt_orphans()
    with open(log, "ab") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    exit_code, peak = None, 0
    while exit_code is None and time.monotonic() - start < limit_s:
        peak = max(peak, sum(peak_bytes(pid) for pid in process_tree(process.pid)))
        with contextlib.suppress(subprocess.TimeoutExpired):  # the next sample is due
            exit_code = process.wait(SAMPLE_S)
    wall_s = time.monotonic() - start
    _end_children(0.0 if exit_code is None else ORPHANS_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(wall_s, used.ru_utime + used.ru_stime, peak, exit_code)


def _adopt_orphans() -> None:
    """Descendants that outlive their parent become children of this process (prctl: child subreaper)."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _end_children(patience_s: float) -> None:
    """Wait for every child, and kill what takes longer."""
    end = time.monotonic() + patience_s
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                if time.monotonic() >= end:
                    for child in [*process_tree(os.getpid())][1:]:
                        os.kill(child, signal.SIGKILL)
                time.sleep(0.01)


if __name__ == "__main__":
    usage = main(float(sys.argv[1]), sys.argv[2], sys.argv[3:])
    fields = ("wall_s", "cpu_s", "peak_bytes", "exit_code")
    print(json.dumps({name: getattr(usage, name) for name in fields}))

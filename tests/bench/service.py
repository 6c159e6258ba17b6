"""The running service under observation: `iot-spooler run` as a process, and what the kernel tells about it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Task, spooler_config
from bench.trial import environment_of

__all__ = ["Reading", "Service", "running"]

STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Totals since the start of the process. wakeups: voluntary context switches of all its threads."""

    cpu_s: float
    wakeups: int
    resident_bytes: int
    peak_bytes: int


class Service:
    def __init__(self, process: subprocess.Popen[bytes], runtime: Path) -> None:
        self.process = process
        self._runtime = runtime

    def reading(self) -> Reading:
        threads = [*Path(f"/proc/{self.process.pid}/task").iterdir()]
        nanoseconds = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
        wakeups = sum(_field(thread / "status", "voluntary_ctxt_switches:") for thread in threads)
        status = Path(f"/proc/{self.process.pid}/status")
        return Reading(nanoseconds / 1e9, wakeups, _field(status, "VmRSS:") * 1024, _field(status, "VmHWM:") * 1024)

    def wait_until_done(self, files: int, limit_s: float) -> None:
        """Until the service itself says that so many files are delivered and none is waiting."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):  # not written yet
                status = json.loads((self._runtime / "status.json").read_text())
                if status["delivered"]["files"] >= files and status["backlog"]["files"] == 0:
                    return
            if self.process.poll() is not None:
                raise RuntimeError(f"the service ended with {self.process.returncode}")
            time.sleep(0.1)
        raise TimeoutError(f"{files} files were not delivered in {limit_s} s")


@contextlib.contextmanager
def running(task: Task, durability: str = "fsync") -> Iterator[Service]:
    """The service for the time of the block; it must end well within STOP_S of SIGTERM."""
    config, runtime = task.scratch / "service.toml", task.scratch / "runtime"
    config.write_text(spooler_config(task, durability))
    runtime.mkdir(exist_ok=True)
    program = shutil.which("iot-spooler") or "iot-spooler"
    with (task.scratch / "service.log").open("ab") as log:
        process = subprocess.Popen(
            task.site.command([program, "run", "--config", str(config)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment_of(task) | {"RUNTIME_DIRECTORY": str(runtime)},
        )
    try:
        yield Service(process, runtime)
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_S) != 0:
            raise RuntimeError(f"the service ended with {process.returncode}: {task.scratch / 'service.log'}")
    finally:
        process.kill()
        process.wait()


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name))

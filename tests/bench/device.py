"""The device's budget: what the service needs of memory, CPU and flash, beside rclone. `sh tests/run bench device`.

It needs root: the state directory is a loop-mounted ext4 whose writes are counted at the block device, the server is
in a network namespace, the small cell is a memory cgroup of 64 MiB and one core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cell import Flash, Wrap, flash, small_cell
from bench.measure import Usage, measure
from bench.peers import PEERS, Peer, Task
from bench.report import machine
from bench.service import running
from bench.site import open_site
from bench.trial import environment_of, make_files
from bench.works import KIB, MIB, Work
from conditions import why_not

__all__ = ["main"]

MANY = Work("10000-small", "folder", 10_000, KIB)
LARGE = Work("256m", "folder", 1, 256 * MIB)
SLOW = Work("32m-10mbit", "folder", 1, 32 * MIB, 10e6, 0.1)
KEPT = Work("20000-kept", "sync", 20_000, KIB)
FIRST = Work("first-byte", "folder", 1, KIB)
CELL_BYTES = 64 * MIB
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the budget, for one program."""

    what: str
    who: str
    value: float
    unit: str
    goal: str = ""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="sh tests/run bench device", description=__doc__)
    parser.add_argument("--idle", type=float, default=600, metavar="SECONDS", help="how long idleness is watched")
    parser.add_argument("--out", type=Path, default=Path("../.test-bench"))
    options = parser.parse_args(argv)
    if reason := why_not("tun"):
        parser.error(reason)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for experiment in _experiments(Path(folder), options.idle):
            for figure in experiment:
                print(_line(figure), flush=True)
                figures.append(figure)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "figures": [asdict(figure) for figure in figures]}
    (options.out / "device.json").write_text(json.dumps(content, indent=1) + "\n")
    head = "| what | who | value | goal |\n| --- | --- | --- | --- |\n"
    (options.out / "device.md").write_text(head + "".join(_line(figure) + "\n" for figure in figures))
    return 0


def _line(figure: Figure) -> str:
    return f"| {figure.what} | {figure.who} | {figure.value:.4g} {figure.unit} | {figure.goal} |"


def _experiments(folder: Path, idle_s: float) -> Iterator[Iterator[Figure]]:
    ours, rclone = (next(peer for peer in PEERS if peer.name == name) for name in ("ours fsync", "rclone"))
    yield _empty(folder / "empty")
    yield _kept(folder / "kept", idle_s)
    for work in (MANY, LARGE, SLOW):
        yield _flash_of_service(work, folder / f"service-{work.name}")
    for peer in (ours, rclone):
        yield _first_byte(peer, folder / f"first-{peer.name}")
        for work in (MANY, LARGE, SLOW):
            yield _delivery(work, peer, folder / f"{work.name}-{peer.name}")
    with small_cell(CELL_BYTES) as cell:
        for peer in (ours, rclone):
            for work in (MANY, LARGE):
                yield _delivery(work, peer, folder / f"cell-{work.name}-{peer.name}", cell)


@contextlib.contextmanager
def _device(work: Work, folder: Path) -> Iterator[tuple[Task, Flash]]:
    """Files in an outbox, a server that is up, a state directory on flash."""
    folder = folder.with_name(folder.name.replace(" ", "-"))
    folder.mkdir()
    with flash(folder / "state") as disk, open_site(work, folder) as site:
        outbox, far = make_files(work, folder / "outbox"), site.root / "upload"
        far.mkdir()
        yield Task(work, site, outbox, far, folder), disk
    shutil.rmtree(folder)


def _empty(folder: Path) -> Iterator[Figure]:
    """The service with nothing to do yet."""
    with _device(FIRST, folder) as (task, _), running(task) as service:
        service.wait_until_done(1, 30)
        time.sleep(2)
        yield Figure("resident, idle, 1 file delivered", "ours", service.reading().resident_bytes / MIB, "MiB")


def _kept(folder: Path, idle_s: float) -> Iterator[Figure]:
    """The service with 20,000 delivered files that stay in the outbox: what idleness costs."""
    with _device(KEPT, folder) as (task, disk), running(task) as service:
        service.wait_until_done(KEPT.files, LIMIT_S)
        time.sleep(5)
        before, written = service.reading(), disk.written_bytes()
        time.sleep(idle_s)
        after = service.reading()
        cpu = (after.cpu_s - before.cpu_s) / idle_s
        yield Figure("CPU while idle, 20,000 kept files", "ours", cpu * 100, "% of a core", "< 0.1")
        yield Figure("wake-ups while idle", "ours", (after.wakeups - before.wakeups) / idle_s, "per s")
        yield Figure("journal while idle", "ours", disk.written_bytes() - written, "bytes", "0")
        yield Figure("resident, idle, 20,000 kept files", "ours", after.resident_bytes / MIB, "MiB")
        yield Figure("resident peak, 20,000 files", "ours", after.peak_bytes / MIB, "MiB")


def _flash_of_service(work: Work, folder: Path) -> Iterator[Figure]:
    """What the running service writes for what appears in its outbox, and once in the life of a device before that."""
    with _device(work, folder) as (task, disk), contextlib.ExitStack() as stack:
        put_in = stack.enter_context(_empty_outbox(task))
        new = disk.written_bytes()
        service = stack.enter_context(running(task))
        service.wait_until_done(0, 30)
        written = disk.written_bytes()
        yield Figure("flash written by the first start of all", "ours", (written - new) / KIB, "KiB")
        put_in()
        service.wait_until_done(work.files, LIMIT_S)
        time.sleep(2)  # the last rows of files that have gone are dropped
        what, goal = f"{work.name}: flash written by the running service", "< 2048" if work.files > 1 else "< 1"
        yield _flash(what, work, disk.written_bytes() - written, goal)


@contextlib.contextmanager
def _empty_outbox(task: Task) -> Iterator[Callable[[], None]]:
    """Until the function that is given is called, or the end: then the files appear, renamed in."""
    aside = task.local.with_name("aside")
    task.local.rename(aside)
    task.local.mkdir()

    def put_in() -> None:
        for path in sorted(aside.iterdir()):
            path.rename(task.local / path.name)

    yield put_in
    put_in()


def _flash(what: str, work: Work, written_bytes: int, goal: str = "") -> Figure:
    if work.files > 1:
        return Figure(what, "ours", written_bytes / work.files, "bytes a file", goal)
    return Figure(what, "ours", written_bytes / work.payload_bytes * 100, "% of payload", goal)


def _first_byte(peer: Peer, folder: Path) -> Iterator[Figure]:
    """From the start of the program until payload is on the server, on loopback."""
    with _device(FIRST, folder) as (task, _):
        command = peer.command(task)
        assert command is not None
        start = time.monotonic()
        with (folder.parent / "first.log").open("wb") as log:
            process = subprocess.Popen(
                task.site.command(command), env=environment_of(task), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        while not any(path.stat().st_size for path in task.far.iterdir()) and time.monotonic() - start < 30:
            time.sleep(0.002)
        yield Figure("start to first byte", peer.name, time.monotonic() - start, "s")
        process.wait(60)


def _delivery(work: Work, peer: Peer, folder: Path, cell: Wrap | None = None) -> Iterator[Figure]:
    """All that is in the outbox, sent once: memory, CPU, and flash for what was delivered."""
    with _device(work, folder) as (task, disk):
        command = peer.command(task)
        assert command is not None
        if peer.ours:  # a device has its journal already; what the first start writes has a row of its own
            with _empty_outbox(task):
                _measured(task, command, None)
        os.sync()  # the files just laid out are not to be written while the clock runs
        written = disk.written_bytes()
        usage = _measured(task, command, cell)
        flash_bytes = disk.written_bytes() - written
        delivered = len([*task.far.iterdir()])
    what = work.name + (", 64 MiB and one core" if cell else "")
    if usage.exit_code != 0 or delivered != work.files:
        yield Figure(f"{what}: FAILED, exit {usage.exit_code}, files there", peer.name, delivered, "")
        return
    yield Figure(f"{what}: wall", peer.name, usage.wall_s, "s")
    yield Figure(f"{what}: CPU", peer.name, usage.cpu_s, "s")
    yield Figure(f"{what}: resident peak", peer.name, usage.peak_bytes / MIB, "MiB")
    if peer.ours:
        yield _flash(f"{what}: flash written from start to end", work, flash_bytes)


def _measured(task: Task, command: list[str], cell: Wrap | None) -> Usage:
    whole = task.site.command(command)
    log = task.scratch / "log"
    return measure(cell(whole) if cell else whole, log=log, environment=environment_of(task), limit_s=LIMIT_S)

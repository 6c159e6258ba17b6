"""One trial: lay the files out, let one peer do one work over one link, check every byte, give the figures."""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Usage, measure
from bench.peers import Peer, Task
from bench.site import Site, open_site
from bench.works import MIB, Work

__all__ = ["Row", "environment_of", "make_files", "trial"]

AGE_S = 3600
FEW_RUNS_S = 0.2  # the least time of a repeated command, so that a refusal at once is no busy loop


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one trial. wall_s is None when it was not done within the work's limit."""

    work: str
    peer: str
    wall_s: float | None
    cpu_s: float
    peak_bytes: int
    wire_bytes: int
    payload_bytes: int
    runs: int
    link: str
    error: str = ""


def make_files(work: Work, folder: Path) -> Path:
    """The files to send, of random content: a folder; a single file is folder/data."""
    folder.mkdir(parents=True)
    source = random.Random(work.name)
    old_s = time.time() - AGE_S
    for number in range(work.files):
        path = folder / ("data" if work.files == 1 else f"reading-{number:06d}.bin")
        with path.open("wb") as file:
            for begin in range(0, work.size, MIB):
                file.write(source.randbytes(min(MIB, work.size - begin)))
        os.utime(path, (old_s, old_s))
    return folder


def trial(work: Work, peer: Peer, files: Path, folder: Path) -> Row | None:
    """One run on a fresh link and a fresh server; None when the peer has no way to do this work."""
    with open_site(work, folder) as site:
        task = _lay_out(work, site, files, folder)
        command = peer.command(task)
        if command is None:
            return None
        log = folder / "log"
        if work.kind == "sync":
            _bring_in_sync(task, peer, command, log)
        os.sync()  # the files just laid out are not to be written while the clock runs
        before = site.wire_bytes()
        with site.gaps() if work.kind == "resume" else contextlib.nullcontext():
            usage, runs = _run(task, command, log)
        wire_bytes = site.wire_bytes() - before
        error = _what_is_wrong(task, files, usage, log)
    wall_s = None if error else usage.wall_s
    figures = (usage.cpu_s, usage.peak_bytes, wire_bytes, work.payload_bytes, runs)
    return Row(work.name, peer.name, wall_s, *figures, site.note, error)


def _lay_out(work: Work, site: Site, files: Path, folder: Path) -> Task:
    local, far = folder / "outbox", site.root / "upload"
    far.mkdir()
    if work.kind == "get":
        shutil.copy2(files / "data", far / "data")
        local.mkdir()
    else:
        shutil.copytree(files, local)
    if work.kind not in ("folder", "sync"):
        local, far = local / "data", far / "data"
    return Task(work, site, local, far, folder)


def _run(task: Task, command: list[str], log: Path) -> tuple[Usage, int]:
    """The command; under a link that is cut, again and again until it ends well or the limit is reached."""
    total, runs = Usage(0.0, 0.0, 0, 1), 0
    while total.exit_code not in (0, None):
        limit_s = max(1.0, task.work.limit_s - total.wall_s)
        began = time.monotonic()
        usage = measure(task.site.command(command), log=log, environment=environment_of(task), limit_s=limit_s)
        total, runs = total.then(usage), runs + 1
        if task.work.kind != "resume":
            break
        pause_s = max(0.0, FEW_RUNS_S - (time.monotonic() - began))
        time.sleep(pause_s)
        total = total.then(Usage(pause_s, 0.0, 0, total.exit_code))
        if total.wall_s >= task.work.limit_s:
            return Usage(total.wall_s, total.cpu_s, total.peak_bytes, None), runs
    return total, runs


def environment_of(task: Task) -> dict[str, str]:
    """The user's, without what points a peer elsewhere; with a home of its own."""
    hidden = ("AWS_CA_BUNDLE", "SSH_AUTH_SOCK", "STATE_DIRECTORY", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("SFTP_")}
    return kept | {"HOME": str(task.scratch)}


def _bring_in_sync(task: Task, peer: Peer, command: list[str], log: Path) -> None:
    """All files but the new ones lie on both sides; ours has delivered them itself, so that its journal knows them."""
    with _held_back(task, sorted(task.local.iterdir())[-task.work.new :]):
        if peer.ours:
            measure(task.site.command(command), log=log, environment=environment_of(task), limit_s=600)
        else:
            shutil.copytree(task.local, task.far, dirs_exist_ok=True)
            shutil.copystat(task.local, task.far)


@contextlib.contextmanager
def _held_back(task: Task, paths: list[Path]) -> Iterator[None]:
    aside = task.scratch / "aside"
    aside.mkdir()
    for path in paths:
        path.rename(aside / path.name)
    yield
    for path in paths:
        (aside / path.name).rename(path)


def _what_is_wrong(task: Task, files: Path, usage: Usage, log: Path) -> str:
    if usage.exit_code is None:
        return f"not in {task.work.limit_s:.0f} s"
    if usage.exit_code != 0:
        return f"exit {usage.exit_code}: {log.read_text(errors='replace')[-500:]}"
    arrived = task.local.parent if task.work.kind == "get" else task.far if task.far.is_dir() else task.far.parent
    names = sorted(path.name for path in files.iterdir())
    if sorted(path.name for path in arrived.iterdir()) != names:
        return "other names arrived than were sent"
    same, _, _ = filecmp.cmpfiles(files, arrived, names, shallow=False)
    return "" if len(same) == len(names) else f"{len(names) - len(same)} files differ"

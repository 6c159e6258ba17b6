"""The experiments with kills and bad links: each injects faults of one kind and gives back a row of the table.

Tests run them short, the campaign runs them long. Those with power cuts are in power.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from faults.rig import KIB, MIB, Marks, Rig, judge, wait_for
from faults.steps import STEPS, Step
from faults.table import Row
from servers.base import Server

STEP_LARGE_BYTES = 6 * MIB
STEP_SMALL_FILES = 12
SMALL_BYTES = 10 * KIB
MBIT = 1e6
EARLY_SHARE = 0.3
EARLY_S = 1.5
NO_MORE_S = 20.0


def fill(rig: Rig, kind: str, mark: str = "") -> None:
    """What an upload of this kind consists of, at a named step."""
    if kind == "large":
        rig.put(f"large{mark}", STEP_LARGE_BYTES)
    else:
        rig.put_many(STEP_SMALL_FILES, SMALL_BYTES, prefix=f"small{mark}")


# -- kills


def killed_at(folder: Path, server: Server, step: Step, kind: str) -> Row:
    """The agent dies at a named step, and the next one delivers."""
    with Rig(folder, server, destination=folder.name) as rig:
        fill(rig, kind)
        rig.start(step.name)
        assert rig.died_at(step.name, NO_MORE_S), f"{step.name} was not reached: {rig.told()}"
        rig.drain()
        return rig.row("SIGKILL of the agent at a named step", 1)


def killed_in_turn(folder: Path, server: Server, kind: str, steps: Sequence[Step] = STEPS) -> Row:
    """Agent after agent dies at the next step of the list, each with new files beside what the others left."""
    mine = [step for step in steps if kind in step.files]
    with Rig(folder, server, destination=folder.name) as rig:
        for number, step in enumerate(mine):
            fill(rig, kind, f"-{number:02}")
            rig.start(step.name)
            assert rig.died_at(step.name, NO_MORE_S), f"{step.name} was not reached: {rig.told()}"
        rig.drain()
        return rig.row("SIGKILL of the agent at a named step", len(mine))


def killed_at_random(
    folder: Path,
    server: Server,
    kills: int,
    *,
    files: int,
    size: int,
    rate_bps: float = 10 * MBIT,
    seed: int | None = None,
) -> Row:
    """The agent is killed at random moments of one upload, most of them by bytes, some early in its life."""
    with Rig(folder, server, rate_bps=rate_bps, seed=seed, destination=folder.name) as rig:
        for number in range(files):
            rig.put(f"file-{number:04}", size)
        marks = sorted(rig.random.uniform(0, rig.payload_bytes) for _ in range(kills))
        for mark in marks:
            rig.start()
            if rig.random.random() < EARLY_SHARE:
                wait_for(lambda: False, rig.random.uniform(0, EARLY_S))
            else:
                wait_for(lambda at=mark: rig.link.up_bytes >= at or not rig.left(), NO_MORE_S)  # type: ignore[misc]
            rig.kill()
        rig.drain()
        kind = "a large upload" if files == 1 else f"{files} small files"
        return rig.row(f"SIGKILL of the agent at a random moment of {kind}", kills)


def server_killed_at_random(
    folder: Path,
    server: Server,
    kills: int,
    *,
    files: int,
    size: int,
    rate_bps: float = 10 * MBIT,
    seed: int | None = None,
) -> Row:
    """The server's processes are killed at random moments while the agent goes on."""
    with Rig(folder, server, rate_bps=rate_bps, seed=seed, destination=folder.name) as rig:
        for number in range(files):
            rig.put(f"file-{number:04}", size)
        marks = sorted(rig.random.uniform(0.02, 0.98) * rig.payload_bytes for _ in range(kills))
        rig.start()
        for mark in marks:
            rig.wait(lambda at=mark: rig.link.up_bytes >= at, NO_MORE_S)  # type: ignore[misc]
            server.kill()
            server.start()
        rig.wait(lambda: not rig.left(), 60)
        rig.drain()
        return rig.row("SIGKILL of the server at a random moment", kills)


# -- the link


def cut_at_random(
    folder: Path,
    server: Server,
    cuts: int,
    *,
    size: int,
    rate_bps: float = 50 * MBIT,
    delay_s: float = 0.01,
    seed: int | None = None,
) -> Row:
    """The link is cut, reset or half closed at random moments of one large upload."""
    with Rig(folder, server, rate_bps=rate_bps, delay_s=delay_s, seed=seed, destination=folder.name) as rig:
        rig.put("large", size)
        marks = sorted(rig.random.uniform(0, size) for _ in range(cuts))
        rig.start()
        for number, mark in enumerate(marks):
            rig.wait(lambda at=mark: rig.link.up_bytes >= at or not rig.left())  # type: ignore[misc]
            (rig.link.cut, rig.link.reset, rig.link.half_close)[number % 3]()
        rig.wait(lambda: not rig.left())
        rig.drain()
        return rig.row(f"link cut at random moments, {cuts} in {size // MIB} MiB", cuts)


def rewritten(folder: Path, server: Server, times: int, *, seed: int | None = None) -> Row:
    """A delivered file is replaced by one of the same size again and again; meanwhile link and agent are killed."""
    with Rig(folder, server, destination=folder.name, settings="scan_s = 0.1", seed=seed) as rig:
        faults = 0
        for number in range(times):
            rig.put("state", 4096)
            if rig.agent is None:
                rig.start()
            wait_for(lambda: not rig.left(), rig.random.choice((0.02, 0.2, 1.0)))
            if number % 4 == 1:
                rig.link.reset()
                faults += 1
            elif rig.random.random() < 0.1:
                rig.kill()
                faults += 1
        rig.drain()
        row = rig.row("same-size rewrites while link and agent are killed", faults)
        row.payload_bytes = 4096 * len(
            {final.sha256 for final in rig.watch.seen}
        )  # what was replaced unseen is no loss
        row.notes.append(f"{times} versions, {row.payload_bytes // 4096} delivered")
        return row


def flattened(folder: Path, server: Server, rounds: int, *, size: int = 2 * MIB, seed: int | None = None) -> Row:
    """Two outboxes of one device lead to one destination; the agent is killed meanwhile."""
    boxes = ("one", "two")
    with Rig(folder, server, rate_bps=40 * MBIT, boxes=boxes, destination=folder.name, seed=seed) as rig:
        for number in range(rounds):
            rig.put("same", size + 2 * number, box=0)
            rig.put("same", size + 2 * number + 1, box=1)
            rig.start()
            mark = rig.link.up_bytes + rig.random.uniform(0, 2 * size)
            rig.wait(lambda at=mark: rig.link.up_bytes >= at or not rig.left(), NO_MORE_S)  # type: ignore[misc]
            rig.kill()
            rig.drain()
        row = rig.row("two files with one destination", rounds)
        return _either_may_stand(row, rig, rig.marked())


def two_devices(folder: Path, server: Server, rounds: int, *, size: int = 2 * MIB, seed: int | None = None) -> Row:
    """Two devices send files of one name to one destination at the same time; one of them is killed meanwhile."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(
            Rig(folder / "one", server, rate_bps=40 * MBIT, destination=folder.name, device_id="one", seed=seed)
        )
        second = stack.enter_context(
            Rig(folder / "two", server, destination=folder.name, device_id="two", link=first.link, watch=first.watch)
        )
        for number in range(rounds):
            for place, rig in enumerate((first, second)):
                rig.put(
                    "same", size + 2 * number + place
                )  # each version has its own size: an announced repeat tells it
                rig.start()
            mark = first.link.up_bytes + first.random.uniform(0, 2 * size)
            first.wait(lambda at=mark: first.link.up_bytes >= at or not first.left(), NO_MORE_S)  # type: ignore[misc]
            first.kill()
            second.wait(lambda: not second.left())
            second.drain()
            first.drain()
        for name, known in second.contents.items():
            first.contents.setdefault(name, {}).update(known)
        first.payload_bytes += second.payload_bytes
        row = first.row("two devices with one destination", rounds)
        return _either_may_stand(row, first, first.marked() + second.marked())


def _either_may_stand(row: Row, rig: Rig, marked: Marks) -> Row:
    """Which of two versions came last is not said; that each is whole is. One that replaced the other before the answer
    to its rename came is a possible repeat, and marked so."""
    fresh = Row(row.fault, row.injected, row.files)
    fresh.payload_bytes, fresh.up_bytes, fresh.down_bytes = rig.payload_bytes, row.up_bytes, row.down_bytes
    last = {name: set(known) for name, known in rig.contents.items()}
    judge(fresh, rig.watch, rig.contents, last, marked)
    return fresh

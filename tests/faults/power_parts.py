"""Power cuts of the device, the server and both in turn, for what an agent does beside plain uploads.

compressed     what is sent lies in the state directory, compressed once
chain          what is delivered is moved into a second outbox, and delivered from there, too
batch          a marker says that the files of its folder are complete, and goes last
inbox          files are fetched, appear in a folder of the device, and are then kept, deleted or moved on the server
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.power import MODES, PowerLab, lab
from faults.rig import KIB, MIB, SETTLED_S, judge, sync_folder
from faults.scenarios import MBIT, NO_MORE_S
from faults.steps import PART_STEPS
from faults.table import Row
from faults.watch import Watch

__all__ = ["Part", "cut_at_random", "cut_in_turn", "parts"]

LARGE, SMALL = 4 * MIB, 10 * KIB
FILES, FILES_AT_STEP = 12, 3
RATE_BPS = 40 * MBIT
MARKER = "batch.done"
AFTER_DOWNLOAD = ("keep", "delete", "move")


class Part:
    """One thing that an agent does. name: as in PART_STEPS. label: in the table."""

    name = label = ""
    wire_share = 1.0
    """Of the payload, what goes over the wire."""

    def given(self, power: PowerLab) -> Mapping[str, Any]:
        """Arguments of the rig."""
        raise NotImplementedError

    def fill(self, power: PowerLab, files: Mapping[str, int]) -> None:
        """Names and sizes of what is to be transferred."""
        for name, size in files.items():
            power.rig.put(name, size)

    def payload_bytes(self, power: PowerLab) -> float:
        return power.rig.payload_bytes * self.wire_share

    def carried_bytes(self, power: PowerLab) -> int:
        return power.rig.link.up_bytes

    def is_done(self, power: PowerLab) -> bool:
        return not power.rig.left()

    def row(self, power: PowerLab, fault: str) -> Row:
        row = power.rig.row(fault, power.cuts)
        row.payload_bytes = round(self.payload_bytes(power))
        return row


class Compressed(Part):
    name, label, wire_share = "compressed", "compressed", 0.5

    def given(self, power: PowerLab) -> Mapping[str, Any]:
        return {
            "watch": Watch(power.server.root / "up", plain=_unpacked),
            "box_settings": ['compress = "gzip"'],
            "named": lambda name: (f"{name}.gz",),
        }

    def fill(self, power: PowerLab, files: Mapping[str, int]) -> None:
        for name, size in files.items():
            power.rig.put(name, size, content=power.rig.random.randbytes(size // 2).hex().encode())


class Chain(Part):
    name, label = "chain", "through a chain"

    def given(self, power: PowerLab) -> Mapping[str, Any]:
        up = power.server.path("up")
        first = f'destination = "{up}/first"\nafter_upload = "forward"\nforward_to = "second"'
        return {
            "watch": Watch(power.server.root / "up"),
            "boxes": ("first", "second"),
            "box_settings": [first, f'destination = "{up}/second"'],
            "named": lambda name: (f"first/{name}", f"second/{name}"),
        }


class Batch(Part):
    name, label = "batch", "in a batch"

    def given(self, power: PowerLab) -> Mapping[str, Any]:
        return {"box_settings": ['batch_marker = "*.done"\nbatch_grace_s = 1']}

    def fill(self, power: PowerLab, files: Mapping[str, int]) -> None:
        super().fill(power, files)
        power.rig.put(MARKER, SMALL)  # a later one takes the place of an earlier one

    def row(self, power: PowerLab, fault: str) -> Row:
        """When a final was renamed, its change time tells."""
        row, up = super().row(power, fault), power.server.root / "up"
        late = [path.name for path in up.iterdir() if path.stat().st_ctime_ns > (up / MARKER).stat().st_ctime_ns]
        row.left += len(late)
        row.notes += [f"sent after its marker: {name}" for name in late]
        return row


class Inbox(Part):
    """Judged is what a consumer of the inbox sees."""

    name = "inbox"

    def __init__(self, after_download: str) -> None:
        self.label = f"fetched ({after_download})"
        self._after_download = after_download
        self._contents: dict[str, dict[str, int]] = {}

    def given(self, power: PowerLab) -> Mapping[str, Any]:
        here = power.home / "here"
        here.mkdir(parents=True)
        for folder in (power.home, power.device.path):
            sync_folder(folder)
        power.watches.append(Watch(here, passed_over=".iot-inbox"))
        source = power.server.root / "cfg"
        source.mkdir()
        sync_folder(power.server.root)
        lines = f'[[inbox]]\npath = "{here}"\nsource = "{power.server.path("cfg")}"\nsettle_s = 0\npoll_s = 1\n'
        lines += f'after_download = "{self._after_download}"\n'
        return {"tables": lines + f'move_to = "{power.server.path("done")}"\n' * (self._after_download == "move")}

    def fill(self, power: PowerLab, files: Mapping[str, int]) -> None:
        """Renamed in on the server, durably."""
        source, then = power.server.root / "cfg", time.time() - SETTLED_S
        for name, size in files.items():
            data = power.rig.random.randbytes(size)
            fresh = power.server.root / "fresh"
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.utime(file.fileno(), (then, then))
                os.fsync(file.fileno())
            fresh.rename(source / name)
            self._contents[name] = {hashlib.sha256(data).hexdigest(): size}
        sync_folder(source)

    def payload_bytes(self, power: PowerLab) -> float:
        return float(sum(size for known in self._contents.values() for size in known.values()))

    def carried_bytes(self, power: PowerLab) -> int:
        return power.rig.link.down_bytes

    def is_done(self, power: PowerLab) -> bool:
        here = power.home / "here"
        return self._contents.keys() <= set(os.listdir(here)) and not os.listdir(here / ".iot-inbox")

    def row(self, power: PowerLab, fault: str) -> Row:
        """ "Sent" means in the direction of the payload."""
        [watch] = power.watches
        row = Row(fault, power.cuts, len(self._contents), payload_bytes=round(self.payload_bytes(power)))
        row.up_bytes, row.down_bytes = power.rig.link.down_bytes, power.rig.link.up_bytes
        watch.look()
        judge(row, watch, self._contents, {name: set(known) for name, known in self._contents.items()})
        left = os.listdir(power.home / "here" / ".iot-inbox")
        row.left += len(left)
        row.notes += [f"left in the hidden folder: {name}" for name in left]
        return row


def parts() -> list[Part]:
    return [Compressed(), Chain(), Batch(), *map(Inbox, AFTER_DOWNLOAD)]


def cut_at_random(folder: Path, part: Part, cuts: int, seed: int | None = None) -> Row:
    files = {"large": LARGE, **{f"small-{number:02}": SMALL for number in range(FILES)}}
    with lab(folder, rate_bps=RATE_BPS, seed=seed, given=part.given) as power:
        rig = power.rig
        part.fill(power, files)
        for number, mark in enumerate(sorted(rig.random.uniform(0, part.payload_bytes(power)) for _ in range(cuts))):
            if rig.agent is None:
                rig.start()
            rig.wait(lambda at=mark: part.carried_bytes(power) >= at or part.is_done(power), NO_MORE_S)  # type: ignore[misc]
            power.cut(MODES[number % 3])
        rig.drain()
        return part.row(power, f"power cut at random moments, {part.label}")


def cut_in_turn(folder: Path, part: Part, shift: int, seed: int | None = None) -> Row:
    """At each step of the part, with new files beside what was left. shift: the mode to begin with."""
    steps = [
        step for step in PART_STEPS[part.name] if "removed from the server" not in step.name or "keep" not in part.label
    ]
    with lab(folder, seed=seed, given=part.given) as power:
        rig = power.rig
        for number, step in enumerate(steps):
            rig.kill()
            part.fill(power, {f"file-{number:02}-{each}": SMALL for each in range(FILES_AT_STEP)})
            rig.start(step.name, action="stop")
            assert rig.stopped_at(step.name, NO_MORE_S), f"{step.name} was not reached: {rig.told()}"
            power.cut(MODES[(number + shift) % 3])
            if rig.agent is not None:
                rig.go_on()
                rig.wait(lambda: part.is_done(power), NO_MORE_S)
        rig.drain()
        return part.row(power, f"power cut at a named step, {part.label}")


# -- inside


def _unpacked(name: str, data: bytes) -> bytes:
    """Nothing that anybody has written, if it cannot be unpacked."""
    try:
        return gzip.decompress(data) if name.endswith(".gz") else data
    except (OSError, EOFError, ValueError):
        return b"not whole: " + data

"""The experiments with power cuts: of the device, of the server, of both. Root on Linux."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.powercut import PowerCutDisk
from faults.rig import KIB, MIB, Rig, sync_folder
from faults.scenarios import MBIT, NO_MORE_S, SMALL_BYTES, fill
from faults.steps import STEPS, Step
from faults.table import Row
from faults.watch import PART, Watch
from servers.openssh import OpenSSH

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MODES", "PowerLab", "cut_at_random", "cut_in_turn", "lab"]

MODES = ("device", "server", "both")
BLOCK = 32 * KIB
DISK_MIB = 1024  # a sparse file


class PowerLab:
    """A device and a server, each with all it has on a disk of its own.

    lost_bytes: of parts of the server, what was there before its cuts and not behind them. watches: of folders of the
    device. given: further arguments of its rig, made once the disks are there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate_bps: float | None = None,
        seed: int | None = None,
        given: Callable[[PowerLab], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._folder = folder
        self._rate_bps = rate_bps
        self._seed = seed
        self._given = given
        self._large: bytes = b""
        self.watches: list[Watch] = []
        self.cuts = 0
        self.lost_bytes = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.device = stack.enter_context(PowerCutDisk(self._folder / "device-disk", size_mib=DISK_MIB))
            self.server_disk = stack.enter_context(PowerCutDisk(self._folder / "server-disk", size_mib=DISK_MIB))
            root = self.server_disk.path / "root"
            self.server = stack.enter_context(OpenSSH(root))
            sync_folder(self.server_disk.path)
            self.home = self.device.path / "home"
            given = self._given(self)
            for watch in [*self.watches, *([given["watch"]] if "watch" in given else [])]:
                stack.callback(watch.close)
            self.rig = stack.enter_context(
                Rig(self.home, self.server, rate_bps=self._rate_bps, notes=self._folder, seed=self._seed, **given)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def put_large(self, size: int, name: str = "large") -> None:
        self._large = self.rig.put(name, size)

    def cut(self, mode: str) -> None:
        """Cut the power of "device", "server" or "both", and boot again; the agent of a device that was cut is gone.

        The link falls silent first: nobody hears what a side does after its disk has gone.
        """
        self.cuts += 1
        self.rig.link.silence()
        with contextlib.ExitStack() as stack:
            for watch in self.watches if mode in ("device", "both") else ():
                stack.enter_context(watch.resting())
            self._cut(mode)
        self.rig.link.reset()
        self.rig.link.restore()

    def _cut(self, mode: str) -> None:
        if mode in ("device", "both"):
            self.device.cut()
            self.rig.kill()
        if mode in ("server", "both"):
            self._cut_server()
        if mode in ("device", "both"):
            self.device.remount()

    def _cut_server(self) -> None:
        before = self._standing_bytes()
        with self.rig.watch.resting():
            self.server_disk.cut()
            self.server.kill()
            self.server_disk.remount()
        self.lost_bytes += max(before - self._standing_bytes(), 0)
        self.server.start()

    def _standing_bytes(self) -> int:
        """How much of the large file the server holds as it should be, in its part or under its final name."""
        paths = [path for path in self.rig.watch.root.glob("large*") if path.name.endswith(PART) or path.suffix == ""]
        return max((self._equal_bytes(content(path)) for path in paths), default=0)

    def _equal_bytes(self, data: bytes) -> int:
        starts = range(0, min(len(data), len(self._large)), BLOCK)
        return sum(len(data[at : at + BLOCK]) for at in starts if data[at : at + BLOCK] == self._large[at : at + BLOCK])


def content(path: Path) -> bytes:
    """Nothing where it has gone meanwhile: the server still renames what it was asked to before the silence."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@contextmanager
def lab(folder: Path, **options: Any) -> Iterator[PowerLab]:
    folder.mkdir(parents=True)
    with PowerLab(folder, **options) as running:
        yield running


def cut_in_turn(folder: Path, shift: int, kind: str, steps: Sequence[Step] = STEPS, fault: str = "") -> Row:
    """The power is cut at one step of the list after the other, each with new files beside what was left.

    The modes take turns; shift: with which to begin. The agent stands still at the step meanwhile; it goes on if only
    the server was cut, else the next one does.
    """
    mine = [(number, step) for number, step in enumerate(steps) if kind in step.files]
    with lab(folder) as power:
        rig = power.rig
        for number, step in mine:
            rig.kill()  # first: it would deliver some of the new files, and leave too few for the step
            fill(rig, kind, f"-{number:02}")
            rig.start(step.name, action="stop")
            assert rig.stopped_at(step.name, NO_MORE_S), f"{step.name} was not reached: {rig.told()}"
            power.cut(MODES[(number + shift) % 3])
            if rig.agent is not None:
                rig.go_on()
                rig.wait(lambda: not rig.left(), NO_MORE_S)
        rig.drain()
        return rig.row(fault or "power cut at a named step", power.cuts)


def cut_at_random(
    folder: Path, mode: str, cuts: int, *, size: int = 8 * MIB, rate_bps: float = 40 * MBIT, seed: int | None = None
) -> tuple[Row, int]:
    """The power is cut at random moments of one large upload and some small ones -> row, what the server lost."""
    with lab(folder, rate_bps=rate_bps, seed=seed) as power:
        rig = power.rig
        power.put_large(size)
        rig.put_many(20, SMALL_BYTES)
        for mark in sorted(rig.random.uniform(0, rig.payload_bytes) for _ in range(cuts)):
            if rig.agent is None:
                rig.start()
            rig.wait(lambda at=mark: rig.link.up_bytes >= at or not rig.left(), NO_MORE_S)  # type: ignore[misc]
            power.cut(mode)
        rig.wait(lambda: not rig.left(), NO_MORE_S)
        rig.drain()
        return rig.row(f"power cut of {mode} at random moments", cuts), power.lost_bytes

"""Every fault, many times, and the table of what came of it: `sh tests/run faults` (or, in short, with --short).

    python -m faults.campaign [--short] [--only WORD] [--out FOLDER]

Prints the table as markdown and writes faults.md and faults.json. Exit code 1 when anything was lost, half, mixed,
published twice or left behind, or when a bound on bytes sent again was passed.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from conditions import why_not
from faults import lab, power, power_parts, scenarios, silence, tunnel, two_servers
from faults.lab_disk import KINDS, cannot_mount
from faults.rig import KIB, MIB
from faults.steps import ONCE, STEPS
from faults.table import Row, as_json, as_markdown
from servers.openssh import OpenSSH
from unit import test_wrong_replies as wrong_replies

EXTRA_LINK_PERCENT = 3.0
EXTRA_KILL_PERCENT = 5.0
DEADLINE_S = 3.0
CHECKPOINT_BYTES = 4 * MIB
IN_FLIGHT_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of each fault: repeats of an experiment, and faults in one of them."""

    kill_runs: int = 15
    kills: int = 20
    server_kill_runs: int = 6
    server_kills: int = 25
    power_runs: int = 7
    power_cuts: int = 10
    part_runs: int = 3
    link_runs: int = 10
    link_cuts: int = 10
    link_bytes: int = 64 * MIB
    large_bytes: int = 32 * MIB
    rewrites: int = 1000
    rounds: int = 20
    lives: int = 400
    fallback_runs: int = 10
    fallback_rounds: int = 12
    replies_share: int = 1  # of the wrong replies to each request, one in so many
    isolated: bool = True  # also every named step for itself


SHORT = Extent(1, 6, 1, 2, 1, 3, 0, 1, 4, 16 * MIB, 6 * MIB, 30, 1, 15, 1, 2, 12, isolated=False)


class Campaign:
    """Runs experiments one after the other; rows of one kind are added up."""

    def __init__(self, extent: Extent, only: str) -> None:
        self.extent = extent
        self.only = only
        self.rows: list[Row] = []
        self.failures: list[str] = []

    def run(self) -> None:
        for experiment in (
            self.kills,
            self.server_kills,
            self.power_cuts,
            self.part_power_cuts,
            self.link_cuts,
            self.fallbacks,
            self.files,
            self.silences,
            self.producers,
            self.replies,
        ):
            if self.only in experiment.__name__:
                experiment()

    def add(self, work: Callable[[Path], Row], bound: Callable[[Row], bool] | None = None, times: int = 1) -> None:
        """Run one experiment some times, each in a fresh folder, into one row. bound: whether few enough bytes went."""
        for _ in range(times):
            folder = Path(tempfile.mkdtemp(prefix="iot-sftp-faults-"))
            began = time.monotonic()
            try:
                row = work(folder / "run")
            except (AssertionError, OSError) as error:
                self.failures.append(str(error))
                say(f"FAILED: {error}")
                continue
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._judge(row, bound)
            say(f"{time.monotonic() - began:5.1f} s  {' | '.join(row.cells())}")

    def _judge(self, row: Row, bound: Callable[[Row], bool] | None) -> None:
        if not row.clean:
            self.failures.append(f"{row.fault}: {'; '.join(row.notes)}")
        if bound is not None and not bound(row):
            self.failures.append(f"{row.fault}: {row.extra_percent:.1f} % sent beyond the payload")
        for known in self.rows:
            if known.fault == row.fault:
                known.add(row)
                return
        self.rows.append(row)

    def with_server(self, work: Callable[[Path, OpenSSH], Row]) -> Callable[[Path], Row]:
        def run(folder: Path) -> Row:
            with OpenSSH(folder / "server") as server:
                return work(folder / "device", server)

        return run

    # -- the experiments

    def kills(self) -> None:
        extent = self.extent
        for kind in ONCE:
            steps = STEPS if extent.isolated else ONCE[kind]
            for step in [step for step in STEPS if kind in step.files and extent.isolated]:
                self.add(self.with_server(partial(scenarios.killed_at, step=step, kind=kind)))
            self.add(self.with_server(partial(scenarios.killed_in_turn, kind=kind, steps=steps)))
        large = partial(scenarios.killed_at_random, kills=extent.kills, files=1, size=extent.large_bytes)
        small = partial(scenarios.killed_at_random, kills=extent.kills, files=500, size=10 * KIB)
        self.add(self.with_server(large), lambda row: row.extra_percent <= EXTRA_KILL_PERCENT, extent.kill_runs)
        self.add(self.with_server(small), times=extent.kill_runs)

    def server_kills(self) -> None:
        kills = partial(scenarios.server_killed_at_random, kills=self.extent.server_kills)
        for files, size in ((1, self.extent.large_bytes), (500, 10 * KIB)):
            self.add(self.with_server(partial(kills, files=files, size=size)), times=self.extent.server_kill_runs)

    def power_cuts(self) -> None:
        if why_not("loop-mounts"):
            self.failures.append(f"no power cuts: {why_not('loop-mounts')}")
            return
        steps = partial(power.cut_in_turn, fault="power cut at a named step")
        if self.extent.isolated:
            for shift in range(3):  # every step in every mode
                for kind in ("large", "small"):
                    self.add(partial(steps, shift=shift, kind=kind))
        else:
            self.add(partial(steps, shift=0, kind="small", steps=ONCE["small"]))
        for mode in power.MODES:
            self.add(partial(self._random_cuts, mode=mode), times=self.extent.power_runs)

    def part_power_cuts(self) -> None:
        """What an agent does beside plain uploads; each run with a part that knows nothing of the others."""
        extent = self.extent
        if why_not("loop-mounts"):
            return  # told above
        for number in range(len(power_parts.parts())):
            for shift in range(3 if extent.isolated else 0):  # every step in every mode
                self.add(partial(_part_in_turn, number=number, shift=shift))
            for _ in range(extent.part_runs):
                self.add(partial(_part_at_random, number=number, cuts=extent.power_cuts))

    def _random_cuts(self, folder: Path, mode: str) -> Row:
        row, lost_bytes = power.cut_at_random(folder, mode, self.extent.power_cuts, size=self.extent.large_bytes)
        again = lost_bytes + row.injected * (IN_FLIGHT_BYTES + (CHECKPOINT_BYTES if mode != "server" else 0))
        if row.up_bytes > row.payload_bytes * 1.02 + again:
            self.failures.append(f"{row.fault}: {row.up_bytes} sent, {row.payload_bytes} payload, {lost_bytes} lost")
        return row

    def link_cuts(self) -> None:
        extent = self.extent
        cuts = partial(scenarios.cut_at_random, cuts=extent.link_cuts, size=extent.link_bytes)
        bound = EXTRA_LINK_PERCENT if extent.isolated else EXTRA_KILL_PERCENT
        self.add(self.with_server(cuts), lambda row: row.extra_percent <= bound, extent.link_runs)
        if why_not("tun") is None:
            self.add(partial(tunnel.lossy_upload, silences=2 if extent.isolated else 1))

    def fallbacks(self) -> None:
        rounds = self.extent.fallback_rounds
        self.add(partial(two_servers.broken_in_turn, rounds=rounds), times=self.extent.fallback_runs)

    def files(self) -> None:
        self.add(self.with_server(partial(scenarios.rewritten, times=self.extent.rewrites)))
        self.add(self.with_server(partial(scenarios.flattened, rounds=self.extent.rounds)))
        self.add(self.with_server(partial(scenarios.two_devices, rounds=self.extent.rounds)))

    def producers(self) -> None:
        """Producers and operators of every kind, on every kind of file system."""
        for kind in KINDS:
            if reason := cannot_mount(kind):
                self.failures.append(f"no producers on {kind}: {reason}")
            else:
                self.add(partial(lab.lives, kind=kind, count=self.extent.lives))

    def replies(self) -> None:
        self.add(partial(wrong_replies.every_one, share=self.extent.replies_share))

    def silences(self) -> None:
        """Not a row of bytes: how long a silence goes unnoticed, in each phase."""
        for phase in silence.PHASES:
            folder = Path(tempfile.mkdtemp(prefix="iot-sftp-faults-"))
            try:
                with OpenSSH(folder / "server") as server:
                    took_s = silence.noticed_after_s(phase, server, folder, DEADLINE_S)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            say(f"silence in {phase}: noticed after {took_s:.2f} s of {DEADLINE_S:g} s + 1 s")
            if took_s > DEADLINE_S + 1:
                self.failures.append(f"silence in {phase} noticed after {took_s:.2f} s")


def _part_in_turn(folder: Path, number: int, shift: int) -> Row:
    return power_parts.cut_in_turn(folder, power_parts.parts()[number], shift)


def _part_at_random(folder: Path, number: int, cuts: int) -> Row:
    return power_parts.cut_at_random(folder, power_parts.parts()[number], cuts)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser("faults", description="Every fault, many times, and the table of what came of it.")
    parser.add_argument("--short", action="store_true", help="a few of each, below four minutes")
    parser.add_argument("--only", default="", help="only experiments with this word in their name")
    parser.add_argument("--out", type=Path, default=Path(".test-faults"), help="where faults.md and faults.json go")
    options = parser.parse_args()
    began = time.monotonic()
    logging.getLogger("paramiko").setLevel("CRITICAL")  # its errors come to us as exceptions
    campaign = Campaign(SHORT if options.short else Extent(), options.only)
    campaign.run()
    table = as_markdown(campaign.rows)
    print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "faults.md").write_text(table + "\n")
    (options.out / "faults.json").write_text(as_json(campaign.rows) + "\n")
    for failure in campaign.failures:
        say(f"FAILED: {failure}")
    say(f"{sum(row.injected for row in campaign.rows)} faults in {time.monotonic() - began:.0f} s")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())

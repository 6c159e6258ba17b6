"""What one file costs when many are queued, 1,000 to 100,000 of them, with a plot. `sh tests/run bench scale`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.measure import measure
from bench.peers import PEERS, Task
from bench.report import machine
from bench.site import open_site
from bench.trial import environment_of, make_files
from bench.works import MIB, Work

__all__ = ["main"]

SIZE = 200
LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Point:
    files: int
    wall_s: float
    cpu_s: float
    peak_bytes: int


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="sh tests/run bench scale", description=__doc__)
    parser.add_argument("files", nargs="*", type=int, default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--durability", choices=["fsync", "trust"], default="fsync")
    parser.add_argument("--out", type=Path, default=Path("../.test-bench"))
    options = parser.parse_args(argv)
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for files in options.files:
            point = _drain(files, options.durability, Path(folder, str(files)))
            print(_line(point), flush=True)
            points.append(point)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "durability": options.durability, "points": [asdict(point) for point in points]}
    (options.out / "scale.json").write_text(json.dumps(content, indent=1) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed (tests/bench/requirements.txt)")
    else:
        plot(points, options.out / "scale.png")
    return 0


def _drain(files: int, durability: str, folder: Path) -> Point:
    """So many files in the outbox, sent over loopback by `run --drain`, all of them counted at the server."""
    name = "ours" if durability == "trust" else "ours fsync"
    peer = next(peer for peer in PEERS if peer.name == name)
    work = Work(f"scale-{files}", "folder", files, SIZE)
    folder.mkdir()
    with open_site(work, folder) as site:
        far = site.root / "upload"
        far.mkdir()
        task = Task(work, site, make_files(work, folder / "outbox"), far, folder)
        command = site.command(peer.command(task) or [])
        usage = measure(command, log=folder / "log", environment=environment_of(task), limit_s=LIMIT_S)
        arrived = sum(1 for _ in far.iterdir())
    if usage.exit_code != 0 or arrived != files:
        log = (folder / "log").read_text(errors="replace")[-1000:]
        raise RuntimeError(f"{arrived} of {files} arrived, exit {usage.exit_code}: {log}")
    shutil.rmtree(folder)
    return Point(files, usage.wall_s, usage.cpu_s, usage.peak_bytes)


def _line(point: Point) -> str:
    wall_ms, cpu_ms = point.wall_s / point.files * 1000, point.cpu_s / point.files * 1000
    each = f"{wall_ms:.3f} ms and {cpu_ms:.3f} ms CPU each"
    return f"{point.files:7} files {point.wall_s:8.2f} s, {each}, peak {point.peak_bytes / MIB:.0f} MiB"


def plot(points: list[Point], path: Path) -> None:
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, (cost, memory) = plt.subplots(1, 2, figsize=(10, 3.5))
    files = [point.files for point in points]
    cost.plot(files, [point.wall_s / point.files * 1000 for point in points], "o-", label="wall")
    cost.plot(files, [point.cpu_s / point.files * 1000 for point in points], "s-", label="client CPU")
    cost.set(xscale="log", ylim=(0, None), xlabel="files queued", ylabel="ms per file")
    cost.legend()
    memory.plot(files, [point.peak_bytes / MIB for point in points], "o-")
    memory.set(xscale="log", ylim=(0, None), xlabel="files queued", ylabel="peak resident MiB")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)

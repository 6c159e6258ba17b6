"""The table of medians and ratios, the JSON and the plot of a campaign."""

from __future__ import annotations

import datetime as dt
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.peers import PEERS
from bench.trial import Row
from bench.works import MIB, WORKS, Work

__all__ = ["machine", "save", "table"]

HEAD = ("work", "peer", "wall s", "of best", "of floor", "client CPU s", "peak MiB", "wire / payload", "rounds")
VERSIONS = {
    "ssh": ["ssh", "-V"],
    "rsync": ["rsync", "--version"],
    "rclone": ["rclone", "version"],
    "lftp": ["lftp", "--version"],
}


def machine() -> dict[str, Any]:
    """Where and when: what a reader needs to judge the figures."""
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "congestion_control": control.read_text().strip() if control.exists() else "",
        "versions": {name: _first_line(command) for name, command in VERSIONS.items()},
    }


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "missing"
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, a block of lines for each work, in the order of WORKS and PEERS."""
    lines = [HEAD, tuple("---" for _ in HEAD)]
    for work in WORKS:
        of_work = [row for row in rows if row.work == work.name]
        lines += [_line(work, of_peer, of_work) for of_peer in _by_peer(of_work)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_peer(rows: Sequence[Row]) -> list[list[Row]]:
    groups = ([row for row in rows if row.peer == peer.name] for peer in PEERS)
    return [group for group in groups if group]


def median_wall_s(rows: Iterable[Row]) -> float | None:
    """None when one of the rounds was not done."""
    times = [row.wall_s for row in rows]
    return statistics.median(time_s for time_s in times if time_s is not None) if times and None not in times else None


def _line(work: Work, rows: list[Row], of_work: list[Row]) -> tuple[str, ...]:
    wall_s = median_wall_s(rows)
    others = [median_wall_s(group) for group in _by_peer(of_work)]
    best_s = min((time_s for time_s in others if time_s is not None), default=None)
    return (
        work.name,
        rows[0].peer,
        f"{wall_s:.2f}" if wall_s is not None else next(row.error for row in rows if row.error).splitlines()[0][:60],
        _ratio(wall_s, best_s),
        _ratio(wall_s, work.floor_s),
        f"{statistics.median(row.cpu_s for row in rows):.2f}",
        f"{statistics.median(row.peak_bytes for row in rows) / MIB:.0f}",
        f"{statistics.median(row.wire_bytes / row.payload_bytes for row in rows):.3f}",
        str(len(rows)),
    )


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value is not None and base else "-"


def save(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write bench.json, bench.md and, where matplotlib is installed, bench.png. Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "bench.json", folder / "bench.md"]
    content = {"machine": machine(), "works": [asdict(work) for work in WORKS], "rows": [asdict(row) for row in rows]}
    written[0].write_text(json.dumps(content, indent=1) + "\n")
    written[1].write_text(table(rows) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed (tests/bench/requirements.txt)")
        return written
    plot(rows, folder / "bench.png")
    return [*written, folder / "bench.png"]


def plot(rows: Sequence[Row], path: Path) -> None:
    """One panel a work: a bar a peer, the floor as a line; hatched where it was not done in time."""
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    works = [work for work in WORKS if any(row.work == work.name for row in rows)]
    figure, axes = plt.subplots(-(-len(works) // 2), 2, figsize=(12, 2.6 * -(-len(works) // 2)), squeeze=False)
    for axis, work in zip(axes.flat, works, strict=False):
        groups = _by_peer([row for row in rows if row.work == work.name])
        for place, group in enumerate(reversed(groups)):
            wall_s = median_wall_s(group)
            color = "tab:blue" if group[0].peer.startswith("ours") else "tab:gray"
            look = {"alpha": 1.0} if wall_s else {"alpha": 0.25, "hatch": "//"}
            axis.barh(place, wall_s or work.limit_s, color=color, **look)
        axis.set_yticks(range(len(groups)), [group[0].peer for group in reversed(groups)], fontsize=8)
        axis.set_title(f"{work.name} (s)", fontsize=9)
        if work.floor_s:
            axis.axvline(work.floor_s, color="tab:red", linewidth=1)
    for axis in list(axes.flat)[len(works) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)

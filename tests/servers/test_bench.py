"""The benchmark is run by hand: that it still can be is a matter of CI."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import bench
import pytest

TESTS = Path(__file__).parent.parent
LIMIT_S = 120


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(bench.__path__)])
def test_every_module_of_the_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"bench.{name}")


def test_one_work_is_done_and_written_down(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench", "down-256m-loopback", "--rounds", "1", "--peers", "ours"]
    done = subprocess.run(
        [*words, "--out", str(tmp_path)], cwd=TESTS, check=False, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in (tmp_path / "bench.md").read_text().splitlines() if "down-256m-loopback" in line)
    assert float(row.split("|")[3]) > 0  # seconds, not "not in ..."

"""Which tests run which lines of the product as it is, and which of them a mutant is shown to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mutants.making import Mutant

UNIT_TESTS_S = 90.0
"""Of the unit tests that run a changed line, so many seconds are asked."""
OTHER_TESTS_S = 60.0
PARTS = ("iot", "tests", "deploy", ".ci", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")
UNPACKED = ".test-servers"


class Covered:
    """found: from `merged`. seconds: of each test. failed: what is not asked, because it failed."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._lines = {
            path: {int(line): tests for line, tests in lines.items()} for path, lines in found["lines"].items()
        }
        self.seconds: dict[str, float] = found["seconds"]
        self.failed: list[str] = found["failed"]

    def tests_of(self, mutant: Mutant) -> list[list[str]]:
        """The tests that run its line, the quick ones and then the slow ones; of a line that runs at import, those of
        the module."""
        tests = self._of_line(mutant)
        units = [test for test in tests if is_unit(test)]
        return [part for part in (units, tests[len(units) :]) if part]

    def _of_line(self, mutant: Mutant) -> list[str]:
        lines = self._lines.get(mutant.path, {})
        if mutant.in_function:
            at = max((line for line in lines if line <= mutant.line), default=0)
            return lines.get(at, [])
        own = f"{_own(mutant.path)}.py::"  # a test that only reads a table runs no line of it
        usable = {test for test in self.seconds if test.startswith(own)}.difference(self.failed)
        return shown(mutant.path, usable.union(*lines.values()), self.seconds)


def shown(path: str, tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """-> of the tests that run a line of the module, those that a mutant there meets, in their order.

    First unit tests, and of these those that are named after the module, then what takes longer.
    """
    units = [test for test in tests if is_unit(test)]
    own = [test for test in units if test.startswith(_own(path))]
    asked = list(dict.fromkeys(_in_turn(own, seconds) + _in_turn(units, seconds)))
    others = _in_turn(set(tests).difference(units), seconds)
    return _within(asked, seconds, UNIT_TESTS_S) + _within(others, seconds, OTHER_TESTS_S)


def is_unit(test: str) -> bool:
    return test.startswith("unit/")


def _in_turn(tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """The quickest of each file, then the second of each: two tests of one file look at much the same."""
    place: Counter[str] = Counter()
    ranked: list[tuple[int, str]] = []
    for test in sorted(tests, key=lambda test: (seconds.get(test, 0.0), test)):
        file = test.partition("::")[0]
        place[file] += 1
        ranked.append((place[file], test))
    return [test for _, test in sorted(ranked, key=lambda each: each[0])]


def _within(tests: Sequence[str], seconds: Mapping[str, float], left_s: float) -> list[str]:
    """As many as take so long together, and at least one."""
    chosen: list[str] = []
    for test in tests:
        took_s = seconds.get(test, 0.0)
        if took_s <= left_s or not chosen:
            chosen.append(test)
            left_s -= took_s
    return chosen


def _own(path: str) -> str:
    return f"unit/test_{Path(path).stem}"


def cover(top: Path, scratch: Path, tests: Sequence[str], beside: int) -> dict[str, Any]:
    """Run all tests on the product as it is, so many shares of them beside one another."""
    scratch.mkdir()
    root = scratch / "copy"
    copy_of(top, root)
    files = _files(root / "tests", tests)
    shares = [files[number::beside] for number in range(beside)]
    running = [_start(root, scratch / str(number), share) for number, share in enumerate(shares) if share]
    for process in running:
        if process.wait():
            raise RuntimeError(f"the tests could not be run on the product as it is: see {scratch}")
    found = [json.loads(file.read_text(encoding="utf-8")) for file in scratch.glob("*/found.json")]
    shutil.rmtree(scratch)
    return merged(found)


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """parts: what `mutants.covering` writes. -> the same of them together; of each line what a mutant there meets."""
    lines: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    seconds: dict[str, float] = {}
    failed: set[str] = set()
    for part in parts:
        seconds |= part["seconds"]
        failed |= set(part["failed"])
        for path, of_path in part["lines"].items():
            for line, tests in of_path.items():
                lines[path][line].update(map(sys.intern, tests))
    chosen = {
        path: {line: shown(path, tests - failed, seconds) for line, tests in of_path.items()}
        for path, of_path in lines.items()
    }
    return {"lines": chosen, "seconds": seconds, "failed": sorted(failed)}


def _files(tests: Path, wanted: Sequence[str]) -> list[str]:
    folders = [
        sorted((tests / each).glob("test_*.py")) if (tests / each).is_dir() else [tests / each] for each in wanted
    ]
    return [path.relative_to(tests).as_posix() for paths in folders for path in paths]


def _start(root: Path, scratch: Path, share: Sequence[str]) -> subprocess.Popen[bytes]:
    temporary = scratch / "t"
    temporary.mkdir(parents=True)
    words = [sys.executable, "-m", "mutants.covering", str(root), str(scratch / "found.json"), *share]
    with (scratch / "log").open("wb") as log:
        environment = environment_of(root, temporary)
        return subprocess.Popen(words, cwd=root / "tests", env=environment, stdout=log, stderr=log)


def copy_of(top: Path, root: Path) -> None:
    for part in PARTS:
        if (top / part).is_dir():
            shutil.copytree(top / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (top / part).exists():
            shutil.copy2(top / part, root / part)
    (root / UNPACKED).symlink_to(top / UNPACKED)


def environment_of(root: Path, temporary: Path) -> dict[str, str]:
    left_out = ("CI", "IOT_SFTP_INSTALLED", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONPATH": str(root), "TMPDIR": str(temporary), "IOT_SFTP_TESTS": "short"}

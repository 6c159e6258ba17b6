"""A copy of the product and the tests in which mutants are tried, one after the other, each in a forked process."""

from __future__ import annotations

import enum
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import cache_from_source
from pathlib import Path

import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 - what tests import is loaded once, before a fork
import hypothesis  # noqa: F401
import paramiko  # noqa: F401
import pydantic_settings  # noqa: F401
import pytest
from mutants.covering import ARGUMENTS
from mutants.making import Mutant

TESTS_S = 30.0
"""Of the tests that run a changed line, the quickest are chosen, up to so many seconds."""
GRACE_S = 30.0
SLOWER = 3.0
PARTS = ("iot", "tests", "deploy", ".ci", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")


class Verdict(enum.Enum):
    NOTICED = "noticed"
    TIMEOUT = "timeout"
    SURVIVED = "not noticed"
    UNTESTED = "no test runs it"


class Bench:
    """scratch: an empty folder, removed by the caller. tests: what pytest is to run, below `tests`."""

    def __init__(self, top: Path, scratch: Path, tests: list[str]) -> None:
        self.root = scratch / "copy"
        self.log = scratch / "log"
        self._tests = tests
        self._temporary = scratch / "t"
        scratch.chmod(0o755)  # tests act as other users, too
        for part in PARTS:
            if (top / part).is_dir():
                shutil.copytree(top / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
            elif (top / part).exists():
                shutil.copy2(top / part, self.root / part)
        self._lines: dict[str, dict[int, list[str]]] = {}
        self._seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def measure(self, kept: Path | None) -> None:
        """Run all tests on the product as it is; what fails there is not asked again.

        kept: where that is kept, and taken from when it is there already.
        """
        result = self.root.parent / "covering.json"
        if kept is None or not kept.exists():
            self._cover(result)
        if kept is not None and not kept.exists():
            shutil.copy2(result, kept)
        found = json.loads((kept or result).read_text(encoding="utf-8"))
        self._lines = {
            path: {int(line): tests for line, tests in lines.items()} for path, lines in found["lines"].items()
        }
        self._seconds, self.failed = found["seconds"], found["failed"]

    def _cover(self, result: Path) -> None:
        words = [sys.executable, "-m", "mutants.covering", str(self.root), str(result), *self._tests]
        self._temporary.mkdir()
        with self.log.open("wb") as log:
            subprocess.run(words, cwd=self.root / "tests", env=self._environment(), stdout=log, stderr=log, check=True)
        (self.root / "sitecustomize.py").unlink()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that run its line, the quickest first; of a line that runs at import, those of the module."""
        lines = self._lines.get(mutant.path, {})
        if mutant.in_function:
            at = max((line for line in lines if line <= mutant.line), default=0)
            found = set(lines.get(at, ()))
        else:
            beside = f"unit/test_{Path(mutant.path).stem}.py::"  # a test that only reads a table runs no line of it
            found = set().union(*lines.values()).union(test for test in self._seconds if test.startswith(beside))
        usable = sorted(found.difference(self.failed), key=lambda test: self._seconds.get(test, 0.0))
        chosen: list[str] = []
        left_s = TESTS_S
        for test in usable:
            left_s -= self._seconds.get(test, 0.0)
            if chosen and left_s < 0:
                break
            chosen.append(test)
        return chosen

    def judge(self, mutant: Mutant, tests: list[str]) -> Verdict:
        if not tests:
            return Verdict.UNTESTED
        file = self.root / mutant.path
        original = file.read_text(encoding="utf-8")
        Path(cache_from_source(str(file))).unlink(missing_ok=True)
        file.write_text(mutant.code, encoding="utf-8")
        try:
            return self._run(tests)
        finally:
            file.write_text(original, encoding="utf-8")
            py_compile.compile(str(file))

    def control(self, tests: list[str]) -> bool:
        """Whether these tests pass on the product as it is."""
        return self._run(tests) is Verdict.SURVIVED

    def _run(self, tests: list[str]) -> Verdict:
        limit_s = GRACE_S + SLOWER * sum(self._seconds.get(test, 0.0) for test in tests)
        self._temporary.mkdir(exist_ok=True)
        child = os.fork()
        if not child:
            self._be_pytest(tests)
        try:
            status = _wait(child, time.monotonic() + limit_s)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if status is None:
            return Verdict.TIMEOUT
        return Verdict.SURVIVED if status == 0 else Verdict.NOTICED

    def _be_pytest(self, tests: list[str]) -> None:
        code = 70
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for stream in (1, 2):
                os.dup2(log, stream)
            environment = self._environment()
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(self.root / "tests")
            sys.path[:0] = [str(self.root), str(self.root / "tests")]
            sys.dont_write_bytecode = True
            code = pytest.main(["-x", *ARGUMENTS, "--timeout", "20", *tests])
        finally:
            os._exit(int(code))

    def _environment(self) -> dict[str, str]:
        left_out = ("CI", "IOT_SFTP_INSTALLED", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if name not in left_out}
        return {**kept, "PYTHONPATH": str(self.root), "TMPDIR": str(self._temporary), "IOT_SFTP_TESTS": "short"}


def _wait(child: int, until: float) -> int | None:
    """-> its status; None when it had to be killed"""
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None

"""A copy of the product and the tests in which mutants are tried, one after the other, each in a forked process."""

from __future__ import annotations

import enum
import os
import py_compile
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from importlib.util import cache_from_source
from pathlib import Path

import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 - what tests import is loaded once, before a fork
import hypothesis  # noqa: F401
import paramiko  # noqa: F401
import pydantic_settings  # noqa: F401
import pytest
from mutants.covered import Covered, copy_of, environment_of
from mutants.covering import ARGUMENTS
from mutants.making import Mutant
from mutants.typecheck import TypeCheck

GRACE_S = 30.0
SLOWER = 4.0


class Verdict(enum.Enum):
    NOTICED = "noticed"
    TYPES = "noticed by mypy alone"
    TIMEOUT = "timeout"
    SURVIVED = "not noticed"
    UNTESTED = "no test runs it"
    UNSTEADY = "only noticed by tests that fail without it, too"


class Bench:
    """scratch: where an empty folder is made, removed by the caller. also: tests that every mutant meets first."""

    def __init__(self, top: Path, scratch: Path, covered: Covered, also: Sequence[str]) -> None:
        self.root = scratch / "copy"
        self._covered = covered
        self._also = list(also)
        self._failed = scratch / "failed"
        self._log = scratch / "log"
        self._temporary = scratch / "t"
        self._types = TypeCheck(self.root, scratch / "mypy")
        copy_of(top, self.root)

    def judge(self, mutant: Mutant) -> Verdict:
        verdict = self._by_tests(mutant)
        if verdict in (Verdict.NOTICED, Verdict.TIMEOUT) or not self._types.notices(mutant):
            return verdict
        return Verdict.TYPES

    def _by_tests(self, mutant: Mutant) -> Verdict:
        verdict = Verdict.UNTESTED
        for tests in ([*self._also], *self._covered.tests_of(mutant)):
            if tests:
                verdict = self._by(mutant, tests)
            if verdict in (Verdict.NOTICED, Verdict.TIMEOUT):
                return verdict
        return verdict

    def _by(self, mutant: Mutant, tests: list[str]) -> Verdict:
        """What fails on the product as it is, too, has not noticed anything, and is not asked again."""
        while tests:
            verdict = self._with(mutant, tests)
            failed = self._failed.read_text(encoding="utf-8") if self._failed.exists() else ""
            if verdict is not Verdict.NOTICED or not failed or self._run([failed]) is Verdict.SURVIVED:
                return verdict
            tests = [test for test in tests if test not in (failed, failed.partition("[")[0])]
        return Verdict.UNSTEADY

    def _with(self, mutant: Mutant, tests: list[str]) -> Verdict:
        file = self.root / mutant.path
        original = file.read_text(encoding="utf-8")
        Path(cache_from_source(str(file))).unlink(missing_ok=True)
        file.write_text(mutant.code, encoding="utf-8")
        try:
            return self._run(tests)
        finally:
            file.write_text(original, encoding="utf-8")
            py_compile.compile(str(file))

    def _run(self, tests: list[str]) -> Verdict:
        took = [self._covered.seconds.get(test, 0.0) for test in tests]
        self._temporary.mkdir(exist_ok=True)
        self._failed.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            self._be_pytest(tests, GRACE_S + SLOWER * max(took))
        try:
            status = _wait(child, time.monotonic() + GRACE_S + SLOWER * sum(took))
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if status is None:
            return Verdict.TIMEOUT
        return Verdict.SURVIVED if status == 0 else Verdict.NOTICED

    def _be_pytest(self, tests: list[str], limit_s: float) -> None:
        code = 70
        try:
            os.setsid()
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for stream in (1, 2):
                os.dup2(log, stream)
            environment = environment_of(self.root, self._temporary)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(self.root / "tests")
            sys.path[:0] = [str(self.root), str(self.root / "tests")]
            sys.dont_write_bytecode = True
            words = ["-x", *ARGUMENTS, "--timeout", str(round(limit_s)), *tests]
            code = pytest.main(words, plugins=[FirstFailure(self._failed)])
        finally:
            os._exit(int(code))


class FirstFailure:
    """A plugin of pytest that leaves the test's name in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._file.exists():
            self._file.write_text(report.nodeid, encoding="utf-8")


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

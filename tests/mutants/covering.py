"""Which tests run which lines, and how long each takes: one run of all tests on the product as it is.

    python -m mutants.covering ROOT RESULT TESTS...

ROOT holds `iot`; the result is a JSON file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

RUNNING = "MUTANTS_TEST"
ARGUMENTS = ["-q", "-p", "no:cacheprovider", "-m", "not alone"]


class Recorder:
    """A plugin of pytest: the context of coverage is the test that runs, all cases of a unit test taken together."""

    def __init__(self, measuring: coverage.Coverage) -> None:
        self._measuring = measuring
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        os.environ[RUNNING] = _test_of(item.nodeid)
        self._measuring.switch_context(os.environ[RUNNING])
        yield
        del os.environ[RUNNING]
        self._measuring.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = _test_of(report.nodeid)
        self.seconds[test] = self.seconds.get(test, 0.0) + report.duration
        if report.failed:
            self.failed.add(test)


def _test_of(nodeid: str) -> str:
    return nodeid.partition("[")[0] if nodeid.startswith("unit/") else nodeid


def main(root: Path, result: Path, tests: list[str]) -> None:
    measuring = coverage.Coverage(config_file=str(_configured(root, result)))
    recorder = Recorder(measuring)
    measuring.start()
    pytest.main([*ARGUMENTS, "--timeout", "300", *tests], plugins=[recorder])
    measuring.stop()
    measuring.save()
    measuring.combine()
    data = measuring.get_data()
    lines = {
        Path(file).relative_to(root).as_posix(): {
            line: [context for context in contexts if context]
            for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    found = {"lines": lines, "seconds": recorder.seconds, "failed": sorted(recorder.failed)}
    result.write_text(json.dumps(found), encoding="utf-8")


def _configured(root: Path, result: Path) -> Path:
    """Settings for this process and for the programs that tests start, which find `sitecustomize` on their path."""
    file = result.with_suffix(".ini")
    file.write_text(
        f"[run]\nsource = {root / 'iot'}\ndata_file = {result.with_suffix('.coverage')}\nparallel = true\n"
        f"sigterm = true\ndisable_warnings = no-data-collected\ncontext = ${{{RUNNING}-}}\n",
        encoding="utf-8",
    )
    (root / "sitecustomize.py").write_text("import coverage\n\ncoverage.process_startup()\n", encoding="utf-8")
    os.environ["COVERAGE_PROCESS_START"] = str(file)
    return file


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

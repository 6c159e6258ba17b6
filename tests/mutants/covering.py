"""Which tests run which lines, and how long each takes: one run of all tests on the product as it is.

    python -m mutants.covering ROOT RESULT TESTS...

ROOT holds `iot`; the result is a JSON file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest


class Recorder:
    """A plugin of pytest: the context of coverage is the test that runs, its cases taken together."""

    def __init__(self, measuring: coverage.Coverage) -> None:
        self._measuring = measuring
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._measuring.switch_context(_test_of(item.nodeid))
        yield
        self._measuring.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = _test_of(report.nodeid)
        self.seconds[test] = self.seconds.get(test, 0.0) + report.duration
        if report.failed:
            self.failed.add(test)


def _test_of(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def main(root: Path, result: Path, tests: list[str]) -> None:
    measuring = coverage.Coverage(
        data_file=str(result.with_suffix(".coverage")), source=[str(root / "iot")], config_file=False
    )
    recorder = Recorder(measuring)
    measuring.start()
    pytest.main(["-q", "-p", "no:cacheprovider", "--timeout", "120", "-m", "not alone", *tests], plugins=[recorder])
    measuring.stop()
    measuring.save()
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

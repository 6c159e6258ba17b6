"""`sh tests/run mutants`: change the product in small ways, one at a time, and see whether the tests notice."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from mutants.covered import Covered, cover
from mutants.making import Mutant, draw, module_paths
from mutants.report import ENOUGH, SEEN, Result, Run, explanations, share, text_of
from mutants.trying import Bench, Verdict

HERE = Path(__file__).resolve().parent
TESTS = ["unit", "servers", "faults"]
BESIDE = 2 * (os.cpu_count() or 1)
"""Most tests wait, for a server or a clock."""
FAR = 16
"""One that hangs until its time limit keeps the others waiting only after so many."""


def main(words: list[str]) -> int:
    options = _options(words)
    top = HERE.parent.parent
    scratch = Path(tempfile.mkdtemp(prefix="mut-"))
    scratch.chmod(0o755)  # tests act as other users, too
    try:
        paths = module_paths(top, options.only)
        if not paths:
            print(f"no module begins with {' or '.join(options.only)}", file=sys.stderr)
            return 2
        _say(f"{len(paths)} modules")
        covered = _covered(top, scratch, options)
        run = _campaign(top, scratch, covered, paths, options, shlex.join(["sh", "tests/run", "mutants", *words]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    options.out.write_text(text_of(run), encoding="utf-8")
    _say(f"{len(run.results)} mutants, {share(run.results):.1%} noticed; see {options.out}")
    return 0 if share(run.results) >= ENOUGH else 1


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sh tests/run mutants", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="begin none after so long")
    parser.add_argument("--beside", type=int, default=BESIDE, metavar="N", help=f"so many at once (default: {BESIDE})")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATH", help="modules whose path begins so, such as iot/sftp/"
    )
    parser.add_argument(
        "--tests", nargs="+", default=TESTS, metavar="TEST", help=f"what notices (default: {' '.join(TESTS)})"
    )
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="TEST", help="new ones that every mutant meets, covered or not"
    )
    parser.add_argument(
        "--covering", type=Path, metavar="FILE", help="which tests run which lines: kept there, and reused"
    )
    parser.add_argument("--verdicts", type=Path, metavar="FILE", help="kept there; what was noticed is not tried again")
    parser.add_argument("--out", type=Path, default=HERE / "results.md", metavar="FILE", help="where the table goes")
    return parser.parse_args(words)


def _covered(top: Path, scratch: Path, options: argparse.Namespace) -> Covered:
    kept: Path | None = options.covering
    if kept is not None and kept.exists():
        return Covered(json.loads(kept.read_text(encoding="utf-8")))
    _say("running the tests once on the product as it is")
    found = cover(top, scratch / "covering", options.tests, options.beside)
    if kept is not None:
        kept.write_text(json.dumps(found), encoding="utf-8")
    return Covered(found)


def _campaign(
    top: Path, scratch: Path, covered: Covered, paths: list[str], options: argparse.Namespace, command: str
) -> Run:
    began = time.monotonic()
    until = began + 60 * options.budget if options.budget else float("inf")
    places, mutants = draw(top, paths, options.seed)
    _say(f"{sum(places.values())} places in the code")
    known = explanations(HERE / "survivors.toml")
    noticed = Noticed(options.verdicts)
    results: list[Result] = []
    trying = Trying(top, scratch, covered, options.also, options.beside)
    for mutant, verdict in trying.all(islice(mutants, options.sample), noticed, until):
        survived = verdict not in SEEN
        results.append(Result(mutant, verdict, known.get((mutant.was, mutant.becomes)) if survived else None))
        _say(f"{len(results)} {verdict.value}: {mutant.path}:{mutant.line} {mutant.was} -> {mutant.becomes}")
        if not survived:
            noticed.add(mutant)
    minutes = (time.monotonic() - began) / 60
    return Run(command, places, results, covered.failed, minutes, noticed.taken_over)


class Trying:
    """Several benches, each in a process of its own."""

    def __init__(self, top: Path, scratch: Path, covered: Covered, also: list[str], beside: int) -> None:
        self._beside = beside
        forked = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(beside, forked, _make_bench, (top, scratch, covered, also))

    def all(self, mutants: Iterable[Mutant], noticed: Noticed, until: float) -> Iterator[tuple[Mutant, Verdict]]:
        """In the order in which they come; none is begun after `until`."""
        begun: deque[tuple[Mutant, Future[Verdict] | None]] = deque()
        with self._pool:
            for mutant in mutants:
                if time.monotonic() >= until:
                    break
                begun.append((mutant, None if noticed.has(mutant) else self._pool.submit(_judge, mutant)))
                while len(begun) > FAR * self._beside:
                    yield self._first(begun)
            while begun:
                yield self._first(begun)

    @staticmethod
    def _first(begun: deque[tuple[Mutant, Future[Verdict] | None]]) -> tuple[Mutant, Verdict]:
        mutant, future = begun.popleft()
        return mutant, Verdict.NOTICED if future is None else future.result()


_mine: list[Bench] = []
"""Of this process, which is one of the pool's."""


def _make_bench(top: Path, scratch: Path, covered: Covered, also: list[str]) -> None:
    mine = scratch / str(os.getpid())
    mine.mkdir()
    _mine.append(Bench(top, mine, covered, also))


def _judge(mutant: Mutant) -> Verdict:
    return _mine[0].judge(mutant)


class Noticed:
    """Mutants that an earlier run has noticed: with more tests than there were then, they still are."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known = set(file.read_text(encoding="utf-8").splitlines()) if file and file.exists() else set()
        self.taken_over = 0

    def has(self, mutant: Mutant) -> bool:
        known = self._line(mutant) in self._known
        self.taken_over += known
        return known

    def add(self, mutant: Mutant) -> None:
        if self._file is not None and self._line(mutant) not in self._known:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(self._line(mutant) + "\n")

    @staticmethod
    def _line(mutant: Mutant) -> str:
        return json.dumps([mutant.path, mutant.operator, mutant.line, mutant.was, mutant.becomes])


def _say(text: str) -> None:
    print(f"mutants: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

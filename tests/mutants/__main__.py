"""`sh tests/run mutants`: change the product in small ways, one at a time, and see whether the tests notice."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

from mutants.making import Mutant, draw, module_paths
from mutants.report import ENOUGH, Result, Run, explanations, share, text_of
from mutants.trying import Bench, Verdict

HERE = Path(__file__).resolve().parent
CONTROL_EVERY = 20
SERVER_TESTS = ["contract", "cli", "agent_log", "agent_to_folder", "demo", "ftp_connections", "ftp_transfers"]
SERVER_TESTS += ["ssh_hostile_peer", "hostile_names", "interrupted_client"]
SLOW_SERVERS = ["openssh", "proftpd", "rclone", "asyncssh", "s3", "ssh2", "dropbear", "vsftpd", "pure-ftpd"]
TESTS = ["unit", *(f"servers/test_{name}.py" for name in SERVER_TESTS)]
TESTS += ["-k", f"not ({' or '.join(f'[{name} or -{name}' for name in SLOW_SERVERS)})"]
"""Programs that serve are too slow for each of thousands of mutants; the product's own server, pyftpdlib and a folder
are not."""


def main(words: list[str]) -> int:
    options = _options(words)
    scratch = Path(tempfile.mkdtemp(prefix="mut-"))
    try:
        bench = Bench(HERE.parent.parent, scratch, options.tests)
        paths = module_paths(bench.root, options.only)
        if not paths:
            print(f"no module begins with {' or '.join(options.only)}", file=sys.stderr)
            return 2
        _say(f"{len(paths)} modules; running the tests once as they are")
        bench.measure(options.covering)
        run = _campaign(bench, paths, options, shlex.join(["sh", "tests/run", "mutants", *words]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    options.out.write_text(text_of(run), encoding="utf-8")
    _say(f"{len(run.results)} mutants, {share(run.results):.1%} noticed; see {options.out}")
    return 0 if share(run.results) >= ENOUGH and not run.controls[1] else 1


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sh tests/run mutants", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="end after so long")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATH", help="modules whose path begins so, such as iot/sftp/"
    )
    parser.add_argument(
        "--tests", nargs="+", default=TESTS, metavar="TEST", help=f"what notices (default: {' '.join(TESTS)})"
    )
    parser.add_argument(
        "--covering", type=Path, metavar="FILE", help="which tests run which lines: kept there, and reused"
    )
    parser.add_argument("--verdicts", type=Path, metavar="FILE", help="kept there; what was noticed is not tried again")
    parser.add_argument("--out", type=Path, default=HERE / "results.md", metavar="FILE", help="where the table goes")
    return parser.parse_args(words)


def _campaign(bench: Bench, paths: list[str], options: argparse.Namespace, command: str) -> Run:
    began = time.monotonic()
    places, mutants = draw(bench.root, paths, options.seed)
    _say(f"{sum(places.values())} places in the code")
    known = explanations(HERE / "survivors.toml")
    noticed = Noticed(options.verdicts)
    results: list[Result] = []
    controls = broken = 0
    for mutant in mutants:
        minutes = (time.monotonic() - began) / 60
        if len(results) == options.sample or (options.budget and minutes >= options.budget):
            break
        if noticed.has(mutant):
            results.append(Result(mutant, Verdict.NOTICED))
            continue
        tests = bench.tests_of(mutant)
        verdict = bench.judge(mutant, tests)
        survived = verdict in (Verdict.SURVIVED, Verdict.UNTESTED)
        results.append(Result(mutant, verdict, known.get((mutant.was, mutant.becomes)) if survived else None))
        _say(f"{len(results)} {verdict.value}: {mutant.path}:{mutant.line} {mutant.was} -> {mutant.becomes}")
        if not survived:
            noticed.add(mutant)
        if not survived and len(results) % CONTROL_EVERY == 0:
            controls += 1
            broken += not bench.control(tests)
    minutes = (time.monotonic() - began) / 60
    return Run(command, places, results, (controls, broken), bench.failed, minutes, noticed.taken_over)


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
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(self._line(mutant) + "\n")

    @staticmethod
    def _line(mutant: Mutant) -> str:
        return json.dumps([mutant.path, mutant.operator, mutant.line, mutant.was, mutant.becomes])


def _say(text: str) -> None:
    print(f"mutants: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What came of the mutants: the table of modules, the survivors, and whether that is enough."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants.making import Mutant
from mutants.trying import Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENOUGH = 0.9
BY_TESTS = (Verdict.NOTICED, Verdict.TIMEOUT)
SEEN = (*BY_TESTS, Verdict.TYPES)


@dataclass(frozen=True, slots=True)
class Result:
    mutant: Mutant
    verdict: Verdict
    why: str | None = None
    """Of a survivor: the line in survivors.toml."""


@dataclass(frozen=True, slots=True)
class Run:
    """places: in each module. failed: tests that were left out.
    taken_over: mutants that an earlier run has noticed."""

    command: str
    places: Mapping[str, int]
    results: Sequence[Result]
    failed: Sequence[str]
    minutes: float
    taken_over: int = 0


def explanations(file: Path) -> dict[tuple[str, str], str]:
    """By the line as it was and as it became: a module may be renamed, and lines move."""
    listed = tomllib.loads(file.read_text(encoding="utf-8")).get("survivor", [])
    return {(item["was"], item["becomes"]): item["why"] for item in listed}


def share(results: Iterable[Result], seen: Sequence[Verdict] = SEEN) -> float:
    """Of the mutants that nobody has explained, those that are noticed."""
    asked = [result for result in results if result.why is None]
    return sum(result.verdict in seen for result in asked) / len(asked) if asked else 1.0


def text_of(run: Run) -> str:
    results = run.results
    sums = Counter(result.verdict for result in results)
    explained = sum(result.why is not None for result in results)
    lines = [
        "# Mutants",
        "",
        f"`{run.command}`: {len(results)} mutants of {sum(run.places.values())} places, in {run.minutes:.0f} minutes.",
        *(f"{verdict.value.capitalize()}: {sums[verdict]}." for verdict in Verdict),
        f"**{share(results):.1%} noticed**, {share(results, BY_TESTS):.1%} by the tests alone.",
        f"Left out of both are the {explained} that are explained.",
    ]
    if run.taken_over:
        lines.append(f"Noticed in an earlier run and not tried again: {run.taken_over}.")
    if run.failed:
        lines.append(f"Left out, because they failed on the unchanged product: {', '.join(run.failed)}.")
    return "\n".join([*lines, "", *_table(run), "", *_survivors(results)]) + "\n"


def _table(run: Run) -> list[str]:
    rows = ["| module | places | tried | noticed | not noticed | explained |", "|---|---|---|---|---|---|"]
    for path in run.places:
        mine = [result for result in run.results if result.mutant.path == path]
        if not mine:
            continue
        seen = sum(result.verdict in SEEN for result in mine)
        explained = sum(result.why is not None for result in mine)
        rows.append(
            f"| {path} | {run.places[path]} | {len(mine)} | {seen} | {len(mine) - seen - explained} | {explained} |"
        )
    return rows


def _survivors(results: Iterable[Result]) -> list[str]:
    lines = ["## Survivors", ""]
    for result in sorted(results, key=lambda result: (result.mutant.path, result.mutant.line)):
        if result.verdict in SEEN:
            continue
        mutant = result.mutant
        lines += [
            f"- {mutant.path}:{mutant.line} {result.verdict.value}: {result.why or '**not explained**'}",
            f"  - `{mutant.was}`",
            f"  - `{mutant.becomes}`",
        ]
    return lines

"""Carries a plan out: folders, then files, and removals only after everything arrived.

A failure ends its own file, never its neighbours. A lost link, a refused login and a request to stop end the whole; the
same plan, or a new one, goes on from there, because every transfer resumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from iot.transfer.errors import (
    Cancelled,
    ConfigurationError,
    LocalStateError,
    NameRefused,
    PermanentError,
    TransferError,
)
from iot.transfer.model import Direction, DownloadJob, Failure, ProgressCallback, TransferResult, UploadJob
from iot.transfer.names import remote_path
from iot.transfer.remote import Remote
from iot.transfer.source import local_error
from iot.transfer.trees.local import hidden_by_case
from iot.transfer.trees.model import Act, Step, StepResult, TreePlan
from iot.transfer.trees.removing import remove_local, remove_remote

__all__ = ["Manner", "carry_out"]

OF_ONE_FILE = (PermanentError, LocalStateError, ConfigurationError)
"""Errors that say nothing about the other files."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How the files are transferred: see client.Client.upload_many. progress: gives the callback of a step.
    sha256: include the digests in the results; hex digits are what the only file that is fetched must hash to.
    adopt_partial: see UploadJob."""

    resume: bool = True
    sha256: bool | str = False
    progress: Callable[[Step], ProgressCallback | None] = lambda _: None
    tick: Callable[[], None] = lambda: None
    adopt_partial: str | None = None


def carry_out(remote: Remote, plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    """Yield what became of each step that fails or changes something.

    Raises: ConfigurationError if two files would go to one destination; otherwise what concerns more than one file:
        TransientError, AuthenticationError, Cancelled.
    """
    if plan.twice is not None:
        raise ConfigurationError(f"two files would go to {plan.twice}: one would replace the other")
    failures = 0
    for done in _transferred(remote, plan, manner):
        failures += done.error is not None
        yield done
    yield from _pruned(remote, plan, failures)


def _transferred(remote: Remote, plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    yield from (StepResult(step, error=step.error) for step in plan.of(Act.FAIL))
    if plan.direction is Direction.UPLOAD:
        yield from _uploaded(remote, plan, manner)
    else:
        yield from _downloaded(remote, plan, manner)


# -- uploads


def _uploaded(remote: Remote, plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    """Folders that get files are made together with these."""
    transfers = plan.transfers
    used = {folder for step in transfers for folder in _folders_above(step.dest)}
    for step in plan.of(Act.MAKE_FOLDER):
        if step.dest.rstrip("/") not in used:
            yield _tried(step, lambda step: remote.mkdir(remote_path(step.dest)))
    yield from _sent(remote, transfers, plan, manner)


def _sent(remote: Remote, steps: Sequence[Step], plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    jobs = (
        UploadJob(
            step.source,
            step.dest,
            key=step,
            progress=manner.progress(step),
            digest=bool(manner.sha256),
            keep_times=plan.keep_times,
            adopt_partial=manner.adopt_partial,
        )
        for step in steps
    )
    outcomes = remote.upload_many(jobs, resume=manner.resume, tick=manner.tick) if steps else iter(())
    yield from _each(outcomes, len(steps))


def _each(outcomes: Iterator[TransferResult | Failure], expected: int) -> Iterator[StepResult]:
    """Raises: the first error that is not of one file alone, after the outcomes of all files."""
    everyones: TransferError | None = None
    count = 0
    for outcome in outcomes:
        count += 1
        step = outcome.key
        assert isinstance(step, Step)
        if isinstance(outcome, TransferResult):
            yield StepResult(step, outcome)
        elif isinstance(outcome.error, OF_ONE_FILE):
            yield StepResult(step, error=outcome.error)
        else:
            everyones = everyones or outcome.error
    if everyones is not None:
        raise everyones
    if count < expected:
        raise Cancelled("stopped on request")


# -- downloads


def _downloaded(remote: Remote, plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    """A name that may be another's on a file system that ignores case waits until that other one is there."""
    for step in plan.of(Act.MAKE_FOLDER):
        if not step.clash:
            yield _tried(step, lambda step: _make_local(step.dest))
    plain = [step for step in plan.transfers if not step.clash]
    yield from _fetched(remote, plain, plan, manner)
    for step in plan.of(Act.MAKE_FOLDER, Act.TRANSFER):
        if step.clash:
            yield from _clashing(remote, step, plan, manner)


def _clashing(remote: Remote, step: Step, plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    try:
        is_hidden = hidden_by_case(step.dest, step.path)
    except OSError as error:
        yield StepResult(step, error=local_error(error, step.dest))
        return
    if is_hidden:
        text = f"{step.dest} differs from {step.clash} only in case or dots at the end, and here both are one name"
        yield StepResult(step, error=NameRefused(text))
    elif step.act is Act.MAKE_FOLDER:
        yield _tried(step, lambda step: _make_local(step.dest))
    else:
        yield from _fetched(remote, [step], plan, manner)


def _fetched(remote: Remote, steps: Sequence[Step], plan: TreePlan, manner: Manner) -> Iterator[StepResult]:
    lacking = _folders_made({os.path.dirname(step.dest) for step in steps})
    for step in steps:
        if (error := lacking.get(os.path.dirname(step.dest))) is not None:
            yield StepResult(step, error=error)
    ready = [step for step in steps if os.path.dirname(step.dest) not in lacking]
    jobs = (
        DownloadJob(
            step.source,
            step.dest,
            key=step,
            progress=manner.progress(step),
            sha256=manner.sha256,
            keep_times=plan.keep_times,
        )
        for step in ready
    )
    outcomes = remote.download_many(jobs, resume=manner.resume, tick=manner.tick) if ready else iter(())
    yield from _each(outcomes, len(ready))


def _folders_made(folders: Iterable[str]) -> dict[str, TransferError]:
    """-> those that could not be made, and why."""
    lacking: dict[str, TransferError] = {}
    for folder in folders:
        try:
            _make_local(folder)
        except OF_ONE_FILE as error:
            lacking[folder] = error
    return lacking


def _make_local(path: str) -> None:
    try:
        os.makedirs(path or os.curdir, exist_ok=True)
    except OSError as error:
        raise local_error(error, path) from error


# -- removals


def _pruned(remote: Remote, plan: TreePlan, failures: int) -> Iterator[StepResult]:
    removals = plan.removals
    if not removals:
        return
    missing = f"{failures} name{'s were' if failures != 1 else ' was'} not transferred" if failures else ""
    why_not = plan.prune_refused or missing or _led_astray(plan)
    if why_not:
        step = Step(Act.FAIL, "", "", plan.dest, why_not)
        yield StepResult(step, error=PermanentError(f"nothing was removed in {plan.dest}: {why_not}"))
        return
    for step in removals:
        if plan.direction is Direction.UPLOAD:
            yield _tried(step, partial(remove_remote, remote))
        else:
            yield _tried(step, partial(remove_local, plan.leads_to))


def _led_astray(plan: TreePlan) -> str:
    """Why the local folder is not the one that was looked at; empty if it is, or is a remote one."""
    if plan.direction is Direction.UPLOAD or os.path.realpath(plan.dest) == plan.leads_to:
        return ""
    return f"it led to {plan.leads_to} before, and leads elsewhere now"


def _tried(step: Step, act: Callable[[Step], None]) -> StepResult:
    try:
        act(step)
    except OF_ONE_FILE as error:
        return StepResult(step, error=error)
    return StepResult(step)


def _folders_above(path: str) -> Iterator[str]:
    """The folders that are made for a file anyway."""
    while "/" in path:
        path = path.rpartition("/")[0].rstrip("/")
        yield path

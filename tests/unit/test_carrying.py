"""What ends all of a plan and what only one step, on a remote that answers as a script says."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.transfer.errors import Cancelled, LinkLost, PermanentError, PermissionDenied
from iot.transfer.model import Direction, Failure
from iot.transfer.trees.carrying import Manner, carry_out
from iot.transfer.trees.model import Act, Step, TreePlan
from iot.transfer.trees.removing import remove_remote

NAMES = ("a", "b", "c")


class Remote:
    """errors: of the jobs, in their order; a job without one is never finished."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = errors

    def upload_many(self, jobs: Any, **_: object) -> Iterator[Failure]:
        for job, error in zip(list(jobs), self.errors, strict=False):
            yield Failure(job.key, job.source, job.dest, error)


def carried(remote: Remote) -> tuple[list[str], Exception | None]:
    """-> the paths whose outcome is told, and what ended all"""
    steps = tuple(Step(Act.TRANSFER, name, f"/from/{name}", f"/to/{name}", "") for name in NAMES)
    told: list[str] = []
    outcomes = carry_out(remote, TreePlan(Direction.UPLOAD, steps), Manner())
    try:
        told.extend(done.step.path for done in outcomes)
    except (LinkLost, Cancelled) as error:
        return told, error
    return told, None


def test_what_concerns_all_files_is_raised_after_the_outcomes_of_all() -> None:
    lost, denied = LinkLost("first"), PermissionDenied("no")
    assert carried(Remote(lost, denied, LinkLost("second"))) == (["b"], lost)


def test_files_without_an_outcome_were_stopped() -> None:
    told, error = carried(Remote(PermissionDenied("no")))
    assert told == ["a"]
    assert isinstance(error, Cancelled)


@pytest.mark.parametrize(
    ("listed", "removed"), [(["a", "A"], True), (["a"], False), (["A"], False), (PermissionDenied("no"), False)]
)
def test_a_name_that_differs_in_case_is_removed_only_where_the_server_shows_both(listed: Any, removed: bool) -> None:
    found = listed if isinstance(listed, Exception) else [SimpleNamespace(name=name) for name in listed]
    deleted: list[bytes] = []
    remote: Any = SimpleNamespace(scan=lambda _: [found], delete=deleted.append)
    step = Step(Act.REMOVE, "A", "", "/to/A", "", clash="a")
    if removed:
        remove_remote(remote, step)
    else:
        with pytest.raises(PermanentError):
            remove_remote(remote, step)
    assert deleted == [b"/to/A"] * removed

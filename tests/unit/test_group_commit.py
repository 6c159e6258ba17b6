"""Records that share a commit: how long a job waits for others, and which may go on."""

from __future__ import annotations

from typing import Any

import pytest

from iot.transfer.group_commit import COMPANY_JOBS, COMPANY_PART, WAIT_MAX_S, WAIT_SHARE, GroupCommit


@pytest.fixture
def committed() -> list[Any]:
    return []


@pytest.fixture
def group(committed: list[Any]) -> GroupCommit[str]:
    return GroupCommit(lambda records: committed.append(list(records)))


def test_nobody_waits_for_nothing(group: GroupCommit[str]) -> None:
    assert group.wait_s(100.0, others=5) is None


def test_a_job_without_company_does_not_wait(group: GroupCommit[str]) -> None:
    group.add("a", 1, started_at=0.0, now=100.0)
    assert group.wait_s(100.0, others=0) == 0.0


@pytest.mark.parametrize(
    ("ran_s", "waits_s"), [(0.0, 0.0), (0.1, 0.1 * WAIT_SHARE), (0.4, WAIT_MAX_S), (60.0, WAIT_MAX_S)]
)
def test_a_job_waits_for_a_share_of_the_time_that_it_has_run(
    group: GroupCommit[str], ran_s: float, waits_s: float
) -> None:
    group.add("a", 1, started_at=100.0 - ran_s, now=100.0)
    assert group.wait_s(100.0, others=20) == pytest.approx(waits_s)
    assert group.wait_s(100.0 + waits_s / 2, others=20) == pytest.approx(waits_s / 2)
    assert group.wait_s(101.0, others=20) == 0.0


def test_the_first_whose_patience_ends_ends_the_wait_of_all(group: GroupCommit[str]) -> None:
    group.add("a", 1, started_at=0.0, now=100.0)
    group.add("b", 2, started_at=100.0, now=100.05)
    assert group.wait_s(100.05, others=20) == pytest.approx(0.05 * WAIT_SHARE)
    group.add("c", 3, started_at=0.0, now=100.06)
    assert group.wait_s(100.05, others=20) == pytest.approx(0.05 * WAIT_SHARE)


@pytest.mark.parametrize(("waiting", "others", "enough"), [(2, 6, True), (2, 10, False), (1, 6, True), (1, 7, False)])
def test_a_part_of_the_running_jobs_is_company_enough(
    group: GroupCommit[str], waiting: int, others: int, enough: bool
) -> None:
    for number in range(waiting):
        group.add("a", number, started_at=0.0, now=100.0)
    assert enough is (waiting >= (waiting + others) // COMPANY_PART)
    assert (group.wait_s(100.0, others=others) == 0.0) is enough


def test_of_very_many_jobs_not_more_than_so_many_are_waited_for(group: GroupCommit[str]) -> None:
    for number in range(COMPANY_JOBS - 1):
        group.add("a", number, started_at=0.0, now=100.0)
    assert group.wait_s(100.0, others=10_000) == pytest.approx(WAIT_MAX_S)
    group.add("a", 0, started_at=0.0, now=100.0)
    assert group.wait_s(100.0, others=10_000) == 0.0


def test_all_that_wait_are_written_at_once_and_go_on(group: GroupCommit[str], committed: list[Any]) -> None:
    for job, record in (("a", 1), ("b", 2)):
        group.add(job, record, started_at=0.0, now=100.0)
    assert group.commit() == ["a", "b"]
    assert committed == [[1, 2]]
    assert group.wait_s(100.0, others=5) is None
    group.add("c", 3, started_at=0.0, now=200.0)
    assert group.wait_s(200.0, others=20) == pytest.approx(WAIT_MAX_S)  # not that of those before it
    assert group.commit() == ["c"]


@pytest.mark.parametrize("end", ["clear", "fails"])
def test_jobs_that_are_given_up_or_whose_commit_failed_wait_no_more(end: str) -> None:
    def full(_: object) -> None:
        raise OSError("full")

    group: GroupCommit[str] = GroupCommit(full)
    group.add("a", 1, started_at=0.0, now=100.0)
    if end == "clear":
        group.clear()
    else:
        with pytest.raises(OSError, match="full"):
            group.commit()
    assert group.wait_s(100.0, others=5) is None
    group.add("b", 2, started_at=0.0, now=200.0)
    assert group.wait_s(200.0, others=20) == pytest.approx(WAIT_MAX_S)

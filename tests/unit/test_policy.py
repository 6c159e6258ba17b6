"""The rules of the queue: transitions, verdicts, waits, order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.spooler.queue.policy import (
    NEVER,
    TRANSITIONS,
    Backoff,
    Event,
    FailureKind,
    RetryRules,
    State,
    Tries,
    Verdict,
    after,
    job_priority,
    judge,
    prefers_large,
)

BACKOFF = Backoff(1.0, 300.0)


def verdict(kind, *, failures=0, strikes=0, losses=0, progressed=False, max_failures=None):
    rules = RetryRules(BACKOFF, max_attempts=8, max_failures=max_failures)
    return judge(kind, Tries(failures, strikes, losses), rules, progressed=progressed, random=0.0)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_is_in_the_table_or_raises(state, event):
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=event.name):
            after(state, event)


def test_what_is_being_sent_is_never_renewed_under_way():
    with pytest.raises(ValueError, match="SENDING"):
        after(State.SENDING, Event.RENEWED)


@given(st.integers(0, 10_000), st.integers(0, 1000), st.booleans())
def test_transient_errors_never_lead_to_quarantine(failures, strikes, progressed):
    for kind in (FailureKind.LINK, FailureKind.TRANSIENT, FailureKind.STOPPED):
        result = verdict(kind, failures=failures, strikes=strikes, progressed=progressed)
        assert result.event in (Event.INTERRUPTED, Event.POSTPONED, Event.FAILED)
        assert result.strikes == strikes


def test_permanent_errors_lead_to_quarantine_at_the_limit_and_not_before():
    assert verdict(FailureKind.PERMANENT, strikes=6).event is Event.FAILED
    assert verdict(FailureKind.PERMANENT, strikes=7).event is Event.GIVEN_UP
    assert verdict(FailureKind.PERMANENT, strikes=50).event is Event.GIVEN_UP  # the limit was higher before


def test_an_entry_that_only_loses_the_link_lets_others_go_first():
    assert verdict(FailureKind.LINK, losses=1) == (Event.INTERRUPTED, 0, 0, 0.0, 2)
    assert verdict(FailureKind.LINK, losses=2) == (Event.POSTPONED, 0, 0, 4.0, 3)
    assert verdict(FailureKind.LINK, losses=50, progressed=True) == (Event.INTERRUPTED, 0, 0, 0.0, 0)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_a_lost_link_is_never_the_files_fault(losses, failures, progressed):
    """However often: it is not counted as a failure of the file, and the file is not left for the next run."""
    result = verdict(FailureKind.LINK, failures=failures, losses=losses, progressed=progressed, max_failures=3)
    assert result.event in (Event.INTERRUPTED, Event.POSTPONED)
    assert result.failures == (0 if progressed else failures)
    assert result.delay_s <= BACKOFF.cap_s


@pytest.mark.parametrize("kind", [FailureKind.TRANSIENT, FailureKind.PERMANENT])
def test_failures_of_its_own_leave_a_file_for_the_next_run_at_the_limit_and_not_before(kind):
    assert verdict(kind, failures=1, max_failures=3).delay_s == 2.0
    assert verdict(kind, failures=2, max_failures=3).delay_s == NEVER
    assert verdict(kind, failures=7, max_failures=3).delay_s == NEVER
    assert verdict(kind, failures=2, max_failures=3, progressed=True).delay_s == 1.0
    assert verdict(kind, failures=2, losses=9).delay_s == 4.0


def test_each_wait_is_twice_the_one_before_up_to_the_cap():
    waits = [verdict(FailureKind.TRANSIENT, failures=failures).delay_s for failures in range(11)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_jitter_comes_after_the_cap(failures, random):
    wait = BACKOFF.delay_s(failures, random)
    assert 1.0 <= wait <= 300.0 * 1.3
    if failures > 10:
        assert wait == 300.0 + 90.0 * random


def test_short_waits_may_double_by_jitter_and_long_ones_grow_by_a_share_of_the_cap():
    assert [BACKOFF.delay_s(failures, 0.5) for failures in (1, 2, 7, 8, 9)] == [1.5, 3.0, 96.0, 173.0, 301.0]


def test_large_files_leave_places_for_small_ones():
    assert not prefers_large(None, 5, large_in_flight=2, max_large=2)
    assert not prefers_large(None, 5, large_in_flight=3, max_large=2)
    assert prefers_large(None, 5, large_in_flight=1, max_large=2)
    assert prefers_large(5, 5, large_in_flight=1, max_large=2)
    assert prefers_large(9, 5, large_in_flight=1, max_large=2)
    assert not prefers_large(0, 5, large_in_flight=0, max_large=2)
    assert not prefers_large(0, None, large_in_flight=0, max_large=2)
    assert not prefers_large(None, None, large_in_flight=0, max_large=2)


def test_in_the_pipeline_each_priority_has_a_place_for_small_ones_and_the_next_for_large_ones():
    assert [job_priority(priority, large=large) for priority in range(3) for large in (False, True)] == list(range(6))


@pytest.mark.parametrize(
    ("kind", "before", "progressed", "expected"),
    [
        (FailureKind.PERMANENT, Tries(1, 0), False, Verdict(Event.FAILED, 2, 1, 2.0)),
        (FailureKind.PERMANENT, Tries(1, 0), True, Verdict(Event.FAILED, 1, 1, 1.0)),
        (FailureKind.PERMANENT, Tries(1, 1), False, Verdict(Event.GIVEN_UP, 2, 2)),
        (FailureKind.TRANSIENT, Tries(1, 1), False, Verdict(Event.FAILED, 2, 1, 2.0)),
        (FailureKind.TRANSIENT, Tries(4, 5), False, Verdict(Event.FAILED, 5, 5, NEVER)),
        (FailureKind.STOPPED, Tries(4, 1, 2), False, Verdict(Event.INTERRUPTED, 4, 1, 0.0, 2)),
        (FailureKind.LINK, Tries(4, 1, 2), True, Verdict(Event.INTERRUPTED, 0, 1)),
        (FailureKind.LINK, Tries(4, 1, 1), False, Verdict(Event.INTERRUPTED, 4, 1, 0.0, 2)),
        (FailureKind.LINK, Tries(4, 1, 2), False, Verdict(Event.POSTPONED, 4, 1, 4.0, 3)),
    ],
)
def test_what_a_failure_means_for_a_file(kind, before, progressed, expected):
    rules = RetryRules(Backoff(1.0, 60.0), max_attempts=2, max_failures=5)
    assert judge(kind, before, rules, progressed=progressed, random=0.0) == expected

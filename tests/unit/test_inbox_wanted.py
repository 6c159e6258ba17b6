"""When a file of the server has settled, which checksum file it waits for, and when one that failed is tried again."""

from __future__ import annotations

import pytest

from iot.spooler.config.inboxes import Checksum
from iot.spooler.inbox import retries as module
from iot.spooler.inbox.retries import Retries
from iot.spooler.inbox.wanted import Candidate, Settling, candidates, clashes
from iot.spooler.queue.policy import Backoff
from iot.transfer import RemoteFile

NEVER = float("inf")
SETTLE_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def seen(path: str = "a", size: int = 3, checksum: str = "") -> Candidate:
    return Candidate(path, RemoteFile(size, 10**9), checksum)


def test_a_file_has_settled_when_it_was_the_same_for_so_long_and_not_before(clock: Clock) -> None:
    settling = Settling(SETTLE_S, clock)
    assert settling.look_at() == NEVER
    for size in (3, 4):  # it grows
        assert not settling.is_settled(seen(size=size))
        clock.now += SETTLE_S - 1
        assert settling.look_at() == clock.now + 1
    assert not settling.is_settled(seen(size=4))
    clock.now += 1
    assert settling.is_settled(seen(size=4))
    assert settling.look_at() == NEVER  # it is time: nothing to wait for


def test_the_next_one_that_settles_is_looked_at(clock: Clock) -> None:
    settling = Settling(SETTLE_S, clock)
    settling.is_settled(seen("a"))
    clock.now += 4
    settling.is_settled(seen("b"))
    assert settling.look_at() == clock.now + SETTLE_S - 4
    clock.now += SETTLE_S - 4
    assert settling.look_at() == clock.now + 4
    settling.keep_only({"a"})
    assert settling.look_at() == NEVER


def test_what_has_changed_since_it_was_seen_begins_anew(clock: Clock) -> None:
    settling = Settling(SETTLE_S, clock)
    settling.is_settled(seen())
    clock.now += SETTLE_S
    settling.unsettle("a")
    settling.unsettle("never seen")
    assert not settling.is_settled(seen())
    clock.now += SETTLE_S
    assert settling.is_settled(seen())


def test_with_its_checksum_or_without_a_time_to_settle_a_file_is_taken_at_once(clock: Clock) -> None:
    assert Settling(SETTLE_S, clock).is_settled(seen(checksum="64@1"))
    assert Settling(0.0, clock).is_settled(seen())
    assert Settling(SETTLE_S, clock).look_at() == NEVER


@pytest.mark.parametrize(
    ("checksum", "found", "waiting"),
    [
        (Checksum.OFF, [("a", ""), ("a.sha256", ""), ("b", "")], {}),
        (Checksum.WAIT, [("a", "64@2")], {"b": "waits for its .sha256"}),
        (Checksum.REQUIRE, [("a", "64@2")], {"b": "error: .sha256 is missing"}),
    ],
)
def test_a_checksum_file_is_part_of_its_file_where_it_is_asked_for(
    checksum: Checksum, found: list[tuple[str, str]], waiting: dict[str, str]
) -> None:
    files = {"a": RemoteFile(3, 1), "a.sha256": RemoteFile(64, 2), "b": RemoteFile(3, 1), "other": RemoteFile(3, 1)}
    chosen, why = candidates(files, lambda path: path != "other", checksum)
    assert ([(each.path, each.checksum) for each in chosen], why) == (found, waiting)


def test_names_that_differ_in_case_or_composition_are_one_and_the_first_has_it() -> None:
    assert clashes(["A", "a", "b", "\u00c4", "a\u0308", "\u00e4"]) == {
        "a": "A",
        "a\u0308": "\u00c4",
        "\u00e4": "\u00c4",
    }


# -- one that failed


@pytest.fixture
def retries(clock: Clock) -> Retries:
    return Retries("in", Backoff(10.0, 60.0), lambda: 0.0, clock)


def test_each_failure_in_a_row_doubles_the_wait_and_a_success_ends_that(retries: Retries, clock: Clock) -> None:
    assert retries.again_at(b"a") == -NEVER
    waits = [retries.put_off(b"a", "no") - clock.now for _ in range(4)]
    assert waits == [10.0, 20.0, 40.0, 60.0]
    assert retries.put_off(b"b", "no") - clock.now == 10.0
    retries.forget(b"a")
    retries.forget(b"never failed")
    assert (retries.has_failed(b"a"), retries.has_failed(b"b")) == (False, True)
    assert retries.put_off(b"a", "no", wait_s=3.0) == retries.again_at(b"a") == clock.now + 3.0


def test_a_wake_ends_all_waits_and_forgets_no_failure(retries: Retries, clock: Clock) -> None:
    for _ in range(2):
        retries.put_off(b"a", "no")
    retries.wake()
    assert retries.again_at(b"a") == -NEVER
    assert retries.reasons == {"a": "no"}
    assert retries.put_off(b"a", "still no") - clock.now == 40.0
    retries.forget_all_but({b"b"})
    assert retries.reasons == {}


def test_each_reason_is_logged_once_and_there_is_an_end_to_what_is_remembered(
    retries: Retries, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TOLD_MAX", 3)
    for reason in ("one", "one", "two", "three", "four", "five"):
        retries.tell(b"a", reason)
    assert [line.rpartition("=")[2] for line in caplog.messages] == ["one", "two", "three"]
    assert len(retries._told) == 3

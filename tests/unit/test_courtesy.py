"""Others stand back for something urgent, for a while, and then have as much time for themselves."""

from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.sharing import MOST_S, Courtesy, Turns

KIB = 1024


def test_they_stand_back_for_as_long_as_it_takes_but_not_for_ever() -> None:
    courtesy = Courtesy()
    assert all(courtesy.is_due(0.1 * step) for step in range(int(MOST_S * 10)))
    assert not courtesy.is_due(MOST_S)
    assert not courtesy.is_due(2 * MOST_S - 0.1)
    assert courtesy.is_due(2 * MOST_S)


def test_the_next_urgent_one_finds_them_undisturbed_for_as_long_as_they_stood_back() -> None:
    courtesy = Courtesy()
    assert courtesy.is_due(10.0)
    courtesy.over(11.0)
    assert not courtesy.is_due(11.5)
    assert courtesy.is_due(12.0)


def test_an_end_without_a_beginning_costs_nothing() -> None:
    courtesy = Courtesy()
    courtesy.over(5.0)
    assert courtesy.is_due(5.0)


def test_who_is_courteous_keeps_a_fat_link_full_and_waits_for_a_slow_one() -> None:
    for rate, blocks in ((6.25e6, 39), (125e3, 0)):
        pace = Pace(16 * KIB * KIB, 32 * KIB)
        pace.answered(pace.sent(0.0, 0), 0, 0.2)
        pace.answered(pace.sent(1.0, int(rate)), int(rate), 2.0)
        sent = 0
        while pace.has_room(32 * KIB, courteous=True) and sent < 1000:
            pace.sent(2.0, 32 * KIB)
            sent += 1
        assert abs(sent - blocks) <= 1


def test_the_first_seconds_of_a_slow_link_put_little_in_front_of_it() -> None:
    """At 1 Mbit/s, what is in flight then must be through within one and a half seconds or so."""
    pace = Pace(16 * KIB * KIB, 32 * KIB)
    pace.answered(pace.sent(0.0, 0), 0, 0.2)
    now, most = 0.2, 0
    sent = []
    for _ in range(100):
        while pace.has_room(32 * KIB):
            sent.append(pace.sent(now, 32 * KIB))
        most = max(most, pace.in_flight)
        now += 32 * KIB / 125e3
        pace.answered(sent.pop(0), 32 * KIB, now)
    assert most <= 1.6 * 125e3


# -- whose turn it is


def served(turns: Turns, *requests: tuple[str, int]) -> list[float]:
    return [turns.next(share, cost) for share, cost in requests]


def test_each_share_begins_where_its_last_request_ended() -> None:
    assert served(Turns(), ("a", 10), ("a", 10), ("b", 30), ("b", 1), ("a", 1)) == [0.0, 10.0, 0.0, 30.0, 20.0]


def test_who_had_nothing_to_send_saves_nothing_up() -> None:
    turns = Turns()
    served(turns, ("a", 10), ("a", 10))
    turns.begun(10.0)
    turns.begun(0.0)  # a late one does not turn the time back
    assert served(turns, ("b", 5), ("b", 5), ("a", 5)) == [10.0, 15.0, 20.0]

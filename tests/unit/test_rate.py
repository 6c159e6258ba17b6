"""The limit of the rate, on a fake clock; rates as people write them; shares of a busy link."""

from __future__ import annotations

import pytest

from iot.sftp.client import ConfigurationError, IoTSFTPClient
from iot.sftp.client.pipeline.pace import SMALL_BLOCK, Pace
from iot.sftp.client.pipeline.sharing import Turns
from iot.transfer.rate import FULL_PACKETS, Meter, RateLimit, Wire, parse_rate

MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("2 Mbit/s", 250_000.0),
        ("2Mbit/s", 250_000.0),
        ("0.5 mbit/s", 62_500.0),
        ("64 kbit/s", 8_000.0),
        ("250 kB/s", 250_000.0),
        ("1 MiB/s", MIB),
        ("4096", 4096.0),
        (4096, 4096.0),
        (4096.5, 4096.5),
        ("1 Gbit/s", 125e6),
        ("8 kbit/s", 1000.0),
        ("1000", 1000.0),
        ("1000 byte/s", 1000.0),
        (" 2 KiB/s ", 2048.0),
        ("8 Mibit/s", MIB),
        ("1 GiB/s", 1024 * MIB),
    ],
)
def test_rates_are_read_as_people_write_them(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("value", ["", "fast", "2 Mbit", "2 Mbps", "-1", "1e6", "2 TB/s", True, None, [1], "nan"])
def test_what_is_no_rate_is_refused(value):
    with pytest.raises(ValueError, match="must be bytes a second, or a text such as"):
        parse_rate(value)


def test_a_rate_at_which_nothing_gets_through_is_refused():
    with pytest.raises(ValueError, match="at least 1000 bytes a second"):
        parse_rate("1 kbit/s")


def test_the_client_names_a_wrong_rate():
    with pytest.raises(ConfigurationError, match=r"max_rate: .*must be bytes a second.*\(got 'fast'\)"):
        IoTSFTPClient("h", sftp_user="u", max_rate="fast")
    client = IoTSFTPClient("h", sftp_user="u", max_rate="2 Mbit/s")
    with pytest.raises(ConfigurationError, match=r"bytes_per_s: .*at least 1000"):
        client.limit_rate(0)
    assert client.wire == Wire(0, 0)
    client.close()


@pytest.mark.parametrize("block", [100, 10_000, 300_000])
def test_a_sender_that_waits_gets_the_rate_whatever_its_blocks(block):
    clock = Clock()
    limit, sent, end = RateLimit(50_000.0, clock), 0, clock.now + 60
    while clock.now < end:
        if wait_s := limit.wait_s():
            clock.now += wait_s
        limit.spend(block)
        sent += block
    owed = block / 50_000.0
    assert 50_000.0 * 60 <= sent <= 50_000.0 * (60 + owed + 0.2) + block


def test_after_a_rest_little_is_made_up_for():
    clock = Clock()
    limit = RateLimit(50_000.0, clock)
    clock.now += 3600
    assert limit.wait_s() == 0
    limit.spend(5_000)
    assert limit.wait_s() == 0
    limit.spend(5_000)
    assert limit.wait_s() == pytest.approx(0.1)


def test_from_the_first_byte_on_all_is_charged():
    clock = Clock()
    limit = RateLimit(1_000.0, clock)
    assert (limit.rate, limit.wait_s()) == (1_000.0, 0.0)
    limit.spend(5)
    assert limit.wait_s() == pytest.approx(0.005)
    clock.now += 0.004
    assert limit.wait_s() == pytest.approx(0.001)
    clock.now += 0.002
    assert limit.wait_s() == 0.0


def test_without_a_limit_nothing_is_owed_or_saved_up():
    clock = Clock()
    limit = RateLimit(None, clock)
    limit.spend(1e9)
    assert (limit.rate, limit.wait_s(), limit.block(123)) == (None, 0.0, 123)
    clock.now += 60
    limit.change(1_000.0)
    limit.spend(5)
    assert limit.wait_s() == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("rate", "most", "block"),
    [(4_096.0, 10**6, 1024), (4_100.0, 10**6, 1025), (1_000.0, 10**6, 1024), (1e9, 10**6, 10**6), (1_000.0, 500, 500)],
)
def test_a_block_takes_a_quarter_of_a_second_at_most(rate, most, block):
    assert RateLimit(rate).block(most) == block


def test_a_change_counts_at_once_and_what_is_owed_is_paid_at_the_new_rate():
    clock = Clock()
    limit = RateLimit(10_000.0, clock)
    limit.spend(100_000)
    limit.change(50_000.0)
    assert limit.wait_s() == pytest.approx(2.0)
    limit.change(None)
    assert limit.wait_s() == 0
    limit.spend(1e9)
    limit.change(10_000.0)
    assert limit.wait_s() == 0


def test_what_was_not_foreseen_is_charged_once():
    clock = Clock()
    pace = Pace(8 * MIB, MIB, limit=RateLimit(100_000.0, clock))
    pace.sent(clock.now, 10_000)
    pace.carried(int(10_000 * FULL_PACKETS) + 50_000)  # small requests, retransmissions
    pace.carried(int(10_000 * FULL_PACKETS) + 50_000)
    assert pace.limit.wait_s() == pytest.approx((10_000 * FULL_PACKETS + 50_000) / 100_000, rel=1e-3)
    assert not pace.has_room(1)
    clock.now += 1
    assert pace.has_room(1)


def test_what_is_asked_for_counts_as_what_is_sent_but_foresees_nothing_of_it():
    clock = Clock()
    pace = Pace(8 * MIB, MIB, limit=RateLimit(100_000.0, clock))
    pace.sent(clock.now, 100_000, asks=True)
    assert pace.limit.wait_s() == pytest.approx(FULL_PACKETS)
    pace.carried(10_000)
    assert pace.limit.wait_s() == pytest.approx(FULL_PACKETS + 0.1)


def test_blocks_are_small_on_a_slow_limit_so_that_an_urgent_file_need_not_wait():
    assert Pace(8 * MIB, MIB, limit=RateLimit(20_000.0)).block == 5_000
    assert Pace(8 * MIB, MIB, limit=RateLimit(1_000.0)).block == 1024
    assert Pace(8 * MIB, MIB).block == SMALL_BLOCK


class Carrier:
    def __init__(self) -> None:
        self.wire, self.over = Wire(0, 0), False


def test_the_wire_of_closed_connections_still_counts():
    meter, one, two = Meter(), Carrier(), Carrier()
    meter.follow(one)
    meter.follow(two)
    one.wire, two.wire = Wire(10, 1), Wire(20, 2)
    assert meter.wire == (30, 3)
    one.over = True
    assert meter.wire == (30, 3)
    two.wire = Wire(25, 4)
    assert meter.wire == (35, 5)


def test_what_a_connection_does_not_tell_itself_is_added():
    meter, carrier = Meter(), Carrier()
    assert meter.wire == Wire() == (0, 0)
    meter.follow(carrier)
    carrier.wire = Wire(1, 2)
    meter.add(Wire(10, 20))
    meter.add(Wire(100, 200))
    assert meter.wire == (111, 222)


def order(requests: list[tuple[str, int]]) -> str:
    """The order in which waiting requests (share, bytes) are served."""
    turns = Turns()
    waiting = [(turns.next(share, cost), number, share) for number, (share, cost) in enumerate(requests)]
    return "".join(share for _, _, share in sorted(waiting))


def test_shares_get_the_same_bytes_however_many_requests_they_have_waiting():
    assert order([("a", 10), ("a", 10), ("a", 10), ("a", 10), ("b", 10), ("b", 10)]) == "ababaa"
    assert order([("a", 10), ("a", 10), ("b", 30), ("b", 30), ("a", 10), ("a", 10)]) == "abaaba"
    assert order([("a", 10), ("a", 10)]) == "aa"


def test_a_share_that_had_nothing_to_send_saves_nothing_up():
    turns = Turns()
    for _ in range(100):
        turns.begun(turns.next("a", 10))
    first = turns.next("b", 10)
    assert first >= 990
    assert turns.next("a", 10) < turns.next("b", 10) + 10

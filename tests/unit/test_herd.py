"""What the waits of a fleet do to its server: by simulation, with the product's own waits. See tests/herd."""

from __future__ import annotations

import random

import pytest
from herd.fleet import Came, Outage, Plan, come_back
from herd.sshd import GRACE_S, Door, Login, MaxStartups

GRACE_OF_PROMISE_S = 120.0
SEEDS = (1, 2, 3)


def of_300(outage: Outage, seed: int, **changes: object) -> Came:
    return come_back(Plan(300, outage, seed=seed, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("alike", [False, True], ids=["good-generators", "generators-that-start-alike"])
@pytest.mark.parametrize("outage", Outage)
def test_300_agents_come_back_within_the_window_and_hardly_one_is_refused(outage: Outage, alike: bool) -> None:
    for seed in SEEDS:
        plan = Plan(300, outage, seed=seed, alike=alike)
        came = come_back(plan)
        assert came.last_s is not None
        assert came.last_s < plan.window_s + GRACE_OF_PROMISE_S
        assert came.refused_percent < 2


@pytest.mark.parametrize("outage", Outage)
def test_without_jitter_phase_and_window_two_of_three_connections_are_refused(outage: Outage) -> None:
    for seed in SEEDS:
        assert of_300(outage, seed, naive=True).refused_percent > 50


def test_jitter_helps_also_after_a_short_outage_which_knows_no_window() -> None:
    """The server is back after a minute: a fifth is refused, and nobody waits for more than two."""
    for seed in SEEDS:
        came = of_300(Outage.SERVER, seed, outage_s=60.0)
        assert came.refused_percent < 30
        assert came.last_s is not None
        assert came.last_s < 120
        assert of_300(Outage.SERVER, seed, outage_s=60.0, naive=True).refused_percent > 50


def test_without_the_window_a_network_that_is_there_again_brings_all_at_once() -> None:
    """Jitter alone does not help them: they do not wait."""
    for seed in SEEDS:
        assert of_300(Outage.NETWORK, seed, window_s=0.0).refused_percent > 50


def test_a_fleet_too_large_for_its_servers_comes_back_all_the_same_and_with_enough_of_them_within_the_window() -> None:
    """A tenth of 100,000 agents, before a tenth of the servers."""
    too_few, enough = (come_back(Plan(10_000, Outage.POWER, gateways=gateways)) for gateways in (1, 4))
    assert too_few.last_s is not None
    assert too_few.refused_percent > 20
    assert enough.last_s is not None
    assert enough.last_s < 1200 + GRACE_OF_PROMISE_S
    assert enough.refused_percent < 2


# -- the model of sshd; servers/test_herd_at_sshd.py compares it with the real one


@pytest.mark.parametrize(
    ("under_way", "percent"), [(0, 0), (9, 0), (10, 30), (11, 30), (12, 31), (55, 65), (99, 99), (100, 100), (500, 100)]
)
def test_the_share_of_dropped_connections_grows_between_the_two_limits(under_way: int, percent: int) -> None:
    assert MaxStartups().dropped_percent(under_way) == percent


def test_a_login_keeps_its_place_until_it_is_over() -> None:
    door = Door(MaxStartups(2, 100, 2), Login(cpu_s=0.0, link_s=1.0), random.Random(1).random)
    assert [door.connect(now) for now in (0.0, 0.5, 0.9, 1.0, 1.1)] == [
        (1.0, True),
        (1.5, True),
        None,
        (2.0, True),
        None,
    ]
    assert door.most_under_way == 2


def test_logins_share_the_cores_and_those_that_take_too_long_are_cut_off() -> None:
    door = Door(MaxStartups(9, 100, 9), Login(cpu_s=100.0, link_s=0.0, cores=1), lambda: 0.5)
    assert [door.connect(0.0) for _ in range(2)] == [(100.0, True), (GRACE_S, False)]

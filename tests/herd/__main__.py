"""How a fleet comes back after a common outage: `sh tests/run herd`, some minutes.

    python -m herd [--short]

Prints the tables of README.md as markdown; --short only those of 300 agents. The seeds are fixed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from herd.fleet import Came, Outage, Plan, come_back

HEAD = (
    "| agents | servers | outage | waits | last connected | 9 of 10 connected | refused | logins at a time, at most |",
    "|---:|---:|---|---|---:|---:|---:|---:|",
)


def few() -> Iterator[Plan]:
    for outage in Outage:
        yield Plan(300, outage)
        yield Plan(300, outage, naive=True)
    for minutes in (1, 10):
        yield Plan(300, Outage.SERVER, outage_s=minutes * 60)
        yield Plan(300, Outage.NETWORK, outage_s=minutes * 60)


def many() -> Iterator[Plan]:
    for gateways in (5, 10, 20, 40):
        yield Plan(100_000, Outage.POWER, gateways=gateways)
    yield Plan(100_000, Outage.POWER, gateways=4, window_s=7200.0)
    for outage in (Outage.SERVER, Outage.NETWORK):
        yield Plan(100_000, outage, gateways=40)
    yield Plan(100_000, Outage.POWER, gateways=20, naive=True)


def row(plan: Plan, came: Came) -> str:
    away = f"{plan.outage.name.lower().replace('_', ', length ')}, {plan.outage_s / 60:.0f} min"
    waits = "doubling only" if plan.naive else f"window {plan.window_s:.0f} s"
    cells = (
        f"{plan.agents:,}",
        str(plan.gateways),
        away,
        waits,
        shown(came.last_s),
        shown(came.nine_of_ten_s),
        f"{came.refused_percent:.1f} %",
        str(came.most_under_way),
    )
    return f"| {' | '.join(cells)} |"


def shown(seconds: float | None) -> str:
    return "not within a day" if seconds is None else f"{seconds:,.0f} s"


def table(plans: Iterable[Plan]) -> None:
    print(*HEAD, sep="\n", flush=True)
    for plan in plans:
        print(row(plan, come_back(plan)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="herd")
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    table(few())
    if not short:
        print(flush=True)
        table(many())


if __name__ == "__main__":
    main()

"""What the agent does in each turn of its loop, and what of that is told as news: its pieces are those of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.agent_pieces import NEVER, Quiet

from iot.spooler.agent.agent import TICK_S
from iot.spooler.agent.loop import Wake
from iot.spooler.queue.policy import State
from iot.transfer import JournalUnavailable, LinkLost, LoginRefused


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Quiet]:
    with Quiet(tmp_path) as found:
        yield found


# -- a turn


NEWS: dict[str, Any] = {
    "an inbox has done something": lambda quiet: quiet.answer(quiet.pull, step=True),
    "the rate is another one": lambda quiet: quiet.answer(quiet.pacer, look=True),
    "names were looked at": lambda quiet: quiet.answer(quiet.intake, step=True),
    "a walk has ended": lambda quiet: (
        quiet.intake.__dict__.update(walking=True)
        or quiet.answer(quiet.intake, step=lambda *, busy: quiet.intake.__dict__.update(walking=False))
    ),
    "files were queued": lambda quiet: quiet.answer(
        quiet.intake, step=lambda *, busy: quiet.queue.__dict__.update(made_ready=4)
    ),
    "a batch may go": lambda quiet: quiet.answer(quiet.batches, look=True),
    "the budget is another one": lambda quiet: quiet.answer(quiet.budget, look=True),
    "a gate has opened": lambda quiet: quiet.answer(quiet.gates, look=True),
    "it is the turn of the inboxes": lambda quiet: quiet.answer(quiet.pull, claims=True),
}


@pytest.mark.parametrize("what", NEWS)
def test_whatever_is_new_in_a_turn_is_told_in_it_once(quiet: Quiet, what: str) -> None:
    quiet.agent._tick(busy=False)
    NEWS[what](quiet)
    quiet.agent._tick(busy=False)
    for piece in (quiet.pull, quiet.pacer, quiet.intake, quiet.batches, quiet.budget, quiet.gates):
        quiet.answer(piece, step=None, look=None)
    quiet.agent._tick(busy=False)
    assert quiet.reports == [False, True, False]


def test_a_walk_that_goes_on_and_one_that_begins_are_no_news(quiet: Quiet) -> None:
    for walking in (True, True):
        quiet.answer(quiet.intake, step=lambda *, busy, to=walking: quiet.intake.__dict__.update(walking=to))
        quiet.agent._tick(busy=False)
    assert quiet.reports == [False, False]


def test_each_outbox_has_its_turn_and_news_of_one_are_enough(quiet: Quiet) -> None:
    quiet.agent.intakes = boxes = [quiet.box("one"), quiet.box("two", 2), quiet.box("stopped", 3)]
    boxes[2].stopped = True
    quiet.answer(boxes[0], step=True)
    quiet.agent._tick(busy=False)
    assert [call for call in quiet.calls if call.endswith(".step")] == ["pull.step", "one.step", "two.step"]
    assert quiet.reports == [True]


@pytest.mark.parametrize("failures", range(6))
def test_a_source_that_goes_on_failing_is_news_at_each_power_of_two(quiet: Quiet, failures: int) -> None:
    quiet.intake.failures = failures - 1
    quiet.answer(quiet.intake, step=lambda *, busy: quiet.intake.__dict__.update(failures=failures))
    quiet.agent._tick(busy=False)
    quiet.answer(quiet.intake, step=None)
    quiet.agent._tick(busy=False)
    assert quiet.reports == [failures in (0, 1, 2, 4), False]


def test_in_a_turn_everybody_does_his_part_in_order(quiet: Quiet) -> None:
    quiet.agent._tick(busy=False)
    assert quiet.calls == [
        "pull.claims", "gates.look", "pull.step", "pacer.look", "box.step", "outcomes.drop_withdrawn", "before.look",
        "batches.look", "after.look", "owed.released", "owed.tend", "packing.tend", "owed.flush", "budget.look",
        "queue.wake", "outcomes.destination_failed", "gates.suspended",
    ]  # fmt: skip


def test_when_a_batch_may_go_the_gates_are_looked_at_again_at_once(quiet: Quiet) -> None:
    quiet.answer(quiet.batches, look=True)
    quiet.agent._tick(busy=False)
    assert quiet.calls.index("batches.look") < len(quiet.calls) - 1 - quiet.calls[::-1].index("gates.look")


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("due", [True, False])
def test_beside_transfers_outcomes_are_recorded_when_they_are_due_and_rows_are_dropped_later(
    quiet: Quiet, busy: bool, due: bool
) -> None:
    quiet.outcomes.unrecorded = 1
    quiet.answer(quiet.outcomes, record_is_due=lambda now: due and now == quiet.loop.now)
    told: list[bool] = []
    quiet.answer(quiet.intake, step=lambda *, busy: told.append(busy))
    quiet.agent._tick(busy=busy)
    assert ("outcomes.record" in quiet.calls) is (due or not busy)
    assert ("owed.flush" in quiet.calls) is not busy
    assert told == [busy]


def test_without_outcomes_nothing_is_recorded(quiet: Quiet) -> None:
    quiet.agent._tick(busy=False)
    assert "outcomes.record" not in quiet.calls


def test_what_was_under_way_is_put_back_first_where_the_start_could_not_do_it(quiet: Quiet) -> None:
    quiet.agent._restarted = False
    quiet.agent._tick(busy=False)
    quiet.agent._tick(busy=False)
    assert quiet.calls[:2] == ["outcomes.record", "queue.restart"]
    assert quiet.calls.count("queue.restart") == 1


def test_beside_transfers_a_turn_comes_after_a_while_and_signs_of_life_always(quiet: Quiet) -> None:
    alive: list[float] = []
    quiet.loop.alive = lambda: alive.append(quiet.loop.now)
    quiet.agent._tick(busy=False)
    for later_s in (0.0, TICK_S * 0.9, TICK_S * 0.2):
        quiet.loop.now += later_s
        quiet.agent._tick_while_busy()
    assert (len(quiet.reports), len(alive)) == (2, 4)
    quiet.agent._tick(busy=False)
    assert len(quiet.reports) == 3


def test_a_journal_that_cannot_be_written_ends_that_turn_and_the_status_is_told(quiet: Quiet) -> None:
    def full(*, busy: bool) -> None:
        raise JournalUnavailable("no")

    quiet.answer(quiet.intake, step=full)
    quiet.agent._tick(busy=False)
    assert "owed.tend" not in quiet.calls
    assert (quiet.agent.local.error, quiet.reports) == ("JournalUnavailable: no", [True])


# -- states


def test_an_outbox_that_is_stopped_is_let_go_once_nothing_of_it_is_under_way(quiet: Quiet) -> None:
    for stopped, busy, released in ((False, False, 0), (True, True, 0), (True, False, 1)):
        quiet.intake.stopped = stopped
        quiet.answer(quiet.dispatcher, is_busy=lambda number, answer=busy: number != 1 or answer)
        quiet.agent._tick(busy=False)
        assert quiet.calls.count("box's outbox.release") == released


CAUSES: dict[str, Any] = {
    "": lambda quiet: None,
    "stopped": lambda quiet: (
        quiet.intake.__dict__.update(stopped=True)
        or quiet.answer(quiet.gates, suspended=lambda _: "stopped by command")
    ),
    "source failed": lambda quiet: quiet.intake.__dict__.update(failed="no folder"),
    "failed": lambda quiet: quiet.agent.local.begin(JournalUnavailable("no")),
    "destination failed": lambda quiet: quiet.answer(quiet.outcomes, destination_failed=lambda _: "no rights"),
    "held": lambda quiet: quiet.agent.server.lost(LoginRefused("no"), quiet.loop.now),
    "suspended": lambda quiet: quiet.answer(quiet.gates, suspended=lambda _: "outside its window"),
}


@pytest.mark.parametrize(
    ("what", "causes"),
    [
        ("", ("", "", "", "", "")),
        ("stopped", ("stopped by command", "", "", "", "stopped by command")),
        ("source failed", ("", "no folder", "", "", "")),
        ("failed", ("", "", "JournalUnavailable: no", "", "")),
        ("destination failed", ("", "", "", "no rights", "")),
        ("held", ("", "", "", "the server is held", "")),
        ("suspended", ("", "", "", "", "outside its window")),
    ],
)
def test_what_is_the_matter_with_an_outbox_is_said_by_its_cause(
    quiet: Quiet, what: str, causes: tuple[str, ...]
) -> None:
    CAUSES[what](quiet)
    found = quiet.agent._causes(quiet.intake)
    assert (found.stopped, found.source_failed, found.failed, found.destination_failed, found.suspended) == causes


@pytest.mark.parametrize(
    ("inbox", "reason", "held", "causes"),
    [
        ({}, None, False, ("", "", "", "")),
        ({"stopped": True}, "by command", False, ("by command", "", "", "by command")),
        ({}, "outside its window", False, ("", "", "", "outside its window")),
        ({"error": "no folder"}, None, False, ("", "no folder", "", "")),
        ({"error": "no folder", "fails_here": True}, None, False, ("", "", "no folder", "")),
        ({"error": "no folder"}, None, True, ("", "the server is held", "", "")),
    ],
)
def test_what_is_the_matter_with_an_inbox_is_said_by_its_cause(
    quiet: Quiet, inbox: dict[str, Any], reason: str | None, held: bool, causes: tuple[str, ...]
) -> None:
    if held:
        quiet.agent.server.lost(LoginRefused("no"), quiet.loop.now)
    quiet.answer(quiet.gates, reason=lambda number: reason if number == -1 else "of another")
    given = {"number": -1, "stopped": False, "error": None, "fails_here": False, **inbox}
    found = quiet.agent._causes_of_inbox(SimpleNamespace(**given))
    assert (found.stopped, found.source_failed, found.destination_failed, found.suspended) == causes


@pytest.mark.parametrize("kind", ["outbox", "inbox"])
def test_another_state_of_an_outbox_or_an_inbox_is_news(quiet: Quiet, kind: str) -> None:
    inbox = SimpleNamespace(number=-1, label="in", stopped=False, error=None, fails_here=False)
    quiet.pull.inboxes = [inbox]
    quiet.agent._look_at_states()
    quiet.agent._changed = False
    quiet.agent._tick(busy=False)
    (quiet.intake if kind == "outbox" else inbox).__dict__.update(failed="no folder", error="no folder")
    quiet.agent._tick(busy=False)
    quiet.agent._tick(busy=False)
    assert quiet.reports == [False, True, False]


# -- a pause


PAUSES: dict[str, Any] = {
    "a walk": lambda quiet, at: quiet.answer(quiet.intake, next_step=lambda: at),
    "the server": lambda quiet, at: setattr(quiet.agent.server, "ready_at", at),
    "the journal": lambda quiet, at: setattr(quiet.agent.local, "until", at),
    "an inbox": lambda quiet, at: quiet.answer(quiet.pull, next_at=lambda: at),
    "a file that is late": lambda quiet, at: setattr(quiet.owed.waiting, "next_s", at),
    "a gate": lambda quiet, at: setattr(quiet.gates, "look_at", at),
    "the budget": lambda quiet, at: quiet.answer(quiet.budget, look_at=lambda: at),
    "a hook": lambda quiet, at: quiet.answer(quiet.hooks, look_at=lambda: at),
    "a file that failed": lambda quiet, at: setattr(quiet.agent, "_wait_over_at", at),
}
OVER = ("the server", "the journal", "an inbox")
"""What is over there has nothing more to wait for."""


@pytest.mark.parametrize("what", PAUSES)
def test_a_pause_lasts_until_the_first_of_all_that_may_come(quiet: Quiet, what: str) -> None:
    quiet.answer(quiet.intake, next_step=lambda: quiet.loop.now + 100.0)
    PAUSES[what](quiet, quiet.loop.now + 7.0)
    assert quiet.agent._pause_s() == 7.0
    for passed in (quiet.loop.now, quiet.loop.now - 3.0):
        PAUSES[what](quiet, passed)
        assert quiet.agent._pause_s() == (100.0 if what in OVER else 0.0)


def test_a_stopped_outbox_ends_no_pause(quiet: Quiet) -> None:
    quiet.answer(quiet.intake, next_step=lambda: quiet.loop.now)
    quiet.intake.stopped = True
    assert quiet.agent._pause_s() == NEVER


def test_a_file_that_waits_for_its_next_try_ends_the_pause_then(quiet: Quiet) -> None:
    quiet.answer(quiet.queue, wake=lambda now: now + 5.0)
    quiet.agent._tick(busy=False)
    assert quiet.agent._pause_s() == 5.0


# -- woken


def test_who_wakes_the_loop_has_everything_looked_at(quiet: Quiet) -> None:
    quiet.agent.server.lost(LinkLost("gone"), quiet.loop.now)
    quiet.loop.asked = Wake.TRY
    quiet.agent._tick(busy=False)
    assert quiet.calls[:3] == ["owed.wake", "pull.wake", "box.wake"]
    assert quiet.agent.server.ready_at == float("-inf")
    quiet.calls.clear()
    quiet.agent._tick(busy=False)
    assert not [call for call in quiet.calls if call.endswith(".wake") and call != "queue.wake"]


@pytest.mark.parametrize(("only", "flushed"), [((), [1, 3]), ((3, 9), [3]), ((9,), [])])
def test_a_flush_is_of_those_that_are_named_and_of_all_else_of_none_that_an_order_holds(
    quiet: Quiet, only: tuple[int, ...], flushed: list[int]
) -> None:
    told: list[Any] = []
    quiet.agent.orders = quiet.piece("orders", none_for=lambda: [1, 3])
    quiet.answer(quiet.gates, flush=told.append)
    quiet.answer(quiet.queue, release=told.append)
    quiet.agent.wake(Wake.FLUSH, only)
    assert told == [flushed, flushed]
    assert "batches.wake" in quiet.calls


@pytest.mark.parametrize("why", [Wake.TRY, Wake.NUDGE])
def test_what_only_wakes_is_no_flush(quiet: Quiet, why: Wake) -> None:
    quiet.agent.wake(why)
    assert quiet.calls == ["owed.wake", "pull.wake", "box.wake"]


def test_what_was_queued_for_another_outbox_is_no_news_of_earlier_destinations(
    quiet: Quiet, caplog: pytest.LogCaptureFixture
) -> None:
    def total(outbox: int, state: State, earlier: int) -> Any:
        return SimpleNamespace(outbox=outbox, state=state, earlier=earlier)

    given = [(1, State.READY, 2), (1, State.READY, 0), (1, State.WAITING, 4), (8, State.READY, 5)]
    quiet.answer(quiet.queue, totals=lambda: [total(*each) for each in given])
    quiet.agent._tell_earlier()
    told = [line for line in caplog.messages if line.startswith("files already begun")]
    assert [line.rpartition("outbox=")[2] for line in told] == ["box files=2"]


@pytest.mark.parametrize(("wait_s", "told"), [(7.0, True), (0.0, False), (float("-inf"), False)])
def test_a_first_try_that_waits_for_its_turn_after_a_long_outage_is_told(
    quiet: Quiet, caplog: pytest.LogCaptureFixture, wait_s: float, told: bool
) -> None:
    caplog.set_level("INFO", "iot.spooler.agent.agent")
    server = quiet.agent.server
    server.network_up = lambda now: setattr(server, "ready_at", now + wait_s)
    quiet.agent.wake(Wake.TRY)
    assert caplog.messages == ["the first try after a long outage waits for this device's turn next_s=7"] * told


@pytest.mark.parametrize(
    ("why", "held", "released"),
    [
        (Wake.FLUSH, True, True),
        (Wake.TRY, True, True),
        (Wake.NUDGE, True, False),
        (Wake.FLUSH, False, False),
        (Wake.TRY, False, False),
        (Wake.NUDGE, False, False),
    ],
)
def test_who_ends_a_hold_is_told_so_and_a_network_that_comes_back_ends_none(
    quiet: Quiet, caplog: pytest.LogCaptureFixture, why: Wake, held: bool, released: bool
) -> None:
    caplog.set_level("INFO", "iot.spooler.agent.agent")
    quiet.agent.orders = quiet.piece("orders", none_for=list)
    quiet.agent.server.lost(LoginRefused("no") if held else LinkLost("gone"), quiet.loop.now)
    quiet.agent.wake(why)
    assert caplog.messages == ["hold released: one try now"] * released
    assert (quiet.agent.server.ready_at > quiet.loop.now) is (held and not released)

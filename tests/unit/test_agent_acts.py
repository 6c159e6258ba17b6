"""What the agent uses its server for, what keeps it from that, and how a run ends: its pieces are those of a test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from unit.agent_pieces import Quiet

from iot.spooler.agent.agent import PATIENCE_S
from iot.spooler.agent.draining import End
from iot.spooler.gates.orders import Command
from iot.spooler.queue.policy import Admission, Allowed
from iot.transfer import JournalUnavailable, LinkLost, LoginRefused


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Quiet]:
    """Its outboxes were looked at."""
    with Quiet(tmp_path) as found:
        yield found


def unreadable(*_: object, **__: object) -> None:
    raise JournalUnavailable("no")


# -- what hinders


HINDERS: dict[str, Any] = {
    "": lambda quiet: None,
    "the journal cannot be written": lambda quiet: quiet.agent.local.begin(JournalUnavailable("no")),
    "the server is held": lambda quiet: quiet.agent.server.lost(LoginRefused("no"), quiet.loop.now),
    "the link's next try is not due": lambda quiet: quiet.agent.server.lost(LinkLost("gone"), quiet.loop.now),
    "the outboxes are looked at first, for the order": lambda quiet: setattr(quiet.intake, "passes", 0),
    "attempts are used up": lambda quiet: setattr(quiet.agent, "_draining", quiet.piece("it", given_up=lambda: True)),
}


@pytest.mark.parametrize("words", HINDERS)
def test_what_keeps_all_from_being_sent_is_told_once(
    quiet: Quiet, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "iot.spooler.agent.agent")
    HINDERS[words](quiet)
    quiet.answer(quiet.queue, any_ready=True)
    for _ in range(2):
        assert (quiet.agent._next_act() is None) is bool(words)
    assert [line for line in caplog.messages if line.startswith("nothing is sent")] == (
        [f'nothing is sent reason="{words}"'] if words else []
    )


def test_what_hinders_again_is_told_again(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "iot.spooler.agent.agent")
    for passes in (0, 1, 0):
        quiet.intake.passes = passes
        assert quiet.agent._is_hindered() is not passes
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("words", [("a", "b"), ("b", "a")])
def test_another_hindrance_is_told_at_once(
    quiet: Quiet, words: tuple[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "iot.spooler.agent.agent")
    for word in words:
        monkeypatch.setattr(quiet.agent, "_hindrance", lambda now, word=word: word)
        assert quiet.agent._is_hindered()
    assert caplog.messages == [f"nothing is sent reason={word}" for word in words]


def test_before_what_was_under_way_is_put_back_nothing_is_sent(quiet: Quiet) -> None:
    quiet.agent._restarted = False
    assert quiet.agent._hindrance(quiet.loop.now) == "the journal cannot be written"


def test_when_the_next_try_is_due_it_is_made(quiet: Quiet) -> None:
    quiet.agent.server.ready_at = quiet.loop.now
    assert quiet.agent._hindrance(quiet.loop.now) == ""


def test_a_drain_with_attempts_left_is_not_hindered(quiet: Quiet) -> None:
    quiet.agent._draining = quiet.piece("draining", given_up=lambda: False)
    assert quiet.agent._hindrance(quiet.loop.now) == ""


@pytest.mark.parametrize("look", ["a walk", "a failure", "a stop"])
def test_sending_begins_when_each_outbox_was_looked_at_or_cannot_be(quiet: Quiet, look: str) -> None:
    first, second = quiet.agent.intakes = [quiet.box("one"), quiet.box("two", 2)]
    second.passes = 0
    assert not quiet.agent._first_look_done(quiet.loop.now)
    second.__dict__.update({"a walk": {"passes": 1}, "a failure": {"failed": "no"}, "a stop": {"stopped": True}}[look])
    assert quiet.agent._first_look_done(quiet.loop.now)
    first.passes = 0
    assert not quiet.agent._first_look_done(quiet.loop.now)


def test_a_huge_outbox_delays_the_first_file_by_so_much_only(quiet: Quiet) -> None:
    quiet.intake.passes = 0
    began = quiet.agent._started_at
    assert not quiet.agent._first_look_done(began + PATIENCE_S - 0.01)
    assert quiet.agent._first_look_done(began + PATIENCE_S)


# -- what is done


@pytest.mark.parametrize(("inboxes_turn", "least"), [(True, Admission.URGENT), (False, Admission.ALL)])
def test_files_are_sent_before_others_are_fetched_and_only_urgent_ones_in_the_turn_of_the_inboxes(
    quiet: Quiet, inboxes_turn: bool, least: Admission
) -> None:
    ready = [True]
    quiet.answer(quiet.queue, any_ready=lambda allowed: allowed is least and ready[0])
    quiet.answer(quiet.pull, wants=lambda: True)
    quiet.agent._uploads_wait = inboxes_turn
    assert quiet.agent._next_act() == quiet.agent._send
    ready.clear()
    ready.append(False)
    fetch = quiet.agent._next_act()
    assert isinstance(fetch, partial)
    fetch()
    assert quiet.calls[-1] == "pull.run"
    quiet.answer(quiet.pull, wants=lambda: False)
    assert quiet.agent._next_act() is None


@pytest.mark.parametrize("ask", ["next act", "end"])
def test_a_queue_that_cannot_be_read_begins_a_hold(quiet: Quiet, ask: str) -> None:
    quiet.answer(quiet.queue, any_ready=unreadable)
    if ask == "next act":
        assert quiet.agent._next_act() is None
    else:
        assert quiet.agent._end_of_drain(quiet.piece("draining", end=unreadable)) is None
    assert quiet.agent.local.error == "JournalUnavailable: no"


def test_a_run_of_the_client_ticks_the_loop_and_has_a_drain_look_once_more(quiet: Quiet) -> None:
    quiet.agent._sender = quiet.piece("sender", run=lambda tick: tick())
    quiet.agent._send()
    assert quiet.calls[0] == "sender.run"
    assert len(quiet.reports) == 1
    quiet.calls.clear()
    quiet.agent._draining = quiet.piece("draining")
    quiet.agent._send()
    assert quiet.calls[:2] == ["draining.sent", "sender.run"]


def test_when_a_gate_has_closed_what_was_claimed_goes_back_and_that_is_news(quiet: Quiet) -> None:
    released: list[Any] = []
    quiet.answer(quiet.dispatcher, withdraw=lambda: ["f"])
    quiet.answer(quiet.outcomes, released=released.append)
    quiet.agent._gates_changed()
    assert (released, quiet.agent._changed) == ([["f"]], True)


@pytest.mark.parametrize(
    ("gate", "before", "after"), [(True, False, False), (False, False, True), (False, True, False)]
)
def test_a_gate_or_a_turn_that_changes_has_what_was_claimed_looked_at_again(
    quiet: Quiet, gate: bool, before: bool, after: bool
) -> None:
    quiet.answer(quiet.gates, look=lambda is_busy: gate)
    quiet.answer(quiet.pull, claims=lambda: after)
    quiet.answer(quiet.dispatcher, withdraw=list)
    quiet.agent._uploads_wait = before
    quiet.agent._look_at_gates()
    quiet.agent._look_at_gates()
    assert quiet.calls.count("dispatcher.withdraw") == (2 if gate else 1)
    assert quiet.agent._uploads_wait is after


def test_an_order_is_on_record_before_it_is_followed_and_refused_as_a_whole_where_it_cannot_be(quiet: Quiet) -> None:
    told: list[Any] = []
    quiet.agent.orders = orders = quiet.piece("orders", take=lambda command, numbers: told.append((command, numbers)))
    quiet.agent.order(Command.SUSPEND, [quiet.intake, quiet.box("two", 2)])
    assert told == [(Command.SUSPEND, [1, 2])]
    assert quiet.calls == ["orders.take", "orders.follow", "pull.claims", "gates.look"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    quiet.calls.clear()
    quiet.answer(orders, take=full)
    with pytest.raises(OSError, match="No space"):
        quiet.agent.order(Command.SUSPEND, [quiet.intake])
    assert quiet.calls == ["orders.take"]


def test_whatever_the_server_confirms_is_news_and_a_sign_of_life_and_bytes_are_counted(quiet: Quiet) -> None:
    alive: list[bool] = []
    quiet.loop.alive = lambda: alive.append(quiet.agent._changed)
    for confirm, confirmed in ((quiet.agent._fetched, 0), (lambda: quiet.agent._progressed(30), 30)):
        quiet.agent.server.lost(LinkLost("gone"), quiet.loop.now)
        quiet.agent._changed = False
        confirm()
        assert quiet.agent.server.confirms
        assert (quiet.agent._changed, quiet.agent.totals.bytes) == (True, confirmed)
    assert len(alive) == 2
    quiet.agent._changed = False
    quiet.agent._on_change()
    assert quiet.agent._changed


@pytest.mark.parametrize(
    ("turn", "allowed", "expected"),
    [
        (False, Admission.ALL, Admission.ALL),
        (True, Admission.ALL, Admission.URGENT),
        (True, Admission.NONE, Admission.NONE),
    ],
)
def test_in_the_turn_of_the_inboxes_only_urgent_files_may_go_and_no_more_than_before(
    quiet: Quiet, turn: bool, allowed: Admission, expected: Admission
) -> None:
    quiet.answer(quiet.gates, allowed=lambda outbox: Allowed(allowed, up_to=outbox))
    quiet.agent._uploads_wait = turn
    assert quiet.agent._allowed(7) == Allowed(expected, up_to=7)


@pytest.mark.parametrize("command", [Command.STOP, Command.START])
def test_what_a_command_said_to_an_earlier_process_counts_from_the_start(quiet: Quiet, command: Command) -> None:
    quiet.agent.orders.take(command, [1])
    assert quiet.made().intakes[0].stopped is (command is Command.STOP)


# -- the end of a run


WAITS: dict[str, Any] = {
    "": lambda quiet: None,
    "a walk": lambda quiet: setattr(quiet.intake, "walking", True),
    "a file that failed": lambda quiet: setattr(quiet.agent, "_wait_over_at", 5.0),
    "a hook": lambda quiet: quiet.answer(quiet.after, is_idle=lambda: False),
    "an inbox": lambda quiet: quiet.answer(quiet.pull, is_idle=lambda: False),
    "a batch": lambda quiet: quiet.answer(quiet.gates, is_collecting=lambda: True),
    "a list": lambda quiet: quiet.answer(quiet.budget, is_to_be_listed=lambda: True),
    "a file": lambda quiet: quiet.answer(quiet.queue, any_ready=lambda allowed: allowed is Admission.ALL),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_drain_waits_for_whatever_may_still_come_in_this_run(quiet: Quiet, what: str) -> None:
    quiet.answer(quiet.pull, is_idle=lambda: True)
    WAITS[what](quiet)
    assert bool(quiet.agent._waits()) is bool(what)


@pytest.mark.parametrize(
    ("end", "failed", "expected"),
    [
        (End.DRAINED, False, End.DRAINED),
        (End.DRAINED, True, End.REMAINS),
        (End.REMAINS, False, End.REMAINS),
        (None, True, None),
    ],
)
def test_a_drain_remains_where_an_inbox_has_failed(
    quiet: Quiet, end: End | None, failed: bool, expected: End | None
) -> None:
    quiet.answer(quiet.pull, has_failed=lambda: failed)
    draining = quiet.piece("draining", end=lambda error, *, waits: end)
    assert quiet.agent._end_of_drain(draining) is expected


def test_the_loop_acts_as_long_as_there_is_something_to_do_and_pauses_then(quiet: Quiet) -> None:
    acts = [True, False, False]
    quiet.answer(quiet.queue, any_ready=lambda allowed: acts.pop(0))
    quiet.agent._sender = quiet.piece("sender")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        quiet.loop.stop = len(pauses) == 2

    quiet.loop.pause = pause
    assert quiet.agent._work() is End.STOPPED
    assert (len(pauses), quiet.calls.count("sender.run"), len(quiet.reports)) == (2, 1, 3)


def test_a_drain_ends_as_soon_as_it_is_over(quiet: Quiet) -> None:
    ends = [None, End.DRAINED]
    quiet.agent._draining = quiet.piece("it", given_up=lambda: False, end=lambda error, *, waits: ends.pop(0))
    quiet.answer(quiet.intake, next_step=lambda: quiet.loop.now + 1.0)
    assert quiet.agent._work() is End.DRAINED
    assert len(quiet.reports) == 2


AT_THE_END = [
    "outcomes.record", "hooks.close", "owed.released", "owed.flush", "budget.close", "pull.close", "gates.close",
    "packing.close", "box.close", "box's outbox.release",
]  # fmt: skip


@pytest.mark.parametrize("broken", ["", *AT_THE_END[:8]])
def test_at_its_end_an_agent_closes_everything_whatever_of_it_cannot_be_written(quiet: Quiet, broken: str) -> None:
    quiet.loop.stop = True
    finals: list[tuple[bool, bool]] = []

    def report(agent: object, *, changed: bool, final: bool = False) -> None:
        finals.append((changed, final))

    quiet.loop.report = report
    assert quiet.agent.run() is End.STOPPED
    assert quiet.calls == ["outcomes.record", "queue.restart", "queue.totals", "owed.resume", *AT_THE_END]
    assert finals == [(True, True)]
    if broken:
        quiet.calls.clear()
        name, _, what = broken.partition(".")
        quiet.answer(getattr(quiet, name), **{what: unreadable})
        quiet.agent.run()
        left_out = {"hooks.close": ["owed.released"]}.get(broken, [])
        assert quiet.calls[-10 + len(left_out) :] == [step for step in AT_THE_END if step not in left_out]


def test_while_hooks_end_the_process_shows_signs_of_life(quiet: Quiet) -> None:
    seen: list[Any] = []
    quiet.loop.alive = lambda: seen.append("alive")
    quiet.loop.pause = seen.append
    quiet.answer(quiet.hooks, close=lambda pause: [pause(0.5)])
    quiet.agent._close_hooks()
    assert seen == ["alive", 0.5]


@pytest.mark.parametrize(
    ("drain", "anew", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_in_a_drain_and_where_somebody_asks_nothing_waits_for_its_next_try(
    tmp_path: Path, drain: bool, anew: bool, expected: bool
) -> None:
    with Quiet(tmp_path, drain=drain, anew=anew) as quiet:
        told: list[Any] = []
        quiet.answer(quiet.queue, restart=lambda now, *, anew: told.append((now, anew)))
        quiet.agent._restart()
        assert told == [(quiet.loop.now, expected)]
        assert quiet.agent.other_server(0.0) is None

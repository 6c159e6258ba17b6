"""What an agent is made of: from its settings, and otherwise in a drain, with a fallback, or for a lost journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.agent import assembly
from iot.spooler.agent.assembly import DRAIN_CAP_S, DRAIN_QUIET_S
from iot.spooler.config.settings import Settings
from iot.spooler.hooks.batches import BatchHooks
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import Admission, Backoff, RetryRules, State
from iot.spooler.queue.queue import QUEUE_SCHEMA, Entry, Queue
from iot.spooler.state.homes import Homes
from iot.transfer import Fingerprint, Journal, LinkLost, RemoteCommands

CLOCKS = Clocks(lambda: 1000.0, lambda: 2e9)


class Lab:
    """A configuration: its first outbox is /box, and tests add tables to it."""

    def __init__(self, tmp_path: Path) -> None:
        self.journal = Journal(None, QUEUE_SCHEMA)
        self.queue = Queue(self.journal)
        self.values: dict[str, Any] = {"state_dir": str(tmp_path / "state"), "server": {"host": "h"}}
        self.outboxes: list[dict[str, Any]] = [{"path": "/box", "destination": "/up"}]

    def settings(self) -> Settings:
        return Settings.model_validate({**self.values, "outbox": self.outboxes})

    def intakes(self, **more: Any) -> list[Intake]:
        return assembly.intakes(self.settings(), self.queue, CLOCKS, journal_lost=False, **more)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.journal.close()


@pytest.mark.parametrize(
    ("aside", "folder", "lost"), [(None, "/s", False), ("journal.1", "/s", True), (None, None, True)]
)
def test_a_journal_is_lost_where_it_was_moved_aside_or_is_nowhere(aside: Any, folder: Any, lost: bool) -> None:
    assert assembly.was_lost(SimpleNamespace(moved_aside=aside, state_dir=folder)) is lost


# -- waits


def test_a_drain_waits_shortly_and_for_no_turn_of_its_own(lab: Lab) -> None:
    lab.values["retry"] = {"base_s": 3.0, "cap_s": 80.0, "herd_window_s": 500.0, "auth_hold_s": 10.0}
    waits: dict[bool, list[float]] = {}
    for drain in (True, False):
        server = assembly.server(lab.settings(), lambda: 0.0, drain=drain)
        waits[drain] = []
        for _ in range(4):
            server.lost(LinkLost("gone"), 0.0)
            waits[drain].append(server.ready_at)
        server.lost(LinkLost("gone"), 1e6)  # after a long outage
        waits[drain].append(server.ready_at - 1e6)
    assert waits[True] == [3.0, DRAIN_CAP_S, DRAIN_CAP_S, DRAIN_CAP_S, DRAIN_CAP_S]
    assert waits[False][:4] == [3.0, 6.0, 12.0, 24.0]


def test_each_outbox_has_its_rules_and_a_drain_a_few_tries_and_short_waits(lab: Lab) -> None:
    lab.values["retry"] = {"base_s": 3.0, "cap_s": 80.0, "max_attempts": 9, "drain_attempts": 2}
    lab.outboxes.append({"path": "/other", "destination": "/up", "retry": {"base_s": 7.0}})
    first, second = lab.intakes()
    settings = lab.settings()
    assert assembly.rules(settings, [first, second], drain=False) == {
        first.number: RetryRules(Backoff(3.0, 80.0), 9),
        second.number: RetryRules(Backoff(7.0, 80.0), 9),
    }
    assert assembly.rules(settings, [first, second], drain=True) == {
        first.number: RetryRules(Backoff(3.0, DRAIN_CAP_S), 9, 2),
        second.number: RetryRules(Backoff(DRAIN_CAP_S, DRAIN_CAP_S), 9, 2),
    }


# -- outboxes


def test_only_enabled_outboxes_are_scanned_and_each_as_often_as_it_says(lab: Lab) -> None:
    lab.values["scan_s"] = 40.0
    lab.outboxes += [
        {"path": "/off", "destination": "/up", "enabled": False},
        {"path": "/often", "destination": "/up", "scan_s": 5.0},
    ]
    assert [(str(each.settings.path), each.cadence.scan_s) for each in lab.intakes()] == [
        ("/box", 40.0),
        ("/often", 5.0),
    ]


def test_what_drops_files_sends_lists_of_them_as_it_sends_the_files(lab: Lab, tmp_path: Path) -> None:
    lab.outboxes[0] |= {
        "name": "north", "destination": "/up/{outbox}", "budget": {"max_files": 5}, "priority": 7, "recursive": True,
    }  # fmt: skip
    lab.outboxes.append({"path": "/plain", "destination": "/up"})
    first, plain, lists = lab.intakes()
    assert plain.settings.path == Path("/plain")
    made = lists.settings
    assert (made.path, made.label) == (lab.settings().lists_of(first.settings), "north-dropped")
    assert made.path.is_dir()
    assert (made.destination, made.priority, made.recursive, made.quiet_s) == ("/up/north", 7, False, 0.0)
    assert [lists._versions._settings is made, lists.outbox._wanted("a.jsonl"), lists.outbox._wanted("a")] == [
        True, True, False,
    ]  # fmt: skip


def test_lists_may_have_a_destination_of_their_own_and_a_long_name_is_cut(lab: Lab) -> None:
    lab.outboxes[0] |= {"name": "n" * 80, "budget": {"max_files": 5, "log_destination": "/lists"}}
    lists = lab.intakes()[1].settings
    assert (lists.destination, lists.label) == ("/lists", "n" * 72 + "-dropped")


def test_a_folder_for_lists_that_cannot_be_made_is_told_by_the_scan_and_not_here(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "dropped").touch()
    lab.outboxes[0] |= {"budget": {"max_files": 5}}
    assert len(lab.intakes()) == 2


def test_the_folders_of_all_outboxes_are_known_again_by_one_record(lab: Lab) -> None:
    lab.outboxes.append({"path": "/other", "destination": "/up"})
    intakes = lab.intakes()
    homes = assembly.homes(lab.settings(), intakes)
    assert isinstance(homes, Homes)
    assert all(intake.outbox.homes is homes for intake in intakes)


# -- inboxes, and the limits that they share


def test_inboxes_have_numbers_below_those_of_outboxes_in_their_order(lab: Lab) -> None:
    lab.values["inbox"] = [
        {"path": "/in1", "source": "/a"},
        {"path": "/in2", "source": "/b", "enabled": False},
        {"path": "/in3", "source": "/c"},
    ]
    inboxes = assembly.inboxes(lab.settings(), lab.journal, CLOCKS, lambda: 0.0, Homes())
    assert [(inbox.number, inbox.source) for inbox in inboxes] == [(-1, "/a"), (-3, "/c")]


def test_a_limit_of_a_day_or_a_month_counts_where_it_is_set(lab: Lab) -> None:
    for quota, limits in (({}, {}), ({"quota_day": 5000}, {"day": 5000}), ({"quota_month": 7000}, {"month": 7000})):
        settings = Settings.model_validate({**lab.values, **quota, "outbox": lab.outboxes})
        gate = assembly.quota(settings, lab.intakes(), [], lab.journal, SimpleNamespace(wire=None))
        assert gate._limits == limits


# -- gates


def gates_of(lab: Lab, monkeypatch: pytest.MonkeyPatch, **values: Any) -> list[dict[str, Any]]:
    """What each command is asked for, in words."""
    found: list[dict[str, Any]] = []

    def gate(command: Any, beyond: Any, holds: Any, reason: str, **timing: Any) -> None:
        codes = [code for code in range(3) if holds(code)]
        found.append({"command": command, "beyond": [*beyond.values()], "holds": codes, "reason": reason, **timing})

    monkeypatch.setattr(assembly, "CommandGate", gate)
    settings = Settings.model_validate({**lab.values, **values, "outbox": lab.outboxes})
    intakes = assembly.intakes(settings, lab.queue, CLOCKS, journal_lost=False)
    assembly._commands(settings, intakes)
    return found


def test_a_condition_holds_everything_unless_it_ends_with_0(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (gate,) = gates_of(lab, monkeypatch, condition=["/bin/true"], command_every_s=70.0, command_limit_s=3.0)
    assert gate.pop("environment")
    assert gate == {
        "command": ("/bin/true",), "beyond": [Admission.NONE], "holds": [1, 2], "reason": "the condition is not met",
        "every_s": 70.0, "limit_s": 3.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("on_metered", "beyond"),
    [(["send", "send"], None), (["stop", "send"], [Admission.NONE, Admission.ALL]),
     (["send", "urgent"], [Admission.ALL, Admission.URGENT])],
)  # fmt: skip
def test_whether_the_link_is_metered_is_asked_where_it_makes_a_difference_and_1_means_no(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, on_metered: list[str], beyond: list[Admission] | None
) -> None:
    lab.outboxes.append({"path": "/other", "destination": "/up"})
    for outbox, word in zip(lab.outboxes, on_metered, strict=True):
        outbox["on_metered"] = word
    found = gates_of(lab, monkeypatch, metered_command=["/bin/true"])
    assert [(gate["beyond"], gate["holds"], gate["reason"]) for gate in found] == (
        [(beyond, [0, 2], "the link is metered")] if beyond else []
    )
    assert gates_of(lab, monkeypatch) == []


@pytest.mark.parametrize(
    ("drain", "hooked", "interval_s"), [(False, False, 300.0), (True, False, None), (True, True, DRAIN_QUIET_S)]
)
def test_a_drain_collects_no_longer_than_hooks_need_to_be_told_at_once(
    lab: Lab, drain: bool, hooked: bool, interval_s: float | None
) -> None:
    lab.outboxes[0]["batch_interval_s"] = 300.0
    lab.outboxes[0]["hooks"] = {"after_batch": ["/bin/true"]} if hooked else {}
    lab.outboxes.append({"path": "/other", "destination": "/up"})
    intakes = lab.intakes()
    batches = assembly._batches(intakes, lab.queue, lab.journal, BatchHooks(None, None), drain=drain)
    assert batches._intervals.get(intakes[0].number) == interval_s
    assert intakes[1].number not in batches._intervals


def test_a_shorter_interval_than_that_stays_in_a_drain(lab: Lab) -> None:
    lab.outboxes[0] |= {"batch_interval_s": DRAIN_QUIET_S / 2, "hooks": {"after_batch": ["/bin/true"]}}
    intakes = lab.intakes()
    batches = assembly._batches(intakes, lab.queue, lab.journal, BatchHooks(None, None), drain=True)
    assert list(batches._intervals.values()) == [DRAIN_QUIET_S / 2]


@pytest.mark.parametrize(("ignore_case", "marked"), [(False, [True, False]), (True, [True, True])])
def test_a_marker_is_told_by_its_pattern(lab: Lab, ignore_case: bool, marked: list[bool]) -> None:
    lab.outboxes[0] |= {"batch_marker": "*.done", "batch_grace_s": 30, "ignore_case": ignore_case}
    lab.outboxes.append({"path": "/other", "destination": "/up"})
    is_marker = assembly._is_marker(lab.settings().outbox[0])
    assert [is_marker(path) for path in (b"a/\xff.done", b"a.DONE")] == marked
    assert not is_marker(b"a.txt")


# -- what is told to others


def entry(destination: str, outbox: int) -> Entry:
    return Entry(
        7, outbox, b"sub/f", State.READY, Fingerprint(3, 10**18), False, 5, destination,
        None, None, 0, 1.0, False, None, 2, 0, 0, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("destination", "base"), [("/up/2001-09-09/sub/f", "/up/2001-09-09/"), ("/old/sub/f", "/old/sub")]
)
def test_commands_are_given_below_the_folder_that_an_entry_goes_to(lab: Lab, destination: str, base: str) -> None:
    lab.outboxes[0] |= {
        "name": "north", "destination": "/up/{mtime:%Y-%m-%d}", "commands": {"after_success": [["touch", "{outbox}"]]},
    }  # fmt: skip
    lab.outboxes.append({"path": "/other", "destination": "/up"})
    first, second = lab.intakes()
    of = assembly.commands(lab.settings(), [first, second])
    assert of(entry("/up/f", second.number)) == RemoteCommands()
    found = of(entry(destination, first.number))
    assert (found.base, len(found.after_success)) == (base, 1)


@pytest.mark.parametrize("fallback", [True, False])
def test_where_there_are_two_servers_deliveries_say_which(lab: Lab, fallback: bool) -> None:
    if fallback:
        lab.values["fallback"] = {"host": "other"}
    remote: Any = SimpleNamespace(elsewhere=lambda: "what was begun there")
    found = assembly.among_servers(lab.settings(), remote)
    assert found == ((lab.settings().server.address, "what was begun there") if fallback else (None, None))


@pytest.mark.parametrize(
    ("file", "drain", "read"), [("/hint", False, True), ("/hint", True, False), (None, False, False)]
)
def test_hints_are_read_where_there_are_some_and_not_in_a_drain(
    lab: Lab, file: str | None, drain: bool, read: bool
) -> None:
    if file:
        lab.values["hint_file"] = file
    pacer: Any = SimpleNamespace(lower=None)
    remote: Any = SimpleNamespace(connections=0)
    assert (assembly.hints(lab.settings(), remote, pacer, drain=drain) is not None) is read


@pytest.mark.parametrize(
    ("tables", "shelves", "lists", "ages"),
    [
        ([{}], 0, 0, []),
        ([{"max_files": 5}], 1, 1, []),
        ([{"max_files": 5, "evict": "none", "evict_urgent": "none"}], 1, 0, []),
        ([{"ttl_s": 60.0}], 1, 1, [60.0]),
        ([{"ttl_s": 60.0, "expired": "quarantine"}], 1, 0, [60.0]),
        ([{}, {"max_files": 5}], 1, 1, []),
        ([{"ttl_s": 60.0, "expired": "quarantine"}, {"max_files": 5}], 2, 1, [60.0]),
    ],
)
def test_only_what_is_limited_is_looked_after_and_only_what_drops_has_lists(
    lab: Lab, tables: list[dict[str, Any]], shelves: int, lists: int, ages: list[float]
) -> None:
    lab.outboxes = [
        {"path": f"/box{number}", "destination": "/up", "budget": table} for number, table in enumerate(tables)
    ]
    intakes = lab.intakes()
    owed: Any = SimpleNamespace()
    budget = assembly.budget(
        lab.settings(), intakes, lab.queue, owed, lab.journal, CLOCKS, lambda entries: None, drain=False
    )
    assert len(budget._shelves) == shelves
    assert [shelf.lists is not None for shelf in budget._all].count(True) == lists
    assert all((shelf.sender is not None) == (shelf.lists is not None) for shelf in budget._all)
    assert (budget._tombstones is not None) is bool(lists)
    assert list(budget._ages._limits.values()) == ages

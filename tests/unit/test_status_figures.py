"""The figures of the status: each is where a program expects it, and is what the agent knows."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.control.states import OutboxState, Standing
from iot.spooler.queue.policy import State
from iot.spooler.server.availability import TO_DO, ServerState
from iot.spooler.status.status import CURRENT_MAX, snapshot, summary

WALL, NOW = 5000.4, 100.0
STARTED = Standing(OutboxState.STARTED, "", 0.0)


def total(outbox: int, state: State, files: int, oldest: float) -> Any:
    return SimpleNamespace(outbox=outbox, state=state, files=files, bytes=files * 10, oldest=oldest, earlier=files - 1)


def intake(number: int, label: str) -> Any:
    watches = SimpleNamespace(reason="", overflows=0)
    outbox = SimpleNamespace(completeness=None, watches=watches, refused=SimpleNamespace(reasons={}))
    readiness = type("Readiness", (list,), {"open_files": 0})()
    settings = SimpleNamespace(label=label, path=Path("/box") / label)
    return SimpleNamespace(
        number=number, settings=settings, failures=0, failed="", readiness=readiness, without_marker=0, outbox=outbox
    )


def inbox(number: int, label: str, **more: Any) -> Any:
    plain: dict[str, Any] = {
        "held": {},
        "settings": SimpleNamespace(path=Path("/in") / label),
        "source": "/cfg",
        "last_look_at": None,
        "published_files": 0,
        "pending_files": 0,
        "figures_in_flight": list,
        "waiting": {},
        "error": "",
    }
    return SimpleNamespace(number=number, label=label, **{**plain, **more})


def flight(number: int, total_bytes: int, done_bytes: int, sent_bytes: int = 0) -> Any:
    entry = SimpleNamespace(id=number, path=b"f %d" % number, fingerprint=SimpleNamespace(size=total_bytes))
    return SimpleNamespace(entry=entry, total_bytes=total_bytes, done_bytes=done_bytes, sent_bytes=sent_bytes)


class Figures:
    """An agent as far as the status looks at it."""

    def __init__(self) -> None:
        self.boxes = [intake(1, "one"), intake(2, "two")]
        self.standings: dict[str, Standing] = {}
        self.reasons: dict[int, str] = {}
        self.totals: list[Any] = []
        self.flights: list[Any] = []
        self.server = SimpleNamespace(state=ServerState.CONNECTED, ready_at=float("-inf"), failures=0, last_error=None)
        self.owed = SimpleNamespace(quarantined=0, held={1: {}, 2: {}}, last_error=None)
        self.local, self.outcomes = SimpleNamespace(error=None), SimpleNamespace(last_error=None)
        self.sharing: list[Any] = []
        self.inboxes: list[Any] = []
        self.disabled: list[Any] = []

    def snapshot(self) -> dict[str, Any]:
        return snapshot(self.agent(), WALL, NOW)

    def agent(self) -> Any:
        states = SimpleNamespace(of=lambda label: self.standings.get(label, STARTED))
        return SimpleNamespace(
            settings=SimpleNamespace(
                device_id="gw",
                server=SimpleNamespace(address="a:22"),
                outbox=[SimpleNamespace(enabled=True), *self.disabled],
            ),
            queue=SimpleNamespace(totals=lambda: self.totals),
            server=self.server,
            other_server=lambda wall: None,
            dispatcher=SimpleNamespace(in_flight={each.entry.id: each for each in self.flights}),
            quota=SimpleNamespace(figures=lambda wall: ["a quota"]),
            pacer=SimpleNamespace(rate=7.5),
            totals=SimpleNamespace(files=301, bytes=302),
            owed=self.owed,
            local=self.local,
            outcomes=self.outcomes,
            intakes=self.boxes,
            pull=SimpleNamespace(inboxes=self.inboxes),
            states=states,
            inbox_states=states,
            hooks=SimpleNamespace(figures=lambda number: 40 + number),
            gates=SimpleNamespace(reason=self.reasons.get),
            budget=SimpleNamespace(figures=lambda number: {"dropped": 50 + number}),
            shared_destinations=self.sharing,
        )


@pytest.fixture
def figures() -> Figures:
    return Figures()


def test_an_agent_with_nothing_to_do_has_a_status_of_zeros(figures: Figures) -> None:
    figures.boxes = []
    assert figures.snapshot() == {
        "device_id": "gw",
        "pid": os.getpid(),
        "connection": {
            "state": "connected",
            "server": "a:22",
            "failures": 0,
            "next_attempt_at": None,
            "error": None,
            "to_do": None,
            "other_server": None,
        },
        "backlog": {"files": 0, "bytes": 0, "oldest_at": None},
        "current": [],
        "in_flight": 0,
        "quota": ["a quota"],
        "rate_limit_bytes_per_s": 7.5,
        "delivered": {"files": 301, "bytes": 302},
        "quarantined": 0,
        "last_error": None,
        "outboxes": [],
        "inboxes": [],
    }


def test_what_is_still_to_be_sent_is_the_backlog_of_each_outbox_and_of_all(figures: Figures) -> None:
    figures.totals = [
        total(1, State.READY, 2, 900.0),
        total(1, State.SENDING, 3, 800.0),
        total(1, State.WAITING, 4, 700.0),
        total(1, State.KEPT, 5, 1.0),
        total(2, State.READY, 60, 600.0),
    ]
    told = figures.snapshot()
    assert told["backlog"] == {"files": 69, "bytes": 690, "oldest_at": 600.0}
    one, two = told["outboxes"]
    keys = ("name", "files", "bytes", "waiting", "kept", "earlier_destination", "hooks", "dropped")
    assert [one[key] for key in keys] == ["one", 9, 90, 4, 5, 6, 41, 51]
    assert [two[key] for key in keys] == ["two", 60, 600, 0, 0, 59, 42, 52]


def test_an_outbox_tells_how_it_is_looked_at(figures: Figures) -> None:
    box = figures.boxes[0]
    plain = figures.snapshot()["outboxes"][0]
    assert (plain["completeness"], plain["scanned_often_because"], plain["path"]) == ("not known yet", None, "/box/one")
    box.settings.path = Path("/bo x")
    box.readiness += [b"a", b"b"]
    box.readiness.open_files, box.without_marker, box.failures = 1, 3, 4
    box.outbox.completeness = "known"
    box.outbox.watches.reason, box.outbox.watches.overflows = "no inotify", 5
    box.outbox.refused.reasons["symlink"] = 6
    told = figures.snapshot()["outboxes"][0]
    assert {key: value for key, value in told.items() if plain[key] != value} == {
        "path": '"/bo x"',
        "watched": 2,
        "open_for_writing": 1,
        "without_marker": 3,
        "source_failures": 4,
        "completeness": "known",
        "scanned_often_because": "no inotify",
        "events_lost": 5,
        "never_sent": {"symlink": 6},
    }


def test_a_standing_is_told_with_its_reason_and_since_when(figures: Figures) -> None:
    figures.standings["two"] = Standing(OutboxState.SUSPENDED, "by command", 99.6)
    figures.reasons[2] = "by command"
    one, two = figures.snapshot()["outboxes"]
    keys = ("state", "state_reason", "state_since", "waits_because")
    assert [one[key] for key in keys] == ["started", None, 0, None]
    assert [two[key] for key in keys] == ["suspended", '"by command"', 100, "by command"]


def test_files_that_cannot_leave_are_counted_and_each_reason_is_told_once(figures: Figures) -> None:
    figures.owed.held[1] = {b"a": "read-only", b"b": "no space", b"c": "read-only"}
    one, two = figures.snapshot()["outboxes"]
    assert (one["held"], one["error"]) == (3, 'cannot take files out: "no space"; read-only')
    assert (two["held"], two["error"]) == (0, None)
    figures.boxes[0].failed = "no such folder"
    assert figures.snapshot()["outboxes"][0]["error"] == '"no such folder"'


def test_outboxes_that_share_a_destination_name_one_another(figures: Figures) -> None:
    figures.boxes.append(intake(3, "three"))
    figures.owed.held[3] = {}
    figures.sharing = [SimpleNamespace(one="one", other="two"), SimpleNamespace(one="three", other="one")]
    told = [box["shares_destination_with"] for box in figures.snapshot()["outboxes"]]
    assert told == [["two", "three"], ["one"], ["one"]]


def test_a_disabled_outbox_has_the_same_keys_and_comes_last(figures: Figures) -> None:
    figures.disabled = [SimpleNamespace(enabled=False, label="off", path=Path("/of f"))]
    one, _, off = figures.snapshot()["outboxes"]
    assert off.keys() - {"dropped_bytes", "over_budget"} == one.keys()  # these come from the budget
    assert (off["name"], off["path"], off["state"]) == ("off", '"/of f"', "disabled")
    rest = {key: value for key, value in off.items() if key not in ("name", "path", "state")}
    numbers = {key: value for key, value in rest.items() if value is not None and not isinstance(value, (list, dict))}
    assert numbers.pop("completeness") == "not known yet"
    assert set(numbers.values()) == {0}


def test_a_server_that_is_left_alone_tells_until_when_and_why(figures: Figures) -> None:
    figures.server.state, figures.server.failures = ServerState.HELD, 3
    figures.server.ready_at, figures.server.last_error = NOW + 60.0, "refused by a:22"
    told = figures.snapshot()["connection"]
    assert (told["state"], told["failures"], told["next_attempt_at"]) == ("held", 3, 5060)
    assert (told["error"], told["to_do"]) == ('"refused by a:22"', TO_DO)
    figures.server.ready_at = NOW
    assert figures.snapshot()["connection"]["next_attempt_at"] is None


def test_the_last_error_is_the_one_that_hinders_most(figures: Figures) -> None:
    hindrances = [(figures.outcomes, "last_error"), (figures.owed, "last_error"), (figures.server, "last_error")]
    for place, name in (*hindrances, (figures.local, "error")):
        setattr(place, name, f"of_{id(place)}")
        assert figures.snapshot()["last_error"] == f"of_{id(place)}"


def test_a_file_in_flight_tells_how_far_it_is(figures: Figures) -> None:
    figures.flights = [flight(7, 400, 399, 30), flight(8, 0, 0)]
    told = figures.snapshot()
    assert told["in_flight"] == 2
    assert told["current"] == [
        {"id": 7, "path": '"f 7"', "bytes": 400, "done_bytes": 399, "sent_bytes": 30, "percent": 99},
        {"id": 8, "path": '"f 8"', "bytes": 0, "done_bytes": 0, "sent_bytes": 0, "percent": 0},
    ]


def test_of_very_many_files_in_flight_the_largest_are_listed_and_all_are_counted(figures: Figures) -> None:
    figures.flights = [flight(number, number, 0) for number in range(CURRENT_MAX + 5)]
    told = figures.snapshot()
    assert told["in_flight"] == CURRENT_MAX + 5
    assert [file["bytes"] for file in told["current"]] == list(range(CURRENT_MAX + 4, 4, -1))


def test_an_inbox_tells_what_it_has_and_what_it_does_not_take(figures: Figures) -> None:
    held = {f"f {number:02d}": "too large" for number in reversed(range(20))}
    more = {"last_look_at": 10.6, "published_files": 1, "pending_files": 2, "waiting": {1: 1}, "error": "no space"}
    figures.inboxes = [
        inbox(3, "new"),
        inbox(4, "old", held=held, source="/c fg", figures_in_flight=lambda: ["x"] * 20, **more),
    ]
    figures.standings["old"] = Standing(OutboxState.STOPPED, "", 50.0)
    figures.reasons[4] = "no quota"
    new, old = figures.snapshot()["inboxes"]
    plain = dict.fromkeys(("taken", "pending", "waiting", "not_taken", "state_since"), 0)
    nothing = dict.fromkeys(("last_look_at", "waits_because", "error", "state_reason"))
    assert new == {
        "name": "new", "path": "/in/new", "source": "/cfg", "state": "started", "current": [], "reasons": {},
        **plain, **nothing,
    }  # fmt: skip
    assert list(old.pop("reasons").items()) == [(f'"f {number:02d}"', '"too large"') for number in range(CURRENT_MAX)]
    assert old == {
        "name": "old", "path": "/in/old", "source": '"/c fg"', "state": "stopped", "state_reason": None,
        "state_since": 50, "last_look_at": 11, "taken": 1, "pending": 2, "current": ["x"] * CURRENT_MAX, "waiting": 1,
        "not_taken": 20, "waits_because": "no quota", "error": '"no space"',
    }  # fmt: skip


def test_the_line_for_systemd_names_what_is_not_simply_started(figures: Figures) -> None:
    assert summary(None) == "starting"
    assert summary(figures.snapshot()) == "connected, 0 files to send, 0 bytes"
    figures.totals = [total(1, State.READY, 2, 900.0)]
    figures.inboxes = [inbox(3, "in"), inbox(4, "also")]
    figures.standings = {name: Standing(OutboxState.SUSPENDED, "", 0.0) for name in ("two", "in")}
    figures.standings["one"] = Standing(OutboxState.STOPPED, "", 0.0)
    assert summary(figures.snapshot()) == "connected, 2 files to send, 20 bytes, stopped: one, suspended: two, in"

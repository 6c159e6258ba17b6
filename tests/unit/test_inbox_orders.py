"""Commands to an inbox, as they come over the socket: stop, start, suspend, resume, flush; on a fake clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from unit.inbox_lab import InboxLab

from iot.spooler.agent.agent import Agent, Wake
from iot.spooler.agent.draining import End
from iot.spooler.gates.orders import ORDERS, Command, Order, order_after
from iot.spooler.process.obeying import _flush, obey
from iot.spooler.status.status import snapshot, summary

DAY_S = 86400.0


class Script:
    """What somebody asks at which second of a run, and what the status says of the inbox at others."""

    def __init__(self, lab: InboxLab) -> None:
        self.lab = lab
        self.steps: list[tuple[float, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        lab.loop.pause = self._pause
        lab.loop.woken = self._woken

    def ask(self, at_s: float, command: str, *names: str) -> None:
        def act(agent: Agent) -> None:
            content = {"command": command, "outboxes": list(names)}
            self.answers.append(obey(agent, content, 0))
            if command == "flush":
                self.lab.loop.asked = _flush(agent, content)

        self.steps.append((at_s, act))

    def note(self, at_s: float) -> None:
        self.steps.append((at_s, self._note))

    def do(self, at_s: float, act: Any) -> None:
        self.steps.append((at_s, lambda agent: act()))

    def run(self, seconds: float, **how: Any) -> End:
        self.began = self.lab.loop.now
        self.steps.sort(key=lambda step: step[0])
        self.lab.loop.stop_at = self.began + seconds
        end = self.lab.run(drain=False, **how)
        assert self.steps == []
        return end

    def _note(self, agent: Agent) -> None:
        status = snapshot(agent, self.lab.loop.wall(), self.lab.loop.now)
        self.seen.append({**status["inboxes"][0], "summary": summary(status)})

    def _pause(self, seconds: float) -> None:
        due_s = self.began + self.steps[0][0] - self.lab.loop.now if self.steps else seconds
        self.lab.loop.now += max(min(seconds, due_s), 0.001)

    def _woken(self) -> Wake | None:
        agent = self.lab.agent
        while agent is not None and self.steps and self.lab.loop.now >= self.began + self.steps[0][0]:
            self.steps.pop(0)[1](agent)
        why, self.lab.loop.asked = self.lab.loop.asked, None
        return why


@pytest.fixture
def lab(tmp_path: Path) -> InboxLab:
    lab = InboxLab(tmp_path, name="config", poll_s=100)
    lab.put("a", b"a")
    return lab


@pytest.mark.parametrize(
    ("tell", "untell", "state"), [("stop", "start", "stopped"), ("suspend", "resume", "suspended")]
)
def test_an_inbox_is_held_by_name_also_over_a_restart_until_that_is_undone(lab, tell, untell, state, caplog):
    caplog.set_level("INFO")
    script = Script(lab)
    script.ask(0.0, tell, "config")
    script.note(250)
    script.run(300)
    assert lab.published() == {}
    reason = f"{state} by command"
    assert (script.seen[0]["state"], script.seen[0]["state_reason"]) == (state, f'"{reason}"')
    assert f"{state}: config" in script.seen[0]["summary"]
    assert script.answers[0]["outboxes"] == []
    assert script.answers[0]["inboxes"] == [{"name": "config", "was": "started", "order": state, "reason": None}]
    assert f'inbox {state} inbox=config reason="{reason}"' in caplog.text

    again = Script(lab)
    again.note(10)
    again.ask(20, untell, "config")
    again.note(30)
    again.run(40)
    assert [seen["state"] for seen in again.seen] == [state, "started"]
    assert lab.published() == {"a": b"a"}
    assert json.loads((lab.base / "state" / "orders.json").read_text()) == {"outboxes": {}, "inboxes": {}}
    assert f"inbox started inbox=config was={state}" in caplog.text


def test_a_command_without_a_name_is_for_outboxes_and_inboxes(lab):
    script = Script(lab)
    script.ask(0.0, "suspend")
    (lab.box / "f").write_bytes(b"x")
    script.run(300)
    assert (lab.published(), (lab.base / "server/up").exists()) == ({}, False)
    [answer] = script.answers
    assert [box["name"] for box in (*answer["outboxes"], *answer["inboxes"])] == ["box", "config"]


def test_a_name_that_is_none_changes_nothing_and_all_names_are_told(lab):
    lab.more["inbox"] = [lab.inbox, {"path": str(lab.base), "name": "off", "source": "/x", "enabled": False}]
    script = Script(lab)
    script.ask(0.0, "stop", "config", "confgi")
    script.ask(0.0, "stop", "off")
    script.run(300)
    assert script.answers == [
        {"error": "there is no outbox or inbox confgi; the outboxes are: box; the inboxes are: config"},
        {"error": "inbox off is disabled in the configuration (enabled = false); the outboxes are: box; the inboxes"
         " are: config"},
    ]  # fmt: skip
    assert lab.published() == {"a": b"a"}


def test_a_stopped_inbox_leaves_the_others_alone_and_what_was_fetched_before_waits_for_its_name(lab):
    """A hook is killed with the stop, and asked again after the start."""
    lab.inbox |= {"before_publish": ["/bin/sleep", "1000"], "before_publish_limit_s": 5000}
    other = {"path": str(lab.base / "other"), "name": "other", "source": "/cfg", "settle_s": 0}
    (lab.base / "other").mkdir()
    lab.more["inbox"] = [lab.inbox, other]
    script = Script(lab)
    script.ask(50, "stop", "config")
    script.run(100)
    assert (lab.base / "other" / "a").read_bytes() == b"a"
    assert lab.published() == {}
    assert lab.hidden() != []
    lab.inbox |= {"before_publish": ["/bin/true"]}
    again = Script(lab)
    again.ask(50, "start", "config")
    again.run(2000)
    assert lab.published() == {"a": b"a"}


def test_what_was_fetched_before_a_suspension_is_published_all_the_same_and_without_delay(lab):
    (lab.here / "a").mkdir()  # in the way: it is tried again a second later
    script = Script(lab)
    seen: list[dict[str, bytes]] = []
    script.steps.append((0.5, lambda agent: agent.order(Command.SUSPEND, agent.pull.inboxes)))
    script.do(0.6, (lab.here / "a").rmdir)
    script.do(5, lambda: seen.append(lab.published()))
    script.run(6)
    assert seen == [{"a": b"a"}]  # not only when the loop has another reason to look


def test_a_drain_leaves_a_stopped_inbox_alone_and_says_that_something_remains(lab):
    script = Script(lab)
    script.ask(0.0, "stop", "config")
    script.run(1)
    lab.loop.stop_at = 1e12
    assert lab.run() is End.REMAINS
    assert lab.published() == {}


def test_flush_fetches_what_is_there_past_the_schedule_and_no_more(lab):
    lab.inbox |= {"schedule": ["Mon 00:00-00:01"], "settle_s": 20}  # the clock of the lab begins on a Wednesday
    lab.put("b", b"b", age_s=0)
    script = Script(lab)
    script.note(50)
    script.ask(100, "flush", "config")
    script.do(500, lambda: lab.put("late", b"late"))
    script.note(1000)
    script.run(DAY_S / 2)
    assert lab.published() == {"a": b"a", "b": b"b"}
    assert [seen["state"] for seen in script.seen] == ["suspended", "suspended"]
    assert script.answers[0]["inboxes"][0]["order"] == "started"


def test_flush_does_not_overrule_an_order_and_looks_at_a_started_inbox_at_once(lab):
    lab.inbox["poll_s"] = 7 * DAY_S
    script = Script(lab)
    script.do(50, lambda: lab.put("b", b"b"))
    script.ask(100, "flush", "config")
    script.ask(200, "suspend", "config")
    script.do(250, lambda: lab.put("c", b"c"))
    script.ask(300, "flush", "config")
    script.run(1000)
    assert lab.published() == {"a": b"a", "b": b"b"}
    assert script.answers[-1]["inboxes"][0]["order"] == "suspended"


def test_a_folder_on_the_server_that_is_missing_is_a_failed_source_and_one_here_a_failed_destination(lab, caplog):
    caplog.set_level("INFO")
    lab.inbox["source"] = "/none"
    script = Script(lab)
    script.note(50)
    script.do(150, (lab.base / "server" / "none").mkdir)
    script.note(250)
    script.do(260, lambda: lab.here.rename(lab.base / "gone"))
    script.do(260, lambda: (lab.base / "server" / "none" / "f").write_bytes(b"f"))
    script.note(450)
    script.run(500)
    assert [seen["state"] for seen in script.seen] == ["source failed", "started", "destination failed"]
    assert caplog.text.count("inbox source failed inbox=config") == 1
    assert caplog.text.count("inbox destination failed inbox=config") == 1


def test_orders_of_an_earlier_version_and_of_two_inboxes_of_one_folder_are_kept_apart(lab):
    (lab.base / "state").mkdir(mode=0o700)
    (lab.base / "state" / "orders.json").write_text(json.dumps({"outboxes": {str(lab.box): "suspended"}}))
    lab.put("../two/b", b"b")
    lab.more["inbox"] = [lab.inbox, {**lab.inbox, "name": "second", "source": "/two"}]
    script = Script(lab)
    script.ask(0.0, "stop", "second")
    script.run(300)
    assert lab.published() == {"a": b"a"}
    orders = json.loads((lab.base / "state" / "orders.json").read_text())
    assert orders == {"outboxes": {str(lab.box): "suspended"}, "inboxes": {f"{lab.here} from /two": "stopped"}}


def test_what_is_no_row_of_the_orders_raises() -> None:
    for order in Order:
        for command in {command for _, command in ORDERS}:
            assert order_after(order, command) is ORDERS[order, command]

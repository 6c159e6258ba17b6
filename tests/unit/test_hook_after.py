"""Calls of hooks that follow a delivery: recorded, run in their order, dropped when they have ended."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_hook_calls import BADLY, LIMIT_S, WELL, Programs

from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks import calls as module
from iot.spooler.hooks.after import AFTER_BATCH, DROP_S, PAGE, After
from iot.spooler.hooks.batches import Batch
from iot.spooler.hooks.due import DueCall
from iot.spooler.hooks.hooks import STOP_LOOK_S, STOP_S, Hooks
from iot.spooler.queue.policy import Backoff, Event, RetryRules
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue
from iot.transfer import Journal

HOOK = ("hook",)
ALL = {"after_success": HOOK, "after_failure": HOOK, "after_batch": HOOK}


def entry(number: int, outbox: int = 1) -> Any:
    version = SimpleNamespace(size=7)
    return SimpleNamespace(
        id=number, outbox=outbox, path=b"%d" % number, destination="/up", fingerprint=version, priority=5
    )


class Lab:
    """Outbox 1 has the hooks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = Programs()
        monkeypatch.setattr(module, "Command", self.programs.command)
        monkeypatch.setattr("iot.spooler.commands.shutil.which", lambda name: name)
        self.journal = Journal(None, QUEUE_SCHEMA)
        self.after = self.begun()

    def begun(self, *, at_once: int = 2, **hooks: Any) -> After:
        """By the next process."""
        settings = HookSettings(limit_s=LIMIT_S, at_once=at_once, **(hooks or ALL))
        self.after = After({1: settings}, {1: b"/box"}, {}, self.journal, self.programs.clock)
        return self.after

    def delivered(self, *numbers: int, outbox: int = 1, published_as: str = "") -> None:
        result: Any = SimpleNamespace(published_as=published_as, sha256="ab")
        self.journal.write(lambda db: self.after.delivered(db, [(entry(each, outbox), result) for each in numbers]))

    def batch_over(self, path: bytes = b"batch") -> None:
        call = DueCall(1, 0, AFTER_BATCH, path, "", "delivered", "", 12, "", files=2)
        self.journal.write(lambda db: self.after.batch_over(db, call))

    def ends(self, *names: object) -> list[int]:
        """-> the entries that need not wait any more"""
        self.programs.ends = {str(name): WELL for name in names}
        return self.after.look()

    @property
    def started(self) -> list[str]:
        return self.programs.started


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    lab = Lab(monkeypatch)
    yield lab
    lab.journal.close()


def test_a_delivered_file_waits_until_its_hook_has_ended(lab: Lab) -> None:
    assert lab.after.look() == []  # nothing is left of an earlier process
    assert (lab.after.is_idle(), lab.after.look_in_s()) == (True, float("inf"))
    lab.delivered(1, published_as="/up/one")
    assert (lab.after.pending(1), lab.after.is_idle(), lab.after.look_in_s()) == (1, False, 0.0)
    assert lab.after.waited_for([entry(1), entry(2)]) == {1}
    assert (lab.after.look(), lab.started, lab.after.is_idle()) == ([], ["1"], False)
    assert lab.programs.given["1"] == {
        "IOT_PATH": "/box/1", "IOT_REMOTE_PATH": "/up/one", "IOT_RESULT": "delivered", "IOT_ERROR": "",
        "IOT_BYTES": "7", "IOT_SHA256": "ab",
    }  # fmt: skip
    assert lab.ends(1) == [1]
    assert (lab.after.pending(1), lab.after.is_idle(), lab.after.waited_for([entry(1)])) == (0, True, set())
    assert lab.after.look() == []
    assert lab.started == ["1"]


def test_what_has_ended_is_dropped_a_little_later_while_others_run(lab: Lab) -> None:
    lab.delivered(1, 2, 3)
    lab.after.look()
    assert lab.started == ["1", "2"]
    assert (lab.ends(1), lab.started, lab.after.pending(1)) == ([], ["1", "2", "3"], 3)
    lab.programs.now += DROP_S / 2
    assert lab.ends(2) == []
    assert lab.after.look_in_s() <= DROP_S / 2
    lab.programs.now += DROP_S / 2
    assert lab.after.look_in_s() == 0.0
    assert (lab.after.look(), lab.after.pending(1)) == ([1, 2], 1)
    lab.programs.now += 100
    assert lab.after.look_in_s() > 0
    assert lab.ends(3) == [3]


@pytest.mark.parametrize(
    ("event", "words", "told"),
    [(Event.FAILED, "no", ("failed", "no")), (Event.SKIPPED, None, ("failed", "")),
     (Event.GIVEN_UP, "no", ("quarantined", "no")), (Event.INTERRUPTED, "no", None), (Event.SENT, None, None)],
)  # fmt: skip
def test_what_an_attempt_has_come_to_is_told_if_it_was_a_failure(lab: Lab, event, words, told) -> None:
    lab.journal.write(lambda db: lab.after.failed(db, [(entry(1), event, words)]))
    lab.after.look()
    given = [(each["IOT_RESULT"], each["IOT_ERROR"]) for each in lab.programs.given.values()]
    assert given == ([] if told is None else [told])


def test_only_what_is_configured_is_called_and_what_is_not_any_more_holds_no_file(lab: Lab) -> None:
    lab.delivered(1, outbox=2)
    assert (lab.after.pending(1), lab.after.pending(2)) == (0, 0)
    assert [lab.after.wants_digest(outbox) for outbox in (1, 2)] == [True, False]
    lab.delivered(1, 2)
    after = lab.begun(after_failure=HOOK)
    assert not after.wants_digest(1)
    lab.delivered(3)
    assert after.pending(1) == 2
    assert (after.look(), lab.started, after.pending(1)) == ([1, 2], [], 0)


def test_without_any_hook_nothing_is_recorded_or_waited_for(lab: Lab) -> None:
    lab.after = After({}, {}, {}, lab.journal, lab.programs.clock)
    lab.delivered(1)
    assert (lab.after.waited_for([entry(1)]), lab.after.pending(1), lab.after.look()) == (set(), 0, [])
    assert (lab.after.look_in_s(), lab.after.is_idle()) == (float("inf"), True)


def test_while_the_hook_of_a_batch_waits_its_turn_the_journal_is_left_alone(lab: Lab, monkeypatch) -> None:
    pages: list[int] = []
    page = lab.after._due.page  # type: ignore[union-attr]
    monkeypatch.setattr(lab.after._due, "page", lambda *about: pages.append(1) or page(*about))
    lab.delivered(1, 2)
    lab.batch_over()
    for ends in ((), (1,), (), ()):
        lab.ends(*ends)
    assert len(pages) == 1
    lab.ends(2)
    lab.after.look()
    assert (len(pages), lab.started) == (2, ["1", "2", "batch"])


def test_the_hook_of_a_batch_comes_after_those_of_its_files(lab: Lab) -> None:
    lab.delivered(1, 2)
    lab.batch_over()
    lab.delivered(3)
    lab.after.look()
    assert lab.started == ["1", "2"]
    lab.ends(1)
    lab.after.look()
    assert lab.started == ["1", "2"]
    lab.ends(2)
    lab.after.look()
    assert lab.started[:3] == ["1", "2", "batch"]
    assert lab.programs.given["batch"]["IOT_FILES"] == "2"
    assert "IOT_FILES" not in lab.programs.given["1"]
    lab.after.look()
    assert lab.started[3:] == ["3"]
    lab.ends("batch", 3)
    assert (lab.after.pending(1), lab.after.is_idle()) == (0, True)


def test_after_a_batch_the_next_ones_are_fetched_before_the_last_has_ended(lab: Lab) -> None:
    lab.begun(at_once=PAGE)
    [calls] = lab.after.all_calls
    lab.delivered(1)
    lab.batch_over()
    lab.delivered(*range(2, 2 * PAGE))
    lab.after.look()
    lab.ends(1)
    lab.after.look()
    assert len(calls) == PAGE
    lab.ends(*lab.started[1 + PAGE // 2 :])
    lab.after.look()
    assert len(calls) == PAGE // 2  # there is enough to do
    lab.ends(lab.started[1])
    lab.after.look()
    assert len(calls) == PAGE // 2 - 1 + PAGE - 1


def test_of_many_only_some_are_in_memory_and_all_run_in_their_order(lab: Lab) -> None:
    numbers = list(range(1, 3 * PAGE + 1))
    lab.delivered(*numbers)
    lab.begun(at_once=1)
    done: list[int] = []
    while not (lab.after.is_idle() and len(lab.started) == len(numbers)):
        [calls] = lab.after.all_calls
        assert len(calls) <= PAGE + PAGE // 2
        lab.programs.now += DROP_S / 4
        done += lab.ends(lab.started[-1] if lab.started else "")
        assert len(lab.started) <= len(numbers)
    assert lab.started == [str(number) for number in numbers]
    assert (done, lab.after.pending(1)) == (numbers, 0)


def test_at_the_end_what_ends_is_taken_note_of_and_nothing_is_begun(lab: Lab) -> None:
    lab.delivered(1, 2, 3)
    lab.after.look()
    assert lab.after.drop_ended() == []
    lab.programs.ends = {"1": BADLY}
    lab.after.listen()
    assert lab.started == ["1", "2"]
    assert lab.after.drop_ended() == [1]
    assert lab.after.pending(1) == 2  # they run again
    lab.begun()
    lab.after.look()
    assert lab.started == ["1", "2", "2", "3"]


# -- all hooks of an agent


class Everything(Lab):
    """Outbox 1 has hooks before and after a file, outbox 2 those of a batch, outbox 3 none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        settings = {
            1: HookSettings(before=HOOK, after_success=HOOK, limit_s=LIMIT_S),
            2: HookSettings(before_batch=HOOK, after_batch=HOOK, limit_s=LIMIT_S),
            3: HookSettings(),
        }
        rules = {number: RetryRules(Backoff(10.0, 20.0), 1) for number in settings}
        folders = dict.fromkeys(settings, b"/box")
        self.hooks = Hooks(
            settings, folders, lambda each: f"/box/before-{each.id}", {}, rules, Queue(self.journal), self.journal,
            self.programs.clock, lambda: 0.0,
        )  # fmt: skip
        self.after = self.hooks.after
        self.pauses = 0

    def pause(self, seconds: float) -> None:
        assert seconds == STOP_LOOK_S
        self.pauses += 1
        self.programs.now += 1.0
        if self.pauses == 2:
            self.programs.ends = {"before-1": WELL, "1": WELL}

    def begin(self) -> None:
        """One call of each kind."""
        self.hooks.before.ask(entry(1))
        self.hooks.before.look()
        self.hooks.batches.before.allows(2, 7, lambda: Batch(1, 5, b"marker"))
        self.hooks.batches.before.look()
        self.delivered(1)
        self.after.look()


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[Everything]:
    lab = Everything(monkeypatch)
    yield lab
    lab.journal.close()


def test_each_outbox_has_the_hooks_of_its_own_and_all_are_looked_at(everything: Everything) -> None:
    hooks = everything.hooks
    assert everything.after.look() == []  # nothing is left of an earlier process
    assert hooks.look_at() == float("inf")
    assert [hooks.before.room(number) is None for number in (1, 2, 3)] == [False, True, True]
    everything.begin()
    assert everything.started == ["before-1", "marker", "1"]
    assert [hooks.figures(number) for number in (1, 2, 3)] == [2, 1, 0]
    assert everything.programs.now < hooks.look_at() < everything.programs.now + 1
    everything.delivered(2)
    assert hooks.figures(1) == 3


def test_at_the_stop_each_gets_a_moment_and_then_none_runs(everything: Everything) -> None:
    everything.begin()
    assert everything.hooks.close(everything.pause) == [1]
    assert everything.pauses == STOP_S
    assert everything.programs.killed == ["marker"]
    assert everything.after.pending(1) == 0


def test_a_stop_waits_for_nobody_where_none_runs(everything: Everything) -> None:
    everything.delivered(1)
    assert everything.hooks.close(everything.pause) == []
    assert (everything.pauses, everything.started, everything.after.pending(1)) == (0, [], 1)

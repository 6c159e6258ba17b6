"""Calls of hooks one by one: which run, which are next, what is said of them; the programs are a test's own."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.commands import Ended
from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks import before as before_module
from iot.spooler.hooks import calls as module
from iot.spooler.hooks.batches import Batch, BeforeBatch
from iot.spooler.hooks.before import LINE, Before, HookRefusal
from iot.spooler.hooks.calls import FIRST_LOOK_S, LAST_LOOK_S, LOOK_SHARE, Call, Calls, fault, local_path, variables
from iot.spooler.queue.policy import NEVER, Backoff, RetryRules
from iot.spooler.queue.queue import Entry

LIMIT_S = 60.0
MISSING = "missing"
WELL, BADLY, LATER, HUNG = Ended(0, "fine"), Ended(3, "no good"), Ended(75), Ended(None, "stuck")


class Programs:
    """Those that were started, by what they are about. Each ends when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.started: list[str] = []
        self.given: dict[str, Mapping[str, str]] = {}
        self.kill_at: dict[str, float] = {}
        self.ends: dict[str, Ended] = {}
        self.killed: list[str] = []

    def clock(self) -> float:
        return self.now

    def command(self, words: Sequence[str], given: Mapping[str, str], kill_at: float, *, heard: bool = False) -> Any:
        if words[0] == MISSING:
            raise OSError(errno.ENOENT, "No such file or directory")
        assert heard  # its last line is the reason that people read
        return _Program(self, given, kill_at)


class _Program:
    def __init__(self, all_of_them: Programs, given: Mapping[str, str], kill_at: float) -> None:
        self.name, self.all = given["IOT_PATH"].rpartition("/")[2], all_of_them
        self.all.started.append(self.name)
        self.all.given[self.name], self.all.kill_at[self.name] = given, kill_at

    def poll(self, now: float) -> Ended | None:
        return self.all.ends.pop(self.name, None)

    def kill(self) -> None:
        self.all.killed.append(self.name)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr(module, "Command", programs.command)
    monkeypatch.setattr("iot.spooler.commands.shutil.which", lambda name: name)
    return programs


def call(name: str, priority: int = 0, words: Sequence[str] = ("hook",)) -> Call:
    return Call(ord(name), "before", words, {"IOT_PATH": f"/box/{name}"}, name.encode(), priority)


def made(programs: Programs, at_once: int = 2) -> Calls:
    return Calls(at_once, LIMIT_S, {"PATH": "/bin"}, programs.clock)


def test_so_many_run_at_once_and_the_most_urgent_is_next_and_of_equals_the_first(programs: Programs) -> None:
    calls = made(programs)
    for name, priority in (("a", 5), ("b", 5), ("c", 5), ("d", 1), ("e", 5)):
        calls.ask(call(name, priority))
    assert (calls.look(), programs.started, len(calls)) == ([], ["d", "a"], 5)
    programs.ends = {"d": WELL}
    assert [(each.path, ended) for each, ended in calls.look()] == [(b"d", WELL)]
    assert (programs.started, len(calls)) == (["d", "a", "b"], 4)
    programs.ends = {"a": BADLY, "b": WELL}
    assert [(each.path, ended) for each, ended in calls.ended()] == [(b"a", BADLY), (b"b", WELL)]
    assert (len(programs.started), len(calls), calls.is_running()) == (3, 2, False)  # it only looks
    calls.look()
    assert (programs.started, calls.is_running()) == (["d", "a", "b", "c", "e"], True)


def test_each_gets_what_all_get_and_what_it_is_about_and_so_much_time(programs: Programs) -> None:
    calls = made(programs)
    calls.ask(call("a"))
    calls.look()
    assert programs.given["a"] == {"PATH": "/bin", "IOT_PATH": "/box/a"}
    assert programs.kill_at["a"] == programs.now + LIMIT_S


def test_one_that_cannot_be_run_is_told_at_once_and_takes_no_place(programs: Programs, caplog) -> None:
    calls = made(programs, at_once=1)
    calls.ask(call("a", words=[MISSING]))
    calls.ask(call("b"))
    [(asked, error)] = calls.look()
    assert (asked.path, programs.started, len(calls)) == (b"a", ["b"], 1)
    assert fault(asked, error, LIMIT_S) == "hook before: cannot be run: No such file or directory"
    assert "hook cannot be run hook=before path=a reason=No such file or directory" in caplog.text


@pytest.mark.parametrize(
    ("ran_s", "look_s"),
    [(0.0, FIRST_LOOK_S), (LOOK_SHARE * 0.1, 0.1), (LOOK_SHARE * LAST_LOOK_S, LAST_LOOK_S), (1000.0, LAST_LOOK_S)],
)
def test_the_longer_the_newest_has_run_the_less_often_it_is_looked_at(programs: Programs, ran_s, look_s) -> None:
    calls = made(programs)
    assert calls.look_in_s() == float("inf")
    calls.ask(call("a"))
    assert calls.look_in_s() == 0.0
    calls.look()
    programs.now += 50.0
    calls.ask(call("b"))
    calls.look()
    programs.now += ran_s
    assert calls.look_in_s() == pytest.approx(look_s)


def test_at_the_end_what_runs_is_killed_and_what_waits_never_runs(programs: Programs, caplog) -> None:
    calls = made(programs, at_once=1)
    for name in "ab":
        calls.ask(call(name))
    calls.look()
    calls.close()
    assert (programs.killed, len(calls), calls.is_running()) == (["a"], 0, False)
    assert "hook killed at the stop hook=before path=a" in caplog.text
    assert (calls.look(), programs.started) == ([], ["a"])


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (WELL, None),
        (BADLY, "hook before: exit code 3: no good"),
        (Ended(1), "hook before: exit code 1"),
        (Ended(-9), "hook before: signal 9"),
        (HUNG, "hook before: did not end in 60 s: stuck"),
        (Ended(1, "\033[31mred"), "hook before: exit code 1: \\x1b[31mred"),
        (OSError(errno.EACCES, "Permission denied"), "hook before: cannot be run: Permission denied"),
        (OSError(errno.EACCES, ""), "hook before: cannot be run: Permission denied"),
    ],
)
def test_what_is_wrong_with_a_hook_is_said_in_words(ended, said) -> None:
    assert fault(call("a"), ended, LIMIT_S) == said


def test_a_success_is_no_news_and_a_failure_is_told_with_its_time(programs: Programs, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    calls = made(programs)
    for name in "abc":
        calls.ask(call(name))
    calls.look()
    programs.now += 2.5
    programs.ends = {"a": WELL, "b": BADLY}
    calls.look()
    programs.ends = {"c": HUNG}
    calls.look()
    told = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert told == [
        ("DEBUG", "hook ended hook=before path=a exit=0 s=2.5 said=fine"),
        ("WARNING", 'hook ended hook=before path=b exit=3 s=2.5 said="no good"'),
        ("WARNING", "hook ended hook=before path=c exit=killed s=0.0 said=stuck"),
    ]


def test_what_a_hook_is_told() -> None:
    plain = {"IOT_PATH": "/box/a", "IOT_REMOTE_PATH": "/up/a", "IOT_RESULT": "", "IOT_ERROR": "", "IOT_BYTES": "5"}
    assert variables("/box/a", "/up/a", 5) == {**plain, "IOT_SHA256": ""}
    told = variables("/box", "/up", 5, result="failed", error="a\0b", sha256="ab", files=0)
    failed = {"IOT_RESULT": "failed", "IOT_ERROR": "ab", "IOT_SHA256": "ab", "IOT_FILES": "0"}
    assert told == {**plain, "IOT_PATH": "/box", "IOT_REMOTE_PATH": "/up", **failed}
    assert [local_path(b"/box", b"sub/a"), local_path(b"/box", b"")] == ["/box/sub/a", "/box"]


# -- before a file


def entry(number: int, outbox: int = 1, priority: int = 5) -> Entry:
    values: dict[str, Any] = dict.fromkeys(Entry._fields)
    values |= {"id": number, "outbox": outbox, "path": b"%d" % number, "destination": "/up", "priority": priority}
    version = type("Version", (), {"size": 7})
    return Entry(**{**values, "fingerprint": version})


def before(programs: Programs, at_once: int = 2) -> Before:
    settings = HookSettings(before=("hook",), limit_s=LIMIT_S, at_once=at_once)
    return Before({1: settings}, {}, lambda each: f"/box/{each.id}", programs.clock)


def test_there_is_room_for_so_many_and_an_outbox_without_a_hook_needs_none(programs: Programs) -> None:
    hook = before(programs)
    assert (hook.room(1), hook.room(2), hook.under_way(2)) == (LINE, None, 0)
    for number in range(LINE - 1):
        hook.ask(entry(number))
    assert (hook.room(1), hook.under_way(1)) == (1, LINE - 1)
    for number in range(LINE - 1, LINE + 2):
        hook.ask(entry(number))
    assert hook.room(1) == 0


def test_a_hook_runs_once_for_a_file_until_it_was_delivered(programs: Programs) -> None:
    hook = before(programs)
    for _ in range(2):
        hook.ask(entry(1))
        assert hook.answers() == []
    assert (programs.started, hook.under_way(1)) == (["1"], 1)
    assert programs.given["1"]["IOT_BYTES"] == "7"
    programs.now += 1
    programs.ends = {"1": WELL}
    assert hook.answers() == [(1, None)]
    assert hook.answers() == []
    hook.ask(entry(1))
    assert (hook.answers(), programs.started) == ([(1, None)], ["1"])
    hook.delivered(1)
    hook.delivered(2)  # it never had to pass
    hook.ask(entry(1))
    assert (hook.answers(), programs.started) == ([], ["1", "1"])


@pytest.mark.parametrize(
    ("ended", "for_good"), [(BADLY, True), (Ended(1), True), (LATER, False), (HUNG, False), (Ended(-9), False)]
)
def test_only_an_exit_code_judges_a_file_and_it_is_asked_again_about_one_that_has_not_passed(
    programs: Programs, ended, for_good
) -> None:
    hook = before(programs)
    for _ in range(2):
        hook.ask(entry(1))
        hook.look()
        programs.now += 1
        programs.ends = {"1": ended}
        [(number, refusal)] = hook.answers()
        assert (number, refusal) == (1, HookRefusal(fault(call("1"), ended, LIMIT_S) or "", for_good))
    assert programs.started == ["1", "1"]


def test_programs_are_not_looked_at_in_every_turn(programs: Programs) -> None:
    hook = before(programs)
    assert hook.look_in_s() == float("inf")
    hook.ask(entry(1))
    assert hook.answers() == []
    programs.ends = {"1": WELL}
    assert hook.answers() == []
    assert hook.look_in_s() == FIRST_LOOK_S
    programs.now += FIRST_LOOK_S
    assert hook.answers() == [(1, None)]


def test_of_those_that_have_passed_the_oldest_are_forgotten(programs: Programs, monkeypatch) -> None:
    monkeypatch.setattr(before_module, "PASSED_MAX", 2)
    hook = before(programs, at_once=3)
    for number in (1, 2, 3):
        hook.ask(entry(number))
    hook.look()
    programs.now += 1
    programs.ends = {str(number): WELL for number in (1, 2, 3)}
    hook.look()
    assert list(hook._passed) == [2, 3]


# -- before a batch


class Asking:
    """A batch that is asked about, and what it is."""

    def __init__(self, programs: Programs, max_failures: int | None = None) -> None:
        settings = HookSettings(before_batch=("hook",), limit_s=LIMIT_S)
        rules = RetryRules(Backoff(10.0, 20.0), 1, max_failures)
        self.programs, self.batch = programs, Batch(2, 12)
        self.hook = BeforeBatch({1: settings}, {1: b"/box"}, {}, {1: rules}, programs.clock, lambda: 0.0)

    def allows(self, key: int = 7) -> bool:
        return self.hook.allows(1, key, lambda: self.batch)

    def ends(self, ended: Ended) -> bool:
        self.hook.look()
        self.programs.ends = {"box": ended}
        return self.hook.look()


def test_a_batch_goes_once_its_hook_has_succeeded_and_is_asked_about_once(programs: Programs) -> None:
    asking = Asking(programs)
    assert asking.hook.allows(2, 7, lambda: pytest.fail("it has no such hook"))
    assert not asking.allows()
    assert not asking.allows()
    assert asking.hook.look() is False
    assert (programs.started, asking.hook.is_running(1), asking.hook.under_way(1)) == (["box"], True, 1)
    assert (asking.hook.is_running(2), asking.hook.under_way(2), asking.hook.reason(2)) == (False, 0, None)
    assert programs.given["box"]["IOT_FILES"] == "2"
    assert asking.hook.reason(1) == "a batch is kept back, hook before_batch: not ended yet"
    news = asking.hook.news
    assert asking.ends(WELL)
    assert (asking.allows(), asking.hook.news > news, asking.hook.reason(1)) == (True, True, None)
    assert (asking.hook.is_running(1), programs.started) == (False, ["box"])


def test_after_a_failure_it_is_tried_again_at_its_time_or_when_somebody_wants_to_send(programs: Programs) -> None:
    asking = Asking(programs)
    asking.allows()
    assert asking.ends(BADLY)
    assert (asking.allows(), asking.hook.is_left(7)) == (False, False)
    assert asking.hook.reason(1) == "a batch is kept back, hook before_batch: exit code 3: no good"
    assert asking.hook.look_in_s() == 10.0
    programs.now += 9.9
    assert (asking.hook.look(), len(programs.started)) == (False, 1)
    programs.now += 0.1
    assert (asking.hook.look(), len(programs.started)) == (False, 2)
    asking.hook.wake()  # while it runs
    asking.hook.look()
    assert len(programs.started) == 2
    asking.ends(BADLY)
    assert asking.hook.look_in_s() == 20.0
    asking.hook.wake()
    assert asking.hook.look_in_s() == 0.0
    asking.hook.look()
    assert len(programs.started) == 3


def test_after_so_many_failures_a_batch_is_left_to_the_next_run(programs: Programs) -> None:
    asking = Asking(programs, max_failures=2)
    asking.allows()
    asking.ends(BADLY)
    assert not asking.hook.is_left(7)
    asking.hook.wake()
    asking.ends(BADLY)
    assert asking.hook.is_left(7)
    assert not asking.hook.is_left(8)
    assert asking.hook.look_in_s() >= NEVER / 2
    asking.hook.wake()  # somebody wants to send now
    asking.hook.look()
    assert not asking.hook.is_left(7)
    asking.ends(BADLY)
    assert asking.hook.is_left(7)


def test_of_a_batch_that_has_been_taken_away_nobody_hears_anything(programs: Programs) -> None:
    asking = Asking(programs)
    asking.allows()
    asking.hook.look()
    asking.hook.forget(7)
    asking.hook.forget(8)
    assert asking.ends(BADLY) is False
    asking.batch = Batch(0, 0)
    news = asking.hook.news
    assert asking.hook.allows(1, 9, lambda: asking.batch)  # nobody is asked about nothing
    assert (asking.hook.news > news, programs.started) == (True, ["box"])
    asking.batch = Batch(0, 0, b"all.done")
    assert not asking.allows(10)  # a marker alone is something
    asking.hook.look()
    assert programs.started == ["box", "all.done"]


def test_the_marker_of_a_batch_is_its_path(programs: Programs, tmp_path: Path) -> None:
    asking = Asking(programs)
    asking.batch = Batch(2, 12, b"a/all.done")
    asking.allows()
    asking.hook.look()
    assert programs.given["all.done"]["IOT_PATH"] == "/box/a/all.done"

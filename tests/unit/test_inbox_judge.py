"""The hook that judges a file before it has its name: what it is told, and what its end means."""

from __future__ import annotations

import pytest
from unit.test_hook_calls import BADLY, HUNG, LATER, LIMIT_S, MISSING, WELL, Programs

from iot.spooler.commands import Ended
from iot.spooler.hooks import calls
from iot.spooler.inbox.judge import Judge, Verdict
from iot.spooler.inbox.records import FileState, Record


def record(name: bytes) -> Record:
    return Record(name, FileState.FETCHED, "3@1", "", 3, 1, "ab")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr(calls, "Command", programs.command)
    return programs


def judge_of(programs: Programs, word: str = "hook") -> Judge:
    return Judge([word], LIMIT_S, {"PATH": "/bin"}, programs.clock)


def test_files_are_judged_one_after_the_other_each_once_at_a_time(programs: Programs) -> None:
    judge = judge_of(programs)
    assert judge.look_in_s() == float("inf")
    for name in (b"a", b"a", b"b"):
        judge.ask(record(name), f"/here/{name.decode()}", f"/cfg/{name.decode()}")
    assert (judge.judged(), programs.started) == ([], ["a"])
    assert [name in judge for name in (b"a", b"b", b"c")] == [True, True, False]
    assert judge.look_in_s() < 1
    programs.ends = {"a": WELL}
    assert judge.judged() == [(record(b"a"), Verdict.GOOD, "")]
    assert (programs.started, b"a" in judge) == (["a", "b"], False)
    judge.ask(record(b"a"), "/here/a", "/cfg/a")
    judge.close()
    assert (programs.killed, b"a" in judge, b"b" in judge) == (["b"], False, False)


def test_what_it_is_told_of_a_file(programs: Programs) -> None:
    judge = judge_of(programs)
    judge.ask(record(b"sub/\xff"), "/here/.hidden", "/cfg/sub/x")
    judge.judged()
    assert programs.given[".hidden"] == {
        "PATH": "/bin", "IOT_PATH": "/here/.hidden", "IOT_REMOTE_PATH": "/cfg/sub/x", "IOT_RESULT": "",
        "IOT_ERROR": "", "IOT_BYTES": "3", "IOT_SHA256": "ab", "IOT_NAME": "sub/\udcff",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "verdict", "reason"),
    [
        (BADLY, Verdict.BAD, "hook before_publish: exit code 3: no good"),
        (Ended(1), Verdict.BAD, "hook before_publish: exit code 1"),
        (LATER, Verdict.UNKNOWN, "hook before_publish: exit code 75"),
        (HUNG, Verdict.UNKNOWN, "hook before_publish: did not end in 60 s: stuck"),
        (Ended(-9), Verdict.UNKNOWN, "hook before_publish: signal 9"),
    ],
)
def test_only_an_exit_code_is_a_verdict(programs: Programs, ended: Ended, verdict: Verdict, reason: str) -> None:
    judge = judge_of(programs)
    judge.ask(record(b"a"), "/here/a", "/cfg/a")
    judge.judged()
    programs.ends = {"a": ended}
    assert judge.judged() == [(record(b"a"), verdict, reason)]


def test_a_hook_that_cannot_be_run_has_judged_nothing(programs: Programs) -> None:
    judge = judge_of(programs, MISSING)
    judge.ask(record(b"a"), "/here/a", "/cfg/a")
    [(_, verdict, reason)] = judge.judged()
    assert verdict is Verdict.UNKNOWN
    assert reason == "hook before_publish: cannot be run: No such file or directory"

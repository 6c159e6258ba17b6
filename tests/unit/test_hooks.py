"""Hooks around deliveries: real programs, an agent on a fake clock, and a folder for a server."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

import pytest
from quarantined import quarantined
from unit.agent_rig import Loop, Rig
from unit.test_conditions import gone

from iot.sftp.client import LinkLost, PermissionDenied
from iot.spooler.agent.draining import End
from iot.spooler.status.status import snapshot

GIVE_UP_S = 30.0


class Waiting(Loop):
    """Programs get real time to run while the agent pauses, and while it sends.

    step_s: what the clock goes forward with each look at it.
    """

    step_s = 1e-5

    def __init__(self) -> None:
        super().__init__()
        self.give_up_at = time.monotonic() + GIVE_UP_S
        self.last: dict = {}

    def clock(self) -> float:
        self.now += self.step_s
        return self.now

    def alive(self) -> None:
        time.sleep(0.001)

    def stopping(self) -> bool:
        assert time.monotonic() < self.give_up_at
        return super().stopping()

    def report(self, agent, *, changed, final=False) -> None:
        if final:
            self.last = snapshot(agent, self.wall(), self.now)


class Hooked(Rig):
    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        self.loop = Waiting()
        self.hooks: dict = {"limit_s": 3600}
        self.outbox["hooks"] = self.hooks
        self.notes = tmp_path / "notes"
        self.notes.touch()

    def note(self, words: str = "$IOT_RESULT $IOT_PATH", then: str = "exit 0") -> list[str]:
        """A hook that writes a line of notes."""
        return ["sh", "-c", f'echo "{words}" >> {self.notes}; {then}']

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def box(tmp_path: Path) -> Hooked:
    return Hooked(tmp_path)


# -- before


def test_a_file_is_sent_only_after_its_hook_has_succeeded(box):
    box.put("sub/a", b"12345")
    box.hooks["before"] = box.note("$IOT_PATH $IOT_REMOTE_PATH $IOT_BYTES")
    seen = []
    box.remote.before = lambda job: seen.append(box.noted())
    assert box.run() is End.DRAINED
    assert box.noted() == [f"{box.box}/sub/a /up/sub/a 5"]
    assert seen == [box.noted()]
    assert box.arrived() == ["sub/a"]


def test_a_hook_gets_no_shell_and_none_of_our_environment_but_what_any_program_expects(box, monkeypatch):
    for name in ("SFTP_PASSWORD", "IOT_SPOOLER_SERVER__PASSWORD", "CREDENTIALS_DIRECTORY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    box.put("-rf $(touch x)")
    box.hooks["before"] = ["sh", "-c", f'env > {box.notes}; echo "$0 $#" >> {box.notes}', "$HOME"]
    assert box.run() is End.DRAINED
    lines = box.noted()
    assert lines[-1] == "$HOME 0"
    names = {line.partition("=")[0] for line in lines[:-1]}
    ours = {"IOT_PATH", "IOT_REMOTE_PATH", "IOT_BYTES", "IOT_RESULT", "IOT_ERROR", "IOT_SHA256"}
    plain = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    assert ours < names <= ours | plain | {"PWD", "OLDPWD", "SHLVL", "_"}
    assert f"IOT_PATH={box.box}/-rf $(touch x)" in lines


def test_a_file_that_its_hook_refuses_goes_to_quarantine_with_the_last_line_and_delays_no_other(box, caplog):
    box.hooks["before"] = box.note(
        "$IOT_PATH", 'case "$IOT_PATH" in *bad) echo "first\n\033[31mno good" >&2; exit 3; esac'
    )
    box.retry = {"max_attempts": 3}
    for name in ("a", "bad", "c"):
        box.put(name)
    box.loop.stop_at = box.loop.now + 300
    box.run(drain=False)
    assert box.arrived() == ["a", "c"]
    (bad,) = quarantined(box.quarantine)
    assert bad.path == "bad"
    assert bad.record["reason"] == "hook before: exit code 3: \\x1b[31mno good"
    assert bad.record["attempts"] == 3
    assert box.noted().count(f"{box.box}/bad") == 3
    assert "\033" not in caplog.text
    assert "hook ended hook=before path=bad exit=3" in caplog.text
    assert "hook before: exit code 3" in box.loop.last["last_error"]


def test_exit_code_75_means_not_yet_and_is_never_a_strike(box):
    box.hooks["before"] = box.note("tried", f"test -e {box.base}/flag || exit 75")
    box.retry = {"max_attempts": 1, "cap_s": 20}
    box.put("f")
    box.loop.stop_at = box.loop.now + 400
    box.run(drain=False)
    assert len(box.noted()) > 10
    assert box.left() == ["f"]
    assert box.loop.last["outboxes"][0]["waiting"] == 1
    (box.base / "flag").touch()
    box.loop.stop_at = box.loop.now + 60
    box.run(drain=False)
    assert box.arrived() == ["f"]


@pytest.mark.parametrize("how", ["crashes", "is missing"])
def test_a_hook_that_cannot_judge_is_not_the_files_fault(box, how):
    program = box.base / "hook"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    box.hooks["before"] = [str(program)]
    box.retry = {"max_attempts": 1, "cap_s": 100}
    box.put("f")
    if how == "is missing":
        box.loop.woken = lambda: program.unlink(missing_ok=True)
    box.loop.stop_at = box.loop.now + 200
    box.run(drain=False)
    assert box.left() == ["f"]
    assert quarantined(box.quarantine) == []
    words = "signal 9" if how == "crashes" else "cannot be run: No such file or directory"
    assert box.loop.last["last_error"] == f'"f: hook before: {words}"'


def test_a_hook_that_hangs_is_killed_with_its_children_and_others_are_sent_meanwhile(box):
    child = box.base / "child"
    box.hooks |= {
        "before": ["sh", "-c", f'case "$IOT_PATH" in *hangs) sleep 1000 & echo $! > {child}; wait; esac'],
        "limit_s": 60,
        "at_once": 2,
    }
    for name in ("a", "b", "c", "hangs"):
        box.put(name)
    killed_at = []

    def before(job) -> None:
        box.loop.step_s = 0.01 if len(box.arrived()) == 2 else 1e-5  # the third is on its way
        pid = child.read_text().strip() if child.exists() else ""
        killed_at.append(bool(pid) and gone(int(pid)))

    box.remote.before = before
    box.loop.stop_at = box.loop.now + 61
    box.run(drain=False)
    assert box.arrived() == ["a", "b", "c"]
    assert not any(killed_at)
    assert gone(int(child.read_text()))
    assert box.left() == ["hangs"]
    assert "hook before: did not end in 60 s" in box.loop.last["last_error"]


def test_a_lost_link_does_not_run_it_again(box):
    for number in range(4):
        box.put(f"f{number}")
    box.hooks["before"] = box.note()
    box.remote.lose_after = [1, 1]
    assert box.run() is End.DRAINED
    assert len(box.remote.deliveries) == 4
    assert len(box.noted()) == 4


def test_no_more_run_at_once_than_allowed_and_an_urgent_file_is_next(box):
    box.hooks |= {"before": box.note("began", f"sleep 0.02; echo ended $IOT_PATH >> {box.notes}"), "at_once": 3}
    box.outbox |= {"urgent": ["z*"], "order": "name"}
    for name in (*(f"f{number:02}" for number in range(20)), "z"):
        box.put(name)
    assert box.run() is End.DRAINED
    running = most = 0
    for line in box.noted():
        running += 1 if line == "began" else -1
        most = max(most, running)
    assert (most, running) == (3, 0)
    assert box.remote.deliveries.index("/up/z") < 4


def test_an_outbox_without_hooks_is_not_delayed_by_one_whose_hooks_all_hang(box):
    other = box.base / "other"
    other.mkdir()
    box.hooks["before"] = ["sleep", "1000"]
    box.outbox["priority"] = 1
    settings = box.settings()
    settings["outbox"].append({"path": str(other), "destination": "/up", "settle_s": 0})
    box.settings = lambda: settings
    for number in range(50):
        box.put(f"f{number}")
        (other / f"g{number}").touch()
    box.remote.before = lambda job: setattr(box.loop, "stop", len(box.remote.deliveries) == 49)
    box.run(drain=False)
    assert box.arrived() == sorted(f"g{number}" for number in range(50))
    assert len(box.left()) == 50


# -- after


def test_after_success_finds_the_file_and_is_told_what_was_delivered(box):
    box.put("a", b"12345")
    words = "$IOT_RESULT $IOT_PATH $IOT_REMOTE_PATH $IOT_BYTES $IOT_SHA256 $(cat $IOT_PATH)"
    box.hooks["after_success"] = box.note(words)
    assert box.run() is End.DRAINED
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    assert box.noted() == [f"delivered {box.box}/a /up/a 5 {digest} 12345"]
    assert box.left() == []


@pytest.mark.parametrize("after_upload", ["delete", "archive", "keep"])
def test_a_failing_after_success_is_logged_and_undoes_nothing(box, caplog, after_upload):
    box.put("a")
    box.outbox["after_upload"] = after_upload
    box.hooks["after_success"] = box.note("ran", "echo 'no mail' >&2; exit 1")
    assert box.run() is End.DRAINED
    assert box.run() is End.DRAINED
    assert (box.arrived(), box.noted()) == (["a"], ["ran"])
    assert box.left() == (["a"] if after_upload == "keep" else [])
    assert "hook ended hook=after_success path=a exit=1" in caplog.text
    assert 'said="no mail"' in caplog.text


def test_after_failure_is_told_the_error_of_each_attempt_but_of_no_lost_link(box):
    box.put("bad")
    box.hooks["after_failure"] = box.note("$IOT_RESULT $IOT_ERROR $(cat $IOT_PATH)")
    box.remote.refuse["/up/bad"] = PermissionDenied("no rights")
    box.remote.cannot_connect = [LinkLost("no")] * 2
    box.retry = {"max_attempts": 2}
    box.loop.stop_at = box.loop.now + 600
    box.run(drain=False)
    words = "PermissionDenied: no rights x"
    assert box.noted() == [f"failed {words}", f"quarantined {words}"]
    assert [file.path for file in quarantined(box.quarantine)] == ["bad"]


def test_what_a_hook_refuses_is_a_failure_for_after_failure_too(box):
    box.put("bad")
    box.hooks |= {"before": ["false"], "after_failure": box.note("$IOT_RESULT $IOT_ERROR")}
    box.retry = {"max_attempts": 1}
    box.loop.stop_at = box.loop.now + 60
    box.run(drain=False)
    assert box.noted() == ["quarantined hook before: exit code 1"]


def test_a_hook_may_write_as_much_as_it_likes(box, caplog):
    caplog.set_level(logging.DEBUG)
    box.put("a")
    flood = f"head -c 3000000 /dev/zero | tr '\\0' x; echo; echo {'y' * 500}"
    box.hooks["after_success"] = ["sh", "-c", flood]
    assert box.run() is End.DRAINED
    assert f"said={'y' * 200}..." in caplog.text


# -- the end, and power cuts


def test_what_runs_at_the_stop_gets_a_moment_and_what_was_killed_runs_again(box, caplog):
    box.put("a")
    box.hooks["after_success"] = box.note("began", f"test -e {box.base}/flag || sleep 1000; echo ended >> {box.notes}")
    box.loop.woken = lambda: setattr(box.loop, "stop", box.noted() == ["began"])
    box.run(drain=False)
    assert box.noted() == ["began"]
    assert "hook killed at the stop hook=after_success path=a" in caplog.text
    assert box.left() == ["a"]
    assert box.loop.last["outboxes"][0]["hooks"] == 1
    (box.base / "flag").touch()
    box.loop.stop, box.loop.woken = False, lambda: None
    assert box.run() is End.DRAINED
    assert box.noted() == ["began", "began", "ended"]
    assert box.remote.deliveries == ["/up/a"]
    assert box.left() == []


def test_a_hook_that_ends_soon_after_the_stop_is_not_run_again(box):
    box.put("a")
    box.hooks["after_success"] = box.note("began", f"sleep 0.05; echo ended >> {box.notes}")
    box.loop.woken = lambda: setattr(box.loop, "stop", box.noted() == ["began"])
    box.run(drain=False)
    box.loop.stop, box.loop.woken = False, lambda: None
    assert box.run() is End.DRAINED
    assert box.noted() == ["began", "ended"]
    assert box.left() == []


def test_after_a_power_cut_between_hook_and_record_it_runs_again(box, monkeypatch):
    """The call is dropped only after it has ended: at least once, never not at all."""
    box.put("a")
    box.hooks["after_success"] = box.note("ran")

    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr("iot.spooler.hooks.due.Due.drop", cut)
        with pytest.raises(PowerCut):
            box.run()
    assert box.noted() == ["ran"]
    assert box.run() is End.DRAINED
    assert box.noted() == ["ran", "ran"]
    assert box.remote.deliveries == ["/up/a"]


def test_many_deliveries_are_all_told_though_only_a_page_is_in_memory(box):
    for number in range(150):
        box.put(f"f{number}")
    box.hooks |= {"after_success": box.note("$IOT_PATH"), "at_once": 8}
    assert box.run() is End.DRAINED
    assert sorted(box.noted()) == sorted(f"{box.box}/f{number}" for number in range(150))


def test_what_is_due_and_no_longer_configured_holds_no_file(box):
    box.put("a")
    box.hooks["after_success"] = box.note("began", "sleep 1000")
    box.loop.woken = lambda: setattr(box.loop, "stop", box.noted() == ["began"])
    box.run(drain=False)
    assert box.left() == ["a"]
    del box.hooks["after_success"]
    box.loop.stop, box.loop.woken = False, lambda: None
    assert box.run() is End.DRAINED
    assert (box.left(), box.noted()) == ([], ["began"])


def test_damaged_calls_are_dropped_and_the_file_leaves(box, caplog):
    box.put("a")
    box.hooks["after_success"] = box.note("began", "sleep 1000")
    box.loop.woken = lambda: setattr(box.loop, "stop", box.noted() == ["began"])
    box.run(drain=False)
    damage(box, "UPDATE hook_due SET bytes = 'many'")
    box.loop.stop, box.loop.woken = False, lambda: None
    assert box.run() is End.DRAINED
    assert "hooks dropped" in caplog.text
    assert (box.left(), box.noted()) == ([], ["began"])


def damage(box: Hooked, sql: str) -> None:
    db = sqlite3.connect(box.base / "state" / "journal.db")
    with db:
        db.execute(sql)
    db.close()


def test_nothing_is_written_and_nothing_runs_while_nothing_happens(box):
    box.hooks |= {"before": box.note(), "after_success": box.note(), "after_failure": box.note()}
    box.loop.stop_at = box.loop.now + 600
    box.run(drain=False)
    assert box.agent.hooks.look_at() == float("inf")
    assert box.noted() == []


def test_no_child_is_left_behind(box):
    box.put("a")
    box.hooks["after_success"] = ["sh", "-c", f"sleep 1000 & echo $! > {box.notes}"]
    assert box.run() is End.DRAINED
    pid = int(box.notes.read_text())
    end = time.monotonic() + GIVE_UP_S
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.005)
    assert gone(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)

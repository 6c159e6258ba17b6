"""The hook after a batch runs once, after all of its files, and never for less without saying so."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.batched import TOLD, Batched
from unit.test_hooks import damage

from iot.sftp.client import PermissionDenied
from iot.spooler.agent.agent import Wake


@pytest.fixture(params=["interval", "marker"])
def box(tmp_path: Path, request) -> Batched:
    return Batched(tmp_path, request.param)


@pytest.fixture
def marked(tmp_path: Path) -> Batched:
    return Batched(tmp_path, "marker")


@pytest.fixture
def timed(tmp_path: Path) -> Batched:
    return Batched(tmp_path, "interval")


# -- after_batch


def test_after_batch_runs_once_after_all_files_and_their_hooks(box):
    box.put_batch()
    slow = box.note("file", f"sleep 0.1; echo ended >> {box.notes}")
    box.hooks |= {"after_success": slow, "after_batch": box.note(TOLD)}
    box.go_on(200)
    files = 3 if box.kind == "marker" else 2
    assert sorted(box.noted()[:-1]) == ["ended"] * files + ["file"] * files
    assert box.noted()[-1] == f"delivered {box.about} 2 12 "
    assert box.left() == []
    box.go_on(200)
    assert len(box.noted()) == 2 * files + 1


def test_each_batch_has_a_call_of_its_own(box):
    box.hooks["after_batch"] = box.note("$IOT_PATH $IOT_FILES")
    box.put_batch("a")
    box.go_on(120)
    box.put_batch("b")
    box.put("b/3")
    box.go_on(120)
    about = [f"{box.box}/a/x.done", f"{box.box}/b/x.done"] if box.kind == "marker" else [str(box.box)] * 2
    assert box.noted() == [f"{about[0]} 2", f"{about[1]} 3"]


def test_the_marker_is_still_there_and_leaves_after_the_hook(marked):
    marked.put_batch()
    marked.hooks["after_batch"] = marked.note(
        "$IOT_REMOTE_PATH", f'test -e "$IOT_PATH" && echo there >> {marked.notes}'
    )
    marked.go_on(120)
    assert marked.noted() == ["/up/a/x.done", "there"]
    assert marked.left() == []


def test_it_gets_no_secret_and_no_more_than_other_hooks(box, monkeypatch):
    monkeypatch.setenv("SFTP_PASSWORD", "secret")
    box.put_batch()
    box.hooks |= {name: ["sh", "-c", f"env >> {box.notes}"] for name in ("before_batch", "after_batch")}
    box.go_on(120)
    names = {line.partition("=")[0] for line in box.noted()}
    ours = {"IOT_PATH", "IOT_REMOTE_PATH", "IOT_BYTES", "IOT_RESULT", "IOT_ERROR", "IOT_SHA256", "IOT_FILES"}
    plain = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    assert ours <= names <= ours | plain | {"PWD", "OLDPWD", "SHLVL", "_"}


def test_a_batch_that_began_before_a_restart_ends_once_after_it(box):
    box.put_batch()
    box.hooks["after_batch"] = box.note(TOLD)
    box.remote.slots = 1

    def before(job) -> None:
        box.loop.stop = True
        box.remote.lose_after = [1]

    box.remote.before = before
    box.go_on(120)
    assert len(box.remote.deliveries) == 1
    assert box.noted() == []
    box.remote.before = lambda job: None
    box.remote.lose_after = []
    box.go_on(120)
    box.go_on(120)
    assert box.noted() == [f"delivered {box.about} 2 12 "]


def test_after_a_power_cut_between_its_end_and_the_record_of_that_it_runs_again(box, monkeypatch):
    box.put_batch()
    box.hooks["after_batch"] = box.note("ran")

    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr("iot.spooler.hooks.due.Due.drop", cut)
        with pytest.raises(PowerCut):
            box.go_on(120)
    assert box.noted() == ["ran"]
    box.go_on(120)
    assert box.noted() == ["ran", "ran"]


def test_a_failing_after_batch_is_logged_and_undoes_nothing(box, caplog):
    box.put_batch()
    box.hooks["after_batch"] = box.note("ran", "exit 1")
    box.go_on(200)
    assert box.noted() == ["ran"]
    assert box.files() == ["a/1", "a/2"]
    assert box.left() == []
    assert "hook ended hook=after_batch" in caplog.text


def test_a_batch_that_lost_a_file_to_quarantine_is_incomplete(timed):
    timed.put_batch()
    timed.hooks["after_batch"] = timed.note(TOLD)
    timed.retry = {"max_attempts": 1}
    timed.remote.refuse["/up/a/2"] = PermissionDenied("no")
    timed.go_on(200)
    assert timed.noted() == [f"incomplete {timed.box} 2 12 1 of 2 files were delivered"]


def test_a_batch_whose_last_file_is_taken_away_ends_without_it(timed):
    timed.put_batch()
    timed.hooks["after_batch"] = timed.note("$IOT_RESULT")
    timed.remote.refuse["/up/a/2"] = PermissionDenied("no")
    timed.remote.before = lambda job: (timed.box / "a/2").unlink() if job.dest.endswith("2") else None
    timed.go_on(200)
    assert timed.noted() == ["incomplete"]


def test_a_batch_whose_marker_is_taken_away_has_no_end(marked):
    marked.put_batch()
    marked.hooks["after_batch"] = marked.note("$IOT_FILES")
    marked.remote.slots = 1
    marked.remote.refuse["/up/a/2"] = PermissionDenied("no")
    marked.remote.before = lambda job: (marked.box / "a/x.done").unlink(missing_ok=True)
    marked.go_on(200)
    assert marked.noted() == []
    assert marked.rows("batch_sent") == 0
    marked.remote.refuse.clear()
    marked.remote.before = lambda job: None
    marked.put("a/x.done", b"again")
    marked.go_on(200)
    assert marked.noted() == ["1"]
    assert marked.left() == []


def test_a_batch_is_followed_to_its_end_while_the_next_one_is_sent(timed):
    """One of its files is tried for long, and given up; those of the next batch do not count as its own."""
    timed.hooks["after_batch"] = timed.note("$IOT_RESULT $IOT_FILES $IOT_ERROR")
    timed.put_batch("a")
    timed.remote.refuse["/up/a/1"] = PermissionDenied("no")
    timed.retry = {"base_s": 300, "cap_s": 300, "max_attempts": 2}
    put = []

    def report(agent, *, changed, final=False):
        if len(timed.remote.deliveries) == 1 and not put:
            put.append(timed.put("b/1"))
            agent.intakes[0].wake()

    timed.loop.report = report
    timed.go_on(700)
    assert timed.noted() == ["delivered 1 ", "incomplete 2 1 of 2 files were delivered"]


def test_a_marked_batch_that_lost_a_file_is_incomplete(marked):
    marked.put_batch()
    marked.hooks["after_batch"] = marked.note(TOLD)
    marked.remote.slots = 1
    marked.remote.before = lambda job: (marked.box / "a/2").unlink(missing_ok=True)
    marked.go_on(200)
    assert marked.noted() == [f"incomplete {marked.about} 2 12 1 of 2 files were delivered"]


def test_a_flush_goes_on_while_the_hook_of_a_batch_runs(box):
    box.put_batch()
    box.outbox["schedule"] = ["00:00-00:01"]
    box.hooks["before_batch"] = box.note("ran", "sleep 0.3")
    settings = box.settings
    box.settings = lambda: {**settings(), "time_zone": "UTC"}
    asks_at = [box.loop.now + 15]
    box.loop.woken = lambda: Wake.FLUSH if asks_at and box.loop.now > asks_at[0] and asks_at.pop() else None
    box.go_on(600)
    assert box.files() == ["a/1", "a/2"]


def test_damaged_rows_and_those_of_nobody_are_dropped(box):
    box.put_batch()
    box.hooks["after_batch"] = box.note("ran")
    box.remote.refuse = {f"/up/a/{number}": PermissionDenied("no") for number in (1, 2)}
    box.retry = {"base_s": 60, "cap_s": 60, "max_attempts": 9}
    box.go_on(60)
    damage(box, "UPDATE batch_sent SET files = 'many'")
    box.remote.refuse = {}
    box.go_on(120)
    assert box.files() == ["a/1", "a/2"]
    assert box.noted() == []


def test_an_idle_agent_does_not_look_at_batches(box):
    box.put_batch()
    box.hooks |= {"before_batch": box.note(), "after_batch": box.note()}
    box.go_on(300)
    assert len(box.noted()) == 2
    assert box.agent.hooks.look_at() == float("inf")


# -- what belongs to a batch


def test_what_comes_after_the_folder_was_looked_at_does_not_belong_to_the_batch(marked):
    """It comes between the look that ends the batch and the record of it, while another file is still being watched."""
    marked.outbox["settle_s"] = 5
    marked.put("a/1")
    marked.put("a/x.done")
    marked.hooks["before_batch"] = marked.note("$IOT_FILES", f"test -e {marked.base}/flag")
    marked.retry = {"base_s": 30, "cap_s": 30}
    put = []

    def woken():
        if marked.noted() and not put:
            put.append(marked.loop.now)
            marked.put("a/2")
        if put and marked.loop.now > put[0] + 60:
            (marked.base / "flag").touch()

    marked.loop.woken = woken
    marked.go_on(300)
    assert marked.arrived() == ["a/1", "a/x.done"]
    assert marked.left() == ["a/2"]
    assert set(marked.noted()) == {"1"}

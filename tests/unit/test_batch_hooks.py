"""The hook before a batch: a real program, an agent on a fake clock, and a folder for a server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from unit.batched import TOLD, Batched
from unit.test_conditions import gone

from iot.spooler.agent.agent import Wake
from iot.spooler.agent.draining import End
from iot.spooler.config.load import BadConfiguration, load


@pytest.fixture(params=["interval", "marker"])
def box(tmp_path: Path, request) -> Batched:
    return Batched(tmp_path, request.param)


@pytest.fixture
def timed(tmp_path: Path) -> Batched:
    return Batched(tmp_path, "interval")


# -- before_batch


def test_nothing_of_a_batch_is_sent_before_its_hook_has_succeeded(box):
    box.put_batch()
    box.hooks["before_batch"] = box.note(TOLD)
    seen = []
    box.remote.before = lambda job: seen.append(box.noted())
    box.go_on(120)
    assert box.files() == ["a/1", "a/2"]
    assert box.noted() == [f" {box.about} 2 12 "]
    assert all(lines == box.noted() for lines in seen)


def test_a_failing_hook_keeps_the_batch_back_with_a_reason_and_is_tried_again(box, caplog):
    box.put_batch()
    box.hooks["before_batch"] = box.note("tried", f"test -e {box.base}/flag || {{ echo no modem; exit 3; }}")
    box.retry = {"max_attempts": 1, "base_s": 10, "cap_s": 20}
    box.go_on(200)
    assert box.arrived() == []
    assert 8 < len(box.noted()) < 20
    assert box.waits_because() == "a batch is kept back, hook before_batch: exit code 3: no modem"
    assert "batch kept back folder=" in caplog.text
    assert 'reason="hook before_batch: exit code 3: no modem" next_s=10.0' in caplog.text
    (box.base / "flag").touch()
    tried = len(box.noted())
    box.go_on(120)
    assert box.files() == ["a/1", "a/2"]
    assert len(box.noted()) == tried + 1
    assert box.waits_because() is None


def test_a_batch_goes_as_soon_as_its_hook_has_ended(box):
    """Not with the next look at the outboxes."""
    box.scan_s = 300.0
    box.put_batch()
    box.hooks["before_batch"] = box.note()
    began = box.loop.now
    sent = []
    box.remote.before = lambda job: sent.append(box.loop.now - began)
    box.go_on(200)
    assert len(sent) >= 2
    assert sent[0] < (33 if box.kind == "interval" else 8)


def test_nobody_is_asked_about_files_that_have_gone_meanwhile(timed):
    timed.outbox["batch_interval_s"] = 40
    timed.put("a/1", b"12345")
    timed.hooks |= {"before_batch": timed.note("before"), "after_batch": timed.note("after")}
    timed.loop.woken = lambda: (timed.box / "a/1").unlink(missing_ok=True) if timed.loop.now > 1030 else None
    timed.scan_s = 5.0
    timed.go_on(200)
    assert timed.noted() == []


def test_what_comes_while_the_hook_is_tried_belongs_to_the_next_batch(box):
    box.put_batch()
    box.hooks["before_batch"] = box.note("$IOT_FILES", f"test -e {box.base}/flag")
    box.retry = {"base_s": 10, "cap_s": 10}
    seen = []

    def woken():
        if len(box.noted()) == 2 and not seen:
            box.put("a/late")
            box.agent.intakes[0].wake()
            seen.append(box.loop.now)
        if seen and box.loop.now > seen[0] + 25:
            (box.base / "flag").touch()

    box.loop.woken = woken
    box.loop.stop_at = box.loop.now + 95
    box.remote.before = lambda job: setattr(box.loop, "stop", len(box.remote.deliveries) == 1)
    box.run(drain=False)
    assert set(box.noted()) == {"2"}
    assert "a/late" in box.left()


def test_a_hook_that_hangs_is_killed_with_its_children_and_other_outboxes_go_on(box):
    child = box.base / "child"
    other = box.base / "other"
    other.mkdir()
    (other / "g").touch()
    box.put_batch()
    box.hooks |= {"before_batch": ["sh", "-c", f"sleep 1000 & echo $! > {child}; wait"], "limit_s": 60}
    settings = box.settings()
    settings["outbox"].append({"path": str(other), "destination": "/up", "settle_s": 0})
    box.settings = lambda: settings
    box.loop.step_s = 0.01
    box.go_on(110)
    assert box.arrived() == ["g"]
    assert gone(int(child.read_text()))
    assert "hook before_batch: did not end in 60 s" in box.waits_because()


def test_a_flush_tries_a_failing_hook_at_once(box, caplog):
    box.put_batch()
    box.hooks["before_batch"] = box.note("tried", f"test -e {box.base}/flag")
    box.retry = {"base_s": 600, "cap_s": 600}

    def woken():
        if "kept back" in caplog.text and not (box.base / "flag").exists():
            (box.base / "flag").touch()
            return Wake.FLUSH
        return None

    box.loop.woken = woken
    box.go_on(120)
    assert box.files() == ["a/1", "a/2"]
    assert box.noted() == ["tried", "tried"]


def test_a_drain_runs_both_hooks(box):
    box.put_batch()
    box.hooks |= {"before_batch": box.note("before $IOT_FILES"), "after_batch": box.note("after $IOT_FILES")}
    assert box.run() is End.DRAINED
    assert box.files() == ["a/1", "a/2"]
    assert box.noted() == ["before 2", "after 2"]


def test_a_drain_ends_while_its_hook_keeps_a_batch_back(box):
    box.put_batch()
    box.hooks["before_batch"] = box.note("tried", "exit 1")
    box.retry = {"drain_attempts": 3}
    assert box.run() is End.REMAINS
    assert box.arrived() == []
    assert box.noted() == ["tried"] * 3


# -- settings


@pytest.mark.parametrize("name", ["before_batch", "after_batch"])
def test_such_a_hook_without_batches_is_an_invalid_setting(tmp_path, name):
    (tmp_path / "box").mkdir()
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "h"\n[[outbox]]\npath = "{tmp_path}/box"\n'
        f'destination = "/up"\n[outbox.hooks]\n{name} = ["true"]\n'
    )
    with pytest.raises(BadConfiguration) as caught:
        load(config, {})
    assert f"outbox[0].hooks.{name} = ['true']: the outbox has no batches" in str(caught.value)


def test_the_log_says_when_a_hook_keeps_a_batch_back_only_when_it_has_failed(box, caplog):
    caplog.set_level(logging.INFO)
    box.put_batch()
    box.hooks["before_batch"] = box.note()
    box.go_on(120)
    assert "kept back" not in caplog.text

"""The loop against a remote that is a folder: losses, refusals, and versions that come meanwhile."""

import os
import shutil

import pytest
from quarantined import quarantined
from unit.agent_rig import Rig

from iot.sftp.client import (
    LinkLost,
    LoginRefused,
    NoSpaceOnServer,
    PermissionDenied,
    configured,  # noqa: F401 - loaded when it is configured, and by an ordinary user it cannot be read then
)
from iot.spooler.agent.draining import End
from iot.spooler.leaving.release import release


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_drain_delivers_all_once_and_empties_the_outbox(rig):
    names = [f"d{number % 7}/f{number}" for number in range(700)]
    for name in names:
        rig.put(name)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == sorted(names)
    assert len(rig.remote.deliveries) == len(rig.remote.settled) == 700
    assert rig.left() == []


def test_lost_links_are_outlived(rig):
    for number in range(50):
        rig.put(f"f{number}")
    rig.remote.lose_after = [5, 10, 3]
    rig.remote.cannot_connect = [LinkLost("no"), LinkLost("no")]
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 50


def test_drain_ends_with_75_when_the_server_stays_away(rig):
    rig.put("f")
    rig.remote.cannot_connect = [LinkLost("no")] * 99
    assert rig.run() is End.REMAINS
    assert rig.left() == ["f"]
    assert len(rig.remote.cannot_connect) == 99 - 3


def test_refused_login_holds_the_server_and_is_not_tried_fast(rig):
    rig.put("f")
    rig.remote.cannot_connect = [LoginRefused("no")] * 9
    rig.loop.stop_at = rig.loop.now + 900 + 1800 + 60
    rig.run(drain=False)
    assert len(rig.remote.cannot_connect) == 9 - 2 - 1


def test_failing_file_blocks_nobody_and_goes_to_quarantine_with_a_reason(rig):
    for name in ("a", "sub/bad", "c"):
        rig.put(name)
    rig.remote.refuse["/up/sub/bad"] = PermissionDenied("no rights there")
    rig.retry = {"max_attempts": 4}
    rig.loop.stop_at = rig.loop.now + 3600
    rig.run(drain=False)
    assert rig.arrived() == ["a", "c"]
    assert rig.left() == []
    (bad,) = quarantined(rig.quarantine)
    assert (bad.path, bad.content) == ("sub/bad", b"x")
    assert "no rights there" in bad.record["reason"]
    assert (bad.record["attempts"], bad.record["destination"]) == (4, "/up/sub/bad")
    rig.remote.refuse.clear()
    rig.loop.stop_at = 1e9
    assert release([rig.quarantine], [rig.box]) == (1, 0)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["a", "c", "sub/bad"]


def test_a_drain_says_that_something_remains_as_long_as_it_lies_in_quarantine(rig):
    rig.put("bad")
    rig.put("good")
    rig.remote.refuse["/up/bad"] = PermissionDenied("no")
    rig.retry = {"max_attempts": 2}
    assert rig.run() is End.REMAINS
    rig.remote.refuse.clear()
    assert rig.run() is End.REMAINS
    assert rig.agent.owed.quarantined == 1
    assert [file.path for file in quarantined(rig.quarantine)] == ["bad"]
    release([rig.quarantine], [rig.box])
    assert rig.run() is End.DRAINED
    assert rig.agent.owed.quarantined == 0


def test_a_drain_says_that_something_remains_as_long_as_a_file_has_no_marker(rig, caplog):
    rig.outbox |= {"ready": "marker", "ready_marker": "{name}.done"}
    rig.put("alone")
    rig.put("sent")
    rig.put("sent.done")
    assert rig.run() is End.REMAINS
    assert rig.arrived() == ["sent"]
    assert "not all is delivered without_marker=1" in caplog.messages
    rig.put("alone.done")
    assert rig.run() is End.DRAINED


def test_files_of_a_missing_outbox_are_not_tried_and_are_sent_once_it_is_back(rig):
    for number in range(30):
        rig.put(f"f{number}")
    rig.remote.lose_after = [10]
    rig.remote.cannot_connect = [LinkLost("no")] * 3
    elsewhere = rig.base / "elsewhere"
    seen = []

    def report(agent, *, changed, final=False):
        if rig.box.exists() and rig.remote.deliveries and not seen:
            rig.box.rename(elsewhere)
        if agent.intakes[0].missing:
            seen.append((rig.loop.now, [row.attempts for row in agent.queue.page(1, 0, 100)]))
        if elsewhere.exists() and seen and rig.loop.now > seen[0][0] + 3600:
            elsewhere.rename(rig.box)

    rig.loop.report = report
    rig.loop.stop_at = rig.loop.now + 2 * 3600
    rig.run(drain=False)
    assert seen[0][1] == seen[-1][1]
    assert len(rig.arrived()) == 30
    assert rig.left() == []


def test_what_is_taken_out_of_quarantine_by_hand_is_not_counted_for_ever(rig):
    folder = rig.quarantine / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "bad").touch()
    seen = []
    rig.loop.stop_at = rig.loop.now + 200

    def report(agent, *, changed, final=False):
        if rig.loop.now > rig.loop.stop_at - 100:
            shutil.rmtree(folder, ignore_errors=True)
        seen.append(agent.owed.quarantined)

    rig.loop.report = report
    rig.run(drain=False)
    assert (seen[0], seen[-1]) == (1, 0)


def test_strikes_persist_over_runs(rig):
    rig.put("bad")
    rig.remote.refuse["/up/bad"] = PermissionDenied("no")
    rig.retry = {"max_attempts": 5, "drain_attempts": 3}
    assert rig.run() is End.REMAINS
    assert rig.left() == ["bad"]
    assert rig.run() is End.REMAINS
    assert [file.path for file in quarantined(rig.quarantine)] == ["bad"]


def test_full_server_is_waited_for_without_a_strike(rig):
    rig.put("f")
    rig.remote.refuse["/up/f"] = NoSpaceOnServer("full")
    rig.retry = {"max_attempts": 2}
    rig.loop.stop_at = rig.loop.now + 7200
    rig.run(drain=False)
    assert rig.left() == ["f"]


def test_rewrite_of_the_same_size_after_delivery_is_delivered_again(rig):
    rig.outbox["after_upload"] = "keep"
    path = rig.put("f", b"1" * 4096)
    before = path.stat()
    assert rig.run() is End.DRAINED
    path.write_bytes(b"2" * 4096)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rig.run() is End.DRAINED
    assert (rig.base / "remote/up/f").read_bytes() == b"2" * 4096
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 2


def test_version_that_comes_during_the_transfer_is_sent_too_and_never_removed_unsent(rig):
    rig.put("f", b"old")
    changes = [b"new1", b"new-2"]

    def rewrite(job):
        if changes:
            rig.put("f", changes.pop(0))

    rig.remote.before = rewrite
    assert rig.run() is End.DRAINED
    assert (rig.base / "remote/up/f").read_bytes() == b"new-2"
    assert rig.left() == []


def test_file_that_vanishes_is_no_error(rig):
    rig.put("f")
    rig.put("g")
    rig.remote.before = lambda job: (rig.box / "f").unlink(missing_ok=True)
    assert rig.run() is End.DRAINED
    assert "g" in rig.arrived()


def test_a_file_that_was_tried_and_is_withdrawn_is_given_up_so_that_its_part_can_go(rig):
    rig.put("f")
    rig.put("g")
    rig.outbox["order"] = "name"
    rig.remote.slots = 1
    rig.remote.cannot_connect = [LinkLost("no answer")] * 10
    rig.run()
    assert rig.remote.given_up == []  # nothing was tried: nothing can be there

    def lose(job):
        (rig.box / "f").unlink(missing_ok=True)
        rig.remote.cancelled = True

    rig.remote.cannot_connect = []
    rig.remote.before = lose
    rig.remote.slots = 2
    rig.run()
    rig.remote.cancelled = False
    assert rig.run() is End.DRAINED
    assert rig.remote.given_up == [(str(rig.box / "f"), "/up/f")]


def test_a_link_that_is_lost_again_and_again_leaves_no_file_to_the_next_run(rig):
    """Every connection makes progress: then a drain goes on however often, also with the files that are in flight."""
    for number in range(60):
        rig.put(f"f{number:02}")
    rig.retry = {"drain_attempts": 3}
    rig.remote.slots = 50
    rig.remote.lose_after = [2] * 20
    assert rig.run() is End.DRAINED
    assert rig.left() == []
    assert rig.remote.lose_after == []


def test_a_drain_tries_at_once_what_an_earlier_agent_would_still_have_waited_for(rig):
    rig.put("f")
    rig.retry = {"base_s": 1000, "cap_s": 1000}
    rig.remote.refuse["/up/f"] = PermissionDenied("no rights")
    rig.loop.stop_at = rig.loop.now + 10
    assert rig.run(drain=False) is End.STOPPED
    rig.remote.refuse.clear()
    for drain, arrived in ((False, []), (True, ["f"])):
        rig.loop.stop_at = rig.loop.now + 100
        rig.run(drain=drain)
        assert rig.arrived() == arrived


def test_a_drain_ends_when_no_connection_makes_progress_any_more(rig):
    for number in range(10):
        rig.put(f"f{number}")
    rig.retry = {"drain_attempts": 3}
    rig.remote.lose_after = [4, *[0] * 99]
    assert rig.run() is End.REMAINS
    assert len(rig.left()) == 6
    assert len(rig.remote.lose_after) == 99 - 3  # as many connections without progress as drain_attempts says


def test_archive_mode_moves_with_its_tree(rig):
    rig.outbox["after_upload"] = "archive"
    rig.put("a/b/f")
    assert rig.run() is End.DRAINED
    archived = [path for path in (rig.base / "state/archive/box").rglob("*") if path.is_file()]
    assert [str(path)[-5:] for path in archived if path.name == "f"] == ["a/b/f"]
    assert rig.left() == []
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 1


def test_small_file_overtakes_large_ones(rig):
    for number in range(5):
        rig.put(f"large{number}", b"x" * 5000)
    flying = []

    def look(job):
        rig.loop.now += 0.1
        flying.append(sum("large" in other.dest for other in [*rig.remote.in_flight, job]))
        if not (rig.box / "small").exists() and len(flying) == 1:
            rig.put("small")
            rig.agent.wake()

    rig.remote.before = look
    assert rig.run() is End.DRAINED
    assert max(flying) <= 2
    assert rig.remote.deliveries.index("/up/small") <= 2

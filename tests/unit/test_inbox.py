"""An inbox: what is fetched, when, and what it is compared with."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from unit.inbox_lab import InboxLab
from unit.inbox_watched import Wrapped, counting

from iot.spooler.agent.agent import Wake
from iot.spooler.agent.draining import End

# -- what is fetched


def test_files_of_the_server_appear_whole_with_their_time(tmp_path):
    lab = InboxLab(tmp_path, recursive=True)
    there = lab.put("a.conf", b"one")
    lab.put("deep/er/b.conf", b"two")
    assert lab.run() is End.DRAINED
    assert lab.published() == {"a.conf": b"one", "deep/er/b.conf": b"two"}
    assert int((lab.here / "a.conf").stat().st_mtime) == int(there.stat().st_mtime)
    assert lab.hidden() == []


def test_subfolders_are_left_alone_unless_asked_for(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("deep/b.conf", b"two")
    lab.run()
    assert lab.published() == {}


def test_patterns_choose_and_unfinished_and_hidden_names_are_passed_over(tmp_path):
    lab = InboxLab(tmp_path, include=["*.conf", "*.part", "*.tmp", "*.hidden"], exclude=["old*"])
    for name in ("a.conf", "old.conf", "a.txt", "b.part", "c.TMP", ".d.hidden", ".iot-inbox.conf"):
        lab.put(name, b"x")
    lab.run()
    assert lab.published() == {"a.conf": b"x"}


def test_what_is_kept_on_the_server_is_fetched_once_also_after_the_consumer_took_it(tmp_path):
    lab, calls = InboxLab(tmp_path), []
    lab.put("a", b"one")
    lab.run(wrap=counting(lab, calls))
    (lab.here / "a").unlink()
    lab.run(wrap=counting(lab, calls))
    assert calls == ["a"]
    assert lab.published() == {}


def test_a_changed_file_is_fetched_again_and_replaces_the_old_one_with_its_rights(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one")
    lab.run()
    (lab.here / "a").chmod(0o600)
    lab.put("a", b"two", age_s=1800)
    lab.run()
    assert lab.published() == {"a": b"two"}
    assert (lab.here / "a").stat().st_mode & 0o777 == 0o600


def test_a_lost_journal_fetches_nothing_that_is_there_already(tmp_path):
    lab, calls = InboxLab(tmp_path), []
    lab.put("a", b"one")
    lab.run(wrap=counting(lab, calls))
    lab.lose_journal()
    lab.run(wrap=counting(lab, calls))
    assert calls == ["a"]
    assert lab.rows()["a"][0] == "taken"


def test_a_file_of_another_time_and_equal_content_is_not_replaced(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one")
    (lab.here / "a").write_bytes(b"one")
    before = (lab.here / "a").stat().st_ino
    lab.run()
    assert (lab.here / "a").stat().st_ino == before
    assert lab.rows()["a"][0] == "taken"


def test_two_looks_must_agree_before_a_file_is_fetched(tmp_path):
    lab = InboxLab(tmp_path, settle_s=50, poll_s=1000)
    lab.put("a", b"one")
    looks, fetched_at = [], []

    def scanned(*_):
        looks.append(lab.loop.now)
        if len(looks) == 2:
            lab.put("a", b"more", age_s=1800)  # it is still being written
        if len(looks) > 20:
            lab.loop.stop = True

    def wrap(remote):
        return Wrapped(remote, scan=scanned, download_many=lambda *_: fetched_at.append(lab.loop.now))

    lab.run(wrap=wrap)
    assert lab.published() == {"a": b"more"}
    assert len(looks) >= 3
    assert fetched_at[0] - looks[0] >= 100


def test_a_look_in_between_does_not_shorten_the_time_to_settle(tmp_path):
    lab = InboxLab(tmp_path, settle_s=50, poll_s=1000)
    lab.put("a", b"one")
    looks, fetched_at = [], []

    def scanned(*_):
        looks.append(lab.loop.now)
        if len(looks) <= 3:
            lab.loop.asked = Wake.TRY  # somebody asks again and again

    def wrap(remote):
        return Wrapped(remote, scan=scanned, download_many=lambda *_: fetched_at.append(lab.loop.now))

    lab.run(wrap=wrap)
    assert looks[2] - looks[0] < 10
    assert fetched_at[0] - looks[0] >= 50


def test_polls_are_on_the_grid_of_poll_s_and_a_wake_looks_at_once(tmp_path):
    lab = InboxLab(tmp_path, poll_s=600)
    looks = []

    def scanned(*_):
        looks.append(lab.loop.now)
        lab.loop.stop = len(looks) == 3
        if len(looks) == 2:
            lab.loop.asked = Wake.TRY

    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert looks[1] - looks[0] == pytest.approx(600, abs=1)
    assert looks[2] - looks[1] < 1


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_jumps_by_a_year_neither_hastens_nor_delays_a_poll(tmp_path, years):
    lab, looks, jumped = InboxLab(tmp_path, poll_s=600), [], []
    lab.loop.wall = lambda: lab.loop.now + 2e9 + sum(jumped)
    lab.put("a", b"one")

    def scanned(*_):
        looks.append(lab.loop.now)
        lab.loop.stop = len(looks) == 5
        if len(looks) == 2:
            jumped.append(years * 365 * 86400)

    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert [after - before for before, after in itertools.pairwise(looks)] == pytest.approx([600] * 4, abs=1)
    assert lab.published() == {"a": b"one"}


def test_nothing_is_fetched_outside_the_window_and_a_look_follows_its_opening(tmp_path):
    lab = InboxLab(tmp_path, schedule=["08:00-09:00"], poll_s=7 * 86400)
    lab.more = {"time_zone": "UTC", "scan_s": 3600}
    lab.put("a", b"one")
    looks = []

    def scanned(*_):
        looks.append(lab.loop.wall() % 86400 / 3600)
        lab.loop.stop = len(looks) == 2

    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert looks == pytest.approx([8.0, 8.0], abs=0.02)


# -- checksums


def test_a_file_waits_for_its_checksum_file_and_is_compared_with_it(tmp_path):
    lab = InboxLab(tmp_path, checksum="wait", settle_s=1e4)
    lab.put("a", b"one")
    lab.run()
    assert lab.published() == {}
    lab.put("a.sha256", hashlib.sha256(b"one").hexdigest().encode() + b"  a\n")
    lab.run()
    assert lab.published() == {"a": b"one"}


def test_a_wrong_checksum_is_named_and_costs_no_second_download_until_something_changes(tmp_path):
    lab, calls = InboxLab(tmp_path, checksum="wait"), []
    lab.put("a", b"one")
    lab.put("a.sha256", b"0" * 64 + b"  a\n")
    lab.run(wrap=counting(lab, calls))
    lab.run(wrap=counting(lab, calls))
    assert (calls, lab.published(), lab.hidden()) == (["a"], {}, [])
    assert "SHA-256" in lab.not_taken()["a"]
    lab.put("a.sha256", hashlib.sha256(b"one").hexdigest().encode() + b"  a\n", age_s=60)
    lab.run()
    assert lab.published() == {"a": b"one"}


def test_a_missing_checksum_is_an_error_by_setting_and_others_go_on(tmp_path):
    lab = InboxLab(tmp_path, checksum="require")
    lab.put("a", b"one")
    lab.run()
    assert "missing" in lab.not_taken()["a"]

"""The quarantine step by step: what lies there after a failure, what a record says, and who waits for whom."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from quarantined import quarantined
from unit.leaving_lab import files_in, item, opened, take

from iot.spooler.leaving import quarantine as module
from iot.spooler.leaving import records
from iot.spooler.leaving import release as releasing
from iot.spooler.leaving.quarantine import SAME_VERSION_MAX, Quarantine
from iot.spooler.leaving.records import drop_record, ids_in, is_there, read_record, write_record
from iot.spooler.leaving.release import LOCK_PAUSE_S, LOCK_WAIT_S, QuarantineBusy, drop, everything, listed, release

ID = "0123456789abcdef"


class Site:
    def __init__(self, base: Path) -> None:
        self.box, self.folder = base / "box", base / "q"
        self.box.mkdir()

    def put(self, name: str = "f", content: str = "x") -> None:
        path = self.box / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        os.utime(path, ns=(10**18, 10**18))

    def give_up(self, name: str = "f", content: str = "x", key: int = 1, **about: Any) -> Any:
        self.put(name, content)
        return take(self.box, [item(self.box, name, key, **about)], Quarantine(self.folder, self.box))

    def record(self, **values: Any) -> Path:
        """One without a file."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        path = self.folder / f"{ID}.json"
        path.write_text(json.dumps({"outbox": str(self.box), "path": "f", **values}))
        return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def refused(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# -- on its way in


def test_a_file_that_could_not_come_in_leaves_no_record_and_no_folder(site, monkeypatch):
    monkeypatch.setattr(module, "put", refused)
    done, [(key, error)] = site.give_up()
    assert (done, key, error.errno) == ([], 1, errno.EIO)
    assert list(site.folder.iterdir()) == []


def test_each_version_keeps_the_record_that_was_made_for_it(site):
    for content in ("old", "new"):
        assert site.give_up("f", content, reason=content) == ([1], [])
    assert {each.content: each.record["reason"] for each in quarantined(site.folder)} == {
        b"old": "old", b"new": "new"
    }  # fmt: skip


def test_of_one_size_and_time_so_many_versions_fit_and_the_next_one_is_held(site, monkeypatch):
    assert SAME_VERSION_MAX == 100
    monkeypatch.setattr(module, "SAME_VERSION_MAX", 2)
    assert [site.give_up("f", content) for content in ("one", "two")] == [([1], [])] * 2
    done, [(_, error)] = site.give_up("f", "six")
    assert (done, error.strerror) == ([], "lies in quarantine already in too many versions")
    assert len(quarantined(site.folder)) == 2


def test_what_lies_in_quarantine_is_the_agents_own_and_its_record_is_made_for_people(site):
    site.give_up(reason="why")
    [folder] = [path for path in site.folder.iterdir() if path.is_dir()]
    [record] = site.folder.glob("*.json")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert record.read_text().splitlines() == [
        "{",
        f' "outbox": "{site.box}",',
        ' "path": "f",',
        ' "bytes": 1,',
        ' "mtime_ns": 1000000000000000000,',
        ' "row": 1,',
        ' "reason": "why",',
        ' "to_send_it_again": "iot-spooler quarantine retry --config FILE"',
        "}",
    ]


def test_a_link_in_the_place_of_its_folder_is_not_followed(site, tmp_path):
    site.give_up()
    [inside] = site.folder.glob("*/f")
    release([site.folder], [site.box])
    (tmp_path / "elsewhere").mkdir()
    (site.folder / inside.parent.name).symlink_to(tmp_path / "elsewhere")
    done, failed = site.give_up()
    assert (done, len(failed), os.listdir(tmp_path / "elsewhere")) == ([], 1, [])


def test_on_a_file_system_without_locks_it_works_all_the_same(site, monkeypatch):
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    assert site.give_up() == ([1], [])
    assert release([site.folder], [site.box]) == (1, 0)
    assert files_in(site.box) == ["f"]


# -- records


def test_a_record_is_on_the_disk_whole_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []

    def sync(file: int) -> None:
        synced.append((os.listdir(tmp_path), os.fstat(file).st_size))

    monkeypatch.setattr(os, "fsync", sync)
    (tmp_path / f"{ID}.json.new").write_text("left by an interrupted run" * 9)
    with opened(tmp_path) as root:
        write_record(root, ID, {"path": "f"})
    text = (tmp_path / f"{ID}.json").read_text()
    assert (json.loads(text), synced) == ({"path": "f"}, [([f"{ID}.json.new"], len(text))])


def test_what_somebody_puts_under_the_name_of_a_new_record_is_not_written_to(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("somebody's")
    monkeypatch.setattr(os, "unlink", lambda name, *, dir_fd: os.link(precious, tmp_path / name))
    with opened(tmp_path) as root, pytest.raises(FileExistsError):
        write_record(root, ID, {"path": "f"})
    assert precious.read_text() == "somebody's"


def test_a_record_that_is_a_link_is_not_believed(site, tmp_path):
    path = site.record()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with opened(site.folder) as root, pytest.raises(OSError, match="symbolic"):
        read_record(root, ID)


@pytest.mark.parametrize(("row", "leaving", "private"), [(7, True, 2), (7, "yes", 2), ("7", None, 0), (None, False, 0)])
def test_a_record_says_which_row_it_was_and_whether_it_is_on_its_way_back(site, row, leaving, private):
    site.record(row=row, leaving=leaving)
    with opened(site.folder) as root:
        found = read_record(root, ID)
    assert (len(found.private), found.leaving) == (private, leaving is True)
    assert all(name.startswith(b".iot-sent.#7") for name in found.private)


def test_files_of_one_moment_come_in_the_order_of_their_rows_and_those_without_record_first(site):
    rows = {"a" * 16: 2, "b" * 16: 1, "c" * 16: "?"}
    with site.record().parent.joinpath("x.json").open("w"):
        pass  # no id
    for number, row in rows.items():
        (site.folder / f"{number}.json").write_text(json.dumps({"outbox": "/b", "path": "f", "at": "2026", "row": row}))
    (site.folder / ("d" * 16)).mkdir()
    with opened(site.folder) as root:
        assert ids_in(root) == [ID, "d" * 16, "c" * 16, "b" * 16, "a" * 16]


def test_a_part_of_a_copy_goes_with_its_record_and_a_file_keeps_both(site):
    site.record()
    inside = site.folder / ID
    inside.mkdir()
    for name in records.STAGED:
        (inside / os.fsdecode(name)).write_text("half")
    (inside / "f").write_text("x")
    with opened(site.folder) as root:
        assert not drop_record(root, ID)
        assert files_in(site.folder) == [f"{ID}.json", f"{ID}/f"]
        (inside / "f").unlink()
        assert drop_record(root, ID)
        assert drop_record(root, ID)  # nothing is left to do
    assert list(site.folder.iterdir()) == []


def test_only_what_is_certainly_not_there_counts_as_not_there(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("nowhere")
    with opened(tmp_path) as root:
        assert [is_there(root, name) for name in (b"link", b"gone", b"n" * 300)] == [True, False, False]
        monkeypatch.setattr(os, "stat", refused)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            is_there(root, b"link")


# -- on its way out


def test_what_cannot_be_looked_at_is_counted_and_the_rest_is_listed(site, caplog):
    site.give_up(reason="no", at="2026-01-01T00:00:00+00:00", attempts=3, destination="/up/f")
    site.record().write_text("{")
    missing, no_folder = site.folder.with_name("missing"), site.folder.with_name("file")
    no_folder.touch()
    [file], failed = listed([site.folder, site.folder, missing, no_folder])
    assert (failed, file.path, file.destination, file.bytes, file.attempts) == (2, "f", "/up/f", 1, 3)
    assert (file.outbox, file.at, file.reason) == (str(site.box), "2026-01-01T00:00:00+00:00", "no")
    assert "cannot open the quarantine error=" in caplog.text
    assert f"cannot read id={ID} reason=" in caplog.text
    assert listed([site.folder], lambda each: each.path != "f") == ([], 1)
    assert release([site.folder, no_folder], [site.box]) == (1, 2)


def test_a_record_may_say_nothing_that_people_read(site):
    site.record(attempts="many", bytes=None)
    [file], _ = listed([site.folder])
    assert (file.attempts, file.bytes, file.at, file.reason, file.destination) == (0, 0, "", "", "")


@pytest.mark.parametrize(
    ("delivered", "at", "outdated"),
    [(10, "1970-01-01T00:00:11+00:00", False), (10, "1970-01-01T00:00:10+00:00", True), (11, "?", False),
     (None, "1970-01-01T00:00:10+00:00", False)],
)  # fmt: skip
def test_only_what_was_delivered_since_keeps_a_file_from_coming_back(site, delivered, at, outdated):
    site.give_up(destination="/up/f", at=at)
    deliveries = {} if delivered is None else {"/up/f": delivered}
    assert release([site.folder], [site.box], deliveries) == ((0, 1) if outdated else (1, 0))


def test_a_file_whose_record_is_gone_is_for_people_to_move(site, caplog):
    site.give_up()
    [record] = site.folder.glob("*.json")
    record.unlink()
    assert release([site.folder], [site.box]) == (0, 1)
    assert f"cannot release path={record.stem} reason=" in caplog.text
    assert "move what is there by hand" in caplog.text
    assert listed([site.folder]) == ([], 0)  # it may be on its way in
    assert drop([site.folder], everything) == (0, 0)


def test_what_is_taken_away_by_hand_before_it_is_released_leaves_nothing(site, caplog):
    site.give_up()
    (inside,) = site.folder.glob("*/f")
    inside.unlink()
    (site.box / f".iot-back.{inside.parent.name}").write_text("half a copy")
    assert release([site.folder], [site.box]) == (0, 0)
    assert (files_in(site.box), list(site.folder.iterdir()), caplog.records) == ([], [], [])


# -- the lock


class Time:
    """Its sleeps are noted, and take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.sleeps, self.then = 100.0, [], lambda: None
        monkeypatch.setattr(releasing.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(releasing.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        self.then()


def test_an_agent_that_moves_a_file_is_waited_for_and_not_for_ever(tmp_path, monkeypatch):
    time = Time(monkeypatch)
    with opened(tmp_path) as root, opened(tmp_path) as agent:
        fcntl.flock(agent, fcntl.LOCK_SH)
        with pytest.raises(QuarantineBusy), releasing._locked(root):
            pytest.fail("it is not ours")
        assert sum(time.sleeps) == pytest.approx(LOCK_WAIT_S, abs=2 * LOCK_PAUSE_S)
        assert set(time.sleeps) == {LOCK_PAUSE_S}
        time.then = lambda: fcntl.flock(agent, fcntl.LOCK_UN)
        with releasing._locked(root), pytest.raises(BlockingIOError):
            fcntl.flock(agent, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_between_two_files_the_agent_gets_its_turn(tmp_path):
    with opened(tmp_path) as root, opened(tmp_path) as agent:
        with releasing._locked(root):
            pass
        fcntl.flock(agent, fcntl.LOCK_SH | fcntl.LOCK_NB)

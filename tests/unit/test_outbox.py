"""What the scan finds, what it refuses, what counts as ready; how files leave."""

import itertools
import os
import shutil
import socket
import subprocess

import pytest
from unit.removing import taken

from iot.sftp.client import Fingerprint
from iot.spooler.leaving import removal
from iot.spooler.leaving.removal import Delete, Item, private_names, recover
from iot.spooler.outbox.mounts import KNOWN
from iot.spooler.outbox.readiness import Readiness
from iot.spooler.outbox.scan import GRANULARITY_S, Outbox, SourceFailed
from iot.transfer import beneath


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


OPENED = []


@pytest.fixture(autouse=True)
def outboxes_are_released():
    yield
    for box in OPENED:
        box.release()
    OPENED.clear()


def outbox(path, **options):
    wanted, clock = options.pop("wanted", lambda _: True), options.pop("clock", Clock())
    OPENED.append(Outbox(path, wanted=wanted, clock=clock, **options))
    return OPENED[-1]


def paths(box, *, whole=True):
    return sorted(found.path for batch in box.walk(whole=whole) for found in batch)


def version(path):
    return Fingerprint.of(os.stat(path))


def test_finds_files_of_any_name_in_the_tree(tmp_path):
    names = [b"-dash", b"new\nline", b"\xff\xfe", b"n" * 255, b"quote'\"", b"sp ace", b"empty"]
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in names:
        with open(bytes(tmp_path) + b"/sub/deep/" + name, "wb"):
            pass
    assert paths(outbox(tmp_path)) == sorted(b"sub/deep/" + name for name in names)
    assert paths(outbox(tmp_path, recursive=False)) == []
    assert paths(outbox(tmp_path, wanted=lambda path: path.endswith("empty"))) == [b"sub/deep/empty"]


def test_refuses_all_that_is_no_regular_file_and_tells_once(tmp_path, caplog):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dirlink").symlink_to("/etc")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        box = outbox(tmp_path)
        assert paths(box) == paths(box) == [b"real"]
    assert sorted(record.args[1] for record in caplog.records) == ["dirlink", "fifo", "link", "socket"]


@pytest.mark.parametrize(
    ("number", "silly"),
    [
        (0x65735546, ".fuse_hidden0000003d00000001"),
        (0x6969, ".nfs0000000000c0ffee00000001"),
        (0xFE534D42, ".__smbfile_silly1f"),
    ],
)
def test_what_a_file_system_keeps_of_a_removed_file_is_not_sent_again(tmp_path, number, silly):
    for name in ("kept", silly):
        (tmp_path / name).write_bytes(b"x")
    box = outbox(tmp_path)
    assert paths(box) == sorted([b"kept", silly.encode()])  # here it is a name like any other
    box.system = KNOWN[number]
    assert paths(box) == [b"kept"]


def test_folder_swapped_for_a_symlink_during_the_scan_is_not_followed(tmp_path):
    box_path = tmp_path / "box"
    (box_path / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    box = outbox(box_path)
    walk = box.walk(whole=True)
    next(walk)
    (box_path / "sub").rmdir()
    (box_path / "sub").symlink_to(tmp_path / "secret")
    assert [batch for batch in walk if batch] == []
    assert box.look(b"sub/key") is None


def test_quick_walk_looks_only_where_names_changed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "1").write_bytes(b"")
    (tmp_path / "b" / "2").write_bytes(b"")
    clock = Clock()
    box = outbox(tmp_path, clock=clock)
    paths(box)
    clock.now += GRANULARITY_S
    assert paths(box, whole=False) == [b"a/1", b"b/2"]  # once more: times are coarse
    assert paths(box, whole=False) == []
    (tmp_path / "b" / "3").write_bytes(b"")
    (tmp_path / "new" / "er").mkdir(parents=True)
    (tmp_path / "new" / "er" / "4").write_bytes(b"")
    assert paths(box, whole=False) == [b"b/2", b"b/3", b"new/er/4"]


def test_missing_outbox_is_a_failed_source(tmp_path):
    with pytest.raises(SourceFailed, match="No such file"):
        paths(outbox(tmp_path / "nowhere"))


@pytest.mark.needs("mounts")
def test_unmounted_outbox_is_not_empty(tmp_path):
    script = """
import os, subprocess, sys
from pathlib import Path
from iot.spooler.outbox.scan import Outbox, SourceFailed
path = Path(sys.argv[1])
mount = ["mount", "-t", "tmpfs", "none", str(path)]
subprocess.run(mount, check=True)
(path / "f").write_bytes(b"")
box = Outbox(path, wanted=lambda _: True, clock=lambda: 0.0)
assert sum(map(len, box.walk(whole=True))) == 1
subprocess.run(["umount", "-l", str(path)], check=True)
try:
    list(box.walk(whole=True))
    sys.exit("taken for empty")
except SourceFailed as error:
    assert "no longer mounted" in str(error)
subprocess.run(mount, check=True)
assert sum(map(len, box.walk(whole=True))) == 0
"""
    import sys

    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, timeout=30, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


# -- readiness: a quiet time


def test_old_file_is_ready_at_first_sight_and_a_fresh_one_is_watched():
    readiness = Readiness(2.0)
    old = Fingerprint(1, 90 * 10**9)
    fresh = Fingerprint(1, 99 * 10**9)
    assert readiness.quiet(b"old", old, now=5.0, wall=100.0)
    assert not readiness.quiet(b"fresh", fresh, now=5.0, wall=100.0)
    assert not readiness.quiet(b"fresh", fresh, now=6.9, wall=9999.0)
    assert readiness.due(6.9, 10) == []
    assert readiness.next_due() == 7.0
    assert readiness.due(7.0, 10) == [b"fresh"]
    assert readiness.quiet(b"fresh", fresh, now=7.0, wall=0.0)
    readiness.forget(b"fresh")
    assert len(readiness) == 0


def test_growing_file_is_never_ready():
    readiness = Readiness(2.0)
    for second in range(10):
        assert not readiness.quiet(b"log", Fingerprint(second, second), now=float(second), wall=0.0)


def test_after_a_clock_jump_file_times_are_not_believed():
    readiness = Readiness(2.0)
    readiness.clocks(0.0, 100.0)
    readiness.clocks(1.0, 2_000_000_000.0)
    being_written = Fingerprint(1, 100 * 10**9)
    assert not readiness.quiet(b"x", being_written, now=1.0, wall=2_000_000_000.0)
    assert readiness.quiet(b"x", being_written, now=3.1, wall=2_000_000_002.0)


def test_rename_in_mode_takes_every_file_at_once():
    assert Readiness(0).quiet(b"x", Fingerprint(0, 10**30), now=0.0, wall=0.0)


def test_a_file_has_rested_only_while_both_clocks_agree():
    readiness = Readiness(2.0)
    old = Fingerprint(1, 10 * 10**9, 40 * 10**9)
    readiness.clocks(0.0, 100.0)
    assert not readiness.rested(old, now=59.0, wall=159.0, seconds=60)  # it may have jumped before we came
    assert readiness.rested(old, now=60.0, wall=160.0, seconds=60)
    assert not readiness.rested(old._replace(ctime_ns=101 * 10**9), now=60.0, wall=160.0, seconds=60)
    readiness.clocks(61.0, 99_999.0)
    assert not readiness.rested(old, now=61.0, wall=99_999.0, seconds=60)
    assert readiness.rested(old, now=61.0, wall=99_999.0, seconds=0)


def test_an_open_file_is_asked_for_again_the_less_often_the_longer_it_stays_open():
    readiness = Readiness(2.0)
    version = Fingerprint(1, 1)
    now, asked = 0.0, []
    readiness.opened(b"log", version, now)
    while now < 7200:
        now = readiness.next_due()
        if readiness.due(now, 10) == [b"log"]:
            readiness.opened(b"log", version, now)
            asked.append(now)
    assert asked[0] == 1.0
    assert asked[-1] - asked[-2] == 30.0
    assert len(asked) < 300
    assert (len(readiness), readiness.open_files) == (1, 1)


def test_thousands_of_watched_files_cost_one_look_through_in_a_while():
    readiness = Readiness(2.0)
    for number in range(20_000):
        readiness.opened(b"%d" % number, Fingerprint(1, 1), now=number / 1e4)
    looks, now = 0, 3.0
    while now < 4.0:
        found = readiness.due(now, 500)
        looks += bool(found)
        for path in found:
            readiness.opened(path, Fingerprint(1, 1), now)
        now = max(readiness.next_due(), now + 0.001)
    assert looks <= 20_000 / 500 + 4


def test_a_file_that_goes_on_changing_is_ready_once_in_a_hold_time():
    readiness = Readiness(2.0)
    ready = []
    for tenth in range(2000):
        now, version = tenth / 10, Fingerprint(tenth // 26, tenth // 26)  # a line each 2.6 s
        if readiness.quiet(b"log", version, now, 0.0, 60.0):
            readiness.forget(b"log")
            ready.append(now)
    assert len(ready) == 3
    assert min(after - before for before, after in itertools.pairwise(ready)) >= 60


# -- removal


def remove(folder, items, leaver=None):
    root = os.open(folder, os.O_RDONLY)
    try:
        return taken(root, items, leaver or Delete())
    finally:
        os.close(root)


def test_removes_only_the_version_that_was_sent(tmp_path):
    (tmp_path / "sub").mkdir()
    same, other = tmp_path / "sub" / "same", tmp_path / "other"
    same.write_bytes(b"1")
    other.write_bytes(b"1")
    items = [Item(1, b"sub/same", version(same)), Item(2, b"other", version(other)), Item(3, b"gone", version(other))]
    other.write_bytes(b"22")
    assert remove(tmp_path, items) == ([1, 2, 3], [])
    assert not same.exists()
    assert other.read_bytes() == b"22"
    assert remove(tmp_path, items) == ([1, 2, 3], [])


def test_version_renamed_in_between_look_and_rename_is_put_back(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    item = Item(1, b"f", version(path))
    real = removal.rename_noreplace

    def race(source_dir, source, target_dir, target):
        if source == b"f":
            (tmp_path / "new").write_bytes(b"new")
            os.replace(tmp_path / "new", path)
        real(source_dir, source, target_dir, target)

    monkeypatch.setattr(removal, "rename_noreplace", race)
    assert remove(tmp_path, [item]) == ([1], [])
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("name", [b"f", b"n" * 250, b"\xff\n"])
def test_crash_after_the_private_rename_is_made_good_from_the_row(tmp_path, name):
    path = bytes(tmp_path) + b"/" + name
    with open(path, "wb") as file:
        file.write(b"sent")
    item = Item(1, name, version(path))
    long, short = private_names(1, name)
    os.rename(path, bytes(tmp_path) + b"/" + (long if len(long) <= 255 else short))
    assert remove(tmp_path, [item]) == ([1], [])
    assert os.listdir(tmp_path) == []


def test_the_version_that_was_sent_is_found_under_its_other_private_name_too(tmp_path):
    (tmp_path / "f").write_bytes(b"sent")
    item = Item(1, b"f", version(tmp_path / "f"))
    long, short = private_names(1, b"f")
    (tmp_path / "f").rename(tmp_path / os.fsdecode(short))
    (tmp_path / os.fsdecode(long)).write_bytes(b"another, that was never sent")
    assert remove(tmp_path, [item]) == ([1], [])
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"another, that was never sent"


def test_private_file_that_no_row_claims_gets_its_name_back_and_replaces_nothing(tmp_path):
    (tmp_path / ".iot-sent.f").write_bytes(b"old")
    (tmp_path / "f").write_bytes(b"new")
    box = outbox(tmp_path)
    assert paths(box) == [b"f"]
    root = os.open(tmp_path, os.O_RDONLY)
    recover(root, box.leftovers[0])
    os.close(root)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"old", b"new"}


def test_what_a_crash_left_of_a_probe_for_links_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(os, "unlink", lambda *_, **__: None)  # the process is gone before it comes to this
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(KeyboardInterrupt):
        beneath._links_exist(root)
    os.close(root)
    monkeypatch.undo()
    assert len(os.listdir(tmp_path)) == 1
    assert paths(outbox(tmp_path)) == []


def test_a_producers_file_whose_name_only_begins_like_ours_is_sent(tmp_path):
    (tmp_path / ".iot-back.mine").write_bytes(b"x")
    (tmp_path / ".iot-back.0123456789abcdef").write_bytes(b"on its way back from quarantine")
    assert paths(outbox(tmp_path)) == [b".iot-back.mine"]


def test_what_is_never_sent_is_counted_as_it_lies_there_now(tmp_path):
    now = [0.0]
    box = outbox(tmp_path, wanted=lambda path: not path.endswith("unwanted"), clock=lambda: now[0])
    (tmp_path / "sub" / "sub").mkdir(parents=True)
    for name in ("a", "sub/a", "sub/sub/a", "unwanted"):
        (tmp_path / name).symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "sub" / "fifo")
    list(box.walk(whole=True))
    assert dict(box.refused.reasons) == {"symlink": 3, "fifo": 1}
    for whole in (False, True):
        now[0] += 10
        list(box.walk(whole=whole))
        assert dict(box.refused.reasons) == {"symlink": 3, "fifo": 1}
    (tmp_path / "sub" / "fifo").unlink()
    (tmp_path / "sub" / "more").symlink_to("a")
    list(box.walk(whole=False))
    assert dict(box.refused.reasons) == {"symlink": 4}
    shutil.rmtree(tmp_path / "sub")
    list(box.walk(whole=False))
    assert dict(box.refused.reasons) == {"symlink": 1}
    (tmp_path / "a").unlink()
    list(box.walk(whole=True))
    assert dict(box.refused.reasons) == {}
    box.release()

"""How files leave an outbox: on real file systems, with real rights, in an order that no power cut breaks."""

import json
import os
import stat
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ordinary_user import AGENT, PRODUCER, as_user, open_folder
from quarantined import quarantined
from unit.removing import is_waited_for, outcome_of, taken
from unit.test_spooler_agent import Rig

from iot.sftp.client import Fingerprint, Journal, PermissionDenied
from iot.spooler.agent.draining import End
from iot.spooler.leaving import census as counting
from iot.spooler.leaving import moving, removal
from iot.spooler.leaving import release as releasing
from iot.spooler.leaving.archive import Archive
from iot.spooler.leaving.census import Census
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import release
from iot.spooler.leaving.removal import Item, private_names
from iot.spooler.outbox.departure import Why
from iot.spooler.queue.deliveries import last_delivered
from iot.spooler.status import status
from iot.transfer import beneath
from iot.transfer.beneath import rename_noreplace


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("/dev/shm is on the same file system")
        yield Path(folder)


PRIVATE = private_names(1, b"f")[0]


def item(box, name, key=1, **about):
    return Item(key, os.fsencode(name), Fingerprint.of(os.stat(box / name)), about)


def take(box, items, leaver):
    root = os.open(box, os.O_RDONLY)
    try:
        return taken(root, items, leaver)
    finally:
        os.close(root)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@contextmanager
def mounted(kind, folder, options="mode=777"):
    folder.mkdir(exist_ok=True)
    if kind == "as it is":
        yield folder
        return
    source = "none"
    if kind == "overlay":
        for part in ("lower", "upper", "work"):
            (folder.parent / part).mkdir()
            (folder.parent / part).chmod(0o777)
        with mounted("tmpfs", folder.parent / "both") as both:
            for part in ("upper", "work"):
                (both / part).mkdir()
            options = f"lowerdir={folder.parent}/lower,upperdir={both}/upper,workdir={both}/work"
            with mounted_as("overlay", folder, options):
                yield folder
        return
    with mounted_as(kind, folder, options, source):
        yield folder


@contextmanager
def mounted_as(kind, folder, options, source="none"):
    subprocess.run(["mount", "-t", kind, "-o", options, source, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# -- a file that cannot leave


@pytest.mark.needs("root", "mounts")
@pytest.mark.parametrize("renameat2", ["with renameat2", "without"])
@pytest.mark.parametrize("kind", ["as it is", "tmpfs", "overlay"])
def test_a_sticky_outbox_multiplies_nothing_and_its_file_is_held_once_with_the_reason(kind, renameat2, caplog):
    with open_folder() as folder, mounted(kind, folder / "mnt") as mount:
        box = mount / "box"
        (box / "sub").mkdir(parents=True)
        for each in (box, box / "sub"):
            each.chmod(0o1777)
        for name in ("f", "sub/g"):
            (box / name).write_bytes(b"content")
            (box / name).chmod(0o666)
            os.chown(box / name, PRODUCER, PRODUCER)
        (folder / "agent").mkdir()
        os.chown(folder / "agent", AGENT, AGENT)

        def deliver():
            if renameat2 == "without":
                beneath._renameat2 = lambda: None
            rig = Rig(folder / "agent")
            rig.outbox["path"] = str(box)
            told = []
            rig.loop.report = lambda agent, **_: told.append(status.snapshot(agent, 0.0, 0.0)["outboxes"][0])
            rig.loop.stop_at = rig.loop.now + 400
            rig.run(drain=False)
            rig.loop.stop_at = 1e9
            assert rig.run() is End.REMAINS
            lines = [record for record in caplog.records if "cannot take out" in record.getMessage()]
            return json.dumps([rig.remote.deliveries, told[-1]["held"], told[-1]["error"], len(lines)])

        deliveries, held, error, lines = json.loads(as_user(AGENT, deliver))
        assert sorted(deliveries) == ["/up/f", "/up/sub/g"]
        assert held == 2
        assert "not permitted" in error or "sticky" in error
        assert lines == 2 * 2  # each file once in each run
        assert files_in(box) == ["f", "sub/g"]
        assert [(box / name).stat().st_nlink for name in ("f", "sub/g")] == [1, 1]


@pytest.mark.needs("root")
def test_a_leftover_that_cannot_be_put_back_holds_up_no_other_and_is_reported_once(caplog):
    with open_folder() as folder:
        box = folder / "box"
        (box / "a-sticky").mkdir(parents=True)
        box.chmod(0o777)
        (box / "a-sticky").chmod(0o1777)
        for name in ("a-sticky/.iot-sent.f", "b/.iot-sent.g"):
            (box / name).parent.mkdir(exist_ok=True)
            (box / name).write_bytes(b"content")
            os.chown(box / name, PRODUCER, PRODUCER)
        (box / "b").chmod(0o777)
        (folder / "agent").mkdir()
        os.chown(folder / "agent", AGENT, AGENT)

        def deliver():
            rig = Rig(folder / "agent")
            rig.outbox["path"] = str(box)
            rig.loop.stop_at = rig.loop.now + 400
            rig.run(drain=False)
            lines = [record for record in caplog.records if "cannot put back" in record.getMessage()]
            rig.loop.stop_at = 1e9
            return json.dumps([rig.remote.deliveries, len(lines), rig.run().name])

        assert json.loads(as_user(AGENT, deliver)) == [["/up/b/g"], 1, "REMAINS"]


@pytest.mark.needs("root")
def test_a_refused_rename_is_not_done_another_way_and_a_half_finished_one_is_undone(tmp_path, monkeypatch):
    """An append-only folder lets names be added, not taken away: link(2) works there, unlink(2) does not."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "f").write_bytes(b"x")
    if subprocess.run(["chattr", "+a", str(source)], check=False).returncode:
        pytest.skip("this file system knows no append-only folders")
    try:
        with opened(source) as here, opened(target) as there:
            with pytest.raises(PermissionError):
                rename_noreplace(here, b"f", there, b"g")
            monkeypatch.setattr(beneath, "_renameat2", lambda: None)
            with pytest.raises(PermissionError):
                rename_noreplace(here, b"f", there, b"g")
    finally:
        subprocess.run(["chattr", "-a", str(source)], check=True)
    assert files_in(tmp_path) == ["source/f"]


@contextmanager
def opened(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_without_renameat2_nothing_is_replaced_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(beneath, "_renameat2", lambda: None)
    for name in ("f", "taken"):
        (tmp_path / name).write_text(name)
    with opened(tmp_path) as here:
        with pytest.raises(FileExistsError):
            rename_noreplace(here, b"f", here, b"taken")
        rename_noreplace(here, b"f", here, b"g")
    assert files_in(tmp_path) == ["g", "taken"]
    assert (tmp_path / "taken").read_text() == "taken"


@pytest.mark.needs("vfat")
def test_a_file_system_without_links_and_without_renameat2_renames_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(beneath, "_renameat2", lambda: None)
    image = tmp_path / "image"
    subprocess.run(["mkfs.vfat", "-C", str(image), "8192"], check=True)
    (tmp_path / "mnt").mkdir()
    with mounted_as("vfat", tmp_path / "mnt", "loop", str(image)) as mount, opened(mount) as here:
        (mount / "f").write_text("f")
        (mount / "taken").write_text("taken")
        with pytest.raises(FileExistsError):
            rename_noreplace(here, b"f", here, b"taken")
        rename_noreplace(here, b"f", here, b"g")
        assert files_in(mount) == ["g", "taken"]


@pytest.mark.needs("root", "mounts")
def test_a_full_archive_holds_the_file_which_leaves_when_there_is_room_and_is_not_sent_again(rig, tmp_path):
    with mounted("tmpfs", tmp_path / "full", "size=64k") as full:
        rig.outbox |= {"after_upload": "archive", "archive": str(full / "archive")}
        (full / "ballast").write_bytes(bytes(40_000))
        rig.put("f", b"1" * 30_000)
        assert rig.run() is End.REMAINS
        rig.loop.stop_at = rig.loop.now + 200
        rig.run(drain=False)
        rig.loop.stop_at = 1e9
        assert [name.rpartition(".")[2] for name in rig.left()] == ["f"]
        assert files_in(full / "archive") == [".state.json"]
        assert "No space" in rig.agent.owed.last_error
        (full / "ballast").unlink()
        assert rig.run() is End.DRAINED
        assert rig.left() == []
        assert [Path(name).name for name in files_in(full / "archive")] == [".state.json", "f"]
        assert rig.remote.deliveries == ["/up/f"]


@pytest.mark.needs("root", "mounts")
def test_two_delivered_versions_of_a_name_wait_side_by_side_for_a_full_archive(rig, tmp_path):
    with mounted("tmpfs", tmp_path / "full", "size=96k") as full:
        rig.outbox |= {"after_upload": "archive", "archive": str(full / "archive")}
        (full / "ballast").write_bytes(bytes(80_000))
        for digit in (b"1", b"2"):
            rig.put("f", digit * 30_000)
            assert rig.run() is End.REMAINS
        rig.loop.stop_at = rig.loop.now + 200
        rig.run(drain=False)
        rig.loop.stop_at = 1e9
        assert [name.rpartition(".")[2] for name in rig.left()] == ["f", "f"]
        (full / "ballast").unlink()
        assert rig.run() is End.DRAINED
        assert rig.left() == []
        archived = {path.read_bytes()[:1] for path in (full / "archive").rglob("f*")}
        assert archived == {b"1", b"2"}
        assert rig.remote.deliveries == ["/up/f", "/up/f"]


def test_a_version_renamed_in_while_the_delivered_one_waits_is_sent_too(rig, tmp_path):
    """What waits under its private name does not hide a new file of that name."""
    (tmp_path / "state").mkdir()
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    rig.outbox |= {"after_upload": "archive", "archive": str(blocked)}
    rig.put("f", b"1")
    assert rig.run() is End.REMAINS
    rig.put("new", b"22")
    os.replace(rig.box / "new", rig.box / "f")
    assert rig.run() is End.REMAINS
    assert (rig.base / "remote/up/f").read_bytes() == b"22"
    blocked.unlink()
    assert rig.run() is End.DRAINED
    assert rig.left() == []


# -- across file systems


@pytest.mark.parametrize("kind", ["archive", "quarantine"])
@pytest.mark.parametrize("where", ["same file system", "another file system"])
def test_the_target_is_durable_before_the_source_goes(kind, where, tmp_path, other_disk, monkeypatch):
    box = tmp_path / "box"
    (box / "sub").mkdir(parents=True)
    (box / "sub" / "f").write_bytes(b"content")
    target = (other_disk if where == "another file system" else tmp_path) / "target"
    calls = recorded(monkeypatch)
    leaver = Archive(target) if kind == "archive" else Quarantine(target, box)
    assert take(box, [item(box, "sub/f")], leaver) == ([1], [])
    (arrived,) = [path for path in target.rglob("f") if path.is_file()]
    entered = last(calls, "rename", str(arrived))
    assert calls.index(("fsync", str(arrived.parent)), entered) > entered
    left = last(calls, "fsync", str(box / "sub"))
    assert left == len(calls) - 1
    assert last(calls, "fsync", str(arrived.parent)) < left
    assert ("fsync", str(target.parent)) in calls[:entered]  # where the target was made
    assert ("fsync", str(target)) in calls[:entered] or kind == "quarantine"
    if kind == "archive":
        assert ("fsync", str(arrived.parent.parent)) in calls[:entered]
    if kind == "quarantine":
        record = str(target / f"{arrived.parent.name}.json")
        assert calls.index(("fsync", f"{record}.new")) < calls.index(("rename", record)) < entered
        assert last(calls, "fsync", str(target)) < left
    if where == "another file system":
        staged = [path for call, path in calls if call == "fsync" and ".iot-copy" in path]
        assert calls.index(("fsync", staged[0])) < entered
        gone = calls.index(("unlink", str(box / "sub" / os.fsdecode(PRIVATE))))
        assert last(calls, "fsync", str(arrived.parent)) < gone < left
        if kind == "quarantine":
            assert last(calls, "fsync", str(target)) < gone
    assert files_in(box) == []


@pytest.mark.parametrize("where", ["same file system", "another file system"])
def test_a_release_is_durable_before_the_quarantine_forgets_the_file(where, tmp_path, other_disk, monkeypatch):
    box, folder = tmp_path / "box", (other_disk if where == "another file system" else tmp_path) / "q"
    (box / "sub").mkdir(parents=True)
    (box / "sub" / "f").write_text("x")
    take(box, [item(box, "sub/f")], Quarantine(folder, box))
    (inside,) = folder.glob("*/f")
    calls = recorded(monkeypatch)
    assert release([folder], [box]) == (1, 0)
    arrived = last(calls, "rename", str(box / "sub" / "f"))
    safe = last(calls, "fsync", str(box / "sub"))
    forgotten = calls.index(("unlink", f"{inside.parent}.json"))
    assert arrived < safe < last(calls, "fsync", str(inside.parent)) < forgotten
    if where == "another file system":  # there was never a moment without a durable copy, and none with two to send
        record = str(folder / f"{inside.parent.name}.json")
        steps = [
            ("fsync", next(path for call, path in calls if call == "fsync" and ".iot-back." in path)),
            ("fsync", str(box / "sub")),
            ("rename", record),
            ("fsync", str(folder)),
            ("unlink", str(inside)),
            ("fsync", str(inside.parent)),
            ("rename", str(box / "sub" / "f")),
        ]
        places = [calls.index(step) for step in steps]
        assert places == sorted(places)
    assert calls[-1] == ("fsync", str(folder))


def test_what_is_put_back_is_durable(tmp_path, monkeypatch):
    (tmp_path / os.fsdecode(PRIVATE)).write_text("x")
    calls = recorded(monkeypatch)
    with opened(tmp_path) as root:
        removal.recover(root, PRIVATE)
    assert calls == [("rename", str(tmp_path / "f")), ("fsync", str(tmp_path))]


@pytest.mark.needs("proc")
@pytest.mark.parametrize("leaves_to", ["archive", "quarantine", "nothing"])
def test_no_descriptor_stays_open_after_a_file_has_left_or_was_put_back(tmp_path, leaves_to):
    box = tmp_path / "box"
    (box / "sub").mkdir(parents=True)
    (box / "sub" / "f").write_text("x")
    (box / os.fsdecode(PRIVATE)).write_text("x")
    leaver = {
        "archive": lambda: Archive(tmp_path / "kept", max_bytes=0),
        "quarantine": lambda: Quarantine(tmp_path / "held", box),
        "nothing": removal.Delete,
    }[leaves_to]()
    before = os.listdir("/proc/self/fd")
    with opened(box) as root:
        assert taken(root, [item(box, "sub/f")], leaver) == ([1], [])
        removal.recover(root, PRIVATE)
    if leaves_to == "archive":
        leaver.tidy(5)
        assert not files_in(tmp_path / "kept") or files_in(tmp_path / "kept") == [".state.json"]
    if leaves_to == "quarantine":
        assert release([tmp_path / "held"], [box]) == (1, 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert files_in(box) == (["f", "sub/f"] if leaves_to == "quarantine" else ["f"])


def test_a_rewrite_whose_size_and_time_are_restored_is_not_removed_unsent(tmp_path):
    (tmp_path / "f").write_text("old")
    sent = item(tmp_path, "f")
    time.sleep(0.05)  # the clock of file times is coarse
    (tmp_path / "f").write_text("new")
    os.utime(tmp_path / "f", ns=(sent.fingerprint.mtime_ns, sent.fingerprint.mtime_ns))
    with opened(tmp_path) as root:
        outcome = outcome_of(root, [sent], removal.Delete())
    assert (outcome.done, outcome.failed, outcome.stays) == ([], [], [(1, Why.TOUCHED)])
    assert (tmp_path / "f").read_text() == "new"


def test_a_rewrite_in_the_very_moment_of_the_private_rename_is_not_removed_unsent(tmp_path, monkeypatch):
    """The rename moves the ctime, and its writer restores the rest: only the lease tells that he was there."""
    (tmp_path / "f").write_text("old")
    sent, path = item(tmp_path, "f"), tmp_path / "f"

    def rewrite():
        with path.open("r+") as file:
            file.write("new")
            file.flush()
            os.utime(file.fileno(), ns=(sent.fingerprint.mtime_ns, sent.fingerprint.mtime_ns))

    writer = threading.Thread(target=rewrite)

    def renamed(*arguments):
        if not writer.ident:
            writer.start()
            while writer.is_alive() and not is_waited_for(path):
                time.sleep(0.001)  # until he waits for the lease, or is done where there is none
        rename_noreplace(*arguments)

    monkeypatch.setattr(removal, "rename_noreplace", renamed)
    with opened(tmp_path) as root:
        outcome = outcome_of(root, [sent], removal.Delete())
    writer.join()
    assert outcome.failed == []
    assert path.read_text() == "new"  # it stays, or is another version by now that the scan finds


def recorded(monkeypatch):
    """Every sync, rename and unlink in order, by the path that it was about (a rename: its target)."""
    calls = []
    real_fsync, real_unlink, real_rename, real_noreplace = os.fsync, os.unlink, os.rename, rename_noreplace

    def path_of(folder, name=None):
        path = os.readlink(f"/proc/self/fd/{folder}")
        return path if name is None else os.path.join(path, os.fsdecode(name))

    def fsync(descriptor):
        calls.append(("fsync", path_of(descriptor)))
        real_fsync(descriptor)

    def unlink(name, *, dir_fd=None):
        real_unlink(name, dir_fd=dir_fd)
        calls.append(("unlink", path_of(dir_fd, name)))

    def rename(source, target, *, src_dir_fd=None, dst_dir_fd=None):
        real_rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        calls.append(("rename", path_of(dst_dir_fd, target)))

    def noreplace(source_dir, source, target_dir, target):
        real_noreplace(source_dir, source, target_dir, target)
        calls.append(("rename", path_of(target_dir, target)))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(moving, "rename_noreplace", noreplace)
    monkeypatch.setattr(removal, "rename_noreplace", noreplace)
    monkeypatch.setattr(releasing, "rename_noreplace", noreplace)
    return calls


def last(calls, call, path):
    return max(place for place, each in enumerate(calls) if each == (call, path))


@pytest.mark.parametrize("kind", ["archive", "quarantine"])
def test_a_copy_keeps_mode_times_and_for_root_the_owner(kind, tmp_path, other_disk):
    box = tmp_path / "box"
    box.mkdir()
    path = box / "f"
    path.write_bytes(os.urandom(3_000_000))
    path.chmod(0o600)
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))
    if os.geteuid() == 0:
        os.chown(path, PRODUCER, PRODUCER)
    before, content = path.stat(), path.read_bytes()
    target = other_disk / "target"
    take(box, [item(box, "f")], Archive(target) if kind == "archive" else Quarantine(target, box))
    (arrived,) = target.rglob("f")
    after = arrived.stat()
    assert arrived.read_bytes() == content
    assert stat.S_IMODE(after.st_mode) == 0o600
    assert (after.st_mtime_ns, after.st_uid, after.st_gid) == (before.st_mtime_ns, before.st_uid, before.st_gid)
    assert files_in(box) == []


class Crash(BaseException):
    pass


@pytest.mark.crashes
@pytest.mark.parametrize("where", ["same file system", "another file system"])
@pytest.mark.parametrize("kind", ["archive", "quarantine"])
def test_a_crash_at_any_step_of_a_move_loses_and_doubles_nothing(kind, where, tmp_path, other_disk, monkeypatch):
    step, dead = 0, True
    while dead:
        step += 1
        base = tmp_path / str(step)
        base.mkdir()
        rig = Rig(base)
        target = (other_disk if where == "another file system" else base) / f"target{step}"
        rig.outbox |= {"after_upload": "archive", "archive": str(target / "a"), "quarantine": str(target / "q")}
        rig.retry = {"max_attempts": 1}
        for name in ("f", "g"):
            rig.put(name, name.encode())
            if kind == "quarantine":
                rig.remote.refuse[f"/up/{name}"] = PermissionDenied("no")
        with monkeypatch.context() as patches:
            left = dies_at(patches, step)
            try:
                rig.run()
            except Crash:
                pass
            dead = left[0] <= 0
            unanswered = left[1:] == ["write"]  # delivered, and not on record: sent again
        rig.run()
        assert rig.left() == [], step
        if kind == "quarantine":
            assert [file.path for file in quarantined(target / "q")] == ["f", "g"], step
        else:
            assert sorted(path.name for path in (target / "a").rglob("?")) == ["f", "g"], step
            assert unanswered or sorted(rig.remote.deliveries) == ["/up/f", "/up/g"], step
    assert step > 10


def dies_at(patches, step):
    left, mkdir = [step], os.mkdir

    def dying(call):
        def wrapped(*arguments, **keywords):
            left[0] -= call is not mkdir or "dir_fd" in keywords  # the others are the remote's
            if left[0] == 0:
                left.append(call.__name__)
                raise Crash
            return call(*arguments, **keywords)

        return wrapped

    for module in (removal, moving):
        patches.setattr(module, "rename_noreplace", dying(module.rename_noreplace))
    for name in ("unlink", "fsync", "rename", "mkdir", "rmdir"):
        patches.setattr(os, name, dying(getattr(os, name)))
    patches.setattr(Journal, "write", dying(Journal.write))
    return left


# -- the quarantine


def test_each_outbox_gets_back_its_own_exactly_where_it_was(tmp_path, other_disk):
    boxes = [tmp_path / "one", tmp_path / "two"]
    names = ["x", "x.reason.txt", "sub/x", os.fsdecode(b"sub/\xff\n"), "n" * 255, ".iot-copy"]
    for folder in (tmp_path / "q", other_disk / "q"):
        for box in boxes:
            (box / "sub").mkdir(parents=True, exist_ok=True)
            for name in names:
                (box / name).write_text(f"{box.name} {name!r}")
            items = [item(box, name, key, reason="because") for key, name in enumerate(names)]
            done, failed = take(box, items, Quarantine(folder, box))
            assert (sorted(done), failed) == (list(range(len(names))), [])
            assert files_in(box) == []
        census = Census([folder])
        census.begin()
        census.finish()
        assert census.files == len(quarantined(folder)) == 2 * len(names)
        (boxes[0] / "sub").rmdir()
        assert release([folder, folder], boxes) == (2 * len(names), 0)
        for box in boxes:
            assert files_in(box) == sorted(names)
            assert all((box / name).read_text() == f"{box.name} {name!r}" for name in names)
        assert list(folder.iterdir()) == []


def test_the_same_name_twice_comes_back_under_that_name_only(tmp_path, caplog):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    for content in ("old", "new"):
        (box / "f").write_text(content * 3)
        os.utime(box / "f", ns=(10**18, 10**18))  # size and time the same: only the content tells them apart
        assert take(box, [item(box, "f")], Quarantine(folder, box)) == ([1], [])
    assert [file.content for file in quarantined(folder)] == [b"newnewnew", b"oldoldold"]
    assert release([folder], [box]) == (1, 1)
    assert "its place is taken" in caplog.text
    assert files_in(box) == ["f"]
    first = (box / "f").read_text()
    (box / "f").unlink()
    assert release([folder], [box]) == (1, 0)
    assert {first, (box / "f").read_text()} == {"oldoldold", "newnewnew"}


@pytest.mark.parametrize("first", range(4))
def test_of_two_versions_the_older_is_released_first_so_that_the_newer_one_stands_in_the_end(first, tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    for number, at in enumerate(
        ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
    ):
        (box / "f").write_text(f"{first}, version {number}" + "x" * first)
        assert take(box, [item(box, "f", key=9 + number, at=at)], Quarantine(folder, box)) == ([9 + number], [])
    came = []
    for stuck in (2, 1, 0):
        assert release([folder], [box]) == (1, stuck)
        came.append((box / "f").read_text())
        (box / "f").unlink()
    assert came == [f"{first}, version {number}" + "x" * first for number in range(3)]


def test_a_release_never_goes_over_a_newer_file(tmp_path, other_disk):
    box = tmp_path / "box"
    for folder in (tmp_path / "q", other_disk / "q"):
        box.mkdir(exist_ok=True)
        (box / "f").write_text("old")
        take(box, [item(box, "f")], Quarantine(folder, box))
        (box / "f").write_text("newer")
        assert release([folder], [box]) == (0, 1)
        assert (box / "f").read_text() == "newer"
        assert [file.content for file in quarantined(folder)] == [b"old"]
        assert files_in(box) == ["f"]


def test_a_release_never_replaces_what_was_delivered_since(rig, caplog):
    """The oldest version would stand on the server in the end, and the newest nowhere."""
    rig.retry = {"max_attempts": 1}
    rig.remote.refuse["/up/f"] = PermissionDenied("no")
    rig.put("f", b"version 1")
    assert rig.run() is End.REMAINS
    rig.remote.refuse.clear()
    rig.loop.now += 60
    rig.put("f", b"version 2")
    rig.run()
    state = rig.base / "state"
    assert release([rig.quarantine], [rig.box], last_delivered(state)) == (0, 1)
    assert "a newer version was delivered since" in caplog.text
    assert [file.content for file in quarantined(rig.quarantine)] == [b"version 1"]
    assert (rig.base / "remote/up/f").read_bytes() == b"version 2"
    (state / "journal.db").unlink()
    assert last_delivered(state) == {}  # without a journal nothing is known, and nobody waits for it
    assert release([rig.quarantine], [rig.box], last_delivered(state)) == (1, 0)


def test_a_file_whose_outbox_is_not_configured_any_more_stays_and_is_said(tmp_path, caplog):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    assert release([folder], [tmp_path / "other"]) == (0, 1)
    assert "not in this configuration" in caplog.text
    assert len(quarantined(folder)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{",
        b'{"outbox": 1, "path": "f"}',
        b'{"outbox": "BOX", "path": "../f"}',
        b'{"outbox": "BOX", "path": "/f"}',
        b'{"outbox": "BOX", "path": "a\\u0000"}',
        b"x" * 100_000,
    ],
)
def test_a_damaged_record_is_named_and_its_file_stays(damage, tmp_path, caplog):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    (record,) = folder.glob("*.json")
    record.write_bytes(damage.replace(b"BOX", bytes(box)))
    assert release([folder], [box]) == (0, 1)
    assert record.name in caplog.text
    assert len(list(folder.glob("*/f"))) == 1
    assert files_in(tmp_path) == sorted([f"q/{record.name}", f"q/{record.stem}/f"])


def test_an_interrupted_release_and_an_interrupted_move_are_finished(tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    (inside,) = folder.glob("*/f")
    os.rename(inside, box / "f")  # and then the power went
    assert release([folder], [box]) == (0, 0)
    assert files_in(tmp_path) == ["box/f"]
    assert list(folder.iterdir()) == []


def test_the_agent_waits_while_files_are_released(tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    folder.mkdir()
    (box / "f").write_text("x")
    with opened(folder) as root, releasing._locked(root):
        done, failed = take(box, [item(box, "f")], Quarantine(folder, box))
        assert (done, str(failed[0][1].strerror)) == ([], "files are being released from the quarantine")
    assert [os.fsencode(name) for name in files_in(box)] == [PRIVATE]


def test_the_count_goes_in_small_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "COUNT_AT_ONCE", 10)
    for number in range(95):
        (tmp_path / f"{number:016x}").mkdir()
        (tmp_path / f"{number:016x}.json").touch()
    census = Census([tmp_path, tmp_path / "nowhere"])
    census.begin()
    steps = 0
    while census.step():
        steps += 1
    assert (census.files, steps) == (95, 19)


def test_a_quarantine_that_cannot_be_looked_into_is_not_empty(rig):
    rig.quarantine.parent.mkdir()
    rig.quarantine.write_text("no folder")
    rig.put("f")
    assert rig.run() is End.REMAINS
    rig.quarantine.unlink()
    assert rig.run() is End.DRAINED

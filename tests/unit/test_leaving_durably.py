"""A file leaves for another file system, or comes back, in an order that no power cut and no rewrite breaks."""

import os
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conditions import missing
from ordinary_user import PRODUCER
from quarantined import quarantined
from unit.agent_rig import Rig
from unit.leaving_lab import PRIVATE, files_in, item, opened, take
from unit.removing import is_waited_for, outcome_of, taken

from iot.sftp.client import Journal, PermissionDenied
from iot.spooler.leaving import moving, removal
from iot.spooler.leaving import release as releasing
from iot.spooler.leaving.archive import Archive
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import drop, everything, release
from iot.spooler.outbox.departure import Why
from iot.transfer.beneath import rename_noreplace


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == os.stat(tmp_path).st_dev:
            missing("/dev/shm is on the same file system")
        yield Path(folder)


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
        assert entered < last(calls, "fsync", str(target)) < left
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


def test_a_dropped_file_is_gone_for_good_before_its_record_is_forgotten(tmp_path, monkeypatch):
    """A power cut in between must not bring back a file that nothing tells of."""
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    (inside,) = folder.glob("*/f")
    calls = recorded(monkeypatch)
    assert drop([folder], everything) == (1, 0)
    assert calls == [
        ("unlink", str(inside)),
        ("fsync", str(inside.parent)),
        ("unlink", f"{inside.parent}.json"),
        ("fsync", str(folder)),
    ]


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

"""A file that cannot leave its outbox is held with the reason, and is neither sent again nor lost."""

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from conditions import missing
from ordinary_user import AGENT, PRODUCER, as_user, open_folder
from unit.agent_rig import Rig
from unit.leaving_lab import PRIVATE, files_in, item, opened, take

from iot.spooler.agent.draining import End
from iot.spooler.status import status
from iot.transfer import beneath
from iot.transfer.beneath import rename_noreplace


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


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


class Copying:
    """A leaver to another disk. unreadable: it cannot even begin."""

    def __init__(self, unreadable=False):
        self.unreadable, self.copies = unreadable, 0

    def leave(self, folder, private, item):
        if self.unreadable:
            raise PermissionError(13, "Permission denied")
        self.copies += 1
        return True

    def sync(self):
        pass


@pytest.mark.needs("root")
def test_what_waits_in_a_folder_that_has_become_sticky_is_not_copied_before_it_may_go():
    with open_folder() as folder:
        box = folder / "box"
        box.mkdir()
        box.chmod(0o777)
        (box / "f").write_bytes(b"content")
        os.chown(box / "f", PRODUCER, PRODUCER)
        (box / "f").chmod(0o666)
        leaving = item(box, "f")

        def attempt(leaver):
            done, failed = take(box, [leaving], leaver)[:2]
            return json.dumps([done, [error.strerror for _, error in failed], leaver.copies])

        def tried(leaver):
            return json.loads(as_user(AGENT, lambda: attempt(leaver)))

        assert tried(Copying(unreadable=True)) == [[], ["Permission denied"], 0]
        assert files_in(box) == [os.fsdecode(PRIVATE)]
        box.chmod(0o1777)
        done, (why,), copies = tried(Copying())
        assert (done, copies) == ([], 0)
        assert "not permitted" in why or "sticky" in why
        box.chmod(0o777)
        assert tried(Copying()) == [[1], [], 1]
        assert files_in(box) == []


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
        missing("this file system knows no append-only folders")
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

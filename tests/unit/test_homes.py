"""Folders on disks that may be missing, with real mounts: at a start, in between, and mounted over files."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from servers.bad_input import mounted
from unit.inbox_lab import InboxLab
from unit.inbox_watched import Wrapped
from unit.removing import taken
from unit.test_chains import put

from iot.spooler.leaving.forward import Forward
from iot.spooler.outbox.scan import Outbox, SourceFailed
from iot.spooler.state import homes
from iot.spooler.state.homes import Homes

pytestmark = pytest.mark.needs("root", "mounts")


def disk(folder: Path) -> contextlib.AbstractContextManager[Path]:
    return mounted(folder, "tmpfs", "mode=755")


def checked(known: Homes, folder: Path) -> str:
    """-> why it is refused"""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        known.check(folder, descriptor)
    except OSError as error:
        return error.strerror
    finally:
        os.close(descriptor)
    return ""


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# -- what is remembered


def test_a_disk_that_was_there_once_is_missed_also_by_the_next_agent(tmp_path):
    usb, state = tmp_path / "usb", tmp_path / "state"
    state.mkdir()
    with disk(usb):
        assert checked(Homes(state), usb) == ""
    assert checked(Homes(state), usb) == f"{usb} is no longer mounted"
    with disk(usb):
        assert checked(Homes(state), usb) == ""


def test_a_disk_that_is_required_is_missed_at_the_very_first_start(tmp_path):
    usb = tmp_path / "usb"
    (usb / "box").mkdir(parents=True)
    known = Homes(None, [tmp_path / "other", usb])
    assert checked(known, usb / "box") == f"{usb} is not mounted"
    assert checked(known, tmp_path) == ""
    with disk(usb):
        (usb / "box").mkdir()
        assert checked(known, usb / "box") == ""


def test_a_disk_that_is_mounted_later_is_taken_and_missed_from_then_on(tmp_path):
    usb = tmp_path / "usb"
    usb.mkdir()
    known = Homes(tmp_path)
    assert checked(known, usb) == ""
    with disk(usb):
        assert checked(known, usb) == ""
    assert checked(known, usb) == f"{usb} is no longer mounted"


def test_a_folder_that_was_moved_to_another_disk_is_taken_while_the_old_one_is_there(tmp_path):
    known, link = Homes(tmp_path), tmp_path / "link"
    with disk(tmp_path / "one"), disk(tmp_path / "two"):
        link.symlink_to("one")
        assert checked(known, link) == ""
        link.unlink()
        link.symlink_to("two")
        assert checked(known, link) == ""
    assert checked(known, link) == f"{tmp_path / 'two'} is no longer mounted"


def test_a_link_that_leads_elsewhere_now_does_not_wait_for_the_disk_that_it_led_to(tmp_path):
    link = tmp_path / "link"
    (tmp_path / "data").mkdir()
    with disk(tmp_path / "usb"):
        link.symlink_to("usb")
        assert checked(Homes(tmp_path), link) == ""
    assert checked(Homes(tmp_path), link) == f"{tmp_path / 'usb'} is no longer mounted"
    link.unlink()
    link.symlink_to("data")
    assert checked(Homes(tmp_path), link) == ""


def test_a_disk_that_is_required_is_missed_behind_a_link_too(tmp_path):
    usb, link = tmp_path / "usb", tmp_path / "link"
    usb.mkdir()
    link.symlink_to("usb")
    known = Homes(None, [usb])
    assert checked(known, link) == f"{usb} is not mounted"
    with disk(usb):
        assert checked(known, link) == ""


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"a": "\\u0000"}'])
def test_a_damaged_record_is_none(tmp_path, content):
    (tmp_path / homes.NAME).write_text(content)
    assert checked(Homes(tmp_path), tmp_path) == ""


def test_a_record_that_cannot_be_written_is_told_and_kept_in_memory(tmp_path, caplog):
    known = Homes(tmp_path / "missing")
    with disk(tmp_path / "usb"):
        assert checked(known, tmp_path / "usb") == ""
    assert "mount points are not remembered" in caplog.text
    assert checked(known, tmp_path / "usb") == f"{tmp_path / 'usb'} is no longer mounted"


# -- outboxes


def test_an_outbox_whose_mount_has_gone_is_a_failed_source_and_gives_up_its_claim(tmp_path):
    box = Outbox(tmp_path / "usb", wanted=lambda _: True, clock=lambda: 0.0)
    with disk(tmp_path / "usb"):
        assert list(box.walk(whole=True)) is not None
    with pytest.raises(SourceFailed, match="is no longer mounted"):
        list(box.walk(whole=True))
    assert box._claimed is None


def test_a_disk_that_is_mounted_over_an_outbox_is_the_outbox_from_then_on(tmp_path):
    usb = tmp_path / "usb"
    usb.mkdir()
    box = Outbox(usb, wanted=lambda _: True, clock=lambda: 0.0)
    (usb / "hidden").touch()
    assert names(box) == [b"hidden"]
    with disk(usb):
        (usb / "new").touch()
        assert names(box) == [b"new"]
        box.release()


def names(box: Outbox) -> list[bytes]:
    return [found.path for batch in box.walk(whole=True) for found in batch]


def test_what_was_delivered_is_not_sent_again_when_its_disk_was_missing_at_a_start(tmp_path):
    lab, sent = InboxLab(tmp_path), []
    box = {"path": str(lab.box), "destination": "/up", "settle_s": 0, "after_upload": "keep"}
    lab.more["outbox"] = [box]

    def wrap(remote):
        return Counted(remote, sent)

    with disk(lab.box):
        (lab.box / "a").write_bytes(b"one")
        lab.run(wrap=wrap)
        kept = tmp_path / "kept"
        subprocess.run(["mount", "--bind", lab.box, mounting(kept)], check=True)
    try:
        lab.run(wrap=wrap)
        assert "no longer mounted" in str(lab.loop.last["outboxes"][0])
        subprocess.run(["mount", "--bind", kept, lab.box], check=True)
        lab.run(wrap=wrap)
    finally:
        subprocess.run(["umount", lab.box, kept], check=False)
    assert sent == ["a"]


class Counted:
    """A remote that notes what is uploaded."""

    def __init__(self, remote, sent):
        self._remote, self._sent = remote, sent

    def __getattr__(self, name):
        return getattr(self._remote, name)

    def upload_many(self, jobs, **named):
        for outcome in self._remote.upload_many(jobs, **named):
            self._sent.append(os.path.basename(outcome.dest))
            yield outcome


def mounting(folder: Path) -> Path:
    folder.mkdir()
    return folder


# -- chains


@pytest.mark.parametrize("by", ["memory", "setting"])
def test_nothing_is_forwarded_below_a_mount_point_whose_disk_is_missing_at_the_start(tmp_path, by):
    box, usb, state = tmp_path / "box", tmp_path / "usb", tmp_path / "state"
    for folder in (box, usb, state):
        folder.mkdir()
    root = os.open(box, os.O_RDONLY)
    if by == "memory":
        with disk(usb):
            assert taken(root, [put(box)], Forward(usb, box, homes=Homes(state)))[1] == []
    known = Homes(state, [usb] if by == "setting" else ())
    done, [(_, error)] = taken(root, [put(box)], Forward(usb, box, homes=known))
    os.close(root)
    assert done == []
    assert "mounted" in str(error)
    assert files(usb) == []


# -- inboxes


def test_nothing_is_fetched_into_the_mount_point_of_a_missing_disk_nor_removed_from_the_server(tmp_path):
    lab = InboxLab(tmp_path, after_download="delete")
    with disk(lab.here):
        lab.put("a", b"one")
        lab.run()
        assert lab.published() == {"a": b"one"}
    lab.put("b", b"two")
    lab.run()
    assert "no longer mounted" in lab.loop.last["inboxes"][0]["error"]
    assert (lab.published(), lab.hidden()) == ({}, [])
    assert (lab.server / "b").exists()
    with disk(lab.here):
        lab.run()
        assert lab.published() == {"b": b"two"}
    assert not (lab.server / "b").exists()


def test_a_disk_that_goes_while_files_are_fetched_takes_none_of_them_along(tmp_path):
    lab = InboxLab(tmp_path, after_download="delete")
    (lab.here / ".iot-inbox").mkdir(0o700)  # below the mount point, from a time without the disk
    lab.put("a", b"one")

    def wrap(remote):
        class Unplugged(Wrapped):
            def download_many(self, jobs, **named):
                for outcome in remote.download_many(jobs, **named):
                    subprocess.run(["umount", "-l", lab.here], check=True)
                    yield outcome

        return Unplugged(remote)

    with disk(lab.here):
        lab.run(wrap=wrap)
    assert lab.published() == {}
    assert (lab.server / "a").exists()
    with disk(lab.here):
        lab.run()
        assert lab.published() == {"a": b"one"}


def test_a_required_disk_is_named_by_check(tmp_path):
    from iot.spooler.checks.preflight import obstacles
    from iot.spooler.config.origins import Origins
    from iot.spooler.config.settings import Settings

    lab = InboxLab(tmp_path)
    lab.more["mounts"] = [str(lab.here)]
    settings = Settings.model_validate(lab.settings())
    lines = obstacles(settings, Origins(None, "", {}), None, by_unit=False)
    assert any(f"{lab.here} is not mounted" in line for line in lines), lines

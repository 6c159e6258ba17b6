"""The folder of an inbox: what is on the disk before what, whom it trusts, and what a name keeps."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from unit.inbox_lab import InboxLab
from unit.test_folder_store import steps  # noqa: F401  a fixture

from iot.spooler.inbox.place import HIDDEN, Content, Place, Untrusted
from iot.spooler.naming import UnsafeName
from iot.spooler.state.homes import Homes

INBOX = os.fsdecode(HIDDEN)


def content(path: bytes, data: bytes = b"one") -> Content:
    return Content(path, hashlib.sha256(data).hexdigest())


def arrived(place: Place, path: bytes, data: bytes = b"one") -> Content:
    """It was fetched, and is on the disk."""
    place.prepare()
    Path(place.fetching_path(path)).write_bytes(data)
    return content(path, data)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "here").mkdir()
    return Place(tmp_path / "here", judged=False)


@pytest.fixture
def renames(monkeypatch: pytest.MonkeyPatch, steps: list[str]) -> list[str]:  # noqa: F811
    """As `steps`, with the renames and removals among them."""
    real_rename, real_unlink = os.rename, os.unlink

    def rename(old: bytes, new: bytes, **folders: int) -> None:
        real_rename(old, new, **folders)
        steps.append("rename")

    def unlink(name: bytes, **folder: int) -> None:
        real_unlink(name, **folder)
        steps.append("unlink")

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "unlink", unlink)
    return steps


def test_what_is_sealed_is_so_on_the_disk_before_that_is_recorded(place: Place, renames: list[str]) -> None:
    each = arrived(place, b"a")
    renames.clear()
    assert place.seal([each]) == {}
    assert renames == ["rename", f"fsync {INBOX}"]


def test_a_name_is_on_the_disk_before_the_hidden_one_is_gone_from_it(place: Place, renames: list[str]) -> None:
    both = [arrived(place, b"deep/a"), arrived(place, b"b")]
    place.seal(both)
    (Path(place.fetching_path(b"a")).parent.parent / "deep").mkdir()
    renames.clear()
    assert place.publish(both) == {}
    assert renames == ["rename", "fsync here", "rename", "fsync deep", f"fsync {INBOX}"]


def test_what_was_there_already_is_on_the_disk_before_the_other_copy_goes(
    place: Place, tmp_path: Path, renames: list[str]
) -> None:
    each = arrived(place, b"a")
    place.seal([each])
    (tmp_path / "here/a").write_bytes(b"one")
    renames.clear()
    place.confirm(each)
    assert renames == ["fsync a", "fsync here", "unlink"]
    assert not place.is_waiting(each)


def test_contents_of_one_name_do_not_take_each_others_place(place: Place) -> None:
    both = [arrived(place, b"a", b"one")]
    place.seal(both)
    both.append(arrived(place, b"a", b"two"))
    place.seal(both[1:])
    assert [Path(place.sealed_path(each)).read_bytes() for each in both] == [b"one", b"two"]
    place.clean([b"a"], both[1:])
    assert [place.is_waiting(each) for each in both] == [False, True]


def test_what_is_fetched_for_a_name_stays_and_what_nobody_wants_goes(place: Place) -> None:
    for name in (b"a", b"b"):
        arrived(place, name)
        Path(place.fetching_path(name) + ".part").write_bytes(b"x")
    place.clean([b"a"], [])
    left = {Path(place.fetching_path(b"a")).name, Path(place.fetching_path(b"a") + ".part").name}
    assert set(os.listdir(Path(place.fetching_path(b"a")).parent)) == left


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_hidden_folder_that_others_may_write_to_is_not_used(place: Place, tmp_path: Path, mode: int) -> None:
    place.prepare()
    (tmp_path / "here" / INBOX).chmod(mode)
    with pytest.raises(Untrusted):
        place.prepare()


@pytest.mark.needs("root")
def test_a_hidden_folder_of_somebody_else_is_not_used(place: Place, tmp_path: Path) -> None:
    place.prepare()
    os.chown(tmp_path / "here" / INBOX, 65534, -1)
    with pytest.raises(Untrusted):
        place.prepare()


def test_a_file_that_is_replaced_hands_on_its_rights_and_no_others(place: Place, tmp_path: Path) -> None:
    (tmp_path / "here/a").write_bytes(b"old")
    (tmp_path / "here/a").chmod(0o4711)
    each = arrived(place, b"a")
    place.seal([each])
    place.publish([each])
    assert (tmp_path / "here/a").read_bytes() == b"one"
    assert (tmp_path / "here/a").stat().st_mode & 0o7777 == 0o711


@pytest.mark.parametrize("name", [b"../x", b"/x", b"a/../../x"])
def test_no_name_leads_out_of_it(place: Place, name: bytes) -> None:
    each = arrived(place, name)
    place.seal([each])
    for act in (lambda: place.publish([each]), lambda: place.here(name), lambda: place.digest(name)):
        with pytest.raises(UnsafeName):
            act()


def test_without_replace_a_file_waits_until_the_one_before_it_was_taken_out(tmp_path: Path) -> None:
    lab = InboxLab(tmp_path, replace=False)
    (lab.here / "a").write_bytes(b"the consumer's")
    lab.put("a", b"one")
    lab.loop.stop_at = lab.loop.now + 20
    lab.run(drain=False)
    assert lab.published() == {"a": b"the consumer's"}
    assert lab.rows()["a"][0] == "fetched"
    assert "has not been taken out yet" in lab.not_taken()["a"]
    (lab.here / "a").unlink()
    lab.loop.stop_at = lab.loop.now + 20
    lab.run(drain=False)
    assert lab.published() == {"a": b"one"}
    assert lab.not_taken() == {}


def test_what_waits_has_a_name_that_every_version_of_the_agent_knows() -> None:
    assert content(b"a").hidden_name == (
        b"ca978112ca1bbdcafac231b39a23dc4d=" + hashlib.sha256(b"one").hexdigest().encode()[:32]
    )


def test_nothing_is_done_where_its_medium_is_no_longer_mounted(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    place = Place(tmp_path / "here", judged=False, homes=Homes(required=[tmp_path]))
    for act in (place.prepare, lambda: place.here(b"a"), lambda: place.seal([content(b"a")])):
        with pytest.raises(OSError, match="is not mounted"):
            act()
    assert list((tmp_path / "here").iterdir()) == []

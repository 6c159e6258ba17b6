"""The folder of an inbox: what is on the disk before what, whom it trusts, and what a name keeps."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
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


def test_a_link_is_read_by_nobody_and_a_pipe_keeps_nobody_waiting(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"one")
    (tmp_path / "here/a").symlink_to(tmp_path / "outside")
    for act in (lambda: place.digest(b"a"), lambda: place.confirm(content(b"a"))):
        with pytest.raises(OSError, match="symbolic"):
            act()
    os.mkfifo(tmp_path / "here/b")
    assert place.digest(b"b") == hashlib.sha256(b"").hexdigest()
    with suppress(OSError):  # as the file system likes
        place.confirm(content(b"b"))
    assert (place.here(b"a"), place.here(b"b")) == (None, None)


def test_what_has_no_name_yet_is_not_here_and_has_no_digest(place: Place, tmp_path: Path) -> None:
    (tmp_path / "here/file").write_bytes(b"12345")
    os.utime(tmp_path / "here/file", (10**9, 10**9 + 0.5))
    assert place.here(b"file") == (5, 10**9)
    for name in (b"gone", b"gone/deeper", b"file/deeper"):
        assert place.here(name) is None
        with pytest.raises(OSError, match="No such file"):
            place.digest(name)


def test_what_was_taken_out_with_its_folder_waits_no_more(place: Place) -> None:
    each = arrived(place, b"deep/a")
    place.seal([each])
    place.confirm(each)
    assert not place.is_waiting(each)


def test_whatever_has_the_hidden_name_is_waiting(place: Place) -> None:
    place.prepare()
    assert not place.is_waiting(content(b"a"))
    Path(place.sealed_path(content(b"a"))).symlink_to("nowhere")
    assert place.is_waiting(content(b"a"))


def test_the_hidden_folder_is_the_agents_alone(place: Place, tmp_path: Path) -> None:
    place.prepare()
    assert (tmp_path / "here" / INBOX).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "trusted"), [(0o755, True), (0o775, False), (0o757, False), (0o1777, True)])
@pytest.mark.parametrize("judged", [True, False])
def test_where_others_could_exchange_what_is_judged_nothing_is_fetched(
    tmp_path: Path, judged: bool, mode: int, trusted: bool
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here").chmod(mode)
    place = Place(tmp_path / "here", judged=judged)
    if trusted or not judged:
        place.prepare()
        return
    with pytest.raises(Untrusted, match="other users may write to it"):
        place.prepare()


@pytest.mark.needs("root")
@pytest.mark.parametrize(("mode", "trusted"), [(0o755, False), (0o1755, True)])
def test_a_folder_of_somebody_else_is_no_place_for_what_is_judged(tmp_path: Path, mode: int, trusted: bool) -> None:
    (tmp_path / "here").mkdir()
    os.chown(tmp_path / "here", 65534, -1)
    (tmp_path / "here").chmod(mode)
    Place(tmp_path / "here", judged=False).prepare()
    judged = Place(tmp_path / "here", judged=True)
    if trusted:
        judged.prepare()
        return
    with pytest.raises(Untrusted, match="other users may write to it"):
        judged.prepare()


@pytest.mark.parametrize("replace", [True, False])
def test_a_name_that_is_taken_is_the_fault_of_that_file_only(place: Place, tmp_path: Path, replace: bool) -> None:
    """A folder has one of them; the parent of another is a file."""
    every = [arrived(place, name) for name in (b"a", b"b", b"file/c", b"deep/d")]
    place.seal(every)
    (tmp_path / "here/a").mkdir()
    (tmp_path / "here/file").touch()
    failed = place.publish(every, replace=replace)
    assert set(failed) == {b"a", b"file/c"}
    assert [place.is_waiting(each) for each in every] == [True, False, True, False]
    assert (tmp_path / "here/deep/d").read_bytes() == b"one"


def test_a_private_file_that_is_replaced_by_a_link_hands_on_nothing(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    (tmp_path / "outside").chmod(0o600)
    (tmp_path / "here/a").symlink_to(tmp_path / "outside")
    each = arrived(place, b"a")
    place.seal([each])
    before = Path(place.sealed_path(each)).stat().st_mode
    assert place.publish([each]) == {}
    assert not (tmp_path / "here/a").is_symlink()
    assert (tmp_path / "here/a").stat().st_mode == before


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

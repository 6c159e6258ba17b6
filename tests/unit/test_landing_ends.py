"""How a download ends on this side: kept, removed, named together with others, and told for the last time."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.landing_lab import OLD, Lab, publish

from iot.transfer import sink as sink_module
from iot.transfer.errors import Cancelled, ConfigurationError, DiskFull, LocalStateError, PermanentError
from iot.transfer.landing import Landing, download_key, download_task, publish_together
from iot.transfer.model import DownloadJob, Evidence, Fingerprint, RemoteFile
from iot.transfer.names import part_name
from iot.transfer.settings import TransferSettings


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def fetched(landing: Landing, content: bytes = b"abc") -> Landing:
    landing.sink.write(0, memoryview(content))
    landing.end = len(content)
    return landing


# -- kept or removed


def test_what_was_fetched_is_kept_and_on_record_when_it_ends_early(lab: Lab) -> None:
    fetched(lab.begun()).close()
    assert [each.acked_bytes for each in lab.noted] == [3]
    [part] = lab.dest.parent.iterdir()
    assert part.read_bytes() == b"abc"


def test_a_part_that_holds_nothing_is_removed_and_not_on_record(lab: Lab) -> None:
    lab.begun().close()
    assert lab.noted == []
    assert list(lab.dest.parent.iterdir()) == []


def test_a_download_that_never_began_leaves_the_part_of_an_earlier_one(lab: Lab) -> None:
    part = Path(os.fsdecode(lab.landing().sink.part))
    part.write_bytes(b"abc")
    landing = lab.landing()
    assert (landing.end, landing.resumed_at) == (0, 0)
    landing.close()
    assert part.read_bytes() == b"abc"
    assert lab.noted == []


def test_an_open_file_keeps_what_stands_in_it_when_nothing_came(lab: Lab) -> None:
    stream = io.BytesIO(b"the caller's")
    lab.begun(dest=stream).close()
    assert stream.getvalue() == b"the caller's"


@pytest.mark.parametrize("ends", ["throw_away", "rename"])
def test_what_was_thrown_away_or_named_is_not_on_record_again(lab: Lab, ends: str) -> None:
    landing = fetched(lab.begun())
    getattr(landing, ends)()
    landing.close()
    assert lab.noted == []
    assert [path.name for path in lab.dest.parent.iterdir()] == ([] if ends == "throw_away" else ["file"])


def test_a_disk_that_refuses_the_last_bytes_leaves_nothing_open(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = fetched(lab.begun())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        landing.close()
    with pytest.raises(LocalStateError):
        landing.sink.write(0, memoryview(b"x"))  # it is closed
    assert lab.noted == []


def test_a_suspended_download_is_cancelled_and_kept(lab: Lab) -> None:
    landing = lab.begun(suspended=lambda: True)
    landing.sink.write(0, memoryview(b"abc"))
    with pytest.raises(Cancelled, match="suspended; what was fetched is kept for a resume"):
        landing.progressed(3)
    landing.close()
    assert [each.acked_bytes for each in lab.noted] == [3]
    assert lab.told == []


@pytest.mark.usefixtures("disk_at_once")
def test_what_is_on_record_already_is_not_written_again(lab: Lab) -> None:
    lab.options = replace(lab.options, checkpoint_bytes=500)
    landing = lab.begun()
    landing.progressed(500)
    landing.progressed(int("500"))
    landing.save()
    assert [each.acked_bytes for each in lab.noted] == [500]


def test_space_is_asked_for_what_the_server_says_beyond_what_is_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    for remote in (OLD, replace(OLD, size=None)):
        landing = lab.landing()
        landing.found(remote)
        monkeypatch.setattr(landing.sink, "check_space", lambda *sizes: asked.append(sizes))
        landing.begin(None)
    assert asked == [(1000, 0), (0, 0)]


# -- names


def test_files_that_get_their_names_together_cost_one_sync_for_each_folder(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(sink_module, "sync_folder", synced.append)
    folders = [lab.dest.parent / name for name in "ab"]
    landings = []
    for number, folder in enumerate([*folders, folders[0]]):
        folder.mkdir(exist_ok=True)
        lab.dest = folder / f"f{number}"
        landings.append(fetched(lab.begun()))
    publish_together(landings)
    assert synced == [os.fsencode(folder) for folder in folders]
    assert [landing.failure for landing in landings] == [None] * 3


def test_a_folder_whose_names_are_not_durable_is_the_failure_of_all_in_it_and_of_no_other(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.dest.parent / "bad").mkdir()

    def broken(folder: bytes) -> None:
        if folder.endswith(b"bad"):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sink_module, "sync_folder", broken)
    landings = []
    for name in ("good", "bad/1", "bad/2"):
        lab.dest = lab.dest.parent / name if name != "bad/2" else lab.dest.parent / "2"
        landings.append(fetched(lab.begun()))
    publish_together(landings)
    good, *bad = landings
    assert good.published(None, Evidence.SIZE, 3).durable
    for landing in bad:
        with pytest.raises(LocalStateError, match="Input/output error"):
            landing.published(None, Evidence.SIZE, 3)


def test_one_that_cannot_be_named_is_its_own_failure_and_its_folder_not_synced(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = fetched(lab.begun())
    lab.dest.mkdir()
    monkeypatch.setattr(sink_module, "sync_folder", lambda _: pytest.fail("nothing to sync"))
    with pytest.raises(PermanentError, match="is a folder"):
        publish(landing, None, Evidence.SIZE, 3)


def test_two_downloads_to_one_file_have_one_lock_however_it_is_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lab.dest.parent
    (folder / "in").mkdir()
    (folder / "link").symlink_to("in")
    monkeypatch.chdir(folder)
    names = {lab.landing(dest=dest).lock_name for dest in (f"{folder}/in/f", "in/f", "link/f", f"{folder}/x/../in/f")}
    assert names == {os.fsencode(os.path.realpath(folder) + "/in/f")}
    (folder / "in/g").symlink_to("f")
    assert lab.landing(dest="in/g").lock_name.endswith(b"/in/g")  # the link itself would be replaced
    streams = io.BytesIO(), io.BytesIO()
    assert lab.landing(dest=streams[0]).lock_name == lab.landing(dest=streams[0]).lock_name
    assert lab.landing(dest=streams[0]).lock_name != lab.landing(dest=streams[1]).lock_name


def test_the_part_lies_beside_the_file_and_names_its_owner(lab: Lab) -> None:
    lab.options = replace(lab.options, part_suffix=".p")
    landing = lab.begun()
    path = os.fsencode(lab.dest)
    assert landing.sink.part == part_name(path, b"/far/file", "me", ".p")
    result = publish(fetched(landing), None, Evidence.SIZE, 3)
    direction, *names = landing.key
    assert download_key(result) == (direction.value, *names) == ("download", b"/far/file", path)


# -- told


def test_progress_is_told_ten_times_a_second_and_at_the_end_even_just_after_the_start_of_the_device(lab: Lab) -> None:
    lab.now = 0.0
    landing = lab.begun()
    for now, end in ((0.05, 1), (0.1, 2), (0.15, 3)):
        lab.now = now
        landing.progressed(end)
    assert [each.done_bytes for each in lab.told] == [2]
    lab.now = 0.0
    publish(landing, None, Evidence.SIZE, 3)
    assert [each.done_bytes for each in lab.told] == [2, 3]


@pytest.mark.parametrize(("size", "done", "total"), [(None, 0, 0), (0, 5, 5), (10, 5, 10), (10, 12, 12)])
def test_the_total_is_what_the_server_says_or_what_has_come(lab: Lab, size: int | None, done: int, total: int) -> None:
    landing = lab.begun(RemoteFile(size))
    lab.now += 1
    landing.progressed(done)
    assert [(each.done_bytes, each.total_bytes) for each in lab.told] == [(done, total)]


def test_a_result_says_where_it_went_on(lab: Lab) -> None:
    lab.begun()
    Path(os.fsdecode(lab.open[0].sink.part)).write_bytes(bytes(800))
    landing = lab.begun(known=lab.open[0].checkpoint(600))
    lab.now += 1
    landing.progressed(700)
    assert publish(landing, None, Evidence.SIZE, 100).resumed_at == 600
    assert [each.resumed_at for each in lab.told] == [600, 600]


def test_a_version_of_which_the_server_tells_nothing_is_the_empty_one(lab: Lab) -> None:
    result = publish(lab.begun(RemoteFile(None)), None, Evidence.END_OF_FILE, 0)
    assert result.fingerprint == Fingerprint(0, 0)


@pytest.mark.parametrize(
    ("setting", "job", "needed"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_the_settings_or_the_job_ask_for_the_checksum_file(lab: Lab, setting: bool, job: bool, needed: bool) -> None:
    lab.options = replace(lab.options, sidecar=setting)
    assert lab.landing(sidecar=job).needs_sidecar is needed


# -- asked for


def test_a_job_is_taken_over_as_it_is(tmp_path: Path) -> None:
    job = DownloadJob("/f", os.fsencode(tmp_path / "f"), progress=print, keep_times=True, sidecar=True, suspended=dict)  # type: ignore[arg-type]
    task = download_task(job, TransferSettings())
    assert (task.source, task.dest, task.progress) == (b"/f", str(tmp_path / "f"), print)
    assert (task.keep_times, task.sidecar, task.suspended) == (True, True, dict)
    assert (task.digest, task.expected_sha256) == (False, None)
    task = download_task(DownloadJob("/f", tmp_path / "f", sha256=True), TransferSettings())
    assert (task.digest, task.keep_times, task.sidecar, task.suspended()) == (True, False, False, False)


def test_what_is_neither_a_path_nor_an_open_file_is_refused_by_its_type() -> None:
    told = r"^dest: must be str, bytes, os.PathLike or an open binary file \(got int\)$"
    with pytest.raises(ConfigurationError, match=told):
        download_task(DownloadJob("/f", 7), TransferSettings())  # type: ignore[arg-type]


def test_an_open_file_of_somebody_elses_kind_need_not_tell_whether_it_is_closed() -> None:
    able = dict.fromkeys(["writable", "seekable", "readable"], lambda: True)
    dest: Any = SimpleNamespace(write=len, **able)
    assert download_task(DownloadJob("/f", dest), TransferSettings()).dest is dest


def test_a_checksum_file_cannot_be_held_against_what_cannot_be_read_again() -> None:
    stream: Any = io.BytesIO()
    stream.readable = lambda: False
    with pytest.raises(
        ConfigurationError, match="sidecar: cannot verify an open file that is not readable; open it as"
    ):
        download_task(DownloadJob("/f", stream, sidecar=True), TransferSettings())


def test_a_disk_that_is_too_small_is_told_before_a_byte_is_fetched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**6, free=999))
    with pytest.raises(DiskFull):
        lab.begun()
    assert list(lab.dest.parent.iterdir()) == []

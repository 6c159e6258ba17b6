"""Where a download goes, step by step: room, flushes, hashes in steps, streams that give or take a little at a time."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.transfer import sink as module
from iot.transfer.errors import DiskFull, LocalStateError, PermanentError, PermissionDenied
from iot.transfer.model import Span
from iot.transfer.sink import FileSink, Kept, StreamSink

CONTENT = bytes(range(256)) * 4


def sink_for(folder: Path) -> FileSink:
    path = os.fsencode(folder / "file")
    return FileSink(path, path + b".12345678.part")


@pytest.mark.parametrize(
    ("size", "offset", "part", "fits"),
    [(100, 0, 0, True), (101, 0, 0, False), (150, 50, 50, True), (151, 50, 50, False), (120, 0, 20, True),
     (121, 0, 20, False), (170, 50, 70, True), (171, 50, 70, False), (110, 10, 0, True), (111, 10, 0, False)],
)  # fmt: skip
def test_what_the_part_holds_beyond_the_resume_counts_as_room(tmp_path, monkeypatch, size, offset, part, fits):
    sink = sink_for(tmp_path)
    Path(os.fsdecode(sink.part)).write_bytes(bytes(part))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1000, free=100))
    if fits:
        sink.check_space(size, offset)
        return
    free = 100 + max(part - offset, 0)
    told = rf"^not enough space for .*file: needs {size - offset} B, {free} B free; free some space there$"
    with pytest.raises(DiskFull, match=told):
        sink.check_space(size, offset)


def test_a_file_system_that_counts_nothing_or_does_not_tell_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=0, free=0))
    sink_for(tmp_path).check_space(10**12, 0)

    def refused(_: object) -> None:
        raise OSError

    monkeypatch.setattr(shutil, "disk_usage", refused)
    sink_for(tmp_path).check_space(10**12, 0)


@pytest.mark.parametrize("what", ["folder", "fifo"])
def test_what_is_no_file_is_refused_before_a_byte_is_fetched(tmp_path, what):
    (tmp_path / "file").mkdir() if what == "folder" else os.mkfifo(tmp_path / "file")
    with pytest.raises(PermanentError, match="is a folder" if what == "folder" else "not a regular file"):
        sink_for(tmp_path).check_space(1, 0)


@pytest.mark.parametrize(
    ("private", "there", "mode"), [(False, False, 0o666), (True, False, 0o600), (False, True, 0o600)]
)
def test_a_part_is_private_where_what_it_becomes_may_be(tmp_path, private, there, mode):
    if there:
        (tmp_path / "file").touch()
    sink, umask = sink_for(tmp_path), os.umask(0)
    try:
        sink.open(0, private=private)
    finally:
        os.umask(umask)
        sink.close()
    assert stat.S_IMODE(os.stat(sink.part).st_mode) == mode


def test_opened_again_it_is_cut_and_keeps_one_descriptor(tmp_path):
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(0, memoryview(CONTENT))
    sink.open(100)
    assert sink.size() == 100
    assert sink.read(Span(50, 200)) == CONTENT[50:100]
    sink.close()
    sink.close()


def test_a_part_that_cannot_be_looked_at_is_told(tmp_path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    sink = sink_for(tmp_path)
    monkeypatch.setattr(module.os, "stat", refused)
    with pytest.raises(PermissionDenied):
        sink.size()


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_hash_is_made_in_steps_that_can_be_cancelled_between(tmp_path, monkeypatch, blocks):
    monkeypatch.setattr(module, "HASH_BLOCK", 100)
    content = CONTENT[: 100 * blocks]
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(0, memoryview(content))
    stream = StreamSink(io.BytesIO())
    stream.write(0, memoryview(content))
    expected = [*[None] * blocks, hashlib.sha256(content).hexdigest()]
    assert list(sink.sha256()) == expected
    assert list(stream.sha256()) == expected
    sink.close()


@pytest.mark.parametrize(("kept", "mode"), [(Kept(), 0o640), (Kept(mode=0o4755), 0o755)])
def test_the_mode_of_what_is_replaced_stays_unless_another_is_to_be_kept(tmp_path, kept, mode):
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.publish(kept)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_where_times_and_modes_cannot_be_kept_the_file_is_published_all_the_same(tmp_path, monkeypatch, caplog):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "FAT")

    monkeypatch.setattr(os, "utime", refused)
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.publish(Kept(mtime_s=5))
    assert (tmp_path / "file").exists()
    assert "not kept path=" in caplog.text


def test_a_short_read_or_write_of_the_system_is_gone_on_with(tmp_path, monkeypatch):
    real_read, real_write = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda file, length, at: real_read(file, min(length, 7), at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real_write(file, data[:7], at))
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(5, memoryview(CONTENT))
    assert sink.read(Span(5, 5 + len(CONTENT))) == CONTENT
    assert sink.read(Span(0, 7)) == bytes(5) + CONTENT[:2]
    sink.close()


@pytest.mark.parametrize("way", ["pread", "pwrite"])
def test_systems_without_positions_seek(tmp_path, monkeypatch, way):
    monkeypatch.delattr(os, way)
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(0, memoryview(CONTENT))
    sink.write(3, memoryview(b"??"))
    assert sink.read(Span(2, 6)) == CONTENT[2:3] + b"??" + CONTENT[5:6]
    sink.close()


def test_the_current_folder_can_be_synced_too(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    monkeypatch.chdir(tmp_path)
    module.sync_folder(b"")
    module.sync_folder(b"/")
    assert synced == [str(tmp_path), "/"]
    monkeypatch.setattr(os, "name", str(b"nt", "ascii"))
    module.sync_folder(b"")
    monkeypatch.undo()
    assert len(synced) == 2


def test_a_link_in_the_place_of_the_part_is_not_measured(tmp_path):
    (tmp_path / "large").write_bytes(bytes(5000))
    sink = sink_for(tmp_path)
    os.symlink("large", sink.part)
    assert sink.size() == len("large")


def test_the_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(file: int) -> None:
        steps.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))
        real_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("rename"), real_replace(*names)))
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.publish(Kept(mtime_s=0))
    sink.sync_name()
    assert steps == ["file.12345678.part", "rename", tmp_path.name]
    assert (tmp_path / "file").stat().st_mtime == 0


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_attributes_are_set_on_the_open_file_where_the_system_can(tmp_path, monkeypatch, by_descriptor):
    told = []
    monkeypatch.setattr(module, "BY_DESCRIPTOR", by_descriptor)
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, lambda target, _: told.append(target))
    sink = sink_for(tmp_path)
    sink.open(0)
    target = sink._fd if by_descriptor else sink.part
    sink.publish(Kept(0o640, 5))
    assert told == [target, target]


def test_a_descriptor_is_closed_once_even_if_it_has_the_number_of_the_standard_input(tmp_path, monkeypatch):
    sink, closed = sink_for(tmp_path), []
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", closed.append)
        sink.close()
        sink._fd = 0
        sink.close()
        sink.close()
    assert closed == [0]


def test_a_folder_with_the_name_of_the_file_is_told_with_the_way_out(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(PermanentError, match=r"file is a folder; give the name of a file in it$"):
        sink_for(tmp_path).check_space(1, 0)


# -- a stream


class Stream(io.BytesIO):
    """Gives and takes little at a time; counts flushes."""

    def __init__(self, content: bytes = b"", takes: int = 7) -> None:
        super().__init__(content)
        self.takes, self.flushes = takes, 0

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 7))

    def write(self, data: memoryview) -> int:
        return super().write(bytes(data[: self.takes])) if self.takes else 0

    def flush(self) -> None:
        self.flushes += 1


def test_a_stream_is_read_and_written_whole_from_where_it_stood():
    stream = Stream(b"head")
    stream.seek(4)
    sink = StreamSink(stream)
    assert (sink.readable, sink.path, sink.part, sink.size(), sink.sync_beside(5, 1)) == (True, b"", b"", 0, 0)
    sink.check_space(10**15, 0)
    sink.write(0, memoryview(CONTENT))
    assert sink.read(Span(3, 40)) == CONTENT[3:40]
    assert sink.read(Span(1000, 2000)) == CONTENT[1000:]
    assert list(sink.sha256())[-1] == hashlib.sha256(CONTENT).hexdigest()
    sink.publish()
    assert stream.flushes == 1
    sink.discard()
    assert stream.getvalue() == b"head"


def test_a_stream_that_takes_nothing_is_told():
    with pytest.raises(LocalStateError, match="takes no more bytes"):
        StreamSink(Stream(takes=0)).write(0, memoryview(b"x"))


def test_what_lies_behind_what_was_written_is_not_hashed():
    stream = io.BytesIO(bytes(100))
    sink = StreamSink(stream)
    sink.write(2, memoryview(b"cd"))
    sink.write(0, memoryview(b"ab"))
    assert list(sink.sha256())[-1] == hashlib.sha256(b"abcd").hexdigest()


@pytest.mark.parametrize(("name", "shown"), [("a.bin", "a.bin"), (None, "stream"), (7, "7")])
def test_a_stream_is_told_by_its_name(name, shown):
    stream = io.BytesIO()
    if name is not None:
        stream.name = name
    assert StreamSink(stream).name == shown

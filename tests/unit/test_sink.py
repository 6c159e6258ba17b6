"""Where a download goes: a part that nobody takes for the file, and a rename that cannot be half."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from iot.transfer.errors import DiskFull, LocalStateError, PermanentError, PermissionDenied, SFTPError
from iot.transfer.sink import FileSink, StreamSink


def sink_for(folder: Path, name: str = "file") -> FileSink:
    path = os.fsencode(folder / name)
    return FileSink(path, path + b".12345678.part")


def test_the_file_appears_whole_and_only_when_published(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(3, memoryview(b"def"))
    sink.write(0, memoryview(b"abc"))
    assert (tmp_path / "file").read_bytes() == b"old"
    sink.publish()
    assert (tmp_path / "file").read_bytes() == b"abcdef"
    assert os.listdir(tmp_path) == ["file"]


def test_a_resume_keeps_what_lies_before_and_cuts_what_lies_behind(tmp_path: Path) -> None:
    first = sink_for(tmp_path)
    first.open(0)
    first.write(0, memoryview(b"0123456789"))
    first.close()
    second = sink_for(tmp_path)
    assert second.size() == 10
    second.open(4)
    second.write(4, memoryview(b"xy"))
    second.publish()
    assert (tmp_path / "file").read_bytes() == b"0123xy"


def test_no_part_has_no_size(tmp_path: Path) -> None:
    assert sink_for(tmp_path).size() == 0


def test_the_hash_is_that_of_the_part(tmp_path: Path) -> None:
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(0, memoryview(b"abc"))
    assert list(sink.sha256())[-1] == hashlib.sha256(b"abc").hexdigest()
    sink.close()


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    sink = sink_for(tmp_path)
    os.symlink(victim, sink.part)
    with pytest.raises(PermissionDenied):
        sink.open(0)
    assert victim.read_bytes() == b"precious"


def test_a_fifo_in_the_place_of_the_part_does_not_block(tmp_path: Path) -> None:
    sink = sink_for(tmp_path)
    os.mkfifo(sink.part)
    with pytest.raises(SFTPError):
        sink.open(0)
    sink.close()


def test_a_destination_that_is_a_folder_is_refused_and_the_part_kept(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    sink = sink_for(tmp_path)
    sink.open(0)
    sink.write(0, memoryview(b"abc"))
    with pytest.raises(PermanentError, match="file"):
        sink.publish()
    sink.close()
    assert sink.size() == 3


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="No such file"):
        sink_for(tmp_path / "missing").open(0)


def test_to_discard_leaves_nothing_and_may_happen_twice(tmp_path: Path) -> None:
    sink = sink_for(tmp_path)
    sink.discard()
    sink.open(0)
    sink.discard()
    sink.discard()
    assert os.listdir(tmp_path) == []


def test_a_part_that_cannot_be_discarded_is_told_in_our_words(tmp_path: Path) -> None:
    sink = sink_for(tmp_path)
    os.mkdir(sink.part)
    with pytest.raises(SFTPError):
        sink.discard()


def test_a_new_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        sink = sink_for(tmp_path)
        sink.open(0)
        sink.publish()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == 0o640


@pytest.mark.needs("dev-full")
def test_a_full_disk_is_told_as_such() -> None:
    sink = FileSink(b"/tmp/never", b"/dev/full")
    sink._fd = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(DiskFull, match="free some space"):
        sink.write(0, memoryview(b"x"))
    sink.close()


# -- an open file of the caller's


def test_a_stream_gets_the_bytes_where_it_stood_and_stays_open() -> None:
    stream = io.BytesIO(b"head")
    stream.seek(4)
    sink = StreamSink(stream)
    sink.open(0)
    sink.write(3, memoryview(b"def"))
    sink.write(0, memoryview(b"abc"))
    assert list(sink.sha256())[-1] == hashlib.sha256(b"abcdef").hexdigest()
    sink.publish()
    sink.close()
    assert stream.getvalue() == b"headabcdef"
    sink.discard()
    assert stream.getvalue() == b"head"


class Dribbling(io.RawIOBase):
    """A raw file may take less than it is given."""

    def __init__(self) -> None:
        self.content = io.BytesIO()

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.content.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.content.seek(offset, whence)

    def write(self, data: object) -> int:
        return self.content.write(bytes(data)[:3])  # type: ignore[call-overload]


def test_a_raw_stream_that_takes_a_little_at_a_time_gets_all() -> None:
    stream = Dribbling()
    sink = StreamSink(cast(BinaryIO, stream))
    sink.write(0, memoryview(b"0123456789"))
    assert stream.content.getvalue() == b"0123456789"


@pytest.mark.needs("dev-full")
def test_what_the_callers_file_refuses_is_told_in_our_words() -> None:
    with open("/dev/full", "r+b", buffering=0) as file:
        sink = StreamSink(cast(BinaryIO, file))
        with pytest.raises(LocalStateError):
            sink.write(0, memoryview(b"x"))


def test_a_private_file_that_is_replaced_stays_private(tmp_path):
    final = tmp_path / "final"
    final.write_bytes(b"old")
    final.chmod(0o600)
    sink = FileSink(os.fsencode(final), os.fsencode(tmp_path / "part"))
    sink.open(0)
    assert (tmp_path / "part").stat().st_mode & 0o777 == 0o600
    sink.write(0, memoryview(b"new"))
    sink.publish()
    assert (final.read_bytes(), final.stat().st_mode & 0o777) == (b"new", 0o600)


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    sink = FileSink(os.fsencode(tmp_path / "fifo"), os.fsencode(tmp_path / "part"))
    sink.open(0)
    with pytest.raises(PermanentError, match="not a regular file"):
        sink.publish()
    sink.close()
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)

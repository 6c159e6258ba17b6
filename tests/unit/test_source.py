"""The local file that is sent: one version of one regular file, however its name is written."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import pytest

from iot.transfer.errors import (
    DiskFull,
    NameRefused,
    NotFound,
    PermanentError,
    PermissionDenied,
    SourceChanged,
    SourceUnreadable,
)
from iot.transfer.model import Span
from iot.transfer.source import Source


def made(path: Path, content: bytes = b"0123456789" * 100) -> Path:
    path.write_bytes(content)
    return path


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_spans_are_read_in_any_order(tmp_path: Path) -> None:
    source = Source(made(tmp_path / "f"))
    assert source.read(Span(990, 1000)) == b"0123456789"
    assert source.read(Span(5, 12)) == b"5678901"
    assert source.read(Span(7, 7)) == b""
    source.check_unchanged()
    source.close()


@pytest.mark.parametrize(
    "name", [b"plain", b'two words\n"quoted"', b"\xff\xfe not utf-8", b"-n", b"x" * 255, "ü".encode()]
)
def test_any_name_the_file_system_has_can_be_sent(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"content")
    for given in (path, os.fsdecode(path), Path(os.fsdecode(path))):
        source = Source(given)
        assert source.path == path
        assert source.read(Span(0, 7)) == b"content"
        source.close()


def test_a_file_that_shrinks_is_noticed_at_the_read(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    source = Source(path)
    os.truncate(path, 10)
    assert source.read(Span(0, 10)) == b"0123456789"
    with pytest.raises(SourceChanged):
        source.read(Span(5, 15))
    with pytest.raises(SourceChanged):
        source.check_unchanged()
    source.close()


def test_a_file_that_grows_is_noticed_before_publishing(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    source = Source(path)
    with open(path, "ab") as file:
        file.write(b"more")
    assert len(source.read(Span(0, 1000))) == 1000
    with pytest.raises(SourceChanged, match="nothing was published"):
        source.check_unchanged()
    source.close()


def test_a_rewrite_of_the_same_size_with_its_time_set_back_is_noticed(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    status = os.stat(path)
    source = Source(path)
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == status.st_mtime_ns
    with pytest.raises(SourceChanged):
        source.check_unchanged()
    source.close()


def test_a_file_that_another_was_renamed_over_is_noticed(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    source = Source(path)
    os.replace(made(tmp_path / "new", b"n" * 1000), path)
    assert source.read(Span(0, 10)) == b"0123456789"  # never a mix: what was opened is what is sent
    with pytest.raises(SourceChanged):
        source.check_unchanged()
    source.close()


def test_a_fifo_is_refused_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    outcome: list[BaseException] = []

    def open_it() -> None:
        try:
            Source(tmp_path / "fifo")
        except PermanentError as error:
            outcome.append(error)

    thread = threading.Thread(target=open_it, daemon=True)
    thread.start()
    thread.join(5)
    assert [str(error) for error in outcome] == [f"{tmp_path / 'fifo'} is not a regular file"]


def test_what_is_no_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        Source(tmp_path / "missing")
    with pytest.raises(NotFound):
        Source(made(tmp_path / "f") / "below a file")
    with pytest.raises(PermanentError, match=str(tmp_path)):
        Source(tmp_path)
    with pytest.raises(PermanentError, match="not a regular file"):
        Source("/dev/null")
    with pytest.raises(PermanentError):
        Source(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(PermissionDenied):
        Source(tmp_path / "loop")
    with pytest.raises(NameRefused):
        Source("a\0b")


@pytest.mark.needs("proc")
def test_a_refused_source_leaves_no_descriptor_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = open_descriptors()
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing", "/dev/null") * 5:
        with pytest.raises(PermanentError):
            Source(path)
    assert open_descriptors() == before


def test_a_sparse_file_is_read_behind_4_gib_without_reading_what_is_before(tmp_path: Path) -> None:
    size = 5 * 2**30
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.seek(size - 4)
        file.write(b"tail")
    assert os.stat(path).st_blocks * 512 < 2**20
    source = Source(path)
    assert source.fingerprint.size == size
    assert source.read(Span(size - 8, size)) == b"\0\0\0\0tail"
    assert source.read(Span(2**32 - 4, 2**32 + 4)) == bytes(8)
    source.close()


def test_the_hash_is_that_of_the_content_in_steps(tmp_path: Path) -> None:
    import hashlib

    content = os.urandom(3 * 2**20 + 5)
    source = Source(made(tmp_path / "f", content))
    steps = list(source.sha256())
    assert steps == [None] * 4 + [hashlib.sha256(content).hexdigest()]
    source.close()
    empty = Source(made(tmp_path / "empty", b""))
    assert list(empty.sha256()) == [hashlib.sha256().hexdigest()]
    empty.close()


def test_an_open_file_is_sent_and_left_open(tmp_path: Path) -> None:
    with open(made(tmp_path / "f"), "rb") as file:
        source = Source(file)
        assert source.path == os.fsencode(tmp_path / "f")
        assert source.identified
        assert source.read(Span(0, 3)) == b"012"
        source.close()
        assert not file.closed


def test_what_the_caller_wrote_and_did_not_flush_is_sent(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w+b") as file:
        file.write(b"hello")
        source = Source(file)
        assert source.fingerprint.size == 5
        assert source.read(Span(0, 5)) == b"hello"
        source.check_unchanged()


def test_a_buffer_that_the_disk_refuses_is_told() -> None:
    class Full(io.BytesIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull, match="stream: No space left"):
        Source(Full(b"hello"))


def test_a_stream_in_memory_is_sent_but_has_no_name_to_be_known_by() -> None:
    stream = io.BytesIO(b"0123456789")
    source = Source(stream)
    assert (source.path, source.identified, source.fingerprint.size, source.mode) == (b"", False, 10, None)
    assert source.read(Span(8, 10)) == b"89"
    source.check_unchanged()
    stream.write(b"x" * 20)
    with pytest.raises(SourceChanged):
        source.check_unchanged()
    source.close()
    assert not stream.closed


def test_a_pipe_cannot_be_sent() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file, pytest.raises(PermanentError, match="not a regular file"):
        Source(file)
    os.close(writing)


def test_a_file_whose_size_is_less_than_it_holds_is_refused():
    """Files below /proc tell a size of 0."""
    source = Source("/proc/version")
    assert source.fingerprint.size == 0
    with pytest.raises(PermanentError, match="more data than its reported size of 0 bytes"):
        source.check_unchanged()
    source.close()


def test_a_file_that_the_disk_does_not_give_is_that_files_fault(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"x" * 10)
    source = Source(tmp_path / "f")

    def bad(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", bad)
    with pytest.raises(SourceUnreadable, match="Input/output error"):
        source.read(Span(0, 10))
    source.close()

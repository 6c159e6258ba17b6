"""The local file that is sent: one version of one regular file, however its name is written."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import threading
from pathlib import Path

import pytest

from iot.transfer.errors import (
    ConfigurationError,
    DiskFull,
    LocalStateError,
    NameRefused,
    NotFound,
    PermanentError,
    PermissionDenied,
    SourceChanged,
    SourceUnreadable,
)
from iot.transfer.model import Fingerprint, Span
from iot.transfer.source import HASH_BLOCK, Beginning, Source, local_error


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


# -- errors, and systems that have less


@pytest.mark.parametrize(
    ("numbers", "kind", "more"),
    [
        ([errno.ENOENT, errno.ENOTDIR], NotFound, ""),
        ([errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP], PermissionDenied, ""),
        ([errno.ENOSPC, errno.EDQUOT], DiskFull, ": free some space on this disk"),
        ([errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL], PermanentError, ""),
        ([errno.EIO, errno.EMFILE, errno.ESTALE], LocalStateError, ""),
    ],
)
def test_an_error_of_the_local_files_is_told_as_what_it_means(numbers: list[int], kind: type, more: str) -> None:
    for number in numbers:
        told = local_error(OSError(number, os.strerror(number)), "f")
        assert (type(told), str(told)) == (kind, f"f: {os.strerror(number)}{more}")
    assert str(local_error(OSError("no number"), "f")) == "f: no number"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, SourceUnreadable), (errno.ENOSPC, DiskFull), (errno.EACCES, PermissionDenied)]
)
def test_a_file_that_cannot_be_opened_is_that_files_fault_unless_it_is_the_disks(tmp_path, monkeypatch, number, kind):
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(kind, match=os.strerror(number)) as told:
        Source(tmp_path / "f")
    assert type(told.value) is kind


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError("Input/output error")])
def test_a_file_whose_end_cannot_be_read_is_told(tmp_path, monkeypatch, error):
    source = Source(made(tmp_path / "f"))

    def bad(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", bad)
        for look in (source.check_unchanged, lambda: source.read(Span(0, 10))):
            with pytest.raises(SourceUnreadable, match=f"cannot read {tmp_path / 'f'}: Input/output error"):
                look()
    source.close()


def test_a_system_without_positions_seeks(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread")
    source = Source(made(tmp_path / "f"))
    assert source.read(Span(990, 1000)) == b"0123456789"
    assert source.read(Span(3, 5)) == b"34"
    source.check_unchanged()
    with pytest.raises(SourceChanged, match="became shorter during the upload"):
        source.read(Span(995, 1005))
    source.close()


def test_an_owned_file_is_closed_and_has_the_mode_of_its_file(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    path.chmod(0o4751)
    source = Source(path)
    assert source.mode == stat.S_IMODE(path.stat().st_mode)
    assert not os.get_inheritable(source._file.fileno())
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source._file.fileno()


def test_of_a_beginning_only_its_bytes_are_hashed(tmp_path: Path) -> None:
    content = os.urandom(HASH_BLOCK + 5)
    source = Source(made(tmp_path / "f", content))
    for size in (0, 1, HASH_BLOCK, HASH_BLOCK + 1):
        steps = list(Beginning(source, size).sha256())
        assert steps == [None] * -(-size // HASH_BLOCK) + [hashlib.sha256(content[:size]).hexdigest()]
    source.close()


def test_what_is_neither_a_path_nor_open_is_refused_by_its_type() -> None:
    with pytest.raises(ConfigurationError, match=r"^source: must be str, bytes, os.PathLike or .* \(got int\)$"):
        Source(7)  # type: ignore[arg-type]


def test_a_stream_is_known_by_the_path_that_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in (("f", b"f"), (b"f\xff", b"f\xff"), ("", b""), (7, b""), (None, b"")):
        stream = io.BytesIO(b"abc")
        stream.name = name  # type: ignore[attr-defined]
        source = Source(stream)
        expected = os.path.join(os.fsencode(tmp_path), path) if path else b""
        assert (source.path, source.name) == (expected, os.fsdecode(expected) or "stream")
        assert (source.fingerprint, source.identified) == (Fingerprint(3, 0), False)


def test_an_open_file_that_has_no_flush_or_no_descriptor_is_sent(tmp_path: Path) -> None:
    class Plain:
        def __init__(self) -> None:
            self.content = io.BytesIO(b"abc")
            self.read, self.seek, self.tell = self.content.read, self.content.seek, self.content.tell

    source = Source(Plain())  # type: ignore[arg-type]
    assert (source.read(Span(1, 3)), source.name, source.mode) == (b"bc", "stream", None)


def test_a_buffer_that_cannot_be_written_is_told_with_the_name_of_its_file() -> None:
    class Bad(io.BytesIO):
        name = "records"

        def flush(self) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(LocalStateError, match=r"^records: Input/output error$"):
        Source(Bad(b"hello"))

"""Request by request, what the embedded server does to its folder and answers, byte for byte."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.embedded_wire import STATUS, Wire

from iot.sftp.server import protocol as module
from iot.sftp.server.files import NAMES_PER_REPLY, Changes, SFTPSession, long_name
from iot.sftp.server.protocol import MAX_DATA, MAX_PACKET, ProtocolBroken, RequestHandler, status

OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
EXTENDED, HANDLE, DATA, NAME, ATTRS, REPLY = 200, 102, 103, 104, 105, 201
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
FOR_READING, FOR_WRITING, APPENDING, CREATING = 1, 2, 4, 8
NO_CHANGE = 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    return tmp_path


@pytest.fixture
def wire(root: Path) -> Any:
    found = Wire(root)
    yield found
    found.session.close()


def opened(wire: Wire, path: bytes = b"file", flags: int = FOR_READING | FOR_WRITING) -> bytes:
    reply, body = wire.ask(OPEN, path, flags, NO_CHANGE)
    assert reply == HANDLE
    return body[4:]


def why(wire: Wire, *parts: Any) -> tuple[int, str]:
    reply, body = wire.ask(*parts)
    assert reply == STATUS
    code, size = struct.unpack_from(">II", body)
    assert body[8 + size :] == b"\0\0\0\0", "no language"
    return code, body[8 : 8 + size].decode()


def attributes(path: Path) -> bytes:
    found = path.lstat()
    times = int(found.st_atime) & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF
    return struct.pack(">IQ5I", 15, found.st_size, found.st_uid, found.st_gid, found.st_mode, *times)


# -- files


def test_a_file_is_read_as_far_as_it_goes_and_no_further_than_one_answer_holds(wire: Wire, root: Path) -> None:
    handle = opened(wire)
    assert wire.ask(READ, handle, 0, 2, 3) == (DATA, b"\0\0\0\3nte")
    assert wire.ask(READ, handle, 0, 5, 100) == (DATA, b"\0\0\0\2nt")
    assert why(wire, READ, handle, 0, 7, 1) == (EOF, "End of file")
    (root / "file").write_bytes(bytes(MAX_DATA + 1))
    assert len(wire.ask(READ, handle, 0, 0, 1 << 20)[1]) == 4 + MAX_DATA


def test_a_file_is_written_where_it_was_said_or_at_its_end_where_it_was_opened_so(wire: Wire, root: Path) -> None:
    assert why(wire, WRITE, opened(wire), 0, 1, b"XY") == (OK, "Success")
    assert (root / "file").read_bytes() == b"cXYtent"
    assert wire.status(WRITE, opened(wire, flags=FOR_WRITING | APPENDING), 0, 0, b"end") == OK
    assert (root / "file").read_bytes() == b"cXYtentend"
    assert wire.status(WRITE, opened(wire, flags=FOR_READING), 0, 0, b"x") == FAILURE


def test_a_file_is_known_by_how_it_was_opened(wire: Wire) -> None:
    for flags, append, writable in (
        (FOR_READING, False, False), (FOR_WRITING, False, True), (FOR_WRITING | APPENDING, True, True),
    ):  # fmt: skip
        found: Any = wire.session.handles[opened(wire, flags=flags)]
        assert (found.append, found.writable, found.path) == (
            append,
            writable,
            os.path.join(wire.session.root, b"file"),
        )


def test_a_new_file_or_folder_has_the_mode_that_was_asked_for(wire: Wire, root: Path) -> None:
    before = os.umask(0)
    try:
        opened(wire, b"plain", FOR_WRITING | CREATING)
        assert wire.ask(OPEN, b"private", FOR_WRITING | CREATING, 4, 0o100600)[0] == HANDLE
        assert wire.status(MKDIR, b"d", NO_CHANGE) == OK
        assert wire.status(MKDIR, b"e", 4, 0o40700) == OK
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((root / name).stat().st_mode) for name in ("plain", "private", "d", "e")]
    assert modes == [0o666, 0o600, 0o777, 0o700]


def test_what_is_no_file_is_not_left_open(wire: Wire, root: Path) -> None:
    os.mkfifo(root / "fifo")
    before = os.listdir("/proc/self/fd")
    assert why(wire, OPEN, b"fifo", FOR_READING, NO_CHANGE) == (FAILURE, "not a regular file")
    assert os.listdir("/proc/self/fd") == before


def test_fsync_is_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    handle = opened(wire)
    assert wire.status(EXTENDED, b"fsync@openssh.com", handle) == OK
    assert synced == [wire.session.handles[handle].descriptor]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [READ, WRITE, FSTAT, FSETSTAT, READDIR, CLOSE])
def test_a_handle_that_nobody_gave_is_refused(wire: Wire, kind: int) -> None:
    assert why(wire, kind, b"none", 0, 0, 0) == (FAILURE, "no such handle")
    if kind in (READ, FSTAT):
        folder = wire.ask(OPENDIR, b"/")[1][4:]
        assert why(wire, kind, folder, 0, 0, 0) == (FAILURE, "no such handle")
    if kind == READDIR:
        assert why(wire, kind, opened(wire)) == (FAILURE, "no such handle")


def test_a_session_that_ends_closes_its_files_and_forgets_its_folders(wire: Wire) -> None:
    before = os.listdir("/proc/self/fd")
    handles = {opened(wire), opened(wire), wire.ask(OPENDIR, b"/")[1][4:]}
    assert len(handles) == 3
    assert len(os.listdir("/proc/self/fd")) == len(before) + 2
    wire.session.close()
    assert os.listdir("/proc/self/fd") == before
    assert wire.session.handles == {}


# -- attributes


def test_attributes_are_told_of_the_link_itself_or_of_an_open_file(wire: Wire, root: Path) -> None:
    os.utime(root / "file", (2**32 + 7, 2**33 + 5))
    assert wire.ask(STAT, b"file") == (ATTRS, attributes(root / "file"))
    assert wire.ask(FSTAT, opened(wire)) == (ATTRS, attributes(root / "file"))
    assert wire.ask(LSTAT, b"link") == (ATTRS, attributes(root / "link"))
    assert wire.ask(STAT, b"/") == wire.ask(LSTAT, b"/") == (ATTRS, attributes(root))


@pytest.mark.parametrize("by_handle", [True, False])
def test_only_the_attributes_that_are_given_are_set(wire: Wire, root: Path, monkeypatch, by_handle: bool) -> None:
    owned: list[Any] = []
    monkeypatch.setattr(os, "chown", lambda _, *owner: owned.append(owner))
    target = (FSETSTAT, opened(wire)) if by_handle else (SETSTAT, b"file")
    file = root / "file"
    file.chmod(0o644)
    assert wire.status(*target, 1, 0, 3) == OK
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode), owned) == (b"con", 0o644, [])
    assert wire.status(*target, 2, 5, 6) == OK
    assert owned == [(5, 6)]
    assert wire.status(*target, 4, 0o170640) == OK
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert wire.status(*target, 8, 7, 9) == OK
    assert (file.stat().st_mtime, file.stat().st_size) == (9, 3)
    assert wire.status(*target, NO_CHANGE) == OK
    assert wire.status(*target, 15, 0, 1, 7, 8, 0o600, 11, 12) == OK
    assert (file.read_bytes(), owned[-1]) == (b"c", (7, 8))
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_mtime) == (0o600, 12)


def test_without_a_word_nothing_is_to_be_changed() -> None:
    assert Changes() == Changes(None, None, None, None)


# -- names and folders


def test_a_folder_is_read_in_pieces_with_itself_and_the_one_above(root: Path) -> None:
    many = root / "many"
    many.mkdir()
    for number in range(NAMES_PER_REPLY):
        (many / f"{number}").touch()
    wire = Wire(root)
    handle = wire.ask(OPENDIR, b"many")[1][4:]
    (many / "0").unlink()
    counts, names = [], []
    while (answer := wire.ask(READDIR, handle))[0] == NAME:
        counts.append(struct.unpack_from(">I", answer[1])[0])
        names.append(answer[1])
    assert counts == [NAMES_PER_REPLY, 1]
    assert why(wire, READDIR, handle) == (EOF, "End of file")
    line = long_name(b"1", (many / "1").lstat())
    row = b"\0\0\0\x01" + b"1" + struct.pack(">I", len(line)) + line + attributes(many / "1")
    assert row in b"".join(names)
    assert b"\0\0\0\1.\0" in names[0]
    assert b"\0\0\0\2..\0" in names[0]


def test_a_line_of_a_listing_has_mode_owner_size_and_date() -> None:
    found: Any = SimpleNamespace(st_mode=0o100640, st_nlink=2, st_uid=5, st_gid=6, st_size=7, st_mtime=86_400 * 10_000)
    assert long_name(b"n", found).startswith(b"-rw-r----- 2 5 6 7 ")
    assert long_name(b"n", found).endswith(b" 1997 n")
    found.st_mtime = 10**30
    assert long_name(b"n", found) == b"-rw-r----- 2 5 6 7 ? n"


def test_names_are_made_moved_linked_and_removed(wire: Wire, root: Path) -> None:
    assert wire.status(RENAME, b"file", b"folder/moved") == OK
    assert why(wire, RENAME, b"folder/moved", b"link") == (FAILURE, "the target exists")
    assert wire.status(EXTENDED, b"hardlink@openssh.com", b"link", b"same link") == OK
    assert (root / "same link").is_symlink()
    assert wire.status(EXTENDED, b"posix-rename@openssh.com", b"folder/moved", b"link") == OK
    assert (root / "link").read_bytes() == b"content"
    assert wire.status(RMDIR, b"folder") == OK
    assert wire.status(REMOVE, b"same link") == OK
    assert sorted(os.listdir(root)) == ["link"]
    assert why(wire, SYMLINK, b"a", b"b") == (PERMISSION_DENIED, "symlinks are not supported")
    assert wire.status(RMDIR, b"gone") == NO_SUCH_FILE


@pytest.mark.parametrize(
    ("path", "real"), [(b"", b"/"), (b"a/./b//", b"/a/b"), (b"../..", b"/"), (b"/a/../b", b"/b"), (b"//a", b"/a")]
)
def test_a_real_path_is_absolute_and_stops_at_the_root(wire: Wire, path: bytes, real: bytes) -> None:
    name = struct.pack(">I", len(real)) + real
    assert wire.ask(REALPATH, path) == (NAME, b"\0\0\0\1" + name + name + bytes(4))


def test_a_link_is_read_as_it_is(wire: Wire) -> None:
    assert wire.ask(READLINK, b"link") == (NAME, b"\0\0\0\1" + b"\0\0\0\4file" * 2 + bytes(4))


def test_the_root_is_neither_moved_nor_removed(wire: Wire) -> None:
    for request in ((RENAME, b"/", b"x"), (RMDIR, b"."), (EXTENDED, b"posix-rename@openssh.com", b"x", b"/")):
        assert why(wire, *request) == (PERMISSION_DENIED, "this is the root")
    assert why(wire, STAT, b"a\0") == (BAD_MESSAGE, "a name with a zero byte")
    (Path(os.fsdecode(wire.session.root)) / "another").symlink_to("folder")
    for path in (b"link/x", b"another/x"):
        assert why(wire, STAT, path) == (PERMISSION_DENIED, "a symlink on the way")


def test_space_is_that_of_the_file_system(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs_result([*range(1, 10), 255])
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    monkeypatch.setattr(os, "fstatvfs", lambda _: found)
    told = (REPLY, struct.pack(">11Q", 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 255))
    assert wire.ask(EXTENDED, b"statvfs@openssh.com", b"/") == told
    assert wire.ask(EXTENDED, b"fstatvfs@openssh.com", opened(wire)) == told


# -- packets


class Handler(RequestHandler):
    """Answers each request as `answers` says."""

    def __init__(self, reply: Callable[[], Any]) -> None:
        self.sent: list[bytes] = []
        super().__init__(self.sent.append)
        self.reply = reply

    def on_stat(self, _: Any) -> Any:
        return self.reply()


def request(number: int) -> bytes:
    return struct.pack(">IBI", 5, STAT, number)


def answered(code: int, reason: bytes, number: int = 1) -> bytes:
    body = struct.pack(">BII", STATUS, number, code) + struct.pack(">I", len(reason)) + reason + bytes(4)
    return struct.pack(">I", len(body)) + body


def fail(error: Exception) -> Any:
    def reply() -> Any:
        raise error

    return reply


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (lambda: status(OK), OK, b"Success"),
        (lambda: status(FAILURE), FAILURE, b"Failure"),
        (lambda: status(FAILURE, "own"), FAILURE, b"own"),
        (fail(module.RequestRefused(8, "not offered")), 8, b"not offered"),
        (fail(FileNotFoundError(2, "No such file")), NO_SUCH_FILE, b"No such file"),
        (fail(PermissionError(13, "no")), PERMISSION_DENIED, b"no"),
        (fail(OSError(28, "full")), FAILURE, b"full"),
        (fail(OSError("strange")), FAILURE, b"Failure"),
        (fail(OverflowError()), BAD_MESSAGE, b"a number out of range"),
    ],
)
def test_whatever_happens_a_request_has_its_answer(reply: Any, code: int, reason: bytes) -> None:
    handler = Handler(reply)
    handler.receive(request(1))
    assert handler.sent == [answered(code, reason)]


def test_requests_come_in_any_pieces_and_the_answers_of_a_batch_go_together() -> None:
    handler = Handler(lambda: status(OK))
    stream = request(1) + request(2) + request(3)
    handler.receive(stream[:3])
    handler.receive(stream[3:8])
    assert handler.sent == []
    handler.receive(stream[8:20])
    assert handler.sent == [answered(OK, b"Success", 1) + answered(OK, b"Success", 2)]
    handler.receive(stream[20:])
    assert handler.sent[1:] == [answered(OK, b"Success", 3)]
    handler.flush()
    assert len(handler.sent) == 2


@pytest.mark.parametrize("length", [0, MAX_PACKET + 1])
def test_a_packet_is_not_empty_and_not_too_long(length: int) -> None:
    with pytest.raises(ProtocolBroken, match=f"a packet of {length} bytes"):
        Handler(lambda: status(OK)).receive(struct.pack(">I", length))


def test_a_packet_of_just_the_length_that_is_allowed_is_read() -> None:
    handler = Handler(lambda: status(OK))
    handler.receive(struct.pack(">IBI", MAX_PACKET, STAT, 1) + bytes(MAX_PACKET - 5))
    assert handler.sent == [answered(OK, b"Success")]


@pytest.mark.parametrize(("flush_at", "batches"), [(28, 2), (29, 1)])
def test_answers_wait_for_the_end_of_a_batch_as_long_as_they_are_few(monkeypatch, flush_at: int, batches: int) -> None:
    handler = Handler(lambda: status(OK))
    monkeypatch.setattr(module, "FLUSH_AT", flush_at)
    handler.receive(request(1) + request(2))
    assert b"".join(handler.sent) == answered(OK, b"Success", 1) + answered(OK, b"Success", 2)
    assert len(handler.sent) == batches


def test_version_3_is_spoken_with_what_is_announced_and_nothing_else_is_answered(root: Path) -> None:
    sent = bytearray()
    session = SFTPSession(os.fsencode(root), sent.extend)
    session.extensions = {b"fsync@openssh.com": b"1"}
    session.receive(struct.pack(">IBI", 5, 1, 3))
    pairs = b"\0\0\0\x11fsync@openssh.com\0\0\0\1" + b"1"
    assert bytes(sent) == struct.pack(">IBI", 5 + len(pairs), 2, 3) + pairs
    wire = Wire(root)
    wire.session.extensions = session.extensions
    assert why(wire, EXTENDED, b"limits@openssh.com") == (8, "not offered")
    for kind in (0, 2, 21):
        assert why(wire, kind, b"x") == (8, "not offered")

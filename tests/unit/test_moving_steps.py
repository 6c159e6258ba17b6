"""A file from one folder into another where they lie on different file systems, and each step may fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.leaving import moving
from iot.spooler.leaving.moving import GRANULARITY_NS, Arrivals, copy_whole, put

CONTENT = bytes(range(256)) * 20


class Lab:
    def __init__(self, base: Path, stack: ExitStack) -> None:
        self.source, self.target = base / "source", base / "target"
        self.fds = []
        for folder in (self.source, self.target):
            folder.mkdir()
            self.fds.append(os.open(folder, os.O_RDONLY))
            stack.callback(os.close, self.fds[-1])
        (self.source / "f").write_bytes(CONTENT)
        os.utime(self.source / "f", ns=(10**18, 10**18))
        self.alive = 0

    def tick(self) -> None:
        self.alive += 1

    def put(self, target: bytes = b"t") -> bool:
        return put(self.fds[0], b"f", self.fds[1], target, staged=b"staged", alive=self.tick)

    def there(self) -> list[str]:
        return sorted(os.listdir(self.target))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


@pytest.fixture
def apart(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """On two file systems, as far as rename tells."""
    real = moving.rename_noreplace

    def rename(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
        if source_dir != target_dir:
            raise OSError(errno.EXDEV, "two file systems")
        real(source_dir, source, target_dir, target)

    monkeypatch.setattr(moving, "rename_noreplace", rename)
    return lab


def test_on_one_file_system_it_is_a_rename(lab):
    assert lab.put() is False
    assert (os.listdir(lab.source), lab.there(), lab.alive) == ([], ["t"], 0)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO, errno.ENOENT])
def test_any_other_refusal_is_no_reason_to_copy(lab, monkeypatch, number):
    def rename(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
        if source_dir != target_dir:
            raise OSError(number, os.strerror(number))
        os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)

    monkeypatch.setattr(moving, "rename_noreplace", rename)
    with pytest.raises(OSError, match=os.strerror(number)):
        lab.put()
    assert (os.listdir(lab.source), lab.there()) == (["f"], [])


def test_on_two_it_is_a_whole_copy_and_the_original_remains(apart, monkeypatch):
    monkeypatch.setattr(moving, "BUFFER_BYTES", 1000)
    assert apart.put() is True
    assert (os.listdir(apart.source), apart.there()) == (["f"], ["t"])
    assert (apart.target / "t").read_bytes() == CONTENT
    assert (apart.target / "t").stat().st_mtime_ns == 10**18
    assert apart.alive == 6  # for each piece


def test_what_an_earlier_run_left_half_is_made_anew(apart):
    (apart.target / "staged").write_bytes(b"half")
    assert apart.put() is True
    assert apart.there() == ["t"]


@pytest.mark.parametrize("where", ["lab", "apart"])
def test_a_whole_copy_of_an_interrupted_run_is_taken_for_what_it_is(where, request):
    lab = request.getfixturevalue(where)
    (lab.target / "t").write_bytes(CONTENT)
    os.utime(lab.target / "t", ns=(10**18, 10**18 + GRANULARITY_NS))
    assert lab.put() is True
    assert (os.listdir(lab.source), lab.there(), lab.alive) == (["f"], ["t"], 0)


@pytest.mark.parametrize("where", ["lab", "apart"])
@pytest.mark.parametrize("difference", ["content", "shorter", "longer", "older", "newer", "a folder", "a link"])
def test_anything_else_that_has_the_name_is_another_file(where, difference, request):
    lab = request.getfixturevalue(where)
    other = lab.target / "t"
    content = {"content": CONTENT[:-1] + b"?", "shorter": CONTENT[:-1], "longer": CONTENT + b"?"}
    if difference == "a folder":
        other.mkdir()
    elif difference == "a link":
        (lab.target / "elsewhere").write_bytes(CONTENT)
        os.utime(lab.target / "elsewhere", ns=(10**18, 10**18))
        other.symlink_to("elsewhere")
    else:
        other.write_bytes(content.get(difference, CONTENT))
        apart_ns = {"older": -GRANULARITY_NS - 1, "newer": GRANULARITY_NS + 1}.get(difference, 0)
        os.utime(other, ns=(10**18, 10**18 + apart_ns))
    before = lab.there()
    with pytest.raises(OSError) as told:  # noqa: PT011 - ELOOP for a link, EEXIST otherwise
        lab.put()
    assert told.value.errno in (errno.EEXIST, errno.EISDIR, errno.ELOOP)
    assert lab.there() == before
    assert os.listdir(lab.source) == ["f"]


def test_one_that_cannot_be_read_is_not_yet_another_file(lab, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (lab.target / "t").write_bytes(CONTENT)
    monkeypatch.setattr(moving, "_reading", refused)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        lab.put()


def test_a_long_content_is_compared_to_its_end(lab, monkeypatch):
    monkeypatch.setattr(moving, "BUFFER_BYTES", 1000)
    (lab.target / "t").write_bytes(CONTENT)
    os.utime(lab.target / "t", ns=(10**18, 10**18))
    assert lab.put() is True
    (lab.target / "t").write_bytes(CONTENT[:-1] + b"?")
    os.utime(lab.target / "t", ns=(10**18, 10**18))
    with pytest.raises(FileExistsError):
        lab.put()


@pytest.mark.parametrize("step", ["write", "fsync", "fchmod", "rename"])
def test_a_step_that_fails_leaves_the_target_as_it_was(apart, monkeypatch, step):
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "write":
        monkeypatch.setattr(moving, "_write", refused)
    elif step == "rename":
        real = moving.rename_noreplace
        monkeypatch.setattr(
            moving,
            "rename_noreplace",
            lambda *given: refused() if given[0] == given[2] else real(*given),
        )
    else:
        monkeypatch.setattr(os, step, refused)
    if step == "fchmod":  # FAT knows no modes
        assert apart.put() is True
        return
    with pytest.raises(OSError, match="No space left on device"):
        apart.put()
    assert (apart.there(), os.listdir(apart.source)) == ([], ["f"])


@pytest.mark.parametrize("change", ["size", "time"])
def test_what_is_written_to_while_it_is_copied_is_no_copy(apart, change):
    def write() -> None:
        if change == "size":
            with (apart.source / "f").open("ab") as file:
                file.write(b"?")
            os.utime(apart.source / "f", ns=(10**18, 10**18))
        else:
            os.utime(apart.source / "f", ns=(10**18, 10**18 + 1))

    apart.tick = lambda: written or written.append(write())
    written: list[None] = []
    with pytest.raises(OSError, match="was written to while it was copied"):
        apart.put()
    assert apart.there() == []


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_only_a_regular_file_is_copied(lab, kind):
    (lab.source / "f").unlink()
    (lab.source / "f").mkdir() if kind == "folder" else os.mkfifo(lab.source / "f")
    with pytest.raises(OSError) as told:  # noqa: PT011 - EISDIR or ours
        copy_whole(lab.fds[0], b"f", lab.fds[1], b"t")
    assert told.value.errno in (errno.EINVAL, errno.EISDIR)
    assert lab.there() == []


@pytest.mark.parametrize("root", [True, False])
def test_owner_mode_and_times_are_taken_over_as_far_as_one_may(lab, monkeypatch, root):
    owners = []
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(os, "fchown", lambda file, user, group: owners.append((user, group)))
    (lab.source / "f").chmod(0o4751)
    copy_whole(lab.fds[0], b"f", lab.fds[1], b"t")
    status = (lab.source / "f").stat()
    assert owners == ([(status.st_uid, status.st_gid)] if root else [])
    copied = (lab.target / "t").stat()
    assert (copied.st_mode & 0o7777, copied.st_mtime_ns) == (0o751, 10**18)  # no set-user-id bit


@pytest.mark.parametrize(("call", "number", "fine"), [("fchown", errno.EPERM, True), ("utime", errno.EPERM, True),
                                                      ("utime", errno.EIO, False)])  # fmt: skip
def test_what_a_share_of_another_user_does_not_let_us_do_is_let_pass(lab, monkeypatch, call, number, fine):
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refused)
    if fine:
        copy_whole(lab.fds[0], b"f", lab.fds[1], b"t")
        assert (lab.target / "t").read_bytes() == CONTENT
        return
    with pytest.raises(OSError, match=os.strerror(number)):
        copy_whole(lab.fds[0], b"f", lab.fds[1], b"t")
    assert lab.there() == []


def test_what_somebody_puts_under_the_name_of_a_copy_is_not_written_to(apart, monkeypatch):
    real = os.unlink

    def unlink(name: bytes, **folder: int) -> None:
        with suppress(FileNotFoundError):
            real(name, **folder)
        if not (apart.target / "staged").exists():
            os.link(apart.target / "precious", apart.target / "staged")

    (apart.target / "precious").write_bytes(b"somebody's")
    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(FileExistsError):
        apart.put()
    assert (apart.target / "precious").read_bytes() == b"somebody's"


def test_a_copy_is_on_the_disk_whole_before_it_has_its_name(apart, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((apart.there(), os.fstat(file).st_size)))
    assert apart.put() is True
    assert synced == [(["staged"], len(CONTENT))]


def test_a_disk_that_takes_a_little_at_a_time_gets_all():
    class Dribbling:
        def __init__(self) -> None:
            self.got = b""

        def write(self, rest: memoryview) -> int:
            self.got += bytes(rest[:7])
            return min(7, len(rest))

    writer = Dribbling()
    moving._write(writer, CONTENT)
    assert writer.got == CONTENT


@pytest.mark.parametrize(("mine", "theirs"), [("file", "fifo"), ("fifo", "file"), ("fifo", "fifo")])
def test_nothing_but_a_file_is_a_copy_though_there_is_nothing_to_read_in_it(lab, mine, theirs):
    (lab.source / "f").unlink()
    for path, kind in ((lab.source / "f", mine), (lab.target / "t", theirs)):
        path.touch() if kind == "file" else os.mkfifo(path)
        os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(FileExistsError):
        lab.put()
    assert (os.listdir(lab.source), lab.there()) == (["f"], ["t"])


# -- many files below one folder


class Below:
    """Arrivals below the target of the lab."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab, self.count = lab, 0
        self.opened: list[int] = []
        self.synced: list[str] = []
        real = moving.sync
        monkeypatch.setattr(moving, "sync", lambda folder: self.synced.append(self.name(folder)) or real(folder))
        other = lambda name, number: b"%s-%d" % (name, number)  # noqa: E731
        self.arrivals = Arrivals(self.open, mode=0o710, other_name=other, alive=lab.tick)

    def open(self) -> int:
        self.opened.append(os.open(self.lab.target, os.O_RDONLY))
        return self.opened[-1]

    def name(self, folder: int) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{folder}"), self.lab.target)

    def put(self, path: bytes) -> tuple[bytes, bool]:
        self.count += 1
        (self.lab.source / "f").write_bytes(b"version %d" % self.count)
        return self.arrivals.put(self.lab.fds[0], b"f", path, staged=b"staged")


@pytest.fixture
def below(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Below:
    return Below(lab, monkeypatch)


def test_each_gets_a_name_that_no_other_has_and_each_folder_is_synced_once(below, lab):
    below.arrivals.sync()  # nothing has come
    assert [below.put(path) for path in (b"a", b"sub/a", b"sub/a", b"sub/a", b"a")] == [
        (b"a", False), (b"a", False), (b"a-1", False), (b"a-2", False), (b"a-1", False)
    ]  # fmt: skip
    assert {path.name for path in lab.target.rglob("*")} == {"a", "a-1", "sub", "a-2"}
    assert (lab.target / "sub").stat().st_mode & 0o777 == 0o710
    assert (len(below.opened), below.synced) == (1, [])
    below.arrivals.sync()
    assert sorted(below.synced) == [".", "sub"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(below.opened[0])
    below.arrivals.sync()
    assert len(below.synced) == 2
    below.put(b"b")
    below.arrivals.sync()
    assert (len(below.opened), sorted(below.synced)) == (2, [".", ".", "sub"])


def test_so_many_names_are_tried_and_then_the_file_stays_where_it_is(below, lab, monkeypatch):
    monkeypatch.setattr(moving, "NAMES_MAX", 2)
    assert [below.put(b"a")[0], below.put(b"a")[0]] == [b"a", b"a-1"]
    with pytest.raises(FileExistsError, match="no free name beside it") as told:
        below.put(b"a")
    assert (told.value.filename, os.listdir(lab.source)) == ("a", ["f"])
    below.arrivals.sync()


def test_a_folder_that_cannot_be_synced_is_an_error_and_is_asked_for_no_more(below, monkeypatch):
    below.put(b"gone/a")
    (below.lab.target / "gone/a").unlink()
    (below.lab.target / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        below.arrivals.sync()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(below.opened[0])
    below.arrivals.sync()

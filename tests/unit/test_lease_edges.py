"""What is known of a file's writers where the system answers in another way than usual."""

from __future__ import annotations

import errno
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conditions import missing
from unit.other_user import in_child

from iot.spooler.outbox import lease
from iot.spooler.outbox.lease import Answer, Completeness, Leases, Writer
from iot.transfer import Fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "link").symlink_to("f")
    found = os.open(tmp_path, os.O_RDONLY)
    yield found
    os.close(found)


@pytest.fixture
def leases(folder: int, monkeypatch: pytest.MonkeyPatch) -> Leases:
    """As on a local file system, whatever this machine's is."""
    monkeypatch.setattr(lease, "_first_guess", lambda _: Completeness(known=True, reason=""))
    return Leases(folder)


def version(path: Path) -> Fingerprint:
    return Fingerprint.of(path.lstat())


@pytest.mark.parametrize(
    ("answer", "writer", "known", "asked_again"),
    [
        (0, Writer.NONE, True, True),
        (errno.EAGAIN, Writer.SOME, True, True),
        (errno.EACCES, Writer.UNKNOWN, False, True),
        (errno.EPERM, Writer.UNKNOWN, False, True),
        (errno.EINVAL, Writer.UNKNOWN, False, False),
        (errno.EIO, Writer.UNKNOWN, False, False),
    ],
)
def test_each_answer_to_a_lease_is_taken_for_what_it_means(
    leases, folder, tmp_path, monkeypatch, answer, writer, known, asked_again
):
    asked = []
    monkeypatch.setattr(lease, "_lease", lambda file: asked.append(file) or answer)
    assert leases.ask(folder, b"f") == Answer(writer, version(tmp_path / "f"))
    assert leases.completeness.known is known
    leases.ask(folder, b"f")
    assert (len(asked) == 2) is asked_again  # a file system that offers none is not asked for every file


def test_why_completeness_is_guessed_is_said(leases, folder, monkeypatch):
    monkeypatch.setattr(lease, "_lease", lambda _: errno.EACCES)
    leases.ask(folder, b"f")
    assert str(leases.completeness) == "guessed (files of other users, and no CAP_LEASE)"
    monkeypatch.setattr(lease, "_lease", lambda _: errno.EINVAL)
    leases.ask(folder, b"f")
    assert str(leases.completeness) == "guessed (the file system offers no leases)"
    assert str(Completeness(known=True, reason="")) == "known"


def failing_open(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.open

    def refused(name, flags, mode=0o777, *, dir_fd=None):
        if name in (b"f", b"link"):
            raise OSError(number, os.strerror(number))
        return real(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refused)


@pytest.mark.parametrize(
    ("number", "writer"),
    [(errno.EACCES, Writer.UNKNOWN), (errno.EPERM, Writer.UNKNOWN), (errno.EWOULDBLOCK, Writer.SOME)],
)
def test_a_file_that_may_not_be_opened_is_looked_at_from_outside(leases, folder, tmp_path, monkeypatch, number, writer):
    failing_open(monkeypatch, number)
    assert leases.ask(folder, b"f") == Answer(writer, version(tmp_path / "f"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENFILE])
def test_what_went_wrong_with_us_or_the_disk_is_no_answer(leases, folder, monkeypatch, number):
    failing_open(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        leases.ask(folder, b"f")
    with leases.hold(folder, b"f") as held:
        assert held is None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR])
def test_what_is_gone_is_told_as_that(leases, folder, monkeypatch, number):
    failing_open(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)) as told:
        leases.ask(folder, b"f")
    assert told.value.errno == number


def test_a_link_that_may_not_be_followed_is_no_file_of_any_version(leases, folder, monkeypatch):
    for number in (errno.EIO, errno.EACCES):
        failing_open(monkeypatch, number)
        assert leases.ask(folder, b"link") == Answer(Writer.UNKNOWN, None)


def test_where_no_lease_is_had_nobody_is_seen_and_where_it_is_a_writer_is(leases, folder, monkeypatch):
    answers = {"take": errno.EAGAIN, "get": lease.fcntl.F_WRLCK}
    monkeypatch.setattr(lease, "_take_lease", lambda _: answers["take"])
    monkeypatch.setattr(lease.fcntl, "fcntl", lambda *_: answers["get"])
    with leases.hold(folder, b"f") as held:
        assert held is None
    answers["take"] = 0
    with leases.hold(folder, b"f") as held:
        assert held.is_waited_for()
        answers["get"] = lease.fcntl.F_RDLCK
        assert not held.is_waited_for()
    leases._offered = False
    with leases.hold(folder, b"f") as held:
        assert held is None


def test_what_is_held_is_known_under_its_name_only(leases, folder, tmp_path):
    (tmp_path / "g").write_bytes(b"content")
    with leases.hold(folder, b"f") as held:
        if held is None:
            missing("no leases here")
        assert held.answer() == Answer(Writer.NONE, version(tmp_path / "f"))
        assert held.named(folder, b"f") == version(tmp_path / "f")
        for other in (b"g", b"gone", b"link"):  # a symlink that leads to it is not it
            assert held.named(folder, other) is None


def test_a_terminal_that_lies_there_does_not_become_that_of_the_agent(leases):
    """Whoever leads a session gets the first terminal that he opens, and with it the signals of its keys."""
    here, there = pty.openpty()

    def ask() -> None:
        os.setsid()
        terminals = os.open("/dev/pts", os.O_RDONLY)
        assert leases.ask(terminals, os.fsencode(os.path.basename(os.ttyname(there)))).fingerprint is None
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.open("/dev/tty", os.O_RDONLY)

    in_child(ask)
    os.close(here)
    os.close(there)


# -- the first guess


@pytest.mark.parametrize(
    ("shared", "probe", "capability", "expected"),
    [
        (False, 0, True, "known"),
        (False, 0, False, "known (files of this user only: no CAP_LEASE)"),
        (False, None, True, "known"),
        (False, errno.EINVAL, True, "guessed (the file system offers no leases)"),
        (True, 0, True, "guessed (cifs: others may write unseen)"),
    ],
)
def test_before_any_file_was_asked_for_the_file_system_decides(
    monkeypatch, folder, shared, probe, capability, expected
):
    monkeypatch.setattr(lease, "file_system", lambda _: SimpleNamespace(shared=shared, name="cifs"))
    monkeypatch.setattr(lease, "_probe", lambda _: probe)
    monkeypatch.setattr(lease, "_has_cap_lease", lambda: capability)
    monkeypatch.setattr(lease.sys, "platform", "linux")
    assert str(lease._first_guess(folder)) == expected
    monkeypatch.setattr(lease.sys, "platform", "darwin")
    assert str(lease._first_guess(folder)) == "guessed (the file system offers no leases)"


def test_a_probe_that_cannot_be_made_says_nothing_and_leaves_nothing(folder, monkeypatch):
    real = os.open

    def refused(name, flags, mode=0o777, *, dir_fd=None):
        if str(name).startswith("/proc/self/fd"):
            raise OSError(errno.ENOENT, "no /proc")
        return real(name, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patches:
        patches.setattr(os, "open", refused)
        assert lease._probe(folder) is None

    def no_nameless_file(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "FAT")

    monkeypatch.setattr(os, "open", no_nameless_file)
    assert lease._probe(folder) is None


@pytest.mark.parametrize(
    ("line", "has"),
    [("CapEff:\t0000000010000000", True), ("CapEff:\t00000000efffffff", False), ("CapPrm:\t1fffffffff", False)],
)
def test_the_capability_is_read_from_the_kernel(monkeypatch, line, has):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"Name:\tx\n{line}\n")
    assert lease._has_cap_lease() is has

    def no_proc(*_: object, **__: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", no_proc)
    assert lease._has_cap_lease() is False

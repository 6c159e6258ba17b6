"""The socket for commands, step by step on a clock of the test's own: who may, what is a request, who is dropped."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.control import control as module
from iot.spooler.control.control import PATIENCE_S, PEER, Control, _groups

ERROR = {"error": "a request is one line of JSON, an object"}


class Site:
    """A socket, what is watched for it, and the clients that a test connects."""

    def __init__(self, base: Path) -> None:
        self.path = base / ("deep" * 40) / "control.sock"  # longer than the name of a socket may be
        self.path.parent.mkdir()
        self.now = 100.0
        self.watched: dict[int, Callable[[], None]] = {}
        self.clients: list[socket.socket] = []
        self.control: Any = None

    def open(self, group: str | None = None) -> None:
        self.control = Control(self.path, group, self._watch, lambda: self.now)
        (self.listener,) = self.watched

    def _watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        assert descriptor not in self.watched
        self.watched[descriptor] = act
        return lambda: self.watched.pop(descriptor, None) and None

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A client that the agent has not looked at yet."""
        client = socket.socket(socket.AF_UNIX)
        folder = os.open(self.path.parent, os.O_PATH)
        client.connect(f"/proc/self/fd/{folder}/{self.path.name}")
        os.close(folder)
        client.settimeout(5)
        if sent:
            client.sendall(sent)
        self.clients.append(client)
        return client

    def accept(self) -> None:
        self.watched[self.listener]()

    def act(self) -> None:
        """All that can be read is read."""
        for act in list(self.watched.values()):
            act()

    def contents(self) -> list[Any]:
        return [request.content for request in self.control.requests()]

    def close(self) -> None:
        if self.control is not None:
            self.control.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def served(site: Site) -> Site:
    site.open()
    return site


def is_over(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def answer_of(client: socket.socket) -> Any:
    with client.makefile("rb") as file:
        return json.loads(file.read())


# -- a request


def test_a_line_is_a_request_with_its_user_and_is_answered_with_a_line(served: Site) -> None:
    client = served.connect(b'{"command": "stop"}\n')
    served.accept()
    (request,) = served.control.requests()
    assert (request.content, request.uid) == ({"command": "stop"}, os.geteuid())
    assert served.control.requests() == []
    assert list(served.watched) == [served.listener]  # nothing more is read of it
    assert not is_over(client)
    client.settimeout(5)
    request.answer({"held": None})
    assert client.makefile("rb").read() == b'{"held": null}\n'


def test_a_line_may_come_in_pieces(served: Site) -> None:
    client = served.connect()
    served.accept()
    for piece in (b'{"a"', b": 1", b"}\nmore"):
        assert served.contents() == []
        client.sendall(piece)
        served.act()
    assert served.contents() == [{"a": 1}]


@pytest.mark.parametrize("line", [b"no json", b"[1]", b"1", b"\xff", b"[" * 60_000])
def test_what_is_no_object_is_answered_with_what_it_should_be(served: Site, line: bytes) -> None:
    client = served.connect(line + b"\n")
    served.accept()
    assert answer_of(client) == ERROR
    assert (served.contents(), list(served.watched)) == ([], [served.listener])


@pytest.mark.parametrize(("more", "taken"), [(0, True), (1, False)])
def test_a_line_is_not_longer_than_it_may_be(
    served: Site, monkeypatch: pytest.MonkeyPatch, more: int, taken: bool
) -> None:
    monkeypatch.setattr(module, "REQUEST_MAX", 20)
    client = served.connect(b'{"a": "%b"}' % (b"x" * (11 + more)))
    served.accept()
    with contextlib.suppress(BrokenPipeError):
        client.sendall(b"\n")
    for _ in range(2):
        served.act()
    assert bool(served.contents()) is taken
    assert is_over(client) is not taken


def test_who_ends_within_a_line_has_asked_for_nothing(served: Site) -> None:
    client = served.connect(b'{"a": 1}')
    served.accept()
    client.shutdown(socket.SHUT_WR)
    served.act()
    assert (served.contents(), list(served.watched)) == ([], [served.listener])
    assert is_over(client)


def test_a_connection_that_breaks_within_a_line_is_dropped(served: Site) -> None:
    client = served.connect(b'{"a"')
    served.accept()
    (ours,) = served.control._clients

    class Broken(socket.socket):
        def recv(self, *_: Any) -> bytes:
            raise ConnectionResetError(104, "Connection reset by peer")

    ours.socket = Broken(fileno=ours.socket.detach())
    served.act()
    assert (served.contents(), served.control._clients) == ([], [])
    assert is_over(client)


def test_who_has_gone_before_the_answer_harms_nobody(served: Site) -> None:
    served.connect(b'{"a": 1}\n').close()
    served.accept()
    (request,) = served.control.requests()
    request.answer({"b": 2})
    request.answer({"b": 2})
    assert served.control.drop_late() == float("inf")


# -- who takes too long, and too many


def test_who_says_nothing_is_dropped_after_a_while_and_who_has_asked_is_not(served: Site) -> None:
    assert served.control.drop_late() == float("inf")
    silent, asking = served.connect(), served.connect(b"{}\n")
    served.accept()
    assert served.control.drop_late() == PATIENCE_S
    served.now += PATIENCE_S - 1
    assert served.control.drop_late() == pytest.approx(1.0)
    assert not is_over(silent)
    served.now += 1
    assert served.control.drop_late() == float("inf")
    assert (is_over(silent), is_over(asking)) == (True, False)
    assert list(served.watched) == [served.listener]
    served.now += 1e6
    served.control.drop_late()
    assert not is_over(asking)


def test_where_too_many_come_who_has_waited_longest_is_dropped(served: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 2)
    clients = [served.connect() for _ in range(3)]
    served.accept()
    assert [is_over(client) for client in clients] == [True, False, False]


def test_a_few_are_taken_at_a_time(served: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 2)
    for _ in range(5):
        served.connect(b"{}\n")
    taken = []
    for _ in range(4):
        served.accept()
        taken.append(len(served.contents()))
    assert taken == [2, 2, 1, 0]


def test_at_the_end_nothing_is_left_of_it(served: Site) -> None:
    client = served.connect()
    served.accept()
    served.control.close()
    assert is_over(client)
    assert (served.watched, served.path.exists()) == ({}, False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(served.listener)
    served.control.close()  # its file has gone before it


# -- who may


def test_the_socket_is_its_owners_from_the_first_moment_and_takes_the_place_of_an_older_one(site: Site) -> None:
    before = os.umask(0)
    try:
        site.path.write_text("of an agent that was killed")
        site.open()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    status = site.path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_a_group_that_is_not_there_is_told_and_opens_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.open("no-such-group-here")
    assert "commands are taken from this user and root alone group=no-such-group-here" in caplog.text
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o600
    assert site.control._gid is None


def test_a_group_may_use_it_too(site: Site) -> None:
    group = grp.getgrgid(os.getegid())
    site.open(group.gr_name)
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o660
    assert (site.path.stat().st_gid, site.control._gid) == (group.gr_gid, group.gr_gid)


def test_where_it_cannot_be_made_nothing_stays_open(site: Site) -> None:
    site.path.mkdir()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError):
        site.open()
    assert set(os.listdir("/proc/self/fd")) == before


class Peer:
    """A client of this user, as the kernel tells; groups: its further ones, None where it does not tell."""

    def __init__(self, uid: int, gid: int, groups: list[int] | None) -> None:
        self._peer, self._groups = PEER.pack(4711, uid, gid), groups

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if option == socket.SO_PEERCRED:
            return self._peer
        if self._groups is None:
            raise OSError(92, "Protocol not available")
        return struct.pack(f"{len(self._groups)}I", *self._groups)


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "group", "permitted"),
    [
        (0, 1, [], None, True),
        (4000, 1, [], None, True),
        (4001, 1, [], None, False),
        (4001, 1, None, None, False),
        (4001, 7, [], 7, True),
        (4001, 1, [5, 7], 7, True),
        (4001, 1, [5, 6], 7, False),
        (4001, 1, None, 7, True),
    ],
)
def test_root_the_agents_user_and_the_group_may(
    served: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    uid: int,
    gid: int,
    groups: list[int] | None,
    group: int | None,
    permitted: bool,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4000)
    served.control._gid = group
    assert served.control._permitted(Peer(uid, gid, groups)) == (uid if permitted else None)
    assert ("command refused uid=4001" in caplog.text) is not permitted


def test_further_groups_are_told_as_far_as_the_kernel_does() -> None:
    assert _groups(Peer(1, 1, [5, 7])) == [5, 7]  # type: ignore[arg-type]
    assert _groups(Peer(1, 1, None)) is None  # type: ignore[arg-type]


def test_who_may_not_is_dropped_and_those_behind_are_served(served: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, 0]
    monkeypatch.setattr(served.control, "_permitted", lambda peer: answers.pop(0))
    refused, good = served.connect(b"{}\n"), served.connect(b"{}\n")
    served.accept()
    assert (is_over(refused), is_over(good)) == (True, False)
    assert len(served.contents()) == 1

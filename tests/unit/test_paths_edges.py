"""Remote paths that are two names of one thing, listings that need more than one flight, and sizes at their limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from unit.scripted import OK, Event, Files, drive

from iot.sftp.client.jobs import paths
from iot.sftp.client.jobs.checksum_file import read_small, sha256_there
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import look_at_link, stands
from iot.sftp.client.jobs.opening import open_to_read
from iot.sftp.client.jobs.paths import Earlier
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.packets import Attributes, Code, Handle, Name, Names, Reply, Status
from iot.sftp.client.protocol.server import Server
from iot.transfer.errors import AlreadyExists, NameRefused, NotFound, PermissionDenied, ServerBusy, ServerRefused
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import RemoteFile
from iot.transfer.options import TransferOptions

FILE, FOLDER, LINK = 0o100644, 0o040755, 0o120777
MISSING, FAILURE = Status(Code.NO_SUCH_FILE, ""), Status(Code.FAILURE, "Failure")


class Lab:
    def __init__(self, journal: Journal) -> None:
        self.files = Files()
        self.ledger = Checkpoints(journal, "s", every_bytes=1, every_s=1, clock=time.monotonic)
        self.fresh()

    def fresh(self, **options: Any) -> None:
        server = Server("SSH-2.0-OpenSSH_9.2", "key", {})
        self.context = Context(server, Pace(2**20, 2**15), self.ledger, TransferOptions(**options), time.monotonic)

    def run(self, work: Any, **script: Any) -> Any:
        return drive(work, self.files, **script)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with closing(Journal(None, CHECKPOINTS)) as journal:
        yield Lab(journal)


# -- two names of one file


@pytest.mark.parametrize(
    ("there", "real", "same"),
    [
        (b"/up/NEW", {b"/up/new": b"/up/new", b"/up/NEW": b"/up/NEW"}, True),
        (b"/up/link", {b"/up/new": b"/up/new", b"/up/link": b"/up/new"}, True),
        (b"/up/other", {b"/up/new": b"/up/new", b"/up/other": b"/up/other"}, False),
    ],
    ids=["another case", "a link", "another file"],
)
@pytest.mark.parametrize("removes", [True, False])
def test_a_file_is_never_removed_to_make_room_for_itself(
    lab: Lab, there: bytes, real: dict[bytes, bytes], same: bool, removes: bool
) -> None:
    lab.fresh(replace_by_remove=removes, make_dirs=False)
    lab.files.content = {b"/up/new": bytearray(b"new"), there: bytearray(b"there")}
    lab.files.refuse = lambda event: (
        Names((Name(real[event.path], Attributes()),)) if event.what == "REALPATH" else None
    )
    work = paths.move(lab.context, b"/up/new", there, Earlier())
    if removes and same:
        with pytest.raises(AlreadyExists, match=f"cannot move '/up/new': '{there.decode()}' is the same file"):
            lab.run(work)
    elif removes:
        lab.run(work)
        assert lab.files.content == {there: b"new"}
        return
    else:
        with pytest.raises(AlreadyExists, match="cannot replace it atomically"):
            lab.run(work)
        assert lab.files.did("REALPATH") == []
    assert lab.files.content == {b"/up/new": b"new", there: b"there"}


def test_where_nothing_stands_nobody_asks_whether_it_is_the_same(lab: Lab) -> None:
    lab.fresh(replace_by_remove=True)
    lab.files.content = {b"/up/new": bytearray(b"new")}
    lab.run(paths.move(lab.context, b"/up/new", b"/up/dest", Earlier()))
    assert lab.files.did("REALPATH") == []
    assert lab.files.content == {b"/up/dest": b"new"}


# -- listings


def listing(lab: Lab, names: list[tuple[bytes, int | None]], told: dict[bytes, Reply] | None = None) -> None:
    """The folder /up has these names, listed with these modes; told: what is answered about a path."""
    pages: list[Reply] = [Names(tuple(Name(name, Attributes(mode=mode)) for name, mode in names)), Status(1, "")]

    def answer(event: Event) -> Reply | None:
        if event.what == "OPENDIR":
            return Handle(b"h")
        if event.what == "READDIR":
            return pages.pop(0)
        return OK if event.what == "CLOSE" else (told or {}).get(event.path)

    lab.files.refuse = answer


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_names_without_a_mode_are_asked_about_a_few_at_a_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(paths, "ASKED_AT_ONCE", 2)
    flights: list[int] = []
    ask_at_once = paths.ask_at_once

    def noted(requests: list[Any]) -> Any:
        flights.append(len(requests))
        return ask_at_once(requests)

    monkeypatch.setattr(paths, "ask_at_once", noted)
    names = [b"f%d" % number for number in range(count)]
    listing(lab, [(name, None) for name in names], {b"/up/" + name: Attributes(7, FILE, 9) for name in names})
    found = lab.run(paths.scan(lab.context, b"/up"))
    assert [entry.name for entry in found] == [name.decode() for name in names]
    assert {entry.file for entry in found} == {RemoteFile(7, 9, FILE)}
    assert flights == [2] * (count // 2) + [1] * (count % 2)
    assert lab.context.handles == set()


def test_a_link_is_told_as_one_with_what_it_leads_to(lab: Lab) -> None:
    told: dict[bytes, Reply] = {b"/up/link": Attributes(5, FILE, 6), b"/up/lost": MISSING}
    listing(lab, [(b"lost", LINK), (b"link", LINK), (b"file", FILE)], told)
    found = {entry.name: entry for entry in lab.run(paths.scan(lab.context, b"/up"))}
    assert [(name, entry.is_link) for name, entry in found.items()] == [("file", False), ("link", True), ("lost", True)]
    assert found["link"].file == RemoteFile(5, 6, FILE)
    assert found["lost"].file.mode == LINK
    assert {event.path for event in lab.files.did("STAT")} == {b"/up/link", b"/up/lost"}


@pytest.mark.parametrize("bad", [b"a/b", b"a\0b", b""])
def test_a_name_that_is_a_path_is_left_out_where_that_is_wanted(lab: Lab, bad: bytes) -> None:
    left_out: list[tuple[bytes, bytes]] = []
    listing(lab, [(b"good", FILE), (bad, FILE)])
    found = lab.run(paths.scan(lab.context, b"/up", lambda folder, name: left_out.append((folder, name))))
    assert [entry.name for entry in found] == ["good"]
    assert left_out == [(b"/up", bad)]
    listing(lab, [(bad, FILE)])
    with pytest.raises(NameRefused, match="a name must not contain a slash"):
        lab.run(paths.scan(lab.context, b"/up"))
    assert lab.context.handles == set()


# -- opening


@pytest.mark.parametrize(
    ("others", "code", "kind"),
    [
        (True, Code.FAILURE, ServerBusy),
        (False, Code.FAILURE, ServerRefused),
        (True, Code.NO_SUCH_FILE, NotFound),
        (True, Code.PERMISSION_DENIED, PermissionDenied),
    ],
)
def test_only_a_plain_failure_while_others_are_open_may_be_for_want_of_handles(
    lab: Lab, others: bool, code: Code, kind: type[Exception]
) -> None:
    lab.context.handles.update({b"another's"} if others else set())
    lab.files.refuse = lambda event: Status(code, "")
    before = set(lab.context.handles)
    with pytest.raises(kind) as told:
        lab.run(open_to_read(lab.context, b"/up/f", "cannot open '/up/f'"))
    assert type(told.value) is kind
    assert str(told.value).startswith("cannot open '/up/f'")
    assert lab.context.handles == before


def test_what_is_being_opened_counts_as_open(lab: Lab) -> None:
    lab.files.content[b"/up/f"] = bytearray(b"x")
    first = open_to_read(lab.context, b"/up/f", "first")
    next(first)
    assert len(lab.context.handles) == 1
    lab.files.refuse = lambda event: FAILURE
    with pytest.raises(ServerBusy):
        lab.run(open_to_read(lab.context, b"/up/g", "second"))
    first.close()
    assert lab.context.handles == set()


# -- looking, and small files


@pytest.mark.parametrize(
    ("stat", "lstat", "there"),
    [
        (Attributes(), MISSING, True),
        (MISSING, Attributes(), True),  # a link that leads nowhere
        (Attributes(), Status(Code.OP_UNSUPPORTED, ""), True),
        (MISSING, Status(Code.OP_UNSUPPORTED, ""), False),
        (MISSING, MISSING, False),
    ],
)
def test_a_name_stands_if_anything_has_it(lab: Lab, stat: Reply, lstat: Reply, there: bool) -> None:
    lab.files.refuse = lambda event: stat if event.what == "STAT" else lstat
    assert lab.run(stands(b"/up/f")) is there


def test_whether_a_name_stands_is_not_known_where_looking_is_refused(lab: Lab) -> None:
    lab.files.refuse = lambda event: Status(Code.PERMISSION_DENIED, "")
    with pytest.raises(PermissionDenied, match="cannot stat '/up/f'"):
        lab.run(stands(b"/up/f"))


def test_a_link_itself_is_looked_at(lab: Lab) -> None:
    lab.files.refuse = lambda event: Attributes(3, LINK, 4) if event.what == "LSTAT" else MISSING
    assert lab.run(look_at_link(b"/up/link")) == RemoteFile(3, 4, LINK)


def test_no_more_of_a_small_file_is_taken_than_was_asked_for(lab: Lab) -> None:
    lab.files.content[b"/up/f"] = bytearray(b"abcdef")
    assert lab.run(read_small(b"/up/f", 2)) == b"abc"
    assert [(event.offset, event.length) for event in lab.files.did("READ")] == [(0, 3)]


def test_a_checksum_file_may_come_in_pieces(lab: Lab) -> None:
    line = b"a" * 64 + b"  f\n"
    lab.files.content[b"/up/f.sha256"] = bytearray(line)
    content = lab.files.content[b"/up/f.sha256"]
    read = lab.files._read
    lab.files._read = lambda event: read(Event("READ", event.path, event.offset, length=10))  # type: ignore[method-assign]
    assert lab.run(sha256_there(lab.context, b"/up/f.sha256", b"f")) == "a" * 64
    assert [event.offset for event in lab.files.did("READ")] == [*range(0, len(content), 10), len(content)]
    assert lab.context.handles == set()

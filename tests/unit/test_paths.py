"""Small operations on remote paths, answer by answer: what is there already, what an earlier attempt has done, what a
listing may say."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from unit.scripted import OK, Event, Files, drive
from unit.upload_lab import FAILURE, nth, refusing, whats

from iot.sftp.client.jobs import paths
from iot.sftp.client.jobs.checksum_file import fetch_sha256_file, read_small, sha256_there
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.folders import create_in_folder, make_parents
from iot.sftp.client.jobs.look import look_at_once
from iot.sftp.client.jobs.paths import Earlier
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Data, Handle, Name, Names, Reply, Status
from iot.sftp.client.protocol.server import Server
from iot.transfer.checksum_file import MOST_BYTES
from iot.transfer.errors import NameRefused, NotFound, PermissionDenied, ProofFailed, ServerRefused
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import RemoteFile
from iot.transfer.options import TransferOptions

MISSING, DENIED = Status(Code.NO_SUCH_FILE, ""), Status(Code.PERMISSION_DENIED, "")
END = Status(Code.EOF, "")


class Lab:
    def __init__(self, journal: Journal) -> None:
        self.files = Files()
        self.ledger = Checkpoints(journal, "s", every_bytes=1, every_s=1, clock=time.monotonic)
        self.extensions = {b"posix-rename@openssh.com": b"1"}
        self.fresh()

    def fresh(self, **options: Any) -> None:
        server = Server("SSH-2.0-OpenSSH_9.2", "key", self.extensions)
        self.context = Context(server, Pace(2**20, 2**15), self.ledger, TransferOptions(**options), time.monotonic)

    def run(self, work: Any, *, hands_over: bool = False) -> Any:
        return drive(work, self.files, hands_over=hands_over)

    def asked(self) -> list[str]:
        found = [f"{event.what} {event.path.decode()}" for event in self.files.events]
        self.files.events.clear()
        return found


@pytest.fixture
def lab() -> Iterator[Lab]:
    with closing(Journal(None, CHECKPOINTS)) as journal:
        yield Lab(journal)


# -- folders


def test_missing_folders_are_made_outermost_first_and_asked_for_once_on_a_connection(lab):
    lab.run(make_parents(lab.context, b"/up/a/b/file"))
    assert lab.asked() == ["MKDIR /up", "STAT /up", "MKDIR /up/a", "MKDIR /up/a/b"]
    assert lab.files.folders == {b"/up", b"/up/a", b"/up/a/b"}
    lab.run(make_parents(lab.context, b"/up/a/c/file"))
    assert lab.asked() == ["MKDIR /up/a/c"]
    lab.run(make_parents(lab.context, b"file"))
    assert lab.asked() == []


@pytest.mark.parametrize(
    ("there", "fine"),
    [(Attributes(mode=0o040755), True), (Attributes(mode=None), True), (Attributes(mode=0o100644), False),
     (MISSING, False)],
)  # fmt: skip
def test_only_a_folder_that_is_there_is_as_good_as_one_that_was_made(lab, there, fine):
    lab.files.refuse = lambda event: FAILURE if event.what == "MKDIR" else there
    if fine:
        lab.run(paths.make_dir(lab.context, b"/up/a/"))
        assert lab.context.folders >= {b"/up", b"/up/a"}
        return
    with pytest.raises(ServerRefused, match="cannot make folder"):
        lab.run(paths.make_dir(lab.context, b"/up/a"))
    assert lab.context.folders == set()


def test_a_refused_folder_is_told_as_refused(lab):
    lab.files.refuse = refusing(lambda event: event.what == "MKDIR" and event.path == b"/up/a", DENIED)
    with pytest.raises(PermissionDenied):
        lab.run(paths.make_dir(lab.context, b"/up/a"))


def created(lab: Lab, path: bytes) -> list[Reply]:
    flags = packets.Flag.WRITE | packets.Flag.CREATE
    return lab.run(create_in_folder(lab.context, path, [packets.open_file(path, flags)]), hands_over=True)


def test_a_file_in_a_new_folder_costs_no_round_trip_more(lab):
    (opened,) = created(lab, b"/up/file")
    assert isinstance(opened, Handle)
    assert lab.asked() == ["MKDIR /up", "OPEN /up/file"]
    created(lab, b"/up/other")
    assert lab.asked() == ["OPEN /up/other"]
    created(lab, b"/file")
    assert lab.asked()[0] == "OPEN /file"


def test_where_folders_above_it_are_missing_they_are_made_and_the_file_is_asked_for_again(lab):
    (opened,) = created(lab, b"/up/a/b/file")
    assert isinstance(opened, Handle)
    assert lab.asked() == [
        "MKDIR /up/a/b", "OPEN /up/a/b/file", "STAT /up/a/b", "MKDIR /up", "STAT /up", "MKDIR /up/a", "MKDIR /up/a/b",
        "OPEN /up/a/b/file",
    ]  # fmt: skip


def test_a_folder_that_another_file_has_requested_is_not_there_before_the_answer(lab):
    """The request may be on its way, or refused for want of a parent; and some servers answer out of order."""
    another = create_in_folder(lab.context, b"/new/file", [packets.open_file(b"/new/file", packets.Flag.WRITE)])
    next(another)
    (opened,) = created(lab, b"/new/a/file")
    assert isinstance(opened, Handle)
    assert "MKDIR /new" in lab.asked()


def test_without_make_dirs_nothing_is_made(lab):
    lab.fresh(make_dirs=False)
    (opened,) = created(lab, b"/up/a/file")
    assert opened.code == Code.NO_SUCH_FILE
    assert lab.asked() == ["OPEN /up/a/file"]


@pytest.mark.parametrize(
    ("refusal", "asked"), [(FAILURE, ["OPEN", "STAT"]), (DENIED, ["OPEN"]), (MISSING, ["OPEN", "STAT", "OPEN"])]
)
def test_another_refusal_of_a_file_in_a_folder_that_is_there_is_the_answer(lab, refusal, asked):
    lab.context.folders.add(b"/up")
    lab.files.refuse = refusing(nth("OPEN"), refusal)
    (answer,) = created(lab, b"/up/file")
    assert whats(lab.files) == asked
    assert (answer == refusal) is (refusal is not MISSING)  # that may have been made meanwhile


# -- moves and deletions over a lost link


def test_what_is_deleted_twice_is_gone_only_where_an_answer_was_lost(lab):
    lab.files.content[b"/up/f"] = bytearray(b"x")
    earlier = Earlier()
    lab.run(paths.delete(b"/up/f", earlier))
    assert earlier.asking
    with pytest.raises(NotFound, match="cannot delete"):
        lab.run(paths.delete(b"/up/f", Earlier()))
    earlier.lost(something_sent=True)
    lab.run(paths.delete(b"/up/f", earlier))
    lab.files.refuse = refusing(lambda _: True, DENIED)
    with pytest.raises(PermissionDenied):
        lab.run(paths.delete(b"/up/f", earlier))


@pytest.mark.parametrize(("asking", "sent", "done"), [(True, True, True), (True, False, False), (False, True, False)])
def test_only_what_was_asked_and_sent_may_have_been_done(asking, sent, done):
    earlier = Earlier(asking=asking)
    earlier.lost(something_sent=sent)
    assert earlier == Earlier(asking=False, done=done)
    earlier.lost(something_sent=False)
    assert earlier.done is done  # and stays so


def test_a_folder_is_deleted_likewise_and_made_again_when_it_is_needed(lab):
    lab.context.folders.add(b"/up/a")
    lab.files.refuse = refusing(lambda event: event.what == "RMDIR", FAILURE)
    with pytest.raises(ServerRefused, match=r"\(is it empty\?\)"):
        lab.run(paths.delete_dir(lab.context, b"/up/a/", Earlier()))
    assert lab.context.folders == set()
    lab.files.refuse = refusing(lambda event: event.what == "RMDIR", MISSING)
    lab.run(paths.delete_dir(lab.context, b"/up/a", Earlier(done=True)))
    with pytest.raises(NotFound):
        lab.run(paths.delete_dir(lab.context, b"/up/a", Earlier()))


def test_a_move_makes_folders_replaces_and_is_recognised_after_a_lost_answer(lab):
    lab.files.content = {b"/up/old": bytearray(b"old"), b"/up/new": bytearray(b"new")}
    earlier = Earlier()
    lab.run(paths.move(lab.context, b"/up/new", b"/up/a/old", earlier))
    assert (earlier.asking, bytes(lab.files.content[b"/up/a/old"])) == (True, b"new")
    lab.run(paths.move(lab.context, b"/up/a/old", b"/up/old", Earlier()))
    assert lab.files.content == {b"/up/old": bytearray(b"new")}
    with pytest.raises(NotFound, match="it is not on the server"):
        lab.run(paths.move(lab.context, b"/up/gone", b"/up/old", Earlier()))
    lab.run(paths.move(lab.context, b"/up/gone", b"/up/old", Earlier(done=True)))
    with pytest.raises(NotFound):
        lab.run(paths.move(lab.context, b"/up/gone", b"/up/nowhere", Earlier(done=True)))


def test_without_make_dirs_a_move_makes_no_folder(lab):
    lab.fresh(make_dirs=False)
    lab.files.content = {b"/up/old": bytearray(b"old")}
    lab.run(paths.move(lab.context, b"/up/old", b"/up/a/new", Earlier()))
    assert b"/up/a" not in lab.files.folders


def test_a_move_onto_a_folder_says_what_was_perhaps_meant(lab):
    lab.files.content = {b"/up/old": bytearray(b"old")}
    lab.files.folders.add(b"/up/folder")
    lab.files.refuse = refusing(lambda event: event.what == "RENAME", FAILURE)
    with pytest.raises(NameRefused, match="did you mean '/up/folder/old'"):
        lab.run(paths.move(lab.context, b"/up/old", b"/up/folder", Earlier()))
    with pytest.raises(ServerRefused):
        lab.run(paths.move(lab.context, b"/up/old", b"/up/file", Earlier()))


# -- looking


def test_several_are_looked_at_in_one_flight_and_only_missing_is_none(lab):
    lab.files.content = {b"/up/f": bytearray(b"abc")}
    found = lab.run(look_at_once([b"/up/f", b"/up/g"]))
    assert found == [RemoteFile(3, 5, 0o100644), None]
    lab.files.refuse = refusing(lambda _: True, Status(Code.NO_SUCH_PATH, ""))
    assert lab.run(look_at_once([b"/up/f"])) == [None]
    lab.files.refuse = refusing(lambda _: True, DENIED)
    with pytest.raises(PermissionDenied):
        lab.run(look_at_once([b"/up/f"]))


@pytest.mark.parametrize("names", [[b"/home/me"], [b"/home/me", b"/x"], []])
def test_the_servers_own_name_of_a_path_is_the_first_that_it_gives(lab, names):
    lab.files.refuse = lambda _: Names(tuple(Name(name, Attributes()) for name in names))
    if names:
        assert lab.run(paths.real_path(b".")) == b"/home/me"
    else:
        with pytest.raises(ServerRefused, match="without a name"):
            lab.run(paths.real_path(b"."))


# -- listings

FILE, FOLDER, LINK = 0o100644, 0o040755, 0o120777


def listed(lab: Lab, batches: list[Any], folders: bool = False, stats: dict[bytes, Reply] | None = None) -> list[bytes]:
    pages = iter(batches)

    def answer(event: Event) -> Reply | None:
        if event.what == "OPENDIR":
            return Handle(b"h")
        if event.what == "READDIR":
            page = next(pages)
            if isinstance(page, Status):
                return page
            return Names(tuple(Name(name, Attributes(mode=mode)) for name, mode in page))
        return (stats or {})[event.path] if event.what == "STAT" else OK if event.what == "CLOSE" else None

    lab.files.refuse = answer
    entries = lab.run(paths.scan(lab.context, b"/up"))
    return [b"/up/" + entry.name.encode() for entry in entries if entry.is_folder is folders]


def test_files_and_folders_are_listed_apart_sorted_and_without_the_folders_own_names(lab):
    pages = [[(b"b", FILE), (b".", FOLDER), (b"..", FOLDER), (b"d", FOLDER)], [(b"a", FILE)], END]
    assert listed(lab, pages) == [b"/up/a", b"/up/b"]
    assert listed(lab, pages, folders=True) == [b"/up/d"]
    assert lab.asked()[-1].startswith("CLOSE")


def test_a_link_is_what_it_leads_to_and_what_has_no_mode_is_asked_for(lab):
    stats = {b"/up/link": Attributes(mode=FOLDER), b"/up/bare": Attributes(mode=None), b"/up/gone": MISSING}
    page = [(b"link", LINK), (b"bare", None), (b"gone", None)]
    assert listed(lab, [page, END], True, stats) == [b"/up/link"]
    assert listed(lab, [page, END], False, stats) == [b"/up/bare", b"/up/gone"]


def test_an_empty_answer_is_the_end_and_a_refusal_is_told(lab):
    assert listed(lab, [[(b"a", FILE)], []]) == [b"/up/a"]
    with pytest.raises(PermissionDenied, match="cannot list"):
        listed(lab, [[(b"a", FILE)], DENIED])
    assert lab.asked()[-1].startswith("CLOSE")


@pytest.mark.parametrize("name", [b"a/b", b"/etc/passwd", b"", b"a\0b", b"../x"])
def test_a_listed_name_that_is_a_path_is_refused(lab, name):
    with pytest.raises(NameRefused):
        listed(lab, [[(name, FILE)], END])


def test_a_listing_without_end_is_given_up(lab, monkeypatch):
    monkeypatch.setattr(paths, "LISTING_BYTES", 200)
    names = [b"%d" % number + b"n" * 29 for number in range(3)]
    assert listed(lab, [[(name, FILE) for name in names[:2]], END]) == [b"/up/" + name for name in names[:2]]
    with pytest.raises(ServerRefused, match="the listing exceeds"):
        listed(lab, [[(name, FILE) for name in names], END])


# -- checksum files

SHA256 = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (f"{SHA256}  f\n".encode(), SHA256),
        (f"{SHA256}  g\n".encode(), ""),
        (f"{SHA256}  f\n".encode() * 2, ""),
        (b"\n" * (MOST_BYTES + 1), ""),
        (None, None),
    ],
)
def test_what_a_checksum_file_beside_a_final_says(lab, content, digest):
    if content is not None:
        lab.files.content[b"/up/f.sha256"] = bytearray(content)
    assert lab.run(sha256_there(lab.context, b"/up/f.sha256", b"f")) == digest
    assert lab.files.handles == {}


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, NotFound, "but sidecar requires it"),
        (b"nothing", ProofFailed, "has no SHA-256 for 'f'"),
        (b"\n" * (MOST_BYTES + 1), ProofFailed, "not a checksum file"),
    ],
)
def test_a_checksum_that_was_asked_for_must_be_there_and_speak_of_the_file(lab, content, error, words):
    if content is not None:
        lab.files.content[b"/up/f.sha256"] = bytearray(content)
    with pytest.raises(error, match=words):
        lab.run(fetch_sha256_file(lab.context, b"/up/f"))
    line = f"{SHA256}  f\n".encode()
    lab.files.content[b"/up/f.sha256"] = bytearray(line + b"\n" * (MOST_BYTES - len(line)))
    assert lab.run(fetch_sha256_file(lab.context, b"/up/f")) == SHA256


def test_no_bytes_and_no_end_of_a_checksum_file_are_refused(lab):
    lab.files.content[b"/up/f.sha256"] = bytearray(b"x")
    lab.files.refuse = refusing(lambda event: event.what == "READ", Data(memoryview(b"")))
    with pytest.raises(ServerRefused, match="sent neither data nor end of file"):
        lab.run(fetch_sha256_file(lab.context, b"/up/f"))


@pytest.mark.parametrize(
    ("content", "most", "read"),
    [(b"", 3, b""), (b"ab", 3, b"ab"), (b"abc", 3, b"abc"), (b"abcdef", 3, b"abcd"), (None, 3, None)],
)
def test_a_small_file_is_read_with_a_byte_more_than_it_may_have(lab, content, most, read):
    if content is not None:
        lab.files.content[b"/up/f"] = bytearray(content)
    assert lab.run(read_small(b"/up/f", most)) == read
    assert lab.files.handles == {}


def test_a_small_file_that_may_not_be_read_counts_as_none(lab):
    lab.files.content[b"/up/f"] = bytearray(b"abc")
    lab.files.refuse = lambda event: Status(Code.PERMISSION_DENIED, "") if event.what == "READ" else None
    assert lab.run(read_small(b"/up/f", 3)) is None
    assert lab.files.handles == {}

"""What an FTP store asks its server, call by call: no more than is needed, and every refusal is told as what it is."""

from __future__ import annotations

import stat

import pytest
from unit.ftp_memory import Server

from iot.ftp import store as module
from iot.ftp.store import FTPStore
from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    NotFound,
    PermissionDenied,
    ServerBusy,
    ServerRefused,
    Timeout,
    Unsupported,
)
from iot.transfer.model import RemoteFile, Span
from iot.transfer.remote import Ack, Meta, Publish, Resume, Token
from iot.transfer.remote_commands import Verb

PART = Token(b"/up/f.part")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> FTPStore:
    monkeypatch.setattr(module, "Connection", lambda _: server)
    monkeypatch.setattr(module, "Paths", lambda _: server)
    return FTPStore(None)  # type: ignore[arg-type]


# -- the connection


def test_what_every_ftp_server_can_is_known_before_it_is_asked(store: FTPStore) -> None:
    found = store.capabilities
    assert (found.resume, found.publish, found.block_bytes, found.connections) == (
        Resume.OFFSET, Publish.RENAME, module.BLOCK_BYTES, 2,
    )  # fmt: skip
    assert (found.durable, found.keeps_times, found.creates_only) == (False, False, False)


def test_only_a_server_that_sets_times_is_sent_a_touch(store: FTPStore, server: Server) -> None:
    store.connect()
    assert store.capabilities.commands == frozenset(Verb) - {Verb.TOUCH}
    server.features = {"MFMT": ""}
    store.connect()
    assert store.capabilities.commands == frozenset(Verb)


def test_a_store_ends_as_it_is_told(store: FTPStore, server: Server) -> None:
    store.abort()
    store.close()
    assert server.asked == ["abort", "goodbye"]


# -- uploads


def test_folders_that_are_there_are_looked_for_once_and_not_made(store: FTPStore, server: Server) -> None:
    looked: list[bytes] = []
    real = server.is_folder
    server.is_folder = lambda path: looked.append(path) or real(path)  # type: ignore[method-assign]
    for name in (b"/up/f", b"/up/g"):
        store.begin(name, 1, Meta(name + b".part"))
    assert looked == [b"/up"]
    for name in (b"f", b"./f", b"/f"):
        store.begin(name, 1, Meta(name))
    assert looked == [b"/up"]
    assert not any(each.startswith("MKD") for each in server.asked)


def test_an_old_part_that_went_leaves_nothing_to_be_made(store: FTPStore, server: Server) -> None:
    server.files[b"/new/f.part"] = bytearray(b"old")
    store.begin(b"/new/f", 1, Meta(b"/new/f.part"))
    assert server.asked == ["DELE /new/f.part"]


def test_what_the_server_lost_of_a_write_is_not_counted_nor_what_it_had_before(store: FTPStore, server: Server) -> None:
    server.files[bytes(PART)] = bytearray(6)
    sizes = iter([6, 2])
    server.size = lambda _: next(sizes)  # type: ignore[method-assign]
    assert store.write(PART, Span(6, 9), [b"abc"]) == Ack(6)


@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent")])
def test_a_lost_link_says_nothing_about_folders(store: FTPStore, server: Server, error: Exception) -> None:
    store._folders.add(b"/up")
    server.loses = error
    with pytest.raises(type(error)):
        store.write(PART, Span(0, 3), [b"abc"])
    assert store._folders == {b"/up"}


def test_any_other_refusal_makes_folders_unknown(store: FTPStore, server: Server) -> None:
    store._folders.add(b"/up")
    server.loses = ServerBusy("later")
    with pytest.raises(ServerBusy):
        store.write(PART, Span(0, 3), [b"abc"])
    assert store._folders == set()


@pytest.mark.parametrize("part", [b"f.part", b"/f.part"])
def test_in_the_first_folder_an_unclear_refusal_is_one_of_permission(
    store: FTPStore, server: Server, part: bytes
) -> None:
    server.loses = ServerRefused("STOR")
    server.loses.__cause__ = Exception("553 Could not create file.")
    with pytest.raises(PermissionDenied):
        store.write(Token(part), Span(0, 3), [b"abc"])


def test_a_mode_has_three_digits_and_is_left_alone_where_none_is_given(store: FTPStore, server: Server) -> None:
    store._keep(PART, Meta(b"", mode=0o100004))
    store._keep(PART, Meta(b""))
    server.features = {"MFMT": ""}
    store._keep(PART, Meta(b""))
    assert server.asked == ["SITE CHMOD 004 /up/f.part"]


def test_what_is_not_to_be_replaced_and_is_not_there_is_published(store: FTPStore, server: Server) -> None:
    server.files[bytes(PART)] = bytearray(b"new")
    assert store.publish(PART, b"/up/f", Meta(b""), replace=False) is False
    assert server.files == {b"/up/f": bytearray(b"new")}


# -- reading


def test_a_file_whose_size_is_not_told_is_asked_for_all_the_same(store: FTPStore, server: Server) -> None:
    server.files[b"/up/f"] = bytearray(b"abcdef")
    server.size = lambda _: None  # type: ignore[method-assign]
    assert b"".join(store.read(b"/up/f", 4)) == b"ef"
    assert server.asked == ["RETR /up/f 4"]


def test_a_file_is_read_no_further_than_asked(store: FTPStore, server: Server) -> None:
    server.files[b"/up/f"] = bytearray(b"abcdefghij")
    assert list(store.read_part(Token(b"/up/f"), Span(0, 4))) == [b"abcd"]
    assert (server.data.at, server.data.ended) == (4, 0)
    assert list(store.read_part(Token(b"/up/f"), Span(0, 5))) == [b"abcd", b"e"]


def test_what_stands_there_is_what_the_paths_say(store: FTPStore, server: Server) -> None:
    server.files[b"/up/f"] = bytearray(3)
    assert store.stat(b"/up/f") == RemoteFile(3, mode=stat.S_IFREG)
    assert store.stat(b"/up/g") is None


# -- folders, times and modes


def test_a_folder_is_made_with_those_above_it_that_are_missing(store: FTPStore, server: Server) -> None:
    store.mkdir(b"/up/a/b/")
    assert server.asked == ["MKD /up/a", "MKD /up/a/b"]
    server.asked.clear()
    store.mkdir(b"/up/a/b")
    store.mkdir(b"/")
    assert server.asked == []


def test_a_folder_that_is_not_empty_stays_and_an_empty_one_goes(store: FTPStore, server: Server) -> None:
    store.rmdir(b"/up")
    server.files[b"/up/f"] = bytearray()
    store.delete(b"/up/f")
    assert server.asked == ["RMD /up", "DELE /up/f"]


def test_a_move_without_folders_asks_for_nothing_but_the_rename(store: FTPStore, server: Server) -> None:
    server.files[b"/up/f"] = bytearray(b"abc")
    store.move(b"/up/f", b"/up/g", make_dirs=False)
    assert server.asked == ["RNFR /up/f", "RNTO /up/g"]


def test_a_file_is_touched_by_its_time_and_made_where_there_is_none(store: FTPStore, server: Server) -> None:
    store.touch(b"/new/f", 10**9)
    assert server.asked == ["MKD /new", "STOR /new/f 0"]
    assert (server.files[b"/new/f"], server.data.ended) == (bytearray(), 1)
    server.asked.clear()
    store.touch(b"/new/f", 10**9)
    assert server.asked == ["MFMT 20010909014640 /new/f"]
    server.refuse["MFMT 20010909014640 /new/f"] = server.refuse["MFMT 20010909014640"] = "550 no"
    with pytest.raises(NotFound, match=r"^MFMT '/new/f': 550 no$"):
        store.touch(b"/new/f", 10**9)


@pytest.mark.parametrize(("refusal", "offered"), [(Unsupported("no"), False), (PermissionDenied("no"), True)])
def test_a_server_that_knows_no_modes_is_not_offered_for_them_any_more(
    store: FTPStore, server: Server, refusal: Exception, offered: bool
) -> None:
    store.connect()
    store.chmod(b"/up/f", 0o7)
    assert server.asked == ["SITE CHMOD 007 /up/f"]
    server.refuse["SITE CHMOD 007"] = "500 what"
    server.refusal = lambda *_: refusal  # type: ignore[method-assign]
    with pytest.raises(type(refusal)):
        store.chmod(b"/up/f", 0o7)
    assert (Verb.CHMOD in store.capabilities.commands) is offered
    assert Verb.DELETE in store.capabilities.commands


@pytest.mark.parametrize(
    ("mode", "kind"), [(stat.S_IFDIR, ServerRefused), (stat.S_IFREG, AlreadyExists), (None, AlreadyExists)]
)
def test_a_rename_that_something_is_in_the_way_of_is_final(store: FTPStore, server: Server, mode, kind) -> None:
    server.refuse["RNTO"] = "450 not now"
    server.stat = lambda _: RemoteFile(None, mode=mode)  # type: ignore[method-assign]
    with pytest.raises(kind) as told:
        store.publish(PART, b"/up/f", Meta(b""), replace=True)
    assert type(told.value) is kind

"""The calls of an FTP store on a server in memory: what was written is only what the server has, no hole, no guess."""

from __future__ import annotations

import stat

import pytest
from unit.ftp_memory import FILE, FOLDER, Server

from iot.ftp import store as module
from iot.ftp.store import HASHED_BYTES_PER_S, FTPStore
from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    NotFound,
    PermissionDenied,
    ProofFailed,
    ServerRefused,
    Unsupported,
)
from iot.transfer.model import Evidence, RemoteFile, Span
from iot.transfer.remote import Ack, Gone, Meta, Offset, Resume, Token

SHA256 = "ab" * 32


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> FTPStore:
    monkeypatch.setattr(module, "Connection", lambda _: server)
    monkeypatch.setattr(module, "Paths", lambda _: server)
    return FTPStore(None, connections=3, clock=lambda: 0.0)


PART = Token(b"/up/f.part")


@pytest.mark.parametrize(
    ("features", "hashes", "times", "resume"),
    [
        ({}, (), False, Resume.OFFSET),
        ({"UTF8": ""}, (), False, Resume.NONE),
        ({"REST": "STREAM", "MFMT": "", "HASH": "sha-1;SHA-256*"}, ("sha256",), True, Resume.OFFSET),
        ({"REST": "", "XSHA256": ""}, ("sha256",), False, Resume.OFFSET),
        ({"REST": "", "HASH": "MD5"}, (), False, Resume.OFFSET),
    ],
)
def test_what_a_server_can_is_what_it_announces(store, server, features, hashes, times, resume):
    server.features = features
    store.connect()
    found = store.capabilities
    assert (found.hashes, found.keeps_times, found.resume, found.connections) == (hashes, times, resume, 3)
    store.check()
    assert server.asked == ["NOOP"]


# -- uploads


def test_an_upload_begins_with_an_old_part_gone_and_its_folder_there(store, server):
    server.files[bytes(PART)] = bytearray(b"old")
    assert store.begin(b"/up/f", 3, Meta(bytes(PART))) == PART
    assert server.files == {}
    store.begin(b"/new/er/f", 3, Meta(b"/new/er/f.part"))
    assert server.folders >= {b"/new", b"/new/er"}
    server.asked.clear()
    store._folders.add(b"/new/er")
    store.begin(b"/new/er/g", 3, Meta(b"/new/er/g.part"))
    assert server.asked == ["DELE /new/er/g.part"]
    store.begin(b"/f", 3, Meta(b"/f.part"))
    assert "MKD /" not in server.asked


def test_without_make_dirs_a_missing_folder_is_told_where_the_server_is_unclear(store, server):
    server.refuse["DELE"] = "550 Failed"
    with pytest.raises(NotFound, match="no folder"):
        store.begin(b"/no/f", 3, Meta(b"/no/f.part", make_dirs=False))
    server.refuse["DELE"] = "550 No such file"
    store.begin(b"/no/f", 3, Meta(b"/no/f.part", make_dirs=False))
    assert b"/no" not in server.folders


def test_what_was_written_is_what_the_server_has(store, server):
    assert store.where(PART) == Gone()
    assert store.write(PART, Span(0, 6), [b"abc", b"def"]) == Ack(6)
    assert store.where(PART) == Offset(6)
    assert store.write(PART, Span(6, 9), [b"ghi"]) == Ack(9)
    assert (server.data.ended, server.data.broken) == (1, 0)
    real = server.size
    server.size = lambda path: real(path) - 2 if server.data.ended and len(server.files[path]) > 9 else real(path)
    assert store.write(PART, Span(9, 12), [b"jkl"]) == Ack(10)
    server.size = lambda path: 99
    assert store.write(PART, Span(3, 6), [b"DEF"]) == Ack(6)  # never more than was sent


def test_a_long_write_ends_in_between(store, server):
    clock = iter([0.0, 0.0, module.WRITE_S, 99.0])
    store._clock = lambda: next(clock)
    assert store.write(PART, Span(0, 9), [b"abc", b"def", b"ghi"]) == Ack(6)


@pytest.mark.parametrize(("held", "kind"), [(None, NotFound), (2, Unsupported)])
def test_nothing_is_written_behind_the_end_of_a_part(store, server, held, kind):
    if held is not None:
        server.files[bytes(PART)] = bytearray(held)
    with pytest.raises(kind):
        store.write(PART, Span(3, 6), [b"def"])
    assert not any(each.startswith("STOR") for each in server.asked)


def test_a_part_that_goes_while_it_is_written_is_told(store, server):
    def blocks():
        yield b"abc"
        server.files.clear()

    with pytest.raises(NotFound, match="is gone"):
        store.write(PART, Span(0, 3), blocks())


def test_a_write_that_fails_breaks_its_data_connection_off(store, server):
    server.refuse["send"] = "x"
    with pytest.raises(LinkLost):
        store.write(PART, Span(0, 3), [b"abc"])
    assert (server.data.broken, server.data.ended) == (1, 0)


def refusal(reply: str) -> ServerRefused:
    error = ServerRefused(f"STOR: {reply}")
    error.__cause__ = Exception(reply)
    return error


@pytest.mark.parametrize(
    ("reply", "start", "folder", "kind"),
    [
        ("550 Failed", 3, True, Unsupported),
        ("550 Failed", 0, True, PermissionDenied),
        ("550 Failed", 0, False, NotFound),
        ("552 what", 0, True, ServerRefused),
    ],
)
def test_a_refused_upload_is_told_as_what_it_means(store, server, reply, start, folder, kind):
    server.files[bytes(PART)] = bytearray(start)
    store._folders.add(b"/up")
    server.folders = {b"/up"} if folder else set()
    server.loses = refusal(reply)
    with pytest.raises(ServerRefused if kind is ServerRefused else kind) as told:
        store.write(PART, Span(start, start + 3), [b"abc"])
    assert type(told.value) is kind
    assert store._folders == set()


# -- publishing


def test_a_part_gets_its_times_mode_and_name_as_far_as_the_server_can(store, server):
    server.files[bytes(PART)] = bytearray(b"abc")
    server.features = {"MFMT": ""}
    assert store.publish(PART, b"/up/f", Meta(b"", mtime_s=10**9, mode=0o104640), replace=True) is False
    assert server.asked == [
        "SITE CHMOD 640 /up/f.part", "MFMT 20010909014640 /up/f.part", "RNFR /up/f.part", "RNTO /up/f",
    ]  # fmt: skip
    assert server.files == {b"/up/f": bytearray(b"abc")}
    assert not store.confirm(b"/up/f")
    server.asked.clear()
    server.features = {}
    store._keep(PART, Meta(b"", mtime_s=10**9))
    server.features = {"MFMT": ""}
    store._keep(PART, Meta(b"", mtime_s=10**18))
    assert server.asked == []


def test_what_stands_there_is_replaced_only_where_that_is_asked_for(store, server):
    server.files = {bytes(PART): bytearray(b"new"), b"/up/f": bytearray(b"old")}
    with pytest.raises(AlreadyExists):
        store.publish(PART, b"/up/f", Meta(b""), replace=False)
    assert server.asked == []


@pytest.mark.parametrize(
    ("command", "reply", "there", "kind"),
    [
        ("RNFR", "550 what", None, NotFound),
        ("RNTO", "553 Failed", None, ServerRefused),
        ("RNTO", "450 not now", "file", AlreadyExists),
        ("RNTO", "450 not now", "folder", ServerRefused),
        ("RNTO", "550 File exists", None, AlreadyExists),
        ("RNTO", "421 bye", None, LinkLost),
    ],
)
def test_a_refused_rename_is_told_as_what_is_in_the_way(store, server, command, reply, there, kind):
    server.files[bytes(PART)] = bytearray(b"abc")
    if there == "file":
        server.files[b"/up/f"] = bytearray(b"old")
    if there == "folder":
        server.folders.add(b"/up/f")
    server.refuse[command] = reply
    with pytest.raises(kind):
        store.publish(PART, b"/up/f", Meta(b""), replace=True)


# -- reading


def test_a_file_is_read_from_an_offset_and_never_behind_its_end(store, server):
    server.files[b"/up/f"] = bytearray(b"abcdefghij")
    assert b"".join(store.read(b"/up/f", 0)) == b"abcdefghij"
    assert b"".join(store.read(b"/up/f", 7)) == b"hij"
    assert server.data.ended == 1
    server.asked.clear()
    assert list(store.read(b"/up/f", 10)) == []
    assert server.asked == []
    assert b"".join(store.read_part(Token(b"/up/f"), Span(2, 8))) == b"cdefgh"
    assert b"".join(store.read_part(Token(b"/up/f"), Span(8, 99))) == b"ij"


def test_a_reading_that_is_given_up_breaks_its_data_connection_off(store, server):
    server.files[b"/up/f"] = bytearray(b"abcdefghij")
    reading = store.read(b"/up/f", 0)
    next(reading)
    reading.close()
    assert (server.data.broken, server.data.ended) == (1, 0)
    server.loses = refusal("550 no")
    with pytest.raises(NotFound, match="RETR"):
        next(store.read(b"/up/f", 0))
    server.loses = LinkLost("cut")
    with pytest.raises(LinkLost):
        next(store.read(b"/up/f", 0))


# -- hashes


@pytest.mark.parametrize(("features", "command"), [({"HASH": "SHA-256"}, "HASH"), ({"XSHA256": ""}, "XSHA256")])
def test_a_hash_is_asked_for_in_the_servers_own_way_and_waited_for(store, server, features, command):
    server.features = {"REST": "", **features}
    store.connect()
    server.files[b"/up/f"] = bytearray(b"abc")
    server.refuse[command] = f"213 SHA-256 0-3 {SHA256.upper()} /up/f"
    assert store.digest(b"/up/f", "sha256") == SHA256
    assert server.waited_s == 60.0 + 3 / HASHED_BYTES_PER_S
    assert ("OPTS HASH SHA-256" in server.asked) is (command == "HASH")
    assert store.verify(Token(b"/up/f"), {"sha256": SHA256}) is Evidence.SERVER_HASH
    for other in ("0" * 64, "f" * 64):
        with pytest.raises(ProofFailed):
            store.verify(Token(b"/up/f"), {"sha256": other})
    for reply in ("213 0" + SHA256, "550 no", "213 what"):
        server.refuse[command] = reply
        assert store.digest(b"/up/f", "sha256") is None
    with pytest.raises(NotFound):
        store.digest(b"/up/missing", "sha256")
    assert store.digest(b"/up/f", "md5") is store.digest(b"/up/f", "sha512") is None


def test_a_server_without_hashes_is_not_asked(store, server):
    assert store.digest(b"/up/f", "sha256") is None
    assert store.verify(PART, {"sha256": SHA256}) is None
    assert store.verify(PART, {}) is None
    assert server.asked == []


# -- folders


def test_entries_that_do_not_say_what_they_are_are_tried(store, server):
    class Line:
        def __init__(self, name: bytes, kind: int | None) -> None:
            self.name, self.file, self.is_link = name, RemoteFile(3, 4, kind), kind is None

    class Listing:
        entries = (Line(b"a", stat.S_IFDIR), Line(b"b", stat.S_IFREG), Line(b"c", None), Line(b"d", None))
        unread: tuple[bytes, ...] = ()

    server.list = lambda _: Listing
    server.folders.add(b"/up/c")
    found = [(entry.name, entry.is_folder, entry.is_link) for entry in store.list(b"/up")]
    assert found == [("a", True, False), ("b", False, False), ("c", True, True), ("d", False, True)]
    assert {(entry.file.size, entry.file.mtime_s) for entry in store.list(b"/up")} == {(3, 4)}
    Listing.unread = (b"what is this", b"and this")
    with pytest.raises(ServerRefused, match=r"unknown format: .*what is this"):
        list(store.list(b"/up"))


def test_a_move_makes_folders_only_for_what_is_there(store, server):
    with pytest.raises(NotFound):
        store.move(b"/up/missing", b"/new/f")
    assert b"/new" not in server.folders
    server.files[b"/up/f"] = bytearray(b"abc")
    store.move(b"/up/f", b"/new/f")
    assert (b"/new" in server.folders, b"/new/f" in server.files) == (True, True)
    store.move(b"/new/f", b"/other/f", make_dirs=False)
    assert b"/other" not in server.folders


@pytest.mark.parametrize(("there", "kind"), [(None, ServerRefused), (FILE, AlreadyExists), (FOLDER, PermissionDenied)])
def test_a_folder_that_cannot_be_made_is_told_with_what_is_in_its_place(store, server, there, kind):
    server.refuse["MKD"] = "553 what"
    server.stat = lambda _: RemoteFile(None, mode=there) if there is not None else None
    with pytest.raises(kind):
        store.mkdir(b"/up/new")


def test_a_folder_that_another_connection_has_made_is_fine(store, server):
    real = server.ask

    def ask(command: str, path: bytes = b"") -> tuple[bool, str]:
        if command == "MKD":
            server.folders.add(path)
            return False, "550 exists"
        return real(command, path)

    server.ask = ask
    store.mkdir(b"/up/a/b/")
    assert server.folders >= {b"/up/a", b"/up/a/b"}


def test_what_is_deleted_twice_is_told_and_abandoned_twice_is_fine(store, server):
    server.files[bytes(PART)] = bytearray()
    store.abandon(PART)
    store.abandon(PART)
    with pytest.raises(NotFound):
        store.delete(bytes(PART))
    server.refuse["RMD"] = "550 not empty"
    with pytest.raises(NotFound, match="RMD"):
        store.rmdir(b"/up")

"""SFTP packets at their limits: the largest that fits is read, one more is refused, and the words say which."""

from __future__ import annotations

import struct

import pytest

from iot.sftp.client.protocol import parsing
from iot.sftp.client.protocol.packets import MAX_FILE_BYTES, Attributes, Code, Extended, Handle, Name, Names, Status
from iot.sftp.client.protocol.parsing import Deframer
from iot.sftp.client.protocol.server import HARDLINK, Refusal, Server, handles_in_order, understood
from iot.transfer import errors
from iot.transfer.errors import ProtocolError


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big")


def field(value: bytes) -> bytes:
    return number(len(value)) + value


def reply(kind: int, body: bytes) -> object:
    return parsing.parse_reply(memoryview(bytes([kind]) + number(7) + body))[1]


# -- lengths


def test_a_handle_has_at_most_256_bytes() -> None:
    assert reply(102, field(bytes(256))) == Handle(bytes(256))
    with pytest.raises(ProtocolError, match="a handle of 257 bytes; the limit is 256"):
        reply(102, field(bytes(257)))


def test_a_listing_may_fill_its_packet_with_the_shortest_entries() -> None:
    entries = bytes(12) * 100
    assert reply(104, number(100) + entries) == Names((Name(b"", Attributes()),) * 100)
    with pytest.raises(ProtocolError, match="announced 101 items in a packet that can hold 100"):
        reply(104, number(101) + entries)


def test_attributes_may_fill_their_packet_with_the_shortest_extensions() -> None:
    flags, pairs = number(0x80000000), bytes(8) * 100
    assert reply(105, flags + number(100) + pairs) == Attributes()
    with pytest.raises(ProtocolError, match="announced 101 items in a packet that can hold 100"):
        reply(105, flags + number(101) + pairs)


def test_an_owner_and_times_are_passed_over() -> None:
    body = number(2 | 4 | 8) + number(1000) + number(1001) + number(0o100644) + number(11) + number(12)
    assert reply(105, body) == Attributes(None, 0o100644, 12)
    assert reply(105, number(2) + bytes(8)) == Attributes()


@pytest.mark.parametrize(("size", "told"), [(MAX_FILE_BYTES, MAX_FILE_BYTES), (MAX_FILE_BYTES + 1, None)])
def test_the_largest_file_that_there_can_be_has_a_size(size: int, told: int | None) -> None:
    assert reply(105, number(1) + number(size, 8)) == Attributes(told)


def test_a_packet_that_ends_early_says_how_much_is_missing() -> None:
    with pytest.raises(ProtocolError, match="ends early: 8 bytes, 9 needed"):
        reply(101, bytes(3))


def test_a_packet_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(ProtocolError, match="unknown type 199"):
        reply(199, b"")


@pytest.mark.parametrize("size", [5, 6, 8])
def test_the_smallest_and_the_largest_packet_are_read(size: int) -> None:
    assert [bytes(packet) for packet in Deframer(8).feed(field(bytes(size)))] == [bytes(size)]


@pytest.mark.parametrize("size", [4, 9])
def test_a_packet_beyond_that_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"a packet of {size} bytes; allowed are 5 to 8"):
        list(Deframer(8).feed(field(bytes(size))))


def test_a_packet_comes_with_its_last_byte_and_not_later() -> None:
    deframer = Deframer()
    stream = field(b"first") + field(b"second")
    came = [[bytes(packet) for packet in deframer.feed(stream[at : at + 1])] for at in range(len(stream))]
    assert {at: packets for at, packets in enumerate(came) if packets} == {8: [b"first"], 18: [b"second"]}


# -- free space


def statvfs(*first: int) -> bytes:
    return struct.pack(">11Q", *first, *range(100 + len(first), 111))


def test_free_is_what_an_ordinary_user_may_use_in_blocks_of_the_file_system() -> None:
    assert parsing.parse_free_space(statvfs(512, 4096, 30, 20, 10, 9, 8, 7)) == (10 * 4096, 7)
    assert parsing.parse_free_space(statvfs(512, 4096, 30, 20, 10, 0, 8, 7)) == (10 * 4096, None)
    assert parsing.parse_free_space(statvfs(512, 4096, 30, 20, 0, 9, 8, 0)) == (0, 0)
    assert parsing.parse_free_space(statvfs(0, 1, 1, 0, 10, 9, 8, 7)) == (10, 7)


@pytest.mark.parametrize("first", [(512, 0, 30), (512, 4096, 0), (512, 0, 0)])
def test_a_file_system_of_no_size_is_none(first: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError, match="a file system of 0 bytes"):
        parsing.parse_free_space(statvfs(*first))


@pytest.mark.parametrize("size", [0, 87])
def test_an_answer_about_free_space_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="ends early"):
        parsing.parse_free_space(bytes(size))


def test_an_answer_to_an_optional_question_may_be_none() -> None:
    assert understood(Extended(bytes(32)), parsing.parse_limits) == (0, 0, 0, 0)
    assert understood(Extended(bytes(31)), parsing.parse_limits) is None
    assert understood(Status(Code.OK, ""), parsing.parse_limits) is None


# -- refusals in words


@pytest.mark.parametrize(
    ("code", "message", "kind", "words"),
    [
        (Code.FAILURE, "Disk full", errors.NoSpaceOnServer, "doing: server says 'Disk full' (status 4)"),
        (Code.FAILURE, "", errors.ServerRefused, "doing: server says 'FAILURE' (status 4)"),
        (4711, "", errors.ServerRefused, "doing: server says 'code 4711' (status 4711)"),
        (Code.PERMISSION_DENIED, "quota", errors.PermissionDenied, "doing: server says 'quota' (status 3)"),
        (
            Code.NO_SUCH_FILE,
            "file name too long",
            errors.NotFound,
            "doing: server says 'file name too long' (status 2)",
        ),
    ],
)
def test_a_refusal_says_what_the_server_said(code: int, message: str, kind: type[Exception], words: str) -> None:
    error = Status(code, message).error("doing")
    assert (type(error), str(error)) == (kind, words)
    assert Status(Code.OK, "").ok


# -- what a server can do


def test_a_server_can_what_it_announces_unless_it_has_refused_it() -> None:
    extensions = [b"fsync@openssh.com", b"posix-rename@openssh.com", HARDLINK, b"statvfs@openssh.com"]
    all_of_it = Server("SSH-2.0-other", "key", dict.fromkeys(extensions, b"1"))
    nothing = Server("SSH-2.0-other", "key", {})
    for server, can in ((all_of_it, True), (nothing, False)):
        assert (server.can_fsync, server.can_replace, server.can_link, server.tells_free_space) == (can,) * 4
    all_of_it.learn(Refusal.FSYNC)
    all_of_it.learn(Refusal.POSIX_RENAME)
    all_of_it.forget_extension(HARDLINK)
    assert (all_of_it.can_fsync, all_of_it.can_replace, all_of_it.can_link) == (False, False, False)
    nothing.forget_extension(HARDLINK)
    assert all_of_it.tells_free_space


@pytest.mark.parametrize(
    ("banner", "extensions", "asked"),
    [
        ("SSH-2.0-OpenSSH_9.2", {}, True),  # its VERSION is not there yet
        ("SSH-2.0-OpenSSH_9.2", {b"x": b""}, False),
        ("SSH-2.0-other", {}, False),
        ("SSH-2.0-other", {b"statvfs@openssh.com": b"2"}, True),
    ],
)
def test_only_a_server_that_may_know_it_is_asked_for_its_free_space(
    banner: str, extensions: dict[bytes, bytes], asked: bool
) -> None:
    server = Server(banner, "key", extensions)
    assert server.tells_free_space is asked
    assert server.in_order is handles_in_order(banner) is ("OpenSSH" in banner)


def test_each_refusal_is_told_once() -> None:
    told: list[Refusal] = []
    server = Server("SSH-2.0-other", "key", {}, refused={Refusal.FSYNC}, on_refusal=told.append)
    for what in (Refusal.FSYNC, Refusal.RESUME, Refusal.RESUME):
        server.learn(what)
    assert told == [Refusal.RESUME]
    assert server.refuses(Refusal.RESUME)
    assert not server.refuses(Refusal.READ_BACK)

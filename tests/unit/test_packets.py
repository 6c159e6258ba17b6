"""SFTP packets: what goes out is what the draft says, what comes in is believed only where it fits."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iot.sftp.client.protocol import packets, parsing
from iot.sftp.client.protocol.packets import (
    MAX_PACKET_BYTES,
    Attributes,
    Code,
    Data,
    Extended,
    Flag,
    Handle,
    Kind,
    Names,
    Request,
    Status,
)
from iot.sftp.client.protocol.parsing import Deframer
from iot.transfer import errors
from iot.transfer.errors import ProtocolError

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
offsets = st.integers(0, 2**63 - 1)
text = st.binary(max_size=300)


# -- the same encoding, written a second time


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big")


def field(value: bytes) -> bytes:
    return number(len(value)) + value


def packet(kind: int, request_id: int, *parts: bytes) -> bytes:
    body = bytes([kind]) + number(request_id) + b"".join(parts)
    return field(body)


NO_ATTRIBUTES = number(0)


@given(u32, text, text, offsets, st.binary(max_size=2000), u32)
def test_requests_are_encoded_as_the_draft_says(
    request_id: int, one: bytes, two: bytes, offset: int, data: bytes, length: int
) -> None:
    flags = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE
    expected: list[tuple[Request, bytes]] = [
        (packets.open_file(one, flags), packet(3, request_id, field(one), number(0x1A), NO_ATTRIBUTES)),
        (packets.close(one), packet(4, request_id, field(one))),
        (packets.read(one, offset, length), packet(5, request_id, field(one), number(offset, 8), number(length))),
        (packets.write(one, offset, data), packet(6, request_id, field(one), number(offset, 8), field(data))),
        (packets.lstat(one), packet(7, request_id, field(one))),
        (packets.opendir(one), packet(11, request_id, field(one))),
        (packets.readdir(one), packet(12, request_id, field(one))),
        (packets.remove(one), packet(13, request_id, field(one))),
        (packets.mkdir(one), packet(14, request_id, field(one), NO_ATTRIBUTES)),
        (packets.rmdir(one), packet(15, request_id, field(one))),
        (packets.realpath(one), packet(16, request_id, field(one))),
        (packets.stat(one), packet(17, request_id, field(one))),
        (packets.rename(one, two), packet(18, request_id, field(one), field(two))),
        (packets.posix_rename(one, two), extension(request_id, b"posix-rename@openssh.com", field(one), field(two))),
        (packets.fsync(one), extension(request_id, b"fsync@openssh.com", field(one))),
        (packets.statvfs(one), extension(request_id, b"statvfs@openssh.com", field(one))),
        (packets.limits(), extension(request_id, b"limits@openssh.com")),
        (
            packets.check_file(one),
            extension(request_id, b"check-file-handle", field(one), field(b"sha256"), bytes(8), bytes(8), bytes(4)),
        ),
    ]
    for request, encoded in expected:
        assert request.encode(request_id) == encoded
    assert packets.write(one, offset, memoryview(data)).encode(request_id) == expected[3][1]


def extension(request_id: int, name: bytes, *parts: bytes) -> bytes:
    return packet(200, request_id, field(name), *parts)


@given(
    u32,
    text,
    st.one_of(st.none(), offsets),
    st.one_of(st.none(), u32),
    st.one_of(st.none(), u32),
)
def test_attributes_come_back_as_they_were_sent(
    request_id: int, path: bytes, size: int | None, mode: int | None, mtime_s: int | None
) -> None:
    attributes = Attributes(size, mode, mtime_s)
    flags = (size is not None) | (mode is not None) << 2 | (mtime_s is not None) << 3
    fields = b"" if size is None else number(size, 8)
    fields += b"" if mode is None else number(mode)
    fields += b"" if mtime_s is None else number(mtime_s) * 2
    assert packets.fsetstat(path, attributes).encode(1) == packet(10, 1, field(path), number(flags), fields)
    assert parsed(packet(105, request_id, number(flags), fields)) == (request_id, attributes)


def parsed(encoded: bytes) -> tuple[int, packets.Reply]:
    (body,) = Deframer().feed(encoded)
    return parsing.parse_reply(body)


@given(u32, st.integers(0, 40), st.text(max_size=50), text.filter(lambda value: len(value) <= 256))
def test_replies_are_read_as_the_draft_says(request_id: int, code: int, message: str, value: bytes) -> None:
    told = field(message.encode("utf-8", "replace"))
    assert parsed(packet(101, request_id, number(code), told, field(b"en"))) == (
        request_id,
        Status(code, message.encode("utf-8", "replace").decode()),
    )
    assert parsed(packet(101, request_id, number(code))) == (request_id, Status(code, ""))  # servers before v3
    assert parsed(packet(102, request_id, field(value))) == (request_id, Handle(value))
    assert parsed(packet(103, request_id, field(value))) == (request_id, Data(memoryview(value)))
    assert parsed(packet(201, request_id, value)) == (request_id, Extended(value))


@given(st.lists(st.tuples(text, offsets, u32), max_size=20))
def test_a_listing_is_read_with_all_attributes_a_server_may_send(entries: list[tuple[bytes, int, int]]) -> None:
    body = b""
    for name, size, mode in entries:
        flags = 0x8000000F
        owner, times = number(1000) * 2, number(5) * 2
        more = number(1) + field(b"acl@example.org") + field(b"x")
        body += field(name) + field(b"-rw long name") + number(flags) + number(size, 8) + owner + number(mode)
        body += times + more
    _, reply = parsed(packet(104, 9, number(len(entries)), body))
    assert isinstance(reply, Names)
    assert [(item.filename, item.attributes.size, item.attributes.mode) for item in reply.entries] == entries


def test_the_first_packet_asks_for_version_3() -> None:
    assert packets.init() == b"\0\0\0\5\1\0\0\0\3"


@given(st.dictionaries(text, text, max_size=10), st.integers(3, 9))
def test_the_servers_extensions_are_all_kept(extensions: dict[bytes, bytes], version: int) -> None:
    body = bytes([2]) + number(version) + b"".join(field(name) + field(data) for name, data in extensions.items())
    assert parsing.parse_version(memoryview(body)) == extensions


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\2\0\0\0\2", "version 2"),
        (b"\x65\0\0\0\3", "is this an SFTP server"),
        (b"\2\0\0", "ends early"),
        (b"\2\0\0\0\3\0\0\0\5ab", "ends early"),
        (b"\2\0\0\0\3\0\0\0\2ab", "ends early"),
    ],
)
def test_a_first_packet_that_is_not_sftp_is_told_as_such(body: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        parsing.parse_version(memoryview(body))


@given(u64, u64, u64, u64)
def test_limits_free_space_and_hashes_are_read(one: int, two: int, three: int, four: int) -> None:
    assert parsing.parse_limits(struct.pack(">4Q", one, two, three, four)) == (one, two, three, four)
    statvfs = struct.pack(">11Q", 1, 4096, 3, 4, one % 2**40, 6, 7, 8, 9, 10, 11)
    assert parsing.parse_free_space(statvfs) == (4096 * (one % 2**40), 8)
    assert parsing.parse_check_file(field(b"sha256") + bytes(32)) == (b"sha256", bytes(32))


# -- fuzz: any bytes at all


def only_protocol_errors(parse: Callable[[], object]) -> None:
    try:
        parse()
    except ProtocolError:
        pass  # the one that callers know


bodies = st.one_of(
    st.binary(max_size=400),
    st.builds(
        lambda kind, rest: bytes([kind]) + rest, st.sampled_from(sorted(parsing.PARSERS)), st.binary(max_size=400)
    ),
    st.builds(
        lambda kind, count, rest: bytes([kind]) + number(7) + number(count) + rest,
        st.sampled_from([101, 102, 103, 104, 105]),
        st.one_of(st.integers(0, 40), u32),
        st.binary(max_size=400),
    ),
    st.builds(
        lambda flags, rest: b"\x69" + number(7) + number(flags) + rest,
        st.sampled_from([0, 1, 2, 4, 8, 15, 0x80000000, 0x8000000F, 0xFFFFFFFF]),
        st.binary(max_size=100),
    ),
)


@settings(max_examples=800, deadline=None)
@given(bodies)
@example(b"")
@example(b"\x68" + number(1) + b"\xff\xff\xff\xff")
@example(b"\x69" + number(1) + number(0x80000000) + b"\xff\xff\xff\xff")
def test_any_reply_is_read_or_refused_with_a_typed_error(body: bytes) -> None:
    only_protocol_errors(lambda: parsing.parse_reply(memoryview(body)))
    only_protocol_errors(lambda: parsing.parse_version(memoryview(body)))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_any_answer_to_an_extension_is_read_or_refused_with_a_typed_error(body: bytes) -> None:
    only_protocol_errors(lambda: parsing.parse_limits(body))
    only_protocol_errors(lambda: parsing.parse_free_space(body))
    only_protocol_errors(lambda: parsing.parse_check_file(body))


@given(st.integers(2**63, 2**64 - 1))
def test_a_size_that_no_file_can_have_counts_as_not_told(size: int) -> None:
    """Such a number fits neither SQLite nor the local file system."""
    assert parsed(packet(105, 1, number(1), number(size, 8))) == (1, Attributes())


def test_a_listing_that_announces_more_than_it_holds_costs_no_time_and_no_memory() -> None:
    body = b"\x68" + number(1) + b"\xff\xff\xff\xff" + bytes(MAX_PACKET_BYTES - 9)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ProtocolError, match="announced"):
        parsing.parse_reply(memoryview(body))
    assert time.process_time() - began < 0.1
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=5, max_size=200), max_size=8), st.data())
def test_packets_are_cut_alike_however_the_stream_is_chopped(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(field(body) for body in bodies)
    deframer, found, at = Deframer(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += [bytes(piece) for piece in deframer.feed(stream[at : at + step])]
        at += step
    assert found == bodies


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20), st.integers(5, 64))
def test_a_garbled_stream_holds_no_more_than_one_packet(chunks: list[bytes], limit: int) -> None:
    deframer = Deframer(limit)
    for chunk in chunks:
        try:
            pieces = list(deframer.feed(chunk))
        except ProtocolError:
            return
        assert all(5 <= len(piece) <= limit for piece in pieces)
        assert deframer._held < 4 + limit


@pytest.mark.parametrize("size", [0, 4, MAX_PACKET_BYTES + 1, 2**32 - 1])
def test_an_impossible_length_ends_the_connection_before_anything_is_buffered(size: int) -> None:
    with pytest.raises(ProtocolError, match=str(size)):
        list(Deframer().feed(number(size)))


def test_a_large_packet_that_dribbles_in_costs_linear_time() -> None:
    body = bytes(MAX_PACKET_BYTES)
    stream = field(body)
    deframer, found = Deframer(), []
    began = time.process_time()
    for at in range(0, len(stream), 64):
        found += list(deframer.feed(stream[at : at + 64]))
    assert time.process_time() - began < 1.0
    assert found == [body]


def test_packets_keep_their_bytes_while_further_ones_come() -> None:
    deframer = Deframer()
    (first,) = deframer.feed(field(b"first") + number(6))
    (second,) = deframer.feed(b"second")
    assert (bytes(first), bytes(second)) == (b"first", b"second")


# -- what a refusal means


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (Code.NO_SUCH_FILE, "", errors.NotFound),
        (Code.NO_SUCH_PATH, "", errors.NotFound),
        (Code.PERMISSION_DENIED, "", errors.PermissionDenied),
        (Code.WRITE_PROTECT, "", errors.PermissionDenied),
        (Code.FAILURE, "Failure", errors.ServerRefused),
        (Code.FAILURE, "write: No space left on device", errors.NoSpaceOnServer),
        (Code.FAILURE, "Disk quota exceeded", errors.NoSpaceOnServer),
        (Code.FAILURE, "File name too long", errors.NameRefused),
        (Code.BAD_MESSAGE, "", errors.ServerRefused),
        (Code.CONNECTION_LOST, "", errors.LinkLost),
        (Code.OP_UNSUPPORTED, "", errors.Unsupported),
        (Code.FILE_ALREADY_EXISTS, "", errors.AlreadyExists),
        (Code.NO_SPACE_ON_FILESYSTEM, "", errors.NoSpaceOnServer),
        (Code.QUOTA_EXCEEDED, "", errors.NoSpaceOnServer),
        (Code.INVALID_FILENAME, "", errors.NameRefused),
        (4711, "", errors.ServerRefused),
    ],
)
def test_a_refusal_becomes_the_error_a_caller_can_act_on(code: int, message: str, kind: type[errors.SFTPError]) -> None:
    error = Status(code, message).error("writing /a")
    assert type(error) is kind
    assert "writing /a" in str(error)
    assert str(int(code)) in str(error)
    assert not Status(code, message).ok


def test_kinds_are_those_of_the_draft() -> None:
    assert (Kind.OPEN, Kind.WRITE, Kind.RENAME, Kind.STATUS, Kind.EXTENDED_REPLY) == (3, 6, 18, 101, 201)

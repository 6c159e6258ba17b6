"""The byte stream of the SFTP subsystem: VERSION in front of it, in pieces, together with answers, or wrong."""

from __future__ import annotations

import struct
import threading
import time
import tracemalloc
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.buffered_pipe import BufferedPipe

from iot.sftp.client.protocol.outgoing import Outgoing
from iot.sftp.client.protocol.packets import init
from iot.sftp.client.ssh.channel import SMALL_BYTES, Pieces, SFTPChannel, keep_pieces
from iot.transfer.errors import LinkLost, ProtocolError, Timeout


def packet(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


VERSION = packet(struct.pack(">BI", 2, 3) + text(b"fsync@openssh.com") + text(b"1"))
ANSWER = packet(struct.pack(">BII", 101, 1, 0) + text(b"") + text(b""))


class Script:
    """Stands for paramiko's transport and channel: `comes` is what arrives, piece by piece; b"" is the end."""

    remote_chanid = 0
    clear_to_send = threading.Event()
    clear_to_send.set()

    def __init__(self, *comes: bytes) -> None:
        self.in_buffer = BufferedPipe()
        self.comes = deque(comes)
        self.sent = b""
        self.posted: list[bytes] = []

    def open_session(self, **_: Any) -> Script:
        return self

    def settimeout(self, _: float) -> None: ...

    def post(self, message: Any) -> None:
        self.posted.append(bytes(message.asbytes()))

    def is_active(self) -> bool:
        return True

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def recv(self, _: int) -> bytes:
        if not self.comes:
            raise TimeoutError
        return self.comes.popleft()


def channel(script: Script, *, in_order: bool, deadline_s: float = 5) -> SFTPChannel:
    link: Any = SimpleNamespace(last_received=0.0, ready=lambda wait_s: True)
    target: Any = SimpleNamespace(host="host", link_deadline_s=deadline_s)
    transport: Any = script
    return SFTPChannel(transport, link, target, in_order)


def test_requests_may_follow_init_at_once_where_they_are_handled_in_order() -> None:
    script = Script()
    stream = channel(script, in_order=True)
    request = Outgoing(b"req", b"uest")
    stream.send(request, 0)
    assert len(request) == 0
    assert script.sent == init() + b"request"
    assert stream.extensions == {}
    for piece in (VERSION[:3], VERSION[3:9], VERSION[9:] + ANSWER[:5], ANSWER[5:]):
        script.comes.append(piece)
    assert [stream.receive(100, 0), stream.receive(100, 0)] == [None, None]
    assert stream.receive(100, 0) == ANSWER[:5]
    assert stream.extensions == {b"fsync@openssh.com": b"1"}
    assert stream.receive(100, 0) == ANSWER[5:]


def test_elsewhere_version_is_awaited() -> None:
    script = Script(VERSION)
    assert channel(script, in_order=False).extensions == {b"fsync@openssh.com": b"1"}
    assert script.sent == init()


@pytest.mark.parametrize(
    ("comes", "error", "told"),
    [
        (ANSWER, ProtocolError, "not VERSION"),
        (b"Please log in", ProtocolError, "packet of"),
        (packet(struct.pack(">BI", 2, 2)), ProtocolError, "SFTP version 2"),
        (b"", LinkLost, "offers no SFTP"),
    ],
)
def test_another_beginning_is_refused(comes: bytes, error: type[Exception], told: str) -> None:
    stream = channel(Script(), in_order=True)
    stream._channel.comes.append(comes)
    with pytest.raises(error, match=told):
        stream.receive(100, 0)


def test_a_version_that_does_not_come_is_a_timeout_though_the_link_lives() -> None:
    stream = channel(Script(), in_order=True, deadline_s=0.3)
    stream.check_alive(None)  # not before its time
    time.sleep(0.31)
    with pytest.raises(Timeout, match="first packet"):
        stream.check_alive(None)
    began = time.monotonic()
    with pytest.raises(Timeout, match="first packet"):
        channel(Script(), in_order=False, deadline_s=0.3)
    assert time.monotonic() - began >= 0.3


def test_a_send_waits_for_the_server_as_long_as_it_was_told_and_no_longer() -> None:
    script = Script(VERSION)
    stream = channel(script, in_order=False)
    waits: list[float] = []
    stream._link.ready = lambda wait_s: waits.append(wait_s) or True  # type: ignore[func-returns-value]
    large, more = Outgoing(bytes(100_000)), Outgoing(b"more")
    stream.send(large, 5)
    assert len(large) == 0
    assert len(waits) > 2
    assert all(4 < wait_s <= 5 for wait_s in waits)
    stream._link.ready = lambda wait_s: waits.append(wait_s) is not None
    stream.send(more, 0)
    assert len(more) == 4
    assert waits[-1] == 0


def test_a_link_on_which_nothing_comes_is_given_up_after_its_deadline() -> None:
    stream = channel(Script(VERSION), in_order=False, deadline_s=30)
    now = time.monotonic()
    assert 28 <= stream.check_alive(now - 28) < 30
    stream._link.last_received = now - 28
    assert stream.check_alive(now - 100) < 30, "a sign of life came since"
    stream._link.last_received = now - 31
    with pytest.raises(LinkLost, match="the link is dead"):
        stream.check_alive(now - 100)
    assert stream.check_alive(None) == 0.0, "nothing is due"


def test_a_quiet_server_is_asked_for_a_sign_of_life_once_in_a_third_of_the_deadline() -> None:
    script = Script(VERSION)
    stream = channel(script, in_order=False, deadline_s=30)
    script.posted.clear()
    now = time.monotonic()
    stream.check_alive(now - 9)
    assert script.posted == []
    stream.check_alive(now - 11)
    assert len(script.posted) == 1
    assert b"keepalive@openssh.com" in script.posted[0]
    stream.check_alive(now - 12)
    assert len(script.posted) == 1


def test_the_end_of_the_stream_is_a_lost_link_and_no_empty_answer() -> None:
    stream = channel(Script(VERSION, b""), in_order=False)
    with pytest.raises(LinkLost, match=r"^host closed the connection$"):
        stream.receive(100, 0)


def test_a_channel_that_takes_nothing_more_is_a_lost_link() -> None:
    script = Script(VERSION)
    stream = channel(script, in_order=False)
    script.send = lambda data: 0  # type: ignore[method-assign, assignment]
    with pytest.raises(LinkLost, match=r"^host closed the connection$"):
        stream.send(Outgoing(b"request"), 0)


def test_a_connection_that_broke_is_no_slow_one() -> None:
    script = Script(VERSION)
    stream = channel(script, in_order=False)
    script.is_active = lambda: False  # type: ignore[method-assign]
    with pytest.raises(LinkLost, match="broke"):
        stream.check_alive(None)


# -- what paramiko has received


@given(st.lists(st.one_of(st.binary(max_size=SMALL_BYTES + 1), st.integers(1, 3 * SMALL_BYTES))))
def test_what_is_kept_in_pieces_reads_as_from_paramikos_own_pipe(steps: list[bytes | int]) -> None:
    ours, theirs = BufferedPipe(), BufferedPipe()
    for pipe in (ours, theirs):
        pipe.feed(b"early")
    keep_pieces(ours)
    for step in steps:
        if isinstance(step, bytes):
            ours.feed(step)
            theirs.feed(step)
        elif len(theirs):
            assert ours.read(step, 0.0) == theirs.read(step, 0.0)
        assert (len(ours), ours.read_ready()) == (len(theirs), theirs.read_ready())
    assert ours.empty() == theirs.empty()


def test_the_channel_keeps_pieces() -> None:
    script = Script()
    channel(script, in_order=True)
    assert isinstance(script.in_buffer._buffer, Pieces)


def test_a_server_that_sends_byte_by_byte_makes_us_keep_little_more_than_its_bytes() -> None:
    pipe = BufferedPipe()
    keep_pieces(pipe)
    tracemalloc.start()
    for _ in range(100_000):
        pipe.feed(b"x")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 300_000


def test_what_is_read_of_a_full_window_is_copied_and_not_what_stays() -> None:
    """A server that sends all that the window allows is read a part at a time."""
    pipe = BufferedPipe()
    keep_pieces(pipe)
    for number in range(512):
        pipe.feed(bytes([number % 251]) * 32 * 1024)
    content = b"".join(pipe._buffer._pieces)
    tracemalloc.start()
    read = [pipe.read(100_000, 0.0)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 500_000
    while len(pipe):
        read.append(pipe.read(100_000, 0.0))
    assert b"".join(read) == content

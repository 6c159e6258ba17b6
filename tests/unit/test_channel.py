"""The byte stream of the SFTP subsystem: VERSION in front of it, in pieces, together with answers, or wrong."""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.protocol.packets import init
from iot.sftp.client.ssh.channel import SFTPChannel
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
        self.comes = deque(comes)
        self.sent = b""

    def open_session(self, **_: Any) -> Script:
        return self

    def settimeout(self, _: float) -> None: ...

    def post(self, _: Any) -> None: ...

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
    assert stream.send(b"request", 0) == 7
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

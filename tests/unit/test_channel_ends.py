"""An SFTP channel from its first request to its end: what it asks for, how long it waits, and when it gives up."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from paramiko.buffered_pipe import BufferedPipe

from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.sftp.client.ssh import channel as module
from iot.sftp.client.ssh.channel import PACKET_BYTES, SMALL_BYTES, VERSION_POLL_S, Pieces, SFTPChannel
from iot.transfer.errors import LinkLost, Timeout

VERSION = b"\0\0\0\5\2\0\0\0\3"


class Script:
    """paramiko's transport and channel in one; time goes on by itself where something is waited for."""

    remote_chanid = 7

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *comes: bytes) -> None:
        self.in_buffer = BufferedPipe()
        self.clear_to_send = threading.Event()
        self.clear_to_send.set()
        self.comes, self.posted, self.sent, self.waits = list(comes), [], [], []
        self.window, self.ready, self.asked, self.alive = 10**6, True, {}, True
        self.now, self.ready_waits = 1000.0, []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def open_session(self, **how: Any) -> Script:
        self.asked = how
        return self

    def settimeout(self, seconds: float) -> None:
        self.waits.append(seconds)

    def post(self, message: Any) -> None:
        self.posted.append(message.asbytes())

    def is_active(self) -> bool:
        return self.alive

    def send(self, data: bytes) -> int:
        if not self.window:
            self.now += self.waits[-1]
            raise TimeoutError
        count = min(len(data), self.window)
        self.window -= count
        self.sent.append(bytes(data[:count]))
        return count

    def recv(self, limit: int) -> bytes:
        self.limit = limit
        if not self.comes:
            self.now += self.waits[-1]
            raise TimeoutError
        return self.comes.pop(0)


def opened(script: Script, *, in_order: bool = True, deadline_s: float = 30.0) -> SFTPChannel:
    def ready(wait_s: float) -> bool:
        script.ready_waits.append(wait_s)
        return script.ready

    link: Any = SimpleNamespace(last_received=0.0, ready=ready)
    target: Any = SimpleNamespace(host="h", link_deadline_s=deadline_s)
    return SFTPChannel(script, link, target, in_order)  # type: ignore[arg-type]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


# -- the beginning


def test_a_session_is_asked_for_with_a_large_window_and_then_its_subsystem(script: Script) -> None:
    opened(script)
    assert script.asked == {"window_size": module.RECEIVE_WINDOW_BYTES, "timeout": 30.0}
    assert script.posted == [b"\x62\0\0\0\7\0\0\0\x09subsystem\1\0\0\0\4sftp"]
    assert b"".join(script.sent) == packets.init()


def test_the_first_packet_waits_for_a_window_no_longer_than_the_deadline(script: Script) -> None:
    script.window = 0
    began = script.now
    with pytest.raises(Timeout, match="h did not answer SFTP's first packet in 30 s"):
        opened(script)
    assert 30.0 < script.now - began <= 30.0 + 2 * VERSION_POLL_S
    assert set(script.waits) == {VERSION_POLL_S}


def test_a_version_is_looked_for_in_short_steps(script: Script) -> None:
    with pytest.raises(Timeout):
        opened(script, in_order=False)
    assert set(script.waits[1:]) == {VERSION_POLL_S}
    assert script.limit == packets.MAX_PACKET_BYTES
    script.comes = [VERSION]
    began = script.now
    found = opened(script, in_order=False)
    assert script.now == began
    assert found._version_due_since is None


def test_an_end_before_the_version_is_told_as_no_sftp_and_one_behind_it_as_an_end(script: Script) -> None:
    script.comes = [VERSION + b"rest"]
    found = opened(script)
    assert found.receive(100, 5.0) == b"rest"
    assert script.waits[-1] == 5.0
    script.comes = [b""]
    with pytest.raises(LinkLost, match=r"^h closed the connection$"):
        found.receive(100, 5.0)


# -- sending


def test_much_is_sent_in_packets_that_every_server_takes(script: Script) -> None:
    found = opened(script)
    script.sent.clear()
    data = bytes(range(256)) * 300
    outgoing = Outgoing(data)
    found.send(outgoing, 5.0)
    assert b"".join(script.sent) == data
    assert max(map(len, script.sent)) == PACKET_BYTES
    assert not outgoing


def test_what_a_closed_window_holds_up_stays_and_is_waited_for_once(script: Script) -> None:
    found = opened(script)
    script.window, outgoing = 3, Outgoing(b"0123456789")
    began = script.now
    found.send(outgoing, 5.0)
    assert (script.sent[-1], len(outgoing), script.now - began) == (b"012", 7, 5.0)


@pytest.mark.parametrize("held_up_by", ["link", "key exchange"])
def test_nothing_is_sent_while_tcp_is_full_or_keys_are_exchanged(script: Script, held_up_by: str) -> None:
    found = opened(script)
    script.sent.clear()
    if held_up_by == "link":
        script.ready = False
    else:
        script.clear_to_send.clear()
    outgoing = Outgoing(b"x")
    found.send(outgoing, 0.0)
    assert (script.sent, len(outgoing)) == ([], 1)


# -- life


def test_a_connection_that_broke_is_told_at_once(script: Script) -> None:
    found = opened(script)
    script.alive = False
    with pytest.raises(LinkLost, match=r"^h: the connection broke$"):
        found.check_alive(None)


def version_known(script: Script) -> SFTPChannel:
    script.comes = [VERSION]
    found = opened(script, in_order=False)
    script.posted.clear()
    return found


@pytest.mark.parametrize(("waited_s", "dead"), [(30.0, False), (30.1, True)])
def test_a_link_is_dead_behind_its_deadline_and_not_at_it(script: Script, waited_s: float, dead: bool) -> None:
    found = version_known(script)
    if dead:
        with pytest.raises(LinkLost, match=r"^h: nothing came for 30 s; the link is dead$"):
            found.check_alive(script.now - waited_s)
    else:
        assert found.check_alive(script.now - waited_s) == waited_s


def test_a_sign_of_life_is_asked_for_each_third_of_the_deadline_and_only_where_something_is_due(script: Script) -> None:
    found = version_known(script)
    since = script.now
    for later, asked in ((10.0, 0), (10.1, 1), (20.0, 1), (20.2, 2)):
        script.now = since + later
        assert found.check_alive(since) == pytest.approx(later)
        assert len(script.posted) == asked
    assert script.posted[0] == b"\x50\0\0\0\x15keepalive@openssh.com\1"
    assert found.check_alive(None) == 0.0
    assert len(script.posted) == 2


def test_no_sign_of_life_is_asked_for_while_nothing_can_be_sent(script: Script) -> None:
    found = version_known(script)
    script.ready = False
    found.check_alive(script.now - 20.0)
    assert script.posted == []
    assert script.ready_waits[-1] == 0.0, "nobody is held up"


def test_what_came_since_counts(script: Script) -> None:
    found = version_known(script)
    found._link.last_received = script.now - 3.0
    assert found.check_alive(script.now - 100.0) == 3.0
    assert script.posted == []


# -- pieces


@pytest.mark.parametrize(("size", "pieces"), [(SMALL_BYTES - 1, 2), (SMALL_BYTES, 3)])
def test_small_pieces_are_put_together_and_large_ones_are_kept_as_they_are(size: int, pieces: int) -> None:
    kept = Pieces(b"x")
    kept.frombytes(b"a" * size)
    kept.frombytes(b"b")
    assert len(kept._pieces) == pieces
    assert (len(kept), kept.tobytes()) == (size + 2, b"x" + b"a" * size + b"b")


def test_a_beginning_is_copied_and_taken_away_and_what_stays_is_the_rest() -> None:
    kept = Pieces()
    for piece in (b"0" * SMALL_BYTES, b"12", b"3" * SMALL_BYTES):
        kept.frombytes(piece)
    assert kept[: SMALL_BYTES + 1].tobytes() == b"0" * SMALL_BYTES + b"1"
    assert kept[:] is kept
    for count in (SMALL_BYTES, 1, 1, 5):
        del kept[:count]
    assert (kept.tobytes(), len(kept)) == (b"3" * (SMALL_BYTES - 5), SMALL_BYTES - 5)
    assert len(kept._pieces) == 1
    del kept[: 10 * SMALL_BYTES]
    assert (kept._pieces, len(kept)) == ([b""], 0)
    kept.frombytes(b"new")
    del kept[:]
    assert (kept.tobytes(), len(kept)) == (b"", 0)
    assert list(Pieces(b"ab")._beginning(0)) == []

"""The bad link keeps its own promises: what it counts, limits, delays and breaks is what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from faults.proxy import BadLink, Fault

pytestmark = pytest.mark.alone

MIB = 1024 * 1024
ATTEMPTS = 10


class Peer:
    """A server on loopback: echoes, or only reads and counts."""

    def __init__(self, *, echo: bool) -> None:
        self.received = 0
        self.saw_eof = threading.Event()
        self._echo = echo
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed by the test
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:  # the link breaks it: that is what it is for
            while block := sock.recv(256 * 1024):
                self.received += len(block)
                if self._echo:
                    sock.sendall(block)
            self.saw_eof.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone does not wake the accept
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Peer]:
    peer = Peer(echo=True)
    yield peer
    peer.close()


@pytest.fixture
def sink() -> Iterator[Peer]:
    peer = Peer(echo=False)
    yield peer
    peer.close()


def connect(link: BadLink) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=60)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (block := sock.recv(size - len(data))):
        data += block
    return data


def in_time(limit_s: float, attempt: Callable[[], float]) -> bool:
    """Whether the link can do it within `limit_s`: a busy machine makes any attempt slower, none quicker."""
    return any(attempt() < limit_s for _ in range(ATTEMPTS))


def test_bytes_pass_unchanged_and_are_counted_in_both_directions(echo: Peer) -> None:
    payload = bytes(range(256)) * 4096
    with BadLink("127.0.0.1", echo.port) as link, connect(link) as sock:
        threading.Thread(target=sock.sendall, args=(payload,), daemon=True).start()
        assert receive(sock, len(payload)) == payload
        assert (link.up_bytes, link.down_bytes, link.connections) == (MIB, MIB, 1)


@pytest.mark.needs("steady")
def test_delay_is_one_way(echo: Peer) -> None:
    def round_trip_s() -> float:
        start = time.monotonic()
        sock.sendall(b"x")
        assert receive(sock, 1) == b"x"
        took_s = time.monotonic() - start
        assert took_s >= 0.1
        return took_s

    with BadLink("127.0.0.1", echo.port, delay_s=0.05) as link, connect(link) as sock:
        assert in_time(0.19, round_trip_s)


@pytest.mark.needs("steady")
def test_many_small_messages_are_delayed_together_not_one_after_the_other(echo: Peer) -> None:
    def round_trips_s() -> float:
        start = time.monotonic()
        for _ in range(100):
            sock.sendall(b"x" * 50)
            time.sleep(0.001)
        assert len(receive(sock, 5000)) == 5000
        return time.monotonic() - start

    with BadLink("127.0.0.1", echo.port, delay_s=0.1, rate_bps=10e6) as link, connect(link) as sock:
        assert in_time(3.0, round_trips_s)


@pytest.mark.needs("steady")
def test_rate_limits_and_lets_little_be_pushed_ahead(sink: Peer) -> None:
    def sending_s() -> float:
        already, start = link.up_bytes, time.monotonic()
        sock.sendall(b"x" * 2 * MIB)
        took_s = time.monotonic() - start
        assert already + 2 * MIB - link.up_bytes < 200_000
        assert took_s >= 0.95
        while link.up_bytes < already + 2 * MIB:
            time.sleep(0.01)
        return took_s

    with BadLink("127.0.0.1", sink.port, rate_bps=16e6, delay_s=0.02) as link, connect(link) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        assert in_time(2.5, sending_s)


def test_reset_reaches_both_sides_and_the_link_serves_again(echo: Peer) -> None:
    with BadLink("127.0.0.1", echo.port) as link:
        with connect(link) as sock:
            sock.sendall(b"x")
            receive(sock, 1)
            link.reset()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        with connect(link) as sock:
            sock.sendall(b"y")
            assert receive(sock, 1) == b"y"


def test_cut_is_an_end_of_file(echo: Peer) -> None:
    with BadLink("127.0.0.1", echo.port) as link, connect(link) as sock:
        sock.sendall(b"x")
        receive(sock, 1)
        link.cut()
        assert sock.recv(1) == b""
        assert echo.saw_eof.wait(2)


def test_silence_holds_everything_until_restore(echo: Peer) -> None:
    with BadLink("127.0.0.1", echo.port) as link, connect(link) as sock:
        link.silence()
        sock.sendall(b"x")
        late = connect(link)
        late.sendall(b"y")
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert echo.received == 0
        link.restore()
        sock.settimeout(60)
        assert receive(sock, 1) == b"x"
        assert receive(late, 1) == b"y"
        late.close()


def test_a_connection_made_in_silence_can_be_reset(echo: Peer) -> None:
    with BadLink("127.0.0.1", echo.port) as link:
        link.silence()
        with connect(link) as sock:
            while not link.open_connections:
                time.sleep(0.01)
            link.reset()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_half_close_ends_one_direction_only(echo: Peer) -> None:
    with BadLink("127.0.0.1", echo.port) as link, connect(link) as sock:
        sock.sendall(b"x")
        receive(sock, 1)
        link.half_close("down")
        assert sock.recv(1) == b""
        sock.sendall(b"more")
        deadline = time.monotonic() + 2
        while echo.received < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert echo.received == 5


def test_refuse_and_restore(echo: Peer) -> None:
    with BadLink("127.0.0.1", echo.port) as link:
        link.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(link)
        link.restore()
        connect(link).close()


def test_an_end_of_file_of_the_client_reaches_the_server_after_its_bytes(sink: Peer) -> None:
    with BadLink("127.0.0.1", sink.port, delay_s=0.05) as link:
        with connect(link) as sock:
            sock.sendall(b"x" * MIB)
        assert sink.saw_eof.wait(5)
        assert sink.received == MIB


def test_a_script_resets_at_exactly_the_byte(sink: Peer) -> None:
    marks = [1_000_000, 1_500_000]
    with BadLink("127.0.0.1", sink.port, script=[Fault("reset", up_bytes=mark) for mark in marks]) as link:
        for mark in marks:
            with connect(link) as sock, pytest.raises(ConnectionError):
                sock.sendall(b"x" * 32 * MIB)
            assert link.up_bytes == mark


@pytest.mark.needs("steady")
def test_a_script_is_silent_for_a_while(echo: Peer) -> None:
    def longest_silence_s() -> float:
        with (
            BadLink("127.0.0.1", echo.port, script=[Fault("silence", after_s=0.1, lasts_s=0.4)]) as link,
            connect(link) as sock,
        ):
            start = time.monotonic()
            longest = 0.0
            while time.monotonic() - start < 0.8:
                before = time.monotonic()
                sock.sendall(b"x")
                receive(sock, 1)
                longest = max(longest, time.monotonic() - before)
        assert longest > 0.3
        return longest

    assert in_time(1.0, longest_silence_s)


def test_a_dead_target_is_a_reset(sink: Peer) -> None:
    sink.close()
    # the reset may come as early as with the connection itself
    with BadLink("127.0.0.1", sink.port) as link, pytest.raises(ConnectionResetError), connect(link) as sock:
        sock.recv(1)


def test_close_leaves_no_thread_and_no_port(echo: Peer) -> None:
    before = threading.active_count()
    link = BadLink("127.0.0.1", echo.port)
    sock = connect(link)
    link.close()
    link.close()
    assert threading.active_count() <= before + 1  # the echo of this connection may still be ending
    sock.close()
    with pytest.raises(ConnectionRefusedError):
        connect(link)

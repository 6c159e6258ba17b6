"""Calls to the addresses of a server: one that does not answer delays the next by a quarter of a second, no more."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iot.ftp.dial import dial as ftp_dial
from iot.sftp.client.ssh.dial import dial
from iot.transfer.dialling import CALLS_MAX, STAGGER_S, Address, Race, interleaved, resolved
from iot.transfer.errors import Cancelled, ConfigurationError, LinkLost
from iot.transfer.stop import StopFlag

SOON_S = 5.0
"""Far above what it takes, far below what a silent address would cost."""
TIMEOUT_S = 60.0


def nothing() -> None:
    pass


def tcp(name: str, port: int) -> Address:
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    return Address(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (name, port))


def sockets() -> int:
    def target(name: str) -> str:
        with contextlib.suppress(OSError):  # the folder that is being read
            return os.readlink(f"/proc/self/fd/{name}")
        return ""

    return sum(target(name).startswith("socket:") for name in os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def silent(name: str = "127.0.0.9", port: int = 0) -> Iterator[Address]:
    """An address whose SYNs are dropped: its backlog is full, and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((name, port), backlog=0))
        address = tcp(name, listener.getsockname()[1])
        for _ in range(4):
            call = stack.enter_context(socket.socket())
            call.setblocking(False)
            call.connect_ex(address.address)
        yield address


@contextlib.contextmanager
def answering(name: str = "127.0.0.1", port: int = 0) -> Iterator[Address]:
    with socket.create_server((name, port)) as listener:
        yield tcp(name, listener.getsockname()[1])


def refusing(name: str = "127.0.0.8") -> Address:
    with socket.socket() as found:
        found.bind((name, 0))
        return tcp(name, found.getsockname()[1])


def won(*addresses: Address, check: Callable[[], None] = nothing, **options: Any) -> tuple[Any, float, list[str]]:
    """-> who answered (None: nobody), after how long, and what went wrong."""
    began = time.monotonic()
    with Race(addresses, socket.socket, **{"timeout_s": TIMEOUT_S, **options}) as race:
        sock = race.winner(check)
    took_s = time.monotonic() - began
    if sock is None:
        return None, took_s, race.failures
    with sock:
        return sock.getpeername(), took_s, race.failures


def test_a_silent_address_delays_the_next_by_a_quarter_of_a_second() -> None:
    before = sockets()
    with silent() as dead, answering() as good:
        peer, took_s, _ = won(dead, good)
    assert peer == good.address
    assert STAGGER_S - 0.01 <= took_s < SOON_S
    assert sockets() == before, "the losers are closed"


def test_each_of_several_silent_addresses_costs_no_more() -> None:
    with silent("127.0.0.9") as one, silent("127.0.0.10") as two, answering() as good:
        peer, took_s, _ = won(one, two, good)
    assert peer == good.address
    assert 2 * STAGGER_S - 0.01 <= took_s < SOON_S


def test_a_refusal_calls_the_next_address_at_once() -> None:
    with answering() as good:
        peer, took_s, failures = won(refusing(), good)
    assert peer == good.address
    assert took_s < STAGGER_S
    assert failures == ["127.0.0.8: Connection refused"]


def test_an_address_that_answers_late_still_wins_over_one_that_never_does() -> None:
    """An earlier call goes on while later ones are made: the first address may just be slow."""
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(socket.create_server(("127.0.0.9", 0), backlog=0))
        address = tcp("127.0.0.9", slow.getsockname()[1])
        earlier = [stack.enter_context(socket.socket()) for _ in range(4)]
        for call in earlier:
            call.setblocking(False)
            call.connect_ex(address.address)
        frees_at = time.monotonic() + 2 * STAGGER_S

        def free() -> None:
            if time.monotonic() > frees_at:
                for call in earlier:
                    call.close()
                with contextlib.suppress(BlockingIOError):
                    slow.setblocking(False)
                    slow.accept()[0].close()

        dead = stack.enter_context(silent("127.0.0.10"))
        peer, took_s, _ = won(address, dead, check=free)
    assert peer == address.address
    assert took_s < 30


def test_when_no_address_answers_each_is_named_with_its_reason() -> None:
    refused = refusing()
    with silent() as dead:
        peer, took_s, failures = won(dead, refused, timeout_s=0.6)
    assert peer is None
    assert failures == ["127.0.0.8: Connection refused", "127.0.0.9: no answer in 0.6 s"]
    assert took_s < SOON_S


def test_each_address_has_the_whole_time() -> None:
    with silent("127.0.0.9") as one, silent("127.0.0.10") as two:
        peer, took_s, _ = won(one, two, timeout_s=0.5)
    assert peer is None
    assert took_s >= 0.5 + STAGGER_S - 0.01


def test_a_cancel_ends_the_race_within_a_second_and_closes_every_call() -> None:
    before, stop_at = sockets(), time.monotonic() + 0.4

    def check() -> None:
        if time.monotonic() > stop_at:
            raise Cancelled("enough")

    with silent("127.0.0.9") as one, silent("127.0.0.10") as two, pytest.raises(Cancelled):
        won(one, two, check=check)
    assert time.monotonic() - stop_at < 1.0
    assert sockets() == before


def test_a_silent_address_is_called_again_in_growing_pauses_and_not_without_end() -> None:
    made_at: list[float] = []

    def make(*kind: int) -> socket.socket:
        made_at.append(time.monotonic())
        return socket.socket(*kind)

    before = sockets()
    with silent() as dead, Race([dead], make, timeout_s=1.5, redial_s=0.01) as race:
        assert race.winner(nothing) is None
    assert len(made_at) == CALLS_MAX
    assert made_at[-1] - made_at[-2] > 2 * (made_at[1] - made_at[0])
    assert sockets() == before


def test_without_a_second_call_there_is_one() -> None:
    made = []

    def make(*kind: int) -> socket.socket:
        made.append(kind)
        return socket.socket(*kind)

    with silent() as dead, Race([dead], make, timeout_s=0.5) as race:
        race.winner(nothing)
    assert len(made) == 1


def test_a_socket_that_cannot_be_had_for_one_address_leaves_the_others() -> None:
    """Such as one that is bound to an address of the other family."""

    def make(family: int, *kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(22, "Invalid argument")
        return socket.socket(family, *kind)

    with answering() as good, Race([tcp("::1", 22), good], make, timeout_s=TIMEOUT_S) as race:
        sock = race.winner(nothing)
        assert sock is not None
        with sock:
            assert sock.getpeername() == good.address
    assert race.failures == ["::1: Invalid argument"]


def test_a_wrong_setting_ends_the_race() -> None:
    def make(*_: int) -> socket.socket:
        raise ConfigurationError("bind_interface: no")

    before = sockets()
    with silent() as dead, Race([dead], make, timeout_s=TIMEOUT_S) as race, pytest.raises(ConfigurationError):
        race.winner(nothing)
    assert sockets() == before


def test_the_families_alternate_beginning_with_the_first() -> None:
    six = [tcp(f"fe80::{number}", 22) for number in range(3)]
    four = [tcp(f"10.0.0.{number}", 22) for number in range(2)]
    assert interleaved([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleaved([four[0], *six]) == [four[0], *six]
    assert interleaved([four[0], six[0], six[1], four[1]]) == [four[0], six[0], four[1], six[1]]
    assert interleaved([]) == []


def test_a_name_that_cannot_be_one_of_a_host_is_reported_as_such() -> None:
    with pytest.raises(LinkLost, match="x" * 64):
        resolved("x" * 64 + ".example.com", 22, 3.0, nothing)


def test_a_cancel_does_not_wait_for_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    stop = StopFlag()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        dial("h", 22, connect_timeout_s=30.0, deadline_s=5.0, congestion=None, cancelled=stop)
    assert time.monotonic() - began < 1.0


def test_a_resolver_that_says_nothing_is_waited_for_no_longer_than_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    with pytest.raises(LinkLost, match=r"no answer from the resolver in 0\.3 s"):
        dial("h", 22, connect_timeout_s=0.3, deadline_s=5.0, congestion=None, cancelled=StopFlag())


@pytest.mark.parametrize("protocol", ["sftp", "ftp"])
def test_both_protocols_pass_a_silent_address_by(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as good, silent("127.0.0.9", good.address[1]) as dead:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [tuple(dead), tuple(good)])
        began = time.monotonic()
        if protocol == "sftp":
            options: dict[str, Any] = {"deadline_s": 10.0, "congestion": None, "cancelled": StopFlag()}
            link: Any = dial("h", good.address[1], connect_timeout_s=TIMEOUT_S, **options)
        else:
            link = ftp_dial("h", good.address[1], TIMEOUT_S, nothing)
        try:
            assert link.getpeername() == good.address
            assert time.monotonic() - began < SOON_S
        finally:
            link.close()


def test_a_connection_comes_from_the_address_that_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options: dict[str, Any] = {"connect_timeout_s": 10.0, "deadline_s": 10.0, "congestion": None}
        link = dial("127.0.0.1", listener.getsockname()[1], cancelled=StopFlag(), bind_address="127.0.0.2", **options)
        try:
            caller, address = listener.accept()
            caller.close()
        finally:
            link.close()
    assert address[0] == "127.0.0.2"

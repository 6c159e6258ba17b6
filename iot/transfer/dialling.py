"""TCP connections to a name with several addresses, of which some may not answer (RFC 8305, "Happy Eyeballs").

The addresses of a name are called in turn, the two families alternating (section 4), each STAGGER_S after the one
before, or as soon as that has failed (section 5); earlier calls go on meanwhile. The first that is answered wins, and
all others are closed. The system's resolver asks for both families at once and answers with both, so there is nothing
to wait for after the first answer (section 3).
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from iot.transfer.errors import LinkLost

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["STAGGER_S", "Address", "Race", "interleaved", "new_selector", "resolved"]

STAGGER_S = 0.25
"""RFC 8305, section 8: Connection Attempt Delay."""
SLICE_S = 0.1
CALLS_MAX = 20
REDIAL_GROWTH = 1.1
UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK))

MakeSocket = Callable[[int, int, int], socket.socket]


class Address(NamedTuple):
    """As getaddrinfo(3) returns it."""

    family: int
    kind: int
    protocol: int
    name: str
    address: tuple[Any, ...]


def resolved(host: str, port: int, timeout_s: float, check: Callable[[], None]) -> list[Address]:
    """The addresses of a name, in the order in which they are to be called.

    A thread that owns nothing asks: the system's resolver supports neither a deadline nor a cancel. check: called
    several times a second; what it raises ends the wait. Raises: LinkLost.
    """
    answer: queue.SimpleQueue[Sequence[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name="iot-transfer resolving", daemon=True).start()
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        check()
        with contextlib.suppress(queue.Empty):
            found = answer.get(timeout=SLICE_S)
            if isinstance(found, Exception):
                raise LinkLost(
                    f"cannot find the address of {host!r}: {found}; check the name and the network"
                ) from found
            return interleaved([Address(*each) for each in found])
    raise LinkLost(f"cannot find the address of {host!r}: no answer from the resolver in {timeout_s:g} s")


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The families alternate, beginning with that of the first; within each, the order (of RFC 6724) stays."""
    begins_with = {each.family for each in addresses[:1]}
    first = [each for each in addresses if each.family in begins_with]
    others = [each for each in addresses if each.family not in begins_with]
    return [each for pair in zip_longest(first, others) for each in pair if each is not None]


class _Calls:
    """The calls to one address: one, or several at growing intervals."""

    def __init__(self, address: Address, give_up_at: float, redial_s: float | None) -> None:
        self.address = address
        self.give_up_at = give_up_at
        self.next_at = float("-inf")
        self.sockets: list[socket.socket] = []
        self._redial_s = redial_s

    def called(self, sock: socket.socket, now: float) -> None:
        self.sockets.append(sock)
        self.next_at = float("inf")
        if self._redial_s is not None and len(self.sockets) < CALLS_MAX:
            self.next_at, self._redial_s = now + self._redial_s, self._redial_s * REDIAL_GROWTH


class Race:
    """One race between the addresses of a name; as a context, it leaves no socket but the winner open.

    make: a socket of this family, kind and protocol, bound as wanted. Raises: OSError where that cannot be had for this
    address, which counts as a failed call.
    timeout_s: for each address, from its first call on. redial_s: while an address does not answer, call it again, in
    addition to the earlier calls: when the link recovers, a new call is answered at once, while TCP repeats a lost SYN
    only after 1, 3, 7 and more seconds.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        make: MakeSocket,
        *,
        timeout_s: float,
        redial_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left = list(addresses)
        self._make = make
        self._timeout_s = timeout_s
        self._redial_s = redial_s
        self._now = clock
        self._selector = new_selector()
        self._running: list[_Calls] = []
        self._next_at = float("-inf")
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for calls in self._running:
            _close(calls.sockets)
        self._selector.close()

    def winner(self, check: Callable[[], None]) -> socket.socket | None:
        """The first connection that is made, not blocking; None if all addresses fail, and `failures` says why.

        check: called at least every SLICE_S; what it raises ends the race.
        """
        while self._left or self._running:
            check()
            now = self._now()
            self._call_due(now)
            self._give_up(now)
            for key, _ in self._selector.select(self._pause_s(now)) if self._running else ():
                sock = self._answered(key.data, key.fileobj)  # type: ignore[arg-type]
                if sock is not None:
                    return sock
        return None

    # -- inside

    def _pause_s(self, now: float) -> float:
        due = [calls.next_at for calls in self._running] + ([self._next_at] if self._left else [])
        return min(SLICE_S, max(min(due) - now, 0.0))

    def _call_due(self, now: float) -> None:
        if self._left and (now >= self._next_at or not self._running):
            self._next_at = now + STAGGER_S
            self._running.append(_Calls(self._left.pop(0), now + self._timeout_s, self._redial_s))
        for calls in [calls for calls in self._running if now >= calls.next_at]:
            self._call(calls, now)

    def _call(self, calls: _Calls, now: float) -> None:
        family, kind, protocol, _, address = calls.address
        try:
            sock = self._make(family, kind, protocol)
        except OSError as error:
            self._failed(calls, str(error.strerror or error))
            return
        calls.called(sock, now)
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code not in (0, errno.EISCONN, *UNDER_WAY):
            self._failed(calls, os.strerror(code))
            return
        self._selector.register(sock, selectors.EVENT_WRITE, calls)

    def _answered(self, calls: _Calls, sock: socket.socket) -> socket.socket | None:
        if calls not in self._running:  # another call to this address has failed just now
            return None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(calls, os.strerror(code))
            return None
        calls.sockets.remove(sock)
        return sock

    def _give_up(self, now: float) -> None:
        for calls in [calls for calls in self._running if now > calls.give_up_at]:
            self._failed(calls, f"no answer in {self._timeout_s:g} s")

    def _failed(self, calls: _Calls, reason: str) -> None:
        """The next address is called at once."""
        self.failures.append(f"{calls.address.address[0]}: {reason}")
        self._running.remove(calls)
        for sock in calls.sockets:
            with contextlib.suppress(KeyError):  # refused before it was watched
                self._selector.unregister(sock)
        _close(calls.sockets)
        self._next_at = float("-inf")


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def new_selector() -> selectors.BaseSelector:
    """The best means of the system that waits for any descriptor, however high its number."""
    return selectors.DefaultSelector() if os.name == "nt" else selectors.PollSelector()

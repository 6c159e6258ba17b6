"""A server that sends a byte now and then keeps no deadline from passing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest
from servers.ftp_scripted import ScriptedFTP

from iot.ftp.connection import Address
from iot.ftp.store import FTPStore
from iot.transfer.errors import Timeout


def store_of(fake: ScriptedFTP, timeout_s: float) -> FTPStore:
    return FTPStore(Address(fake.host, fake.port, "device", "secret", None, timeout_s=timeout_s))


def used(store: FTPStore) -> None:
    store.connect()
    store.check()


def drip(_: ScriptedFTP, session: socket.socket) -> None:
    """A byte now and then, each long before the deadline."""
    for byte in b"200-" + b"x" * 1000:
        session.sendall(bytes([byte]))
        time.sleep(0.1)


@pytest.mark.parametrize("verb", ["welcome", "NOOP"])
def test_a_reply_that_drips_has_one_deadline(verb: str) -> None:
    with ScriptedFTP(**{verb: drip}) as fake:
        store = store_of(fake, 0.5)
        began = time.monotonic()
        with pytest.raises(Timeout):
            used(store)
        assert time.monotonic() - began < 5


def test_replies_do_not_take_time_from_each_other() -> None:
    """Four replies of a transfer, each late but in time."""

    def late(text: str) -> Callable[[ScriptedFTP, socket.socket], None]:
        return lambda _, session: (time.sleep(0.3), session.sendall(f"{text}\r\n".encode()))[0]

    with ScriptedFTP(USER=late("331 password"), PASS=late("230 in"), TYPE=late("200 ok"), NOOP=late("200 ok")) as fake:
        store = store_of(fake, 0.8)
        store.connect()
        store.check()


def test_content_that_drips_is_a_timeout() -> None:
    def send(server: ScriptedFTP, session: socket.socket) -> None:
        session.sendall(b"150 go on\r\n")
        data, _ = server._data.accept()
        with data, contextlib.suppress(OSError):
            while True:
                data.sendall(b"x")
                time.sleep(0.1)

    with ScriptedFTP(RETR=send) as fake:
        store = store_of(fake, 0.5)
        store.connect()
        began = time.monotonic()
        with pytest.raises(Timeout):
            list(store.read(b"file", 0))
        assert time.monotonic() - began < 20

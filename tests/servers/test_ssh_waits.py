"""No wait is a hang: while a server reads nothing, or a name is looked up, the caller ticks and a cancel is obeyed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from servers.base import descendants
from servers.hostile import PASSWORD, Hostile, connected
from servers.openssh import OpenSSH

from iot.sftp.client import Cancelled, Failure, IoTSFTPClient, LinkLost, Timeout, UploadJob
from iot.sftp.client.standby import Connecting
from iot.transfer.stop import StopFlag

MIB = 1024 * 1024
VERSION = struct.pack(">IBI", 5, 2, 3)
TICK_S = 2.5
"""Ten times what is promised, for a machine that has other things to do."""


def reads_no_more(channel: paramiko.Channel) -> None:
    """Answer INIT and the first OPEN, read nothing else: the SSH window stays closed behind it, the link is well."""
    channel.sendall(VERSION)
    channel.recv(9)


@contextlib.contextmanager
def closed_window(tmp_path: Path, **options: Any) -> Iterator[IoTSFTPClient]:
    with (
        Hostile(at_subsystem=reads_no_more) as server,
        IoTSFTPClient(
            "127.0.0.1",
            server.port,
            "user",
            PASSWORD,
            host_key=server.host_key,
            state_dir=tmp_path / "state",
            attempts=1,
            **options,
        ) as client,
    ):
        client.connect()
        yield client


def large(tmp_path: Path, megabytes: int = 16) -> Path:
    source = tmp_path / "large"
    source.write_bytes(bytes(megabytes * MIB))
    return source


class Ticks:
    """at: when it was called; at the `last` of them `then` is done."""

    def __init__(self, last: int = 10**9, then: Callable[[], None] = lambda: None) -> None:
        self.at: list[float] = []
        self._last = last
        self._then = then

    def __call__(self) -> None:
        self.at.append(time.monotonic())
        if len(self.at) == self._last:
            self._then()

    @property
    def longest_pause_s(self) -> float:
        return max(b - a for a, b in zip(self.at, self.at[1:], strict=False))


def blocks(tmp_path: Path, count: int = 1024) -> Iterator[UploadJob]:
    """Many small files: their OPENs alone fill any window, since requests without payload pass the pace."""
    for number in range(count):
        yield UploadJob(tmp_path / "small", "/".join(["", *["x" * 200] * 18, str(number)]))


def test_a_closed_window_keeps_nobody_from_ticking_and_ends_at_the_servers_deadline(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"1")
    ticks = Ticks()
    with closed_window(tmp_path, server_reply_s=8, link_deadline_s=60) as client:
        began = time.monotonic()
        outcomes = list(client.upload_many(blocks(tmp_path), tick=ticks))
        took_s = time.monotonic() - began
    assert {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failure)} == {Timeout}
    assert 8 <= took_s < 20
    assert ticks.longest_pause_s < TICK_S


def test_a_closed_window_keeps_nobody_from_cancelling(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"1")
    with closed_window(tmp_path, link_deadline_s=30) as client:
        cancelled_at: list[float] = []

        def cancel() -> None:
            time.sleep(2)
            cancelled_at.append(time.monotonic())
            client.cancel()

        threading.Thread(target=cancel, daemon=True).start()
        list(client.upload_many(blocks(tmp_path)))
        assert time.monotonic() - cancelled_at[0] < 1.5


@pytest.fixture
def stopped_sshd(sshd: OpenSSH) -> Iterator[Callable[[], None]]:
    """Stops sshd and its sessions: TCP still acknowledges, until its buffers are full, and nobody reads."""
    stopped: list[int] = []

    def stop() -> None:
        assert sshd.process is not None
        stopped.extend([sshd.process.pid, *descendants(sshd.process.pid)])
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    yield stop
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_full_tcp_buffers_keep_nobody_from_ticking_and_end_at_the_links_deadline(
    sshd: OpenSSH, stopped_sshd: Callable[[], None], tmp_path: Path
) -> None:
    ticks = Ticks(3, stopped_sshd)
    with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state", attempts=1, link_deadline_s=4) as client:
        client.connect()
        job = UploadJob(large(tmp_path, 64), sshd.path("file"))
        outcomes = list(client.upload_many([job], tick=ticks))
    assert isinstance(outcomes[0], Failure)
    assert isinstance(outcomes[0].error, LinkLost)
    assert ticks.longest_pause_s < TICK_S
    assert ticks.at[-1] - ticks.at[2] < 12


def test_full_tcp_buffers_keep_nobody_from_cancelling(
    sshd: OpenSSH, stopped_sshd: Callable[[], None], tmp_path: Path
) -> None:
    with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state", attempts=1, link_deadline_s=60) as client:
        client.connect()
        cancelled_at: list[float] = []

        def cancel() -> None:
            time.sleep(2)
            cancelled_at.append(time.monotonic())
            client.cancel()

        def stop() -> None:
            stopped_sshd()
            threading.Thread(target=cancel, daemon=True).start()

        list(client.upload_many([UploadJob(large(tmp_path, 64), sshd.path("file"))], tick=Ticks(3, stop)))
        assert time.monotonic() - cancelled_at[0] < 1.5


def test_a_session_that_reads_no_more_is_left_for_a_standby_connection(sshd: OpenSSH, tmp_path: Path) -> None:
    """Only while bytes are in flight: a server may take its time over any other request."""
    stopped: list[int] = []

    def stop_once_bytes_have_come() -> None:
        assert sshd.process is not None
        if not stopped and any(part.stat().st_size for part in sshd.root.glob("*.part")):
            stopped.extend(descendants(sshd.process.pid))
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    source = large(tmp_path, 64)
    try:
        with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state", attempts=1, link_deadline_s=300) as client:
            client.connect()
            job = UploadJob(source, sshd.path("file"))
            outcomes = list(client.upload_many([job], tick=stop_once_bytes_have_come))
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not isinstance(outcomes[0], Failure)
    assert stopped
    assert (sshd.root / "file").stat().st_size == source.stat().st_size


@pytest.fixture
def dead_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver that asks servers which do not answer, as behind a broken gateway."""
    over = threading.Event()

    def resolve(*_: object, **__: object) -> list[Any]:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield
    over.set()


@pytest.mark.usefixtures("dead_resolver")
def test_a_name_that_nobody_resolves_is_given_up_at_the_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(LinkLost, match="no answer from the resolver in 1 s"):
        connected(22, connect_timeout_s=1)
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("dead_resolver")
def test_while_connecting_the_caller_ticks_and_a_cancel_is_obeyed_at_once() -> None:
    stop = StopFlag()
    ticks = Ticks(4, stop.set)
    began = time.monotonic()
    connecting = Connecting(lambda _: connected(22, connect_timeout_s=30), stop)  # type: ignore[arg-type,return-value]
    connecting.start()
    with pytest.raises(Cancelled):
        connecting.wait(ticks)
    connecting.abandon()
    assert time.monotonic() - began < 10
    assert len(ticks.at) == 4


def test_a_connection_that_nobody_waits_for_any_more_is_closed(sshd: OpenSSH, tmp_path: Path) -> None:
    """The tick raises while the login is under way: the session on the server ends, too."""
    made: list[Any] = []

    class Enough(Exception):
        """The caller has something better to do."""

    def tick() -> None:
        raise Enough

    login = sshd.login()

    def make() -> Any:
        time.sleep(1)
        client = IoTSFTPClient(**login, state_dir=tmp_path / "state")
        client.connect()
        made.append(client)
        return client

    connecting = Connecting(lambda _: make(), StopFlag())
    connecting.start()
    with pytest.raises(Enough):
        connecting.wait(tick)
    connecting.abandon()
    end = time.monotonic() + 20
    while not made or made[0]._runner.links.current is not None:
        assert time.monotonic() < end, "it stays open"
        time.sleep(0.05)

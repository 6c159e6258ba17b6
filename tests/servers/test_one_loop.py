"""Every operation over links that fail: how often is dialled, and what a lost answer may and may not be taken for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers.base import HOST
from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import (
    Cancelled,
    DownloadJob,
    Failure,
    IoTSFTPClient,
    LinkLost,
    NotFound,
    SFTPError,
    Timeout,
    UploadJob,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class Doorman:
    """A port where every connection is taken, counted, and then left to `treat`."""

    def __init__(self, treat: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._treat = treat
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._kept.append(guest)
            self._treat(guest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for guest in self._kept:
            guest.close()


def pass_on(port: int, refused: int) -> Callable[[socket.socket], None]:
    """Close so many connections, and connect the others with a server."""
    left = [refused]

    def treat(guest: socket.socket) -> None:
        if left[0]:
            left[0] -= 1
            guest.close()
            return
        server = socket.create_connection((HOST, port))
        for source, target in ((guest, server), (server, guest)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()

    return treat


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


class DropsAt(Quirk):
    """Ends the connection at its first request of a kind, after or before that is done."""

    kind = "on_remove"
    does_it = True

    def answer_nothing(self, kind: str, message: Any) -> Any:
        serve = getattr(super(), kind)
        if self.kind != kind or not self.server.active:
            return serve(message)
        self.server.active = False
        if self.does_it:
            serve(message)
        self.server.drop_connections()
        time.sleep(0.5)  # nothing that is answered now arrives
        return serve(message)

    def on_remove(self, message: Any) -> Any:
        return self.answer_nothing("on_remove", message)

    def on_rmdir(self, message: Any) -> Any:
        return self.answer_nothing("on_rmdir", message)

    def on_lstat(self, message: Any) -> Any:
        return self.answer_nothing("on_lstat", message)

    def on_stat(self, message: Any) -> Any:
        return self.answer_nothing("on_stat", message)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Misbehaving]:
    with Misbehaving(tmp_path / "root", DropsAt, kind="none") as running:
        yield running


def client_for(server: Misbehaving, tmp_path: Path, port: int | None = None, **changes: Any) -> IoTSFTPClient:
    login = {**server.login(), "host_key": server.host_key, "known_hosts": None, "state_dir": tmp_path / "state"}
    return IoTSFTPClient(**{**login, "sftp_port": port or server.port, "attempts": 3, "backoff_s": 0.01, **changes})


OPERATIONS: dict[str, Callable[[IoTSFTPClient, Path], object]] = {
    "connect": lambda client, here: client.connect(),
    "delete": lambda client, here: client.delete("missing"),
    "list": lambda client, here: client.list("/"),
    "upload": lambda client, here: client.upload(here / "source", "up/file"),
    "download": lambda client, here: client.download("file", here / "dest"),
    "upload_many": lambda client, here: [*client.upload_many([UploadJob(here / "source", "up/file")])],
    "download_many": lambda client, here: [*client.download_many([DownloadJob("file", here / "dest")])],
}


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_operation_dials_at_most_as_often_as_attempts_says(
    operation: str, attempts: int, server: Misbehaving, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"content")
    with Doorman(socket.socket.close) as door, client_for(server, tmp_path, door.port, attempts=attempts) as client:
        with pytest.raises(LinkLost):
            OPERATIONS[operation](client, tmp_path)
        assert door.connections == attempts


def test_deleting_a_missing_file_is_no_success_after_failed_connects(server: Misbehaving, tmp_path: Path) -> None:
    with (
        Doorman(pass_on(server.port, refused=3)) as door,
        client_for(server, tmp_path, door.port) as client,
    ):
        with pytest.raises(LinkLost):
            client.delete("missing")
        with pytest.raises(NotFound):
            client.delete("missing")


def test_deleting_a_missing_file_is_no_success_after_one_failed_connect(server: Misbehaving, tmp_path: Path) -> None:
    with Doorman(pass_on(server.port, refused=1)) as door, client_for(server, tmp_path, door.port) as client:
        with pytest.raises(NotFound):
            client.delete("missing")
        assert door.connections == 2


def test_deleting_a_missing_file_is_no_success_when_the_idle_connection_had_died(
    server: Misbehaving, tmp_path: Path
) -> None:
    """Nothing of the request has left this device, so no answer to it can have been lost."""
    with client_for(server, tmp_path) as client:
        client.connect()
        transport = client.connection._transport
        server.drop_connections()
        give_up_at = time.monotonic() + 10
        while transport.is_active() and time.monotonic() < give_up_at:
            time.sleep(0.01)
        with pytest.raises(NotFound):
            client.delete("missing")


@pytest.mark.parametrize(("operation", "kind"), [("delete", "on_remove"), ("rmdir", "on_rmdir")])
def test_what_was_done_although_its_answer_was_lost_is_a_success(
    operation: str, kind: str, server: Misbehaving, tmp_path: Path
) -> None:
    if operation == "delete":
        (server.root / "there").write_bytes(b"x")
    else:
        (server.root / "there").mkdir()
    with client_for(server, tmp_path) as client:
        client.connect()
        server.quirk.kind = kind
        getattr(client, operation)("there")
        assert not server.active
        assert not (server.root / "there").exists()


def test_moving_what_is_not_there_is_no_success_when_only_the_destination_is(
    server: Misbehaving, tmp_path: Path
) -> None:
    """The link is lost at the look at the source: nothing was renamed, whatever stands at the destination."""
    (server.root / "new").write_bytes(b"of somebody else")
    with client_for(server, tmp_path) as client:
        client.connect()
        server.quirk.kind, server.quirk.does_it = "on_stat", False
        with pytest.raises(NotFound):
            client.move("old", "new")
        assert not server.active


def test_connecting_lets_the_callers_tick_run_and_obeys_cancel_within_a_second(
    server: Misbehaving, tmp_path: Path
) -> None:
    """A server that takes the connection and says nothing."""
    (tmp_path / "source").write_bytes(b"content")
    ticks: list[float] = []
    with Doorman(lambda guest: None) as door, client_for(server, tmp_path, door.port) as client:

        def tick() -> None:
            ticks.append(time.monotonic())
            if len(ticks) == 10:
                client.cancel()

        outcomes = [*client.upload_many(iter([UploadJob(tmp_path / "source", "file")]), tick=tick)]
        assert time.monotonic() - ticks[9] < 1.5
        assert outcomes == []
        assert door.connections == 1


def test_a_name_that_is_not_resolved_lets_the_callers_tick_run_and_obeys_cancel_within_a_second(
    server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """getaddrinfo waits for a resolver as long as that likes."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    ticks: list[float] = []
    try:
        with client_for(server, tmp_path) as client:

            def tick() -> None:
                ticks.append(time.monotonic())
                if len(ticks) == 10:
                    client.cancel()

            assert [*client.upload_many(iter([None]), tick=tick)] == []
            assert time.monotonic() - ticks[9] < 1.5
    finally:
        over.set()


def test_waiting_between_attempts_lets_the_callers_tick_run_and_obeys_cancel(
    server: Misbehaving, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"content")
    ticks: list[float] = []
    with Doorman(socket.socket.close) as door, client_for(server, tmp_path, door.port, backoff_s=60) as client:

        def tick() -> None:
            ticks.append(time.monotonic())
            if len(ticks) == 20:
                client.cancel()

        outcomes = [*client.upload_many([UploadJob(tmp_path / "source", "file")], tick=tick)]
        assert time.monotonic() - ticks[19] < 1.5
        assert outcomes == []


def test_jobs_that_wait_for_another_connection_end_with_a_cancel(server: Misbehaving, tmp_path: Path) -> None:
    """Each job that was begun has an outcome, also when the cancel comes between two connections."""
    (tmp_path / "source").write_bytes(b"content")
    server.quirk.kind, server.quirk.does_it = "on_stat", False

    with client_for(server, tmp_path, backoff_s=60) as client:

        def tick() -> None:
            if not server.active:
                client.cancel()

        job = UploadJob(tmp_path / "source", "file", key=7, check_final=True)
        [outcome] = client.upload_many([job], tick=tick)
        assert isinstance(outcome, Failure)
        assert outcome.key == 7
        assert isinstance(outcome.error, (Cancelled, LinkLost, Timeout))


def test_errors_are_told_apart_from_a_lost_link(server: Misbehaving, tmp_path: Path) -> None:
    """A refusal leaves the connection as it is: the next call needs no new login."""
    with Doorman(pass_on(server.port, refused=0)) as door, client_for(server, tmp_path, door.port) as client:
        for _ in range(3):
            with pytest.raises(SFTPError):
                client.delete("missing")
        assert door.connections == 1

"""A client whose caller raises, interrupts, cancels, forgets or shares: nothing hangs or leaks, the next call works."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import (
    Cancelled,
    ConfigurationError,
    Failure,
    IoTSFTPClient,
    Progress,
    SFTPError,
    TransferResult,
    UploadJob,
)

SIZE = 1024 * 1024
BLOCK = 32 * 1024
HAMMER_S = 4.0


class Slow(Quirk):
    """Takes its time for a WRITE, and keeps a list of its sessions."""

    pause_s = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.server.sessions.append(self)

    def on_write(self, message: Any) -> Any:
        if self.server.active:
            time.sleep(self.pause_s)
        return super().on_write(message)


class Sessions(Misbehaving):
    sessions: list[Slow]

    def open_handles(self) -> int:
        return sum(len(session.handles) for session in self.sessions)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sessions]:
    with Sessions(tmp_path / "root", Slow) as running:
        running.sessions = []
        yield running


@pytest.fixture
def client(server: Sessions, tmp_path: Path) -> Iterator[IoTSFTPClient]:
    login = {**server.login(), "host_key": server.host_key, "known_hosts": None, "state_dir": tmp_path / "state"}
    with IoTSFTPClient(**login, backoff_s=0.01, chunk_size=BLOCK, max_in_flight_bytes=8 * BLOCK) as made:
        yield made


def make(folder: Path, name: str = "source", size: int = SIZE) -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def until(done: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not done():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_a_progress_callback_that_raises_reaches_the_caller_unchanged_and_the_next_call_resumes(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    source, own = make(tmp_path), KeyError("mine")
    server.quirk.pause_s = 0.02

    def progress(state: Progress) -> None:
        if state.done_bytes > SIZE // 2:
            raise own

    with pytest.raises(KeyError) as caught:
        client.upload(source, "file", progress=progress)
    assert caught.value is own
    assert client._runner.links.current is None  # what was under way there has no owner
    until(lambda: server.open_handles() == 0)
    server.active = False
    result = client.upload(source, "file")
    assert result.resumed_at > 0
    assert server.content("file") == source.read_bytes()


def test_a_progress_callback_that_always_raises_among_many_uploads_ends_them_all(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    """The others are ended without asking their callbacks again: their locks and handles are free afterwards."""
    server.quirk.pause_s = 0.02
    sources = [make(tmp_path, f"source{number}") for number in range(3)]

    def progress(state: Progress) -> None:
        raise KeyError("mine")

    jobs = [UploadJob(source, source.name, progress=progress) for source in sources]
    with pytest.raises(KeyError):
        [*client.upload_many(jobs)]
    server.active = False
    outcomes = [*client.upload_many([UploadJob(source, source.name) for source in sources])]
    assert all(isinstance(outcome, TransferResult) for outcome in outcomes), outcomes
    until(lambda: server.open_handles() == 0)


def test_a_download_whose_callback_raises_leaves_nothing_behind(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    (server.root / "file").write_bytes(os.urandom(4 * SIZE))

    def progress(state: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.download("file", tmp_path / "dest", progress=progress)
    until(lambda: server.open_handles() == 0)
    client.download("file", tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == server.content("file")


def test_outcomes_asked_for_by_two_threads_at_once_are_a_clear_error_and_never_a_hang(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    server.quirk.pause_s = 0.01
    sources = [make(tmp_path, f"source{number}", 4 * BLOCK) for number in range(8)]
    outcomes = client.upload_many([UploadJob(source, source.name) for source in sources])
    taken: list[object] = []
    errors: list[BaseException] = []

    def consume() -> None:
        while True:
            try:
                taken.append(next(outcomes))
            except StopIteration:
                return
            except ConfigurationError as error:
                errors.append(error)
                time.sleep(0.005)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
                return

    threads = [threading.Thread(target=consume, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(taken) == len(sources)
    assert all(isinstance(outcome, TransferResult) for outcome in taken)
    assert all(type(error) is ConfigurationError for error in errors), errors
    assert client.exists("source0")


def test_a_batch_begun_in_one_thread_is_finished_in_another(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    sources = [make(tmp_path, f"source{number}", 1000) for number in range(3)]
    outcomes = client.upload_many([UploadJob(source, source.name) for source in sources])
    assert isinstance(next(outcomes), TransferResult)
    rest: list[object] = []
    thread = threading.Thread(target=lambda: rest.extend(outcomes), daemon=True)
    thread.start()
    thread.join(30)
    assert len(rest) == 2
    assert client.exists("source2")


def test_while_a_batch_runs_other_operations_are_refused_in_every_thread(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    outcomes = client.upload_many([UploadJob(make(tmp_path, "a", 10), "a"), UploadJob(make(tmp_path, "b", 10), "b")])
    next(outcomes)
    refused: list[BaseException] = []

    def call() -> None:
        try:
            client.exists("a")
        except ConfigurationError as error:
            refused.append(error)

    call()
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert len(refused) == 2
    assert client.is_connected()
    outcomes.close()  # type: ignore[attr-defined]
    assert client.exists("a")


def test_a_forgotten_batch_that_another_thread_collects_frees_the_client(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    outcomes = client.upload_many([UploadJob(make(tmp_path, "a", 10), "a"), UploadJob(make(tmp_path, "b", 10), "b")])
    next(outcomes)
    cycle: list[object] = [outcomes]
    cycle.append(cycle)
    del outcomes, cycle
    thread = threading.Thread(target=gc.collect, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert client.exists("a")


@pytest.mark.parametrize("end", [IoTSFTPClient.disconnect, IoTSFTPClient.close])
def test_disconnect_and_close_end_a_batch_that_nobody_finishes(
    end: Callable[[IoTSFTPClient], None], server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    outcomes = client.upload_many([UploadJob(make(tmp_path, "a", 10), "a"), UploadJob(make(tmp_path, "b", 10), "b")])
    next(outcomes)
    end(client)
    assert [*outcomes] == []
    assert client.exists("a")


def test_close_from_another_thread_ends_a_batch_that_waits(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    def jobs() -> Iterator[UploadJob | None]:
        yield UploadJob(make(tmp_path, "a", 10), "a")
        while True:
            yield None  # for ever: only a cancel ends this batch

    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.extend(client.upload_many(jobs())), daemon=True)
    thread.start()
    until(lambda: server.content("a") is not None)
    client.close()
    thread.join(20)
    assert not thread.is_alive()


def test_keyboard_interrupts_at_any_moment_leave_no_handle_and_the_next_call_works(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    source = make(tmp_path)
    server.quirk.pause_s = 0.002
    interrupted = rounds = 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        over_at = time.monotonic() + HAMMER_S
        while time.monotonic() < over_at or not interrupted:
            rounds += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.01 * (rounds % 17 + 1))
                client.upload(source, f"file{rounds % 3}")
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    server.active = False
    client.upload(source, "file")
    assert server.content("file") == source.read_bytes()
    until(lambda: server.open_handles() == 0)
    assert interrupted


def test_cancels_from_a_signal_handler_at_any_moment_never_hang(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    source = make(tmp_path)
    server.quirk.pause_s = 0.001
    cancelled = rounds = 0

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        client.cancel()

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        over_at = time.monotonic() + HAMMER_S
        while time.monotonic() < over_at or not cancelled:
            rounds += 1
            signal.setitimer(signal.ITIMER_REAL, 0.003 * (rounds % 29 + 1), 0.05)
            try:
                client.upload(source, f"file{rounds % 3}")
            except Cancelled:
                cancelled += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    server.active = False
    try:
        client.exists("file")  # a cancel may have come after the last upload: it ends the next call
    except Cancelled:
        pass
    client.upload(source, "file")
    assert server.content("file") == source.read_bytes()


def test_slots_are_halved_when_the_server_has_no_more_handles(
    server: Sessions, client: IoTSFTPClient, tmp_path: Path
) -> None:
    server.quirk.max_handles = 4
    sources = [make(tmp_path, f"source{number}", 2 * BLOCK) for number in range(24)]
    slots: list[int] = []

    def note() -> None:
        session = client._runner.links.current
        if session is not None:
            slots.append(session.slots)

    outcomes: list[TransferResult | Failure] = [
        *client.upload_many([UploadJob(source, source.name) for source in sources], tick=note)
    ]
    assert all(isinstance(outcome, TransferResult) for outcome in outcomes), outcomes
    seen = sorted(set(slots), reverse=True)
    assert len(seen) > 1, "the server was never out of handles"
    halves = [after for before, after in itertools.pairwise(seen) if after <= before // 2]
    assert halves


def test_an_error_of_one_call_does_not_end_the_connection(client: IoTSFTPClient, server: Sessions) -> None:
    client.connect()
    session = client._runner.links.current
    with pytest.raises(SFTPError):
        client.list("/missing")
    assert client._runner.links.current is session
    until(lambda: server.open_handles() == 0)

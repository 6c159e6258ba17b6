"""What is safe from which thread: one client is shared, cancelled and closed by several."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from faults.proxy import BadLink
from servers.openssh import OpenSSH

from iot.sftp.client import Cancelled, ConfigurationError, Failure, IoTSFTPClient, Progress, TransferResult

RATE_BPS = 8e6
LARGE = 2 * 1024 * 1024
SMALL = 10_000
THREADS = 8


@pytest.fixture
def link(sshd: OpenSSH) -> Iterator[BadLink]:
    with sshd.link(rate_bps=RATE_BPS) as link:
        yield link


@pytest.fixture
def client(sshd: OpenSSH, link: BadLink, tmp_path: Path) -> Iterator[IoTSFTPClient]:
    login = sshd.login() | {"sftp_port": link.port, "known_hosts": None, "host_key": sshd.host_key}
    with IoTSFTPClient(**login, state_dir=tmp_path / "state", checkpoint_bytes=64 * 1024) as client:
        yield client


def make(tmp_path: Path, name: str, size: int) -> Path:
    path = tmp_path / name
    path.write_bytes(os.urandom(size))
    return path


class Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._answer: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive(), "it hangs"
        if self._error is not None:
            raise self._error
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._call()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks
            self._error = error


def under_way(link: BadLink) -> None:
    """Wait until a good part of a large file has been sent or fetched."""
    began = link.up_bytes + link.down_bytes
    give_up_at = time.monotonic() + 20
    while link.up_bytes + link.down_bytes - began < LARGE // 8:
        assert time.monotonic() < give_up_at, "nothing is sent"
        time.sleep(0.01)


def test_operations_of_many_threads_are_carried_out_one_after_the_other(
    client: IoTSFTPClient, sshd: OpenSSH, tmp_path: Path
) -> None:
    def work(number: int) -> bytes:
        source, back = make(tmp_path, f"source{number}", SMALL), tmp_path / f"back{number}"
        client.upload(source, sshd.path(f"file{number}"))
        assert client.stat(sshd.path(f"file{number}")).size == SMALL
        client.move(sshd.path(f"file{number}"), sshd.path(f"moved{number}"))
        client.download(sshd.path(f"moved{number}"), back)
        assert sshd.path(f"moved{number}") in client.list(sshd.path())
        assert back.read_bytes() == source.read_bytes()
        return source.read_bytes()

    with ThreadPoolExecutor(THREADS) as threads:
        contents = list(threads.map(work, range(THREADS)))
    assert [sshd.content(f"moved{number}") for number in range(THREADS)] == contents


def test_a_cancel_from_another_thread_ends_the_call_under_way_and_not_the_one_that_waits(
    client: IoTSFTPClient, sshd: OpenSSH, link: BadLink, tmp_path: Path
) -> None:
    large, small = make(tmp_path, "large", LARGE), make(tmp_path, "small", SMALL)
    client.connect()
    first = Call(lambda: client.upload(large, sshd.path("large")))
    under_way(link)
    second = Call(lambda: client.upload(small, sshd.path("small")))
    client.cancel()
    with pytest.raises(Cancelled):
        first.answer()
    assert isinstance(second.answer(), TransferResult)
    assert sshd.content("large") is None
    assert client.upload(large, sshd.path("large")).resumed_at > 0


def test_a_cancel_from_another_thread_ends_a_download(
    client: IoTSFTPClient, sshd: OpenSSH, link: BadLink, tmp_path: Path
) -> None:
    (sshd.root / "large").write_bytes(os.urandom(LARGE))
    client.connect()
    fetch = Call(lambda: client.download(sshd.path("large"), tmp_path / "back"))
    under_way(link)
    client.cancel()
    with pytest.raises(Cancelled):
        fetch.answer()
    assert client.download(sshd.path("large"), tmp_path / "back").resumed_at > 0
    assert (tmp_path / "back").read_bytes() == sshd.content("large")


def test_a_cancel_from_a_signal_handler_ends_the_call_that_it_interrupts(
    client: IoTSFTPClient, sshd: OpenSSH, link: BadLink, tmp_path: Path
) -> None:
    large = make(tmp_path, "large", LARGE)

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        client.cancel()

    def soon(progress: Progress) -> None:
        if progress.done_bytes:
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    client.connect()
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        with pytest.raises(Cancelled):
            client.upload(large, sshd.path("large"), progress=soon)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.upload(large, sshd.path("large")).resumed_at > 0


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_while_many_files_are_under_way_in_another_thread_only_cancel_disconnect_and_close_are_carried_out(
    direction: str, client: IoTSFTPClient, sshd: OpenSSH, link: BadLink, tmp_path: Path
) -> None:
    large, back = make(tmp_path, "large", LARGE), tmp_path / "back"
    (sshd.root / "there").write_bytes(large.read_bytes())

    def run() -> list[TransferResult | Failure]:
        if direction == "upload":
            return [*client.upload_many([(large, sshd.path("large"))])]
        return [*client.download_many([(sshd.path("there"), back)])]

    client.connect()
    for end in (client.cancel, client.disconnect):
        many = Call(run)
        under_way(link)
        for refused in (lambda: client.exists("x"), lambda: client.upload(large, "x"), lambda: client.list("/")):
            with pytest.raises(ConfigurationError, match="download_many is running"):
                refused()
        assert client.is_connected()
        end()
        [outcome] = many.answer()
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, Cancelled)
    [result] = run()
    assert isinstance(result, TransferResult)
    assert result.resumed_at > 0


def test_closing_from_another_thread_waits_for_the_call_under_way(
    client: IoTSFTPClient, sshd: OpenSSH, link: BadLink, tmp_path: Path
) -> None:
    large = make(tmp_path, "large", LARGE // 2)
    client.connect()
    upload = Call(lambda: client.upload(large, sshd.path("large")))
    under_way(link)
    client.close()
    assert isinstance(upload.answer(), TransferResult)
    assert sshd.content("large") == large.read_bytes()


def test_several_clients_with_one_state_directory_work_side_by_side(sshd: OpenSSH, tmp_path: Path) -> None:
    def work(number: int) -> bytes:
        source = make(tmp_path, f"source{number}", SMALL)
        with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "shared") as own:
            for turn in range(3):
                own.upload(source, sshd.path(f"file{number}.{turn}"))
        return source.read_bytes()

    with ThreadPoolExecutor(THREADS) as threads:
        contents = list(threads.map(work, range(THREADS)))
    sent = [sshd.content(f"file{number}.{turn}") for number in range(THREADS) for turn in range(3)]
    assert sent == [content for content in contents for _ in range(3)]

"""Many downloads through workers: each file whole, over lost links, and none at another's expense."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.client import Client
from iot.transfer.errors import Cancelled, LinkLost, NotFound, PermissionDenied, ProofFailed, ServerBusy, TransientError
from iot.transfer.model import DownloadJob, Failure, TransferResult

KIB = 1024
OLD_S = 10**9


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def make(tmp_path: Path, sizes: dict[str, int], mtime_s: float = OLD_S) -> dict[str, bytes]:
    far = tmp_path / "far"
    far.mkdir()
    contents = {name: os.urandom(size) for name, size in sizes.items()}
    for name, content in contents.items():
        (far / name).write_bytes(content)
        os.utime(far / name, (mtime_s, mtime_s))
    return contents


def client_of(tmp_path: Path, faults: Faults | None = None, **settings: Any) -> Client:
    return Client(folder_remote(tmp_path / "far", tmp_path / "state", faults, **settings))


def jobs(names: Any, here: Path, **more: Any) -> list[DownloadJob]:
    return [DownloadJob(name, here / name, key=name, **more) for name in names]


def there(here: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in here.iterdir()}


def by_key(outcomes: Iterator[TransferResult | Failure]) -> dict[object, Any]:
    return {outcome.key: outcome for outcome in outcomes}


def test_many_files_arrive_whole_through_several_workers(tmp_path: Path, here: Path) -> None:
    contents = make(tmp_path, {str(number): number * 100 for number in range(200)} | {"large": 5 * KIB * KIB})
    faults = Faults()
    with client_of(tmp_path, faults) as client:
        told = by_key(client.download_many(jobs(contents, here, sha256=True)))
    assert there(here) == contents
    assert {name: outcome.size for name, outcome in told.items()} == {
        name: len(each) for name, each in contents.items()
    }
    assert all(outcome.sha256 for outcome in told.values())
    assert len(faults.stores) > 2  # one of them only tells what the store can do


def test_all_in_flight_go_on_after_a_lost_link(tmp_path: Path, here: Path) -> None:
    contents = make(tmp_path, {str(number): 6 * KIB * KIB for number in range(3)} | {"small": 5})
    left = [True]

    def cut(blocks: Any) -> Iterator[bytes]:
        with contextlib.closing(blocks):  # else the error that the log keeps has its file open
            for number, block in enumerate(blocks):
                yield block
                if number == 3 and left:
                    left.clear()
                    raise LinkLost("cut")

    with client_of(tmp_path, Faults(answer={"read": cut}), checkpoint_bytes=KIB * KIB) as client:
        told = by_key(client.download_many(jobs(contents, here), resume=False))
    assert there(here) == contents
    assert max(told[str(number)].resumed_at for number in range(3)) > 0, "what was interrupted goes on"
    assert sum(outcome.sent_bytes for outcome in told.values()) >= 18 * KIB * KIB


def test_a_file_that_cannot_be_had_fails_alone(tmp_path: Path, here: Path) -> None:
    contents = make(tmp_path, {"a": 10, "b": 20, "proven": 30})
    asked = [
        *jobs(["missing", "a"], here),
        *jobs(["proven"], here, sha256="0" * 64),
        DownloadJob("", here / "empty", key="empty"),
        DownloadJob("a", 5, key="number"),  # type: ignore[arg-type]
        None,
        *jobs(["b"], here),
    ]
    with client_of(tmp_path) as client:
        told = by_key(client.download_many(asked))
    assert there(here) == {name: contents[name] for name in "ab"}
    failed = {key: outcome.error for key, outcome in told.items() if isinstance(outcome, Failure)}
    assert set(failed) == {"missing", "proven", "empty", "number"}
    assert isinstance(failed["missing"], NotFound)
    assert isinstance(failed["proven"], ProofFailed)


def test_two_jobs_with_one_destination_are_never_mixed(tmp_path: Path, here: Path) -> None:
    contents = make(tmp_path, {"a": 3 * KIB * KIB, "b": 3 * KIB * KIB})
    both = [DownloadJob(name, here / "file", key=name) for name in contents]
    with client_of(tmp_path) as client:
        told = by_key(client.download_many(both))
        assert isinstance(told["b"].error, TransientError)
        assert there(here) == {"file": contents["a"]}
        assert isinstance(next(client.download_many(both[1:])), TransferResult)
    assert there(here) == {"file": contents["b"]}


def test_a_file_that_was_just_written_occupies_no_worker_while_its_second_passes(tmp_path: Path, here: Path) -> None:
    """It is looked at again 2.1 s later; the others need not wait for that, though there is a single worker."""
    contents = make(tmp_path, {"fresh": 2 * KIB * KIB, **{str(number): 100 for number in range(50)}})
    os.utime(tmp_path / "far" / "fresh", (time.time(),) * 2)
    with client_of(tmp_path, connections=1) as client:
        order = [outcome.key for outcome in client.download_many(jobs(contents, here))]
    assert order[-1] == "fresh"
    assert there(here) == contents


def test_a_busy_far_side_gets_fewer_connections_and_all_files_come(tmp_path: Path, here: Path) -> None:
    contents = make(tmp_path, {str(number): 100 for number in range(40)})
    faults = Faults(before={("read", number): ServerBusy("too many") for number in (5, 6)})

    def once_there_are_three(blocks: Iterator[bytes]) -> Iterator[bytes]:
        end = time.monotonic() + 10
        while len(faults.stores) < 1 + 3 and time.monotonic() < end:  # one is the client's own, beside the transfers
            time.sleep(0.001)
        yield from blocks

    faults.answer["read"] = once_there_are_three
    with client_of(tmp_path, faults) as client:
        told = by_key(client.download_many(jobs(contents, here)))
    errors = [outcome.error for outcome in told.values() if isinstance(outcome, Failure)]
    assert errors == []
    assert there(here) == contents


def test_a_cancel_ends_all_and_the_next_call_goes_on(tmp_path: Path, here: Path) -> None:
    contents = make(tmp_path, {"a": 8 * KIB * KIB, "b": 8 * KIB * KIB})
    began = threading.Event()

    def slow(blocks: Iterator[bytes]) -> Iterator[bytes]:
        for number, block in enumerate(blocks):
            yield block
            if number >= 2:
                began.set()
                time.sleep(0.05)

    faults = Faults(answer={"read": slow})
    with client_of(tmp_path, faults) as client:
        waiting = threading.Thread(target=lambda: (began.wait(10), client.cancel()))
        waiting.start()
        told = by_key(client.download_many(jobs(contents, here)))
        waiting.join()
        assert {type(outcome.error) for outcome in told.values()} == {Cancelled}
        faults.answer.clear()
        told = by_key(client.download_many(jobs(contents, here)))
    assert max(outcome.resumed_at for outcome in told.values()) > 0
    assert there(here) == contents


@pytest.mark.parametrize("act", [PermissionDenied("closed"), NotFound("gone")])
def test_a_refusal_to_read_leaves_no_part(tmp_path: Path, here: Path, act: Exception) -> None:
    make(tmp_path, {"a": 10})
    with client_of(tmp_path, Faults(before={("read", 0): act})) as client:
        [told] = client.download_many(jobs("a", here))
    assert told.error is act
    assert there(here) == {}


def test_progress_is_told_in_the_callers_thread(tmp_path: Path, here: Path) -> None:
    make(tmp_path, {"a": 4 * KIB * KIB})
    threads: list[int] = []
    progress: Callable[[Any], None] = lambda _: threads.append(threading.get_ident())  # noqa: E731
    with client_of(tmp_path) as client:
        list(client.download_many(jobs("a", here, progress=progress)))
    assert set(threads) == {threading.get_ident()}

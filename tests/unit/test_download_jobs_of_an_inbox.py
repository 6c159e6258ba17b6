"""What an inbox asks of a remote beyond plain downloads: one job is suspended, one needs its checksum file, and a
listing goes on without names that are none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.client import Client
from iot.transfer.errors import Cancelled, NameRefused, NotFound, ProofFailed
from iot.transfer.model import DownloadJob, Failure, RemoteEntry, RemoteFile, TransferResult

CONTENT = os.urandom(9 << 20)
OLD = (1_000_000_000, 1_000_000_000)


def client(tmp_path: Path, faults: Faults | None = None) -> Client:
    return Client(folder_remote(tmp_path / "far", tmp_path / "state", faults))


def put(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "far").mkdir(exist_ok=True)
    (tmp_path / "far" / name).write_bytes(content)
    os.utime(tmp_path / "far" / name, OLD)


def outcomes(remote: Client, *jobs: DownloadJob) -> dict[object, TransferResult | Failure]:
    return {outcome.key: outcome for outcome in remote.download_many(jobs)}


def test_a_suspended_download_keeps_its_part_goes_on_later_and_ends_no_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path, name, CONTENT)
    asked: list[int] = []

    def suspended() -> bool:
        asked.append(1)
        return len(asked) > 1

    with client(tmp_path) as remote:
        jobs = [
            DownloadJob("/one", tmp_path / "one", key=1, suspended=suspended),
            DownloadJob("/two", tmp_path / "two", key=2),
        ]
        ended = outcomes(remote, *jobs)
        assert isinstance(ended[1], Failure)
        assert isinstance(ended[1].error, Cancelled)
        assert isinstance(ended[2], TransferResult)
        assert not (tmp_path / "one").exists()
        result = remote.download("/one", tmp_path / "one")
    assert result.resumed_at > 0
    assert (tmp_path / "one").read_bytes() == CONTENT


RIGHT = hashlib.sha256(CONTENT).hexdigest().encode()


@pytest.mark.parametrize(("listed", "error"), [(None, NotFound), (b"0" * 64, ProofFailed), (RIGHT, None)])
def test_a_job_with_sidecar_must_match_its_checksum_file(
    tmp_path: Path, listed: bytes | None, error: type[Exception] | None
) -> None:
    put(tmp_path, "one", CONTENT)
    if listed is not None:
        put(tmp_path, "one.sha256", listed + b"  one\n")
    with client(tmp_path) as remote:
        [ended] = outcomes(remote, DownloadJob("/one", tmp_path / "one", sidecar=True)).values()
    if error is None:
        assert isinstance(ended, TransferResult)
    else:
        assert isinstance(ended, Failure)
        assert isinstance(ended.error, error)
        assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "", "a\0b"])
def test_a_listing_leaves_out_and_tells_what_is_no_name(tmp_path: Path, name: str) -> None:
    put(tmp_path, "good", b"x")

    def with_it(entries: Any) -> list[RemoteEntry]:
        return [RemoteEntry(name, RemoteFile(1)), *entries]

    told: list[tuple[bytes, bytes]] = []
    with client(tmp_path, Faults(answer={"list": with_it})) as remote:
        with pytest.raises(NameRefused):
            remote.scan("/")
        found = remote.scan("/", leave_out=lambda folder, bad: told.append((folder, bad)))
    assert [entry.name for entry in found] == ["good"]
    assert told == [(b"/", name.encode())]

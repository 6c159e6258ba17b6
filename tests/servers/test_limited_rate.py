"""A limit of the rate disturbs nothing else, against a real server: urgency, shares, cancel, deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.openssh import OpenSSH

from iot.sftp.client import Cancelled, Failure, TransferResult, UploadJob
from iot.transfer.client import Client

KIB = 1024


@pytest.fixture
def client(sshd: OpenSSH, tmp_path: Path) -> Iterator[Client]:
    with sshd.connect(tmp_path, max_rate="2 Mbit/s", link_deadline_s=2.0) as client:
        yield client


def job(server: OpenSSH, folder: Path, name: str, size: int, priority: int = 5, share: object = None) -> UploadJob:
    (folder / name).write_bytes(bytes(size))
    return UploadJob(folder / name, server.path(name), key=name, priority=priority, share=share)  # type: ignore[arg-type]


def test_two_outboxes_share_the_rate_by_bytes_however_many_files_they_have(sshd, client, tmp_path):
    many = [job(sshd, tmp_path, f"a{number}", 192 * KIB, share="a") for number in range(6)]
    one = job(sshd, tmp_path, "b", 192 * KIB, share="b")
    done = [outcome.key for outcome in client.upload_many([*many, one])]
    assert done[0] == "b"


def test_a_small_urgent_file_overtakes_a_large_one_at_the_limit(sshd, client, tmp_path):
    large, urgent = job(sshd, tmp_path, "large", 1024 * KIB), job(sshd, tmp_path, "urgent", KIB, 0)
    began, asked_at, done = time.monotonic(), 0.0, {}

    def jobs() -> Iterator[UploadJob | None]:
        nonlocal asked_at
        yield large
        while time.monotonic() - began < 1.5:
            yield None
        asked_at = time.monotonic()
        yield urgent

    for outcome in client.upload_many(jobs()):
        assert isinstance(outcome, TransferResult)
        done[outcome.key] = time.monotonic()
    assert done["urgent"] - asked_at < 1.0
    assert done["large"] > done["urgent"] + 1


def test_a_cancel_ends_a_limited_upload_at_once_and_it_is_resumed(sshd, client, tmp_path):
    large = job(sshd, tmp_path, "large", 1024 * KIB)
    threading.Timer(1.5, client.cancel).start()
    began = time.monotonic()
    (outcome,) = client.upload_many([large])
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, Cancelled)
    assert time.monotonic() - began < 2.5
    client.limit_rate(None)
    assert client.upload(tmp_path / "large", sshd.path("large")).resumed_at >= 128 * KIB


def test_a_limit_far_below_the_deadline_of_the_link_is_no_dead_link(sshd, client, tmp_path):
    client.limit_rate("16 kbit/s")
    began = time.monotonic()
    result = client.upload(job(sshd, tmp_path, "slow", 10 * KIB).source, sshd.path("slow"))
    assert result.resumed_at == 0
    assert time.monotonic() - began > 4

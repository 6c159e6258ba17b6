"""The power of a disk that files are sent to is cut: what was delivered is there, the rest arrives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.powercut import PowerCutDisk
from unit.faulty_store import Faults, folder_remote

from iot.transfer.errors import LinkLost
from iot.transfer.model import TransferResult, UploadJob

LARGE = 9 * 1024 * 1024

pytestmark = pytest.mark.needs("loop-mounts")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "device", size_mib=128) as mounted:
        yield mounted


def cutting(disk: PowerCutDisk, call: str, number: int) -> Faults:
    """Cuts the power when this call has been answered for the n-th time."""
    faults = Faults()
    delivered = {outcome.key for outcome in outcomes if isinstance(outcome, TransferResult)}
    left = [job for job in jobs if job.key not in delivered]
    assert all(isinstance(outcome, TransferResult) for outcome in again.upload_many(left))
    again.close()
    assert {path.name: path.read_bytes() for path in to.iterdir()} == contents


def test_with_trust_what_a_power_cut_took_may_be_missing_and_is_not_called_durable(tmp_path, disk):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(LARGE))
    remote = folder_remote(disk.path / "usb", tmp_path / "state", server_durability="trust")
    outcome = remote.upload(UploadJob(source, "to/file"))
    remote.close()
    assert isinstance(outcome, TransferResult)
    assert outcome.durable is False

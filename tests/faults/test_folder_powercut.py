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
    left = [number]

    def cut(answer):
        left[0] -= 1
        if left[0] == 0:
            disk.cut()
        return answer

    faults.answer[call] = cut
    return faults


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("call", ["begin", "write", "where", "publish"])
def test_after_a_power_cut_at_any_call_what_was_delivered_is_there_and_the_rest_arrives(tmp_path, disk, call, number):
    contents = {"large": os.urandom(LARGE), "small": os.urandom(1000), "empty": b""}
    (tmp_path / "in").mkdir()
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    jobs = [UploadJob(tmp_path / "in" / name, f"to/{name}", key=name) for name in contents]
    faults = cutting(disk, call, number)
    remote = folder_remote(disk.path / "usb", tmp_path / "state", faults, attempts=1, connections=1)
    outcomes = list(remote.upload_many(jobs))
    remote.close()
    disk.remount()
    to = disk.path / "usb" / "to"
    delivered = {outcome.key for outcome in outcomes if isinstance(outcome, TransferResult) and outcome.durable}
    lost = {outcome.key for outcome in outcomes if isinstance(getattr(outcome, "error", None), LinkLost)}
    assert len(outcomes) == len(delivered) + len(lost)
    for name in delivered:
        assert (to / str(name)).read_bytes() == contents[str(name)]
    again = folder_remote(disk.path / "usb", tmp_path / "state")
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

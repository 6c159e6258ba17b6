"""The power is cut, truly: at every named step and at random moments, of the device, the server, and both."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import power
from faults.rig import MIB
from faults.steps import ONCE

CHECKPOINT_BYTES = 4 * MIB
IN_FLIGHT_BYTES = MIB

pytestmark = [pytest.mark.needs("loop-mounts"), pytest.mark.slow]


@pytest.mark.parametrize("kind", ONCE)
def test_power_cut_at_every_named_step(tmp_path: Path, kind: str) -> None:
    """The campaign does every step with files of both kinds, each in all three modes."""
    row = power.cut_in_turn(tmp_path / "lab", 0, kind, ONCE[kind])
    assert row.clean, row


def test_device_cut_at_random_moments_sends_again_one_checkpoint_at_most(tmp_path: Path) -> None:
    row, _ = power.cut_at_random(tmp_path / "lab", "device", 4)
    assert row.clean, row
    assert row.up_bytes <= row.payload_bytes * 1.02 + row.injected * (CHECKPOINT_BYTES + IN_FLIGHT_BYTES), row


def test_server_cut_at_random_moments_sends_again_what_it_lost(tmp_path: Path) -> None:
    row, lost_bytes = power.cut_at_random(tmp_path / "lab", "server", 3)
    assert row.clean, row
    assert row.up_bytes <= row.payload_bytes * 1.02 + lost_bytes + row.injected * IN_FLIGHT_BYTES, (row, lost_bytes)


def test_both_cut_at_random_moments(tmp_path: Path) -> None:
    row, _ = power.cut_at_random(tmp_path / "lab", "both", 3)
    assert row.clean, row

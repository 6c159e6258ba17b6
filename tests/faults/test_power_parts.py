"""The power is cut, truly, during what an agent does beside plain uploads: at every step of it, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults import power_parts

pytestmark = [pytest.mark.needs("loop-mounts"), pytest.mark.slow]


SHORT = ("through a chain", "fetched (move)")
PARTS = [each for each in power_parts.parts() if each.label in SHORT or os.environ.get("IOT_SFTP_TESTS") != "short"]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.label)
def test_power_cut_at_every_step_of_a_part(part: power_parts.Part, tmp_path: Path) -> None:
    """The campaign does so in all three modes, and at random moments."""
    row = power_parts.cut_in_turn(tmp_path / "lab", part, shift=0)
    assert row.clean, row

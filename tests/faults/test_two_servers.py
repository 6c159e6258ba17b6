"""Two servers that fail in turn: each file stands whole on at least one of them, and twice only where that was said."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.two_servers import broken_in_turn

pytestmark = pytest.mark.slow


def test_servers_that_are_killed_or_silent_in_turn_lose_and_mix_nothing(tmp_path: Path) -> None:
    row = broken_in_turn(tmp_path, rounds=3, seed=11)
    assert row.clean, row

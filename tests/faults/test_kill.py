"""Agent and server are killed, at every named step and at random moments: nothing is lost, half, mixed or twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import scenarios
from faults.rig import KIB, MIB
from faults.steps import ONCE
from servers.openssh import OpenSSH

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path / "server") as running:
        yield running


@pytest.mark.parametrize("kind", ONCE)
def test_agent_killed_at_every_named_step(tmp_path: Path, server: OpenSSH, kind: str) -> None:
    row = scenarios.killed_in_turn(tmp_path / "device", server, kind, ONCE[kind])
    assert row.clean, row


def test_agent_killed_at_random_moments_of_a_large_upload_sends_almost_nothing_twice(
    tmp_path: Path, server: OpenSSH
) -> None:
    row = scenarios.killed_at_random(tmp_path / "device", server, 20, files=1, size=24 * MIB)
    assert row.clean, row
    assert row.extra_percent <= 5, row


def test_agent_killed_at_random_moments_of_many_small_files(tmp_path: Path, server: OpenSSH) -> None:
    row = scenarios.killed_at_random(tmp_path / "device", server, 20, files=500, size=10 * KIB)
    assert row.clean, row


def test_server_killed_at_random_moments(tmp_path: Path, server: OpenSSH) -> None:
    row = scenarios.server_killed_at_random(tmp_path / "device", server, 3, files=1, size=6 * MIB)
    assert row.clean, row
    row = scenarios.server_killed_at_random(tmp_path / "gateway", server, 3, files=300, size=10 * KIB)
    assert row.clean, row

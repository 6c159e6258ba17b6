"""Links that are cut, fall silent and lose packets; files that change meanwhile, and files that share a destination."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import scenarios, silence, tunnel
from faults.rig import MIB
from servers.openssh import OpenSSH

DEADLINE_S = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path / "server") as running:
        yield running


@pytest.mark.slow
def test_upload_cut_at_random_moments_sends_almost_nothing_twice(tmp_path: Path, server: OpenSSH) -> None:
    row = scenarios.cut_at_random(tmp_path / "device", server, 4, size=16 * MIB)
    assert row.clean, row
    assert row.extra_percent <= 5, row  # 3 % of 64 MiB with 10 cuts in the campaign; short uploads weigh logins more


@pytest.mark.alone
@pytest.mark.needs("steady")
@pytest.mark.parametrize("phase", silence.PHASES)
def test_silence_is_noticed_within_the_link_deadline(tmp_path: Path, server: OpenSSH, phase: str) -> None:
    assert silence.noticed_after_s(phase, server, tmp_path, DEADLINE_S) <= DEADLINE_S + 1


@pytest.mark.slow
def test_last_version_of_a_rewritten_file_stands_at_the_end(tmp_path: Path, server: OpenSSH) -> None:
    row = scenarios.rewritten(tmp_path / "device", server, 40)
    assert row.clean, row


def test_two_files_with_one_destination_never_mix(tmp_path: Path, server: OpenSSH) -> None:
    row = scenarios.flattened(tmp_path / "device", server, 2)
    assert row.clean, row


def test_two_devices_with_one_destination_never_mix(tmp_path: Path, server: OpenSSH) -> None:
    row = scenarios.two_devices(tmp_path / "devices", server, 2)
    assert row.clean, row


@pytest.mark.needs("tun")
@pytest.mark.slow
def test_upload_over_loss_and_silence_at_ip_level(tmp_path: Path) -> None:
    row = tunnel.lossy_upload(tmp_path / "lab")
    assert row.clean, row

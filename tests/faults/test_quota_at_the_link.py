"""A quota, counted at the link and not by us, over a link that loses 2 % of the packets; the agent is a process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest
from faults.proxy import BadLink
from faults.rig import MIB, Rig
from faults.tunlink import TunLink
from faults.tunnel import SshdInside, _Counted

QUOTA_BYTES = 50 * MIB
QUIET_S = 10.0


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.needs("tun")
def test_a_quota_of_50_mib_over_2_percent_loss_is_kept_to_1_percent(tmp_path: Path) -> None:
    with TunLink(20e6, rtt_s=0.01, loss=0.02) as link, SshdInside(tmp_path / "server", link) as server:
        counted = cast(BadLink, _Counted(link, server.port))
        top = 'quota_day = "50 MiB"\ntime_zone = "UTC"'
        with Rig(tmp_path / "device", server, link=counted, host=server.host, inside=link.command, settings=top) as rig:
            for number in range(4):
                rig.put(f"f{number}", 20 * MIB)
            rig.start()
            rig.wait(lambda: "is used up until" in rig.log.read_text())
            time.sleep(QUIET_S)
            told = link.counts()
    carried = told.up_bytes + told.down_bytes
    print(f"carried {carried} of {QUOTA_BYTES}: {carried / QUOTA_BYTES - 1:+.3%}")
    assert carried == pytest.approx(QUOTA_BYTES, rel=0.01)

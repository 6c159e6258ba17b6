"""The network comes back while the agent waits minutes for its next try: a real interface, sshd and agent."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from faults.proxy import BadLink
from faults.rig import Rig
from faults.tunlink import TunLink
from faults.tunnel import SshdInside, _Counted

pytestmark = pytest.mark.needs("root", "tun")

WAIT_S = 250
"""Shorter than the wait of the agent."""
SETTINGS = "[retry]\nbase_s = 300\ncap_s = 300\n[wake]\n{wake}\n"


@pytest.mark.parametrize("by", ["address", "file"])
def test_an_agent_that_waits_sends_as_soon_as_the_network_is_back(by: str, tmp_path: Path) -> None:
    file = tmp_path / "wake"
    wake = f'on_address = {str(by == "address").lower()}\nfile = "{file}"'
    with TunLink(20e6, rtt_s=0.02) as link, SshdInside(tmp_path / "server", link) as server:
        ours = ["address", "add", link.client_address, "peer", link.server_address, "dev", "link0"]
        link.run(["ip", "address", "flush", "dev", "link0"], "client", check=True)
        counted, settings = cast(BadLink, _Counted(link, server.port)), SETTINGS.format(wake=wake)
        way = {"link": counted, "host": server.host, "inside": link.command}
        with Rig(tmp_path / "device", server, settings=settings, **way) as rig:
            rig.put("file", 1000)
            rig.start()
            assert rig.wait(lambda: "link disconnected" in rig.told(), 60), rig.told()
            link.run(["ip", *ours], "client", check=True)
            if by == "file":
                file.touch()
            assert rig.wait(lambda: not rig.left(), WAIT_S), rig.told()
            assert (
                f"server tried before its wait is over reason={'network' if by == 'address' else 'file'}" in rig.told()
            )

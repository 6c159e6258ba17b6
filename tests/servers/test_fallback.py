"""A second server takes over while the first is down, and hands back: two real sshds, a real agent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink
from faults.rig import KIB, MIB, Rig
from faults.two_servers import RETRY, SETTINGS, Rooted, fallback_to
from servers.bad_input import Site, toml_of, until

POLICY = {"fallback_after_s": 1, "fallback_check_s": 1, "fallback_back_after_s": 0}
STALE_S = 0.5


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Rooted]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Rooted(tmp_path / "servers" / name, name)) for name in ("one", "two")]


class TwoSite(Site):
    """links: the ways to the servers, where something lies in between."""

    def __init__(self, servers: list[Rooted], folder: Path, links: dict[int, BadLink] | None = None) -> None:
        super().__init__(servers[0], folder)
        self.top |= POLICY
        self.inbox = folder / "inbox"
        self.outbox["destination"] = "up"
        tables = [
            {
                **self.login,
                "port": (links or {}).get(number, server).port,
                "user": server.user,
                "known_hosts": None,
                "host_key": server.host_key,
                "stale_part_s": STALE_S,
            }
            for number, server in enumerate(servers)
        ]
        self.login, self.fallback = tables

    def toml(self, changes: dict[str, Any]) -> str:
        given = {name: value for name, value in self.fallback.items() if value is not None}
        inbox = (
            f'[[inbox]]\npath = "{self.inbox}"\nsource = "config"\npoll_s = 1\nsettle_s = 0\n'
            if self.inbox.exists()
            else ""
        )
        return f"{super().toml(changes)}\n[fallback]\n{toml_of(given)}{inbox}"


def told(site: TwoSite, *words: str) -> Any:
    done = site.run(
        [sys.executable, "-m", "iot.spooler", *words, "--json", "--config", str(site.folder / "spooler.toml")]
    )
    return json.loads(done.stdout)


def test_a_file_whose_publish_was_not_answered_is_delivered_to_the_other_server_as_a_possible_repeat(
    servers: list[Rooted], tmp_path: Path
) -> None:
    first, second = servers
    server_settings = f"link_deadline_s = 1\n{fallback_to(second)}"
    with Rig(
        tmp_path / "device", first, destination="up", settings=SETTINGS + RETRY, server_settings=server_settings
    ) as rig:
        content = rig.put("f", 5000)
        rig.start("rename answer arrived")
        assert rig.died_at("rename answer arrived"), rig.told()
        first.kill()
        rig.put("g", 5000)
        rig.drain()
        assert (first.content("up/f"), second.content("up/f")) == (content, content)
        assert rig.marked() == {("f", 5000): 1}
        config = rig.home.parent / "device.toml"
        command = [sys.executable, "-m", "iot.spooler", "deliveries", "--json", "--config", str(config)]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        assert {item["destination"]: (item["server"], item["repeat"]) for item in found} == {
            "up/f": (f"127.0.0.1:{second.port}", True),
            "up/g": (f"127.0.0.1:{second.port}", False),
        }


def test_a_part_on_the_server_that_was_left_goes_when_that_is_used_again(servers: list[Rooted], tmp_path: Path) -> None:
    """Also where the file stays in its outbox, as if it could be continued there."""
    first, second = servers
    content = os.urandom(3 * MIB)
    with contextlib.closing(first.link(rate_bps=10e6)) as link:
        site = TwoSite(servers, tmp_path / "device", {0: link})
        site.outbox["after_upload"] = "keep"
        site.put("large", content)
        with site.running():
            until(lambda: link.up_bytes > MIB)
            first.kill()
            until(lambda: "delivered path=large" in site.log)  # by then the agent knows it
        assert second.content("up/large") == content
        (part,) = (first.root / "up").iterdir()
        assert 0 < part.stat().st_size < 3 * MIB
        first.start()
        time.sleep(2 * STALE_S + 1)  # records have whole seconds
        site.put("next")
        assert site.drain().returncode == 0
        assert [path.name for path in (first.root / "up").iterdir()] == ["next"]
        assert second.names() == ["up/large"]


def test_what_was_begun_on_the_second_server_ends_there_when_the_first_is_back(
    servers: list[Rooted], tmp_path: Path
) -> None:
    first, second = servers
    first.kill()
    with contextlib.closing(second.link(rate_bps=8e6)) as link:
        site = TwoSite(servers, tmp_path / "device", {1: link})
        site.put("small")
        site.inbox.mkdir()
        for server, content in zip(servers, (b"first", b"second"), strict=True):
            (server.root / "config").mkdir()
            (server.root / "config/file").write_bytes(content)
        with site.running():
            until(lambda: second.content("up/small") is not None)
            until(lambda: told(site, "status")["inboxes"][0]["state"] == "suspended")
            assert "fetched from [server] only" in json.dumps(told(site, "status")["inboxes"])
            other = told(site, "status")["connection"]["other_server"]
            assert (other["server"], other["table"]) == (f"127.0.0.1:{first.port}", "server")
            site.put("large", os.urandom(2 * MIB))
            until(lambda: link.up_bytes > 300 * KIB)
            first.start()
            until(lambda: "other server answers" in site.log.split("server changed to=")[1])
            site.put("later")
            until(lambda: first.content("up/later") is not None)
            until((site.inbox / "file").exists)
        assert (site.inbox / "file").read_bytes() == b"first"
        assert sorted(second.names()) == ["config/file", "up/large", "up/small"]
        assert sorted(first.names()) == ["config/file", "up/later"]
        assert f"delivered path=large dest=up/large bytes={2 * MIB} sent={2 * MIB} resumed_at=0" in site.log
        assert site.log.count("server changed to=") == 2
        servers_of = {item["destination"]: item["server"] for item in told(site, "deliveries")}
        assert servers_of == {
            "up/small": f"127.0.0.1:{link.port}",
            "up/large": f"127.0.0.1:{link.port}",
            "up/later": f"127.0.0.1:{first.port}",
        }


def test_an_agent_that_starts_again_goes_on_with_the_second_server(servers: list[Rooted], tmp_path: Path) -> None:
    first, second = servers
    first.kill()
    site = TwoSite(servers, tmp_path / "device")
    site.top["fallback_check_s"] = 60
    for name in ("a", "b"):
        site.put(name)
        began = time.monotonic()
        with site.running():
            until(lambda name=name: second.content(f"up/{name}") is not None)  # type: ignore[misc]
    assert site.log.count("server changed to=") == 1
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("when_held", [False, True])
def test_a_server_that_shows_another_host_key_is_left_only_where_that_is_asked_for(
    servers: list[Rooted], tmp_path: Path, when_held: bool
) -> None:
    site = TwoSite(servers, tmp_path / "device")
    site.top["fallback_when_held"] = when_held
    site.login["host_key"] = servers[1].host_key
    site.put("f")
    done = site.drain()
    assert "HostKeyMismatch" in done.stderr
    assert (done.returncode == 0, site.left() == [], servers[1].names() == ["up/f"]) == (when_held,) * 3
    assert servers[0].names() == []


def test_a_fallback_that_has_refused_us_is_left_alone_by_the_next_run_too(
    servers: list[Rooted], tmp_path: Path
) -> None:
    """Else a cron job would try the refused login anew each time."""
    first = servers[0]
    site = TwoSite(servers, tmp_path / "device")
    site.fallback["host_key"] = first.host_key
    first.kill()
    site.put("f")
    done = [site.drain().stderr for _ in range(2)]
    assert ["link held error=" in told for told in done] == [True, False]
    assert ["link held since an earlier run" in told for told in done] == [False, True]
    first.start()
    assert site.drain().returncode == 0
    assert first.names() == ["up/f"]


def test_a_disk_is_a_fallback_too(servers: list[Rooted], tmp_path: Path) -> None:
    servers[0].kill()
    (tmp_path / "usb").mkdir()
    site = TwoSite(servers, tmp_path / "device")
    site.fallback = {"kind": "folder", "path": str(tmp_path / "usb")}
    site.put("f", b"content")
    assert site.drain().returncode == 0
    assert (tmp_path / "usb/up/f").read_bytes() == b"content"
    assert told(site, "deliveries")[0]["server"] == str(tmp_path / "usb")


def test_check_tries_both_servers(servers: list[Rooted], tmp_path: Path) -> None:
    site = TwoSite(servers, tmp_path / "device")
    done = site.spooler("check", "--connect")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split(f"fallback 127.0.0.1:{servers[1].port}\n")
    for part in (first, second):
        assert "login        ok" in part
        assert "delete       ok" in part
    servers[1].kill()
    assert site.spooler("check", "--connect").returncode == 75
    site.login["host_key"] = servers[1].host_key
    assert site.spooler("check", "--connect").returncode == 78

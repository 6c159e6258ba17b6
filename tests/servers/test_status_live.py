"""`status` of an agent at work: a real sshd, a slow link."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink
from servers.bad_input import Site, clean_environment, until
from servers.openssh import OpenSSH

RATE_BPS = 8e6  # a megabyte a second
SIZE = 12_000_000


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    site = Site(sshd, tmp_path / "device")
    site.login |= {"known_hosts": None, "host_key": sshd.host_key}
    return site


def seen(site: Site) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(site.spooler("status", "--json").stdout)
    return content


def percent(site: Site) -> int:
    """Of the one file under way; 0 before it is."""
    with contextlib.suppress(FileNotFoundError, IndexError):
        return int(site.status()["current"][0]["percent"])
    return 0


def test_a_large_file_shows_percent_rate_and_time_left_and_the_figures_are_fresh(site: Site, sshd: OpenSSH) -> None:
    with BadLink(sshd.host, sshd.port, rate_bps=RATE_BPS) as link:
        site.login["port"] = link.port
        site.put("large", os.urandom(SIZE))
        with site.running():
            until(lambda: percent(site) >= 25)
            content = site.status()
            age_s = time.time() - content["updated_at"]
            (large,) = content["current"]
            assert age_s < 2.0, "a busy machine is given one second more"
            assert content["connection"]["state"] == "connected"
            assert content["rate_bytes_per_s"] == pytest.approx(RATE_BPS / 8, rel=0.5)
            assert large["rate_bytes_per_s"] == pytest.approx(RATE_BPS / 8, rel=0.5)
            assert 25 <= large["percent"] <= 99
            assert large["left_s"] == (large["bytes"] - large["done_bytes"]) // large["rate_bytes_per_s"]
            told = site.spooler("status").stdout
            assert f"sending     large: {large['percent'] // 10}" in told
            assert all(len(line) <= 80 for line in told.splitlines())
            assert seen(site)["running"] is True
            assert not (site.state / "status.json").exists(), "while it runs, the status costs no flash"
            until(lambda: site.left() == [])
    ended = seen(site)
    assert (ended["running"], ended["ended"], ended["delivered"]["files"]) == (False, True, 1)
    assert "not running, ended" in site.spooler("status").stdout


def test_a_dead_agent_is_called_dead(site: Site) -> None:
    with site.running() as agent:
        until(lambda: site.spooler("status").returncode == 0)
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        done = site.spooler("status")
        assert done.returncode == 1
        assert done.stdout.startswith(f"agent       DEAD: process {agent.pid} has ended without a word;")
        assert seen(site)["running"] is False
    with site.running() as agent:
        until(lambda: f"running, process {agent.pid}" in site.spooler("status").stdout)


def test_watch_shows_it_again_and_again_until_ctrl_c(site: Site) -> None:
    with site.running():
        until(lambda: site.spooler("status").returncode == 0)
        command = site.spooler_command("status", "--watch", "--json")
        with subprocess.Popen(
            command,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  a shell in the background ignores it
        ) as watching:
            assert watching.stdout is not None
            lines = [json.loads(watching.stdout.readline()) for _ in range(3)]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
    assert [line["running"] for line in lines] == [True] * 3


def test_watch_ends_quietly_when_nobody_reads_any_more(site: Site) -> None:
    with site.running():
        until(lambda: site.spooler("status").returncode == 0)
        command = site.spooler_command("status", "--watch")
        with subprocess.Popen(
            command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            assert watching.stderr is not None
            watching.stdout.readline()
            watching.stdout.close()
            assert watching.wait(30) == 0
            assert watching.stderr.read() == ""


def test_an_agent_that_reads_no_file_is_found_by_its_state_directory(site: Site, tmp_path: Path) -> None:
    server = {f"IOT_SPOOLER_SERVER__{name.upper()}": str(value) for name, value in site.login.items() if value}
    environment = clean_environment() | server
    environment |= {"IOT_SPOOLER_STATE_DIR": str(site.state), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment |= {"IOT_SPOOLER_OUTBOX__0__PATH": str(site.box), "IOT_SPOOLER_OUTBOX__0__DESTINATION": "up"}
    command = [sys.executable, "-m", "iot.spooler"]

    def asked() -> str:
        done = subprocess.run([*command, "status"], env=environment, capture_output=True, text=True, check=False)
        return done.stdout

    with subprocess.Popen([*command, "run"], env=environment, stderr=subprocess.DEVNULL) as agent:
        until(lambda: f"running, process {agent.pid}" in asked())
        assert not (site.state / "status.json").exists()
        agent.terminate()
    assert "not running, ended" in asked()

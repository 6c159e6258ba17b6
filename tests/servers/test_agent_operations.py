"""What an operator tells a running agent, against a real server: look now (SIGUSR1), and leave a folder alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from servers.bad_input import Site, until
from servers.openssh import OpenSSH


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


def test_sigusr1_makes_a_running_agent_look_and_deliver_now(site: Site) -> None:
    site.top["scan_s"] = 3600
    site.outbox["after_upload"] = "keep"
    file = site.put("file", b"content")
    with site.running() as agent:
        until(lambda: site.content("file") == b"content", 60)
        os.truncate(file, 4)  # as no program closes it, the kernel tells nothing
        time.sleep(1)
        assert site.content("file") == b"content"  # it has no other reason to look
        agent.send_signal(signal.SIGUSR1)
        until(lambda: site.content("file") == b"cont", 60)


def test_an_outbox_that_is_not_enabled_is_left_alone_until_it_is(site: Site) -> None:
    site.put("file")
    site.outbox["enabled"] = False
    done: subprocess.CompletedProcess[str] = site.drain()
    assert done.returncode == 0, done.stderr
    assert site.arrived() == []
    assert site.left() == ["file"]
    site.outbox["enabled"] = True
    assert site.drain().returncode == 0
    assert site.arrived() == ["file"]
    assert site.left() == []


def test_a_condition_that_is_not_met_holds_files_back_until_it_is(site: Site, tmp_path: Path) -> None:
    flag = tmp_path / "charged"
    site.top |= {"condition": ["test", "-e", str(flag)], "command_every_s": 1}
    site.put("file")
    with site.running():
        time.sleep(2)
        assert site.arrived() == []
        flag.touch()
        until(lambda: site.arrived() == ["file"], 60)

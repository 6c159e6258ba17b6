"""A refused login holds the server until somebody mends it, and is told so: a real sshd, a real agent."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.bad_input import Done, Site, until
from servers.base import client_key
from servers.openssh import OpenSSH

from iot.spooler.config import changes


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    """With a key that the server does not know."""
    site = Site(sshd, tmp_path / "device")
    key = site.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    site.login["key_file"] = str(key)
    return site


def asked(site: Site, *words: str) -> Done[str]:
    """Without writing the configuration anew, which would end a hold."""
    return site.run([sys.executable, "-m", "iot.spooler", *words, "--config", str(site.folder / "spooler.toml")])


def mended(site: Site) -> None:
    fresh = site.folder / "fresh"
    shutil.copy(client_key(), fresh)
    fresh.rename(site.folder / "key")


def until_held(site: Site, times: int = 1) -> None:
    until(lambda: site.log.count("link held") == times)


def test_a_hold_is_told_with_what_to_do_and_flush_releases_it(site: Site) -> None:
    site.put("f")
    with site.running():
        until_held(site)
        assert "ERROR link held error=" in site.log
        assert "iot-spooler check --connect" in site.log
        until(lambda: "connection  held" in asked(site, "status").stdout)
        told = re.sub(r"\s+", " ", asked(site, "status").stdout)
        assert "to do see what `iot-spooler check --connect` says and fix it;" in told
        flushed = asked(site, "flush")
        assert flushed.returncode == 0
        assert flushed.stderr.startswith("the server was held: ")
        told = "the hold is released: one try now; iot-spooler status tells what came of it\n"
        assert flushed.stdout == told + "box: looked at and sent now, whatever the schedule says\n"
        until_held(site, times=2)
        assert "hold released: one try now" in site.log
        mended(site)
        asked(site, "flush")
        until(lambda: site.left() == [])
        until(lambda: asked(site, "flush").stdout == "box: looked at and sent now, whatever the schedule says\n")
    assert site.arrived() == ["f"]


def test_a_flush_tries_with_what_the_password_file_holds_now(site: Site, tmp_path: Path) -> None:
    """Not once more with what it held before: that is one more bad login, and a longer hold."""
    password = site.folder / "password"
    password.touch(mode=0o600)
    password.write_text("wrong")
    with OpenSSH(tmp_path / "server", password=True) as server:
        assert server.password is not None
        site.login = {"host": server.host, "port": server.port, "user": server.user, "password_file": str(password)}
        site.login["known_hosts"] = str(server.known_hosts)
        site.put("f")
        with site.running():
            until(lambda: "connection  held" in asked(site, "status").stdout)  # the agent has looked at its files
            password.write_text(server.password)
            asked(site, "flush")
            until(lambda: "INFO connected" in site.log)
            assert site.log.count("link held") == 1


def edited(site: Site) -> None:
    """The configuration names another key."""
    site.login["key_file"] = str(client_key())
    site.spooler_command("run")


@pytest.mark.parametrize("mend", [mended, edited])
def test_a_changed_key_or_configuration_ends_a_hold(site: Site, mend: Callable[[Site], None]) -> None:
    site.put("f")
    with site.running():
        until_held(site)
        began = time.monotonic()
        mend(site)
        until(lambda: site.left() == [])
        assert time.monotonic() - began < changes.EVERY_S + 60
        assert "changed while the server is held path=" in site.log
    assert site.arrived() == ["f"]


def connections(server: OpenSSH) -> int:
    return server.log.read_text(errors="replace").count("Accepted publickey")


def test_a_refused_reload_keeps_connection_and_totals_and_a_good_one_the_totals(site: Site, sshd: OpenSSH) -> None:
    site.login["key_file"] = str(client_key())
    with site.running() as agent:
        site.put("first")
        until(lambda: site.left() == [])
        before = connections(sshd)
        good = (site.folder / "spooler.toml").read_text()
        (site.folder / "spooler.toml").write_text(good + "nonsense = 1\n")
        agent.send_signal(signal.SIGHUP)
        until(lambda: "reload refused" in site.log)
        (site.folder / "spooler.toml").write_text(good)
        site.put("second")
        until(lambda: site.left() == [])
        assert connections(sshd) == before
        until(lambda: "delivered   2 files since start" in asked(site, "status").stdout)
        agent.send_signal(signal.SIGHUP)
        until(lambda: "reloaded" in site.log)
        site.put("third")
        until(lambda: site.left() == [])
        until(lambda: "delivered   3 files since start" in asked(site, "status").stdout)
        assert connections(sshd) > before


def test_a_reload_ends_a_large_file_under_way_which_then_goes_on(site: Site, sshd: OpenSSH) -> None:
    site.login["key_file"] = str(client_key())
    size = 64 << 20
    (site.box / "large").write_bytes(b"x" * size)
    with site.running() as agent:
        until(lambda: any(path.name.startswith("large.") for path in sshd.root.rglob("*.part")))
        agent.send_signal(signal.SIGHUP)
        until(lambda: "reloaded" in site.log)
        until(lambda: site.left() == [])
    assert sshd.content("up/large") == b"x" * size


def test_a_drain_that_was_refused_holds_the_next_one_until_flush(site: Site) -> None:
    """As a cron job would try it, which locks the account otherwise."""
    site.put("f")
    told = [site.drain(), *(asked(site, "run", "--drain") for _ in range(2))]
    assert [done.returncode for done in told] == [75, 75, 75]
    assert ["held since an earlier run" in done.stderr for done in told] == [False, True, True]
    flushed = asked(site, "flush")
    assert flushed.stdout == "no agent is running; the hold of an earlier one is released: the next tries at once\n"
    tried = asked(site, "run", "--drain")
    assert "link held error=" in tried.stderr
    mended(site)
    assert asked(site, "run", "--drain").returncode == 0
    assert site.arrived() == ["f"]

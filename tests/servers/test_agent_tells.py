"""What an agent logs of its start, its connection and its end, and of what a server asks for, with real servers."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from servers.bad_input import Site, clean_environment, until
from servers.openssh import OpenSSH
from servers.pyftpdlib_server import Pyftpdlib

from iot.ftp import FTPClient
from iot.transfer import __version__


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


def test_start_connection_and_end_are_one_line_each(site: Site, sshd: OpenSSH) -> None:
    site.put("a", b"12345")
    with site.running() as agent:
        until(lambda: site.left() == [])
    lines = site.log.splitlines()
    assert lines[0] == (
        f"INFO started version={__version__} server=127.0.0.1:{sshd.port} outboxes=box state_dir={site.state}"
        f" pid={agent.pid}"
    )
    (connected,) = [line for line in lines if " connected " in line]
    assert re.fullmatch(
        rf"INFO connected host=127\.0\.0\.1 port={sshd.port} software=\"SSH-2\.0-OpenSSH[^\"]*\""
        r" key_exchange=\S*(?:curve|x)25519\S* host_key=ssh-ed25519 fingerprint=SHA256:\S+"
        r" cipher=\S+ round_trip_ms=[0-9.]+",
        connected,
    )
    assert re.fullmatch(r"INFO stopped reason=stopped delivered=1 bytes=5 left=0 s=\d+", lines[-1])


def test_under_the_journal_every_line_has_its_priority(site: Site) -> None:
    site.put("a")
    reader, writer = os.pipe()
    status = os.fstat(writer)
    environment = {**clean_environment(), "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    command = site.spooler_command("run", "--drain", host_key="SHA256:" + "A" * 43, known_hosts=None)
    assert subprocess.run(command, env=environment, stderr=writer, check=False, timeout=90).returncode == 75
    os.close(writer)
    told = b"".join(iter(lambda: os.read(reader, 65536), b"")).decode()
    os.close(reader)
    assert re.search(r"^<6>INFO started ", told, re.MULTILINE)
    assert re.search(r"^<3>ERROR link held ", told, re.MULTILINE)
    assert all(re.match(r"<[2-7]>", line) for line in told.splitlines())


def test_silence_at_rest(site: Site) -> None:
    site.put("a")
    with site.running():
        until(lambda: site.left() == [])
        time.sleep(1.0)
        before = site.log
        time.sleep(3.0)
        assert site.log == before


def test_an_ftp_connection_tells_software_and_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with (
        Pyftpdlib(tmp_path / "root") as server,
        FTPClient(
            server.host, server.port, server.user, server.password, ca_file=server.certificate, state_dir=tmp_path / "s"
        ) as client,
    ):
        client.connect()
    told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("connected ")]
    assert told
    assert re.fullmatch(r"connected server=127\.0\.0\.1 port \d+ software='220 pyftpdlib.*' tls=TLSv1\.\d \S+", told[0])
    assert server.password not in caplog.text


def test_a_server_that_asks_to_be_left_alone_is_left_alone_for_so_long(site: Site, sshd: OpenSSH) -> None:
    hint = sshd.root / "hint.json"
    hint.write_text('{"retry_after_s": 3}')
    hint.chmod(0o644)
    site.top["hint_file"] = sshd.path("hint.json")
    site.put("a")
    asked = "the server asks to be left alone next_s="
    with site.running():
        until(lambda: asked in site.log)
        began = time.monotonic()
        hint.unlink()
        until(lambda: site.left() == [])
        took_s = time.monotonic() - began
    assert site.arrived() == ["a"]
    assert 2.5 < took_s < 60
    assert site.log.count(asked) == 1
    assert len(re.findall(r"^INFO connected host=", site.log, re.MULTILINE)) == 2

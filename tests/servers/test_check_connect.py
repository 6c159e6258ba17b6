"""`iot-spooler check --connect` tries what a delivery needs, says what it means, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ordinary_user import AGENT, open_folder
from servers.bad_input import Done, Site, clean_environment
from servers.base import Server, client_key
from servers.openssh import OpenSSH
from servers.pyftpdlib_server import Pyftpdlib
from servers.s3 import S3Gateway

SCREEN = """\
configuration good: 127.0.0.1:{port}, outboxes box
outbox box: completeness known
server 127.0.0.1:{port}
  reach        ok: the server answers
  host key     ok: it is the one that is trusted
  login        ok: the server lets us in, after N s
destination {up} of outbox box
  write        ok: a file was sent, proven and given its name
  fsync        ok: the server confirms that a file is on its disk
  resume       ok: an upload that was broken off has gone on at N KiB
  rename       ok: a file that was there already has been replaced
  delete       ok: nothing of this check is left there
"""


def settled(text: str) -> str:
    """Without the figures that differ from run to run."""
    text = text.replace(" (files of this user only: no CAP_LEASE)", "")  # containers keep that capability back
    return re.sub(r"after [0-9.]+ s|at [0-9.]+ KiB", lambda match: re.sub("[0-9.]+", "N", match.group()), text)


def lines(done: Done[str]) -> dict[str, str]:
    """What came of each step, with its continuation lines in one."""
    whole = re.sub(r"\n {15}", " ", done.stdout)
    found = [line.split(None, 1) for line in whole.splitlines() if line.startswith("  ")]
    return {words[0]: re.sub(r"^key +", "", words[1]) for words in found}


def site_at(server: Server, base: Path) -> Site:
    site = Site(server, base / "device")
    site.state.mkdir()
    return site


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return site_at(sshd, tmp_path)


def test_all_is_tried_and_nothing_is_left(site: Site, sshd: OpenSSH) -> None:
    done = site.spooler("check", "--connect")
    assert (done.returncode, done.stderr) == (0, "")
    up = sshd.path("up")
    assert settled(done.stdout) == SCREEN.format(port=sshd.port, up=up)
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if up not in line)
    assert os.listdir(sshd.root) == []
    assert os.listdir(site.state) == []


def test_it_goes_on_beside_a_running_agent_and_takes_no_file(site: Site, sshd: OpenSSH) -> None:
    (sshd.root / "up").mkdir()
    (sshd.root / "up" / "theirs").write_text("x")
    with site.running():
        assert site.spooler("check", "--connect").returncode == 0
    assert os.listdir(sshd.root / "up") == ["theirs"]


def test_a_server_that_is_not_there(site: Site) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        pin = {"known_hosts": None, "host_key": "SHA256:" + "A" * 43}
        done = site.spooler("check", "--connect", port=nobody.getsockname()[1], **pin)
    assert done.returncode == 75
    told = lines(done)
    assert told["reach"].startswith("FAILED, now: ")
    assert told["reach"].endswith("the agent tries again and again, and files wait")
    assert told["host"] == told["login"] == told["write"] == "not tried"


def test_another_host_key(site: Site) -> None:
    done = site.spooler("check", "--connect", known_hosts=None, host_key="SHA256:" + "A" * 43)
    assert done.returncode == 78
    told = lines(done)
    assert told["reach"] == "ok: the server answers"
    assert told["host"].startswith("FAILED: ")
    assert "nothing is sent until this is fixed" in told["host"]
    assert told["login"] == told["write"] == "not tried"


def test_a_key_that_the_server_does_not_know(site: Site) -> None:
    key = site.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    done = site.spooler("check", "--connect", key_file=key)
    assert done.returncode == 78
    told = lines(done)
    assert told["host"] == "ok: it is the one that is trusted"
    assert told["login"].startswith("FAILED: ")


@pytest.mark.parametrize(
    ("denied", "step", "came"),
    [
        ("fsync", "fsync", "no: the server confirms no disk"),
        ("mkdir", "write", "FAILED: "),
        ("remove", "delete", "FAILED: "),
    ],
)
def test_what_the_server_does_not_allow(tmp_path: Path, denied: str, step: str, came: str) -> None:
    with OpenSSH(tmp_path / "root", subsystem=f"internal-sftp -P {denied}") as server:
        done = site_at(server, tmp_path).spooler("check", "--connect")
        told = lines(done)
        assert told[step].startswith(came), done.stdout
        assert done.returncode == (78 if came == "FAILED: " else 0)
        if denied != "remove":
            assert os.listdir(server.root) == []


@pytest.mark.needs("root")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "root", password=True) as server:
        (server.root / "up").mkdir(mode=0o555)
        site = site_at(server, tmp_path)
        command = site.spooler_command("check", "--connect")
        (site.folder / "spooler.toml").chmod(0o600)
        done = site.run(command)
        assert done.returncode == 78
        assert lines(done)["write"].startswith("FAILED: ")
        assert "go to quarantine" in lines(done)["write"]


def test_each_destination_once_and_disabled_outboxes_not_at_all(site: Site, sshd: OpenSSH) -> None:
    more = ""
    for name, destination, enabled in (("a", "up", "true"), ("b", "other/{outbox}", "true"), ("c", "never", "false")):
        (site.folder / name).mkdir()
        more += f'[[outbox]]\npath = "{site.folder}/{name}"\nenabled = {enabled}\n'
        more += f'destination = "{sshd.path(destination)}"\n'
    command = site.spooler_command("check", "--connect")
    with (site.folder / "spooler.toml").open("a") as config:
        config.write(more)
    done = site.run(command)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("destination")]
    assert told == [
        f"destination {sshd.path('up')} of outbox box, a",
        f"destination {sshd.path('other/b')} of outbox b",
    ]
    assert os.listdir(sshd.root) == []


def test_the_same_for_an_ftp_server(tmp_path: Path, site: Site) -> None:
    with Pyftpdlib(tmp_path / "root") as server:
        site.outbox["destination"] = server.path("up")
        site.login = {"kind": "ftp", "host": server.host, "port": server.port, "user": server.user}
        site.login |= {"password": server.password, "ca_file": server.certificate}
        command = site.spooler_command("check", "--connect")
        (site.folder / "spooler.toml").chmod(0o600)
        done = site.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        told = lines(done)
        assert told["certificate"] == "ok: it is the one that is trusted"
        assert told["fsync"].startswith("no: the server confirms no disk")
        assert told["resume"].startswith("ok: ")
        assert os.listdir(server.root) == []


@pytest.mark.parametrize(
    ("cache", "resume"), [("off", "no: an upload that is broken off starts over"), ("writes", "ok: ")]
)
def test_a_gateway_to_an_object_store_shows_what_it_lacks(tmp_path: Path, cache: str, resume: str) -> None:
    """As deploy/HOWTO.md says of it, with and without its cache."""
    with S3Gateway(tmp_path / "root", cache=cache) as server:
        site = site_at(server, tmp_path)
        command = site.spooler_command("check", "--connect")
        (site.folder / "spooler.toml").chmod(0o600)
        done = site.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        told = lines(done)
        assert told["resume"].startswith(resume)
        assert told["fsync"].startswith("no: the server confirms no disk")
        assert told["rename"].startswith("ok: ")
        assert server.names() == []


def test_the_same_for_a_folder(tmp_path: Path, sshd: OpenSSH) -> None:
    site = site_at(sshd, tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / ".this-disk").touch()
    site.login = {"kind": "folder", "path": str(tmp_path / "disk"), "marker": ".this-disk"}
    site.outbox["destination"] = "up"
    done = site.spooler("check", "--connect")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(lines(done)) == ["reach", "login", "write", "fsync", "resume", "rename", "delete"]
    assert os.listdir(tmp_path / "disk") == [".this-disk"]
    (tmp_path / "disk" / ".this-disk").unlink()
    done = site.spooler("check", "--connect")
    assert done.returncode == 75
    assert "has no .this-disk" in lines(done)["reach"]


def test_the_credentials_of_the_unit_are_tried_and_not_left(site: Site) -> None:
    folder = site.folder / "credentials-spooler"
    folder.mkdir(mode=0o700)
    shutil.copy(client_key(), folder / "key")
    before = set(Path("/dev/shm").iterdir())
    done = site.spooler("check", "--connect", key_file=None, password=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines(done)["login"].startswith("ok")
    assert set(Path("/dev/shm").glob("iot-spooler-*")) <= before


@pytest.mark.needs("root")
def test_by_root_it_is_done_as_the_user_of_the_agent_with_the_credentials_that_only_root_may_read(
    sshd: OpenSSH,
) -> None:
    with open_folder() as base:
        site = Site(sshd, base / "device")
        site.state.mkdir()
        for mine in (site.state, site.box):
            os.chown(mine, AGENT, AGENT)
        folder = site.folder / "credentials-spooler"
        folder.mkdir(mode=0o700)
        shutil.copy(client_key(), folder / "key")
        site.login |= {"key_file": None, "known_hosts": None, "host_key": sshd.host_key}
        before = set(Path("/dev/shm").iterdir())
        done = site.spooler("check", "--connect")
        assert done.returncode == 0, done.stdout + done.stderr
        assert lines(done)["delete"].startswith("ok")
        assert set(Path("/dev/shm").glob("iot-spooler-*")) <= before


def test_without_connect_nobody_is_asked(site: Site) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('it connects')\n"
        "socket.socket.connect = refuse\n"
        "from iot.spooler.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = site.spooler_command("check")[3:]
    done = subprocess.run([sys.executable, "-c", code, *words], env=clean_environment(), check=False, timeout=60)
    assert done.returncode == 0

"""What may be wrong on the device itself: journal, disk, a second agent, settings. And secrets, which show nowhere."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink
from servers.bad_input import Site, clean_environment, mounted, until
from servers.base import client_key
from servers.openssh import OpenSSH

from iot.sftp.client import ConfigurationError, DiskFull, IoTSFTPClient, JournalUnavailable

MIB = 1 << 20


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


# -- the journal


def whole(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def somewhere(path: Path) -> None:
    spots = random.Random(1)
    with path.open("r+b") as file:
        for _ in range(8):
            file.seek(spots.randrange(path.stat().st_size))
            file.write(spots.randbytes(200))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [whole, somewhere, cut_short, emptied])
def test_a_corrupt_journal_never_blocks_the_start_and_loses_no_file(site: Site, damage: object) -> None:
    """In the middle of an upload: the part is on the server, and what the journal says of it is rubbish."""
    assert callable(damage)
    content = os.urandom(4 * MIB)
    site.put("large", content)
    for number in range(20):
        site.put(f"small{number}", b"%d" % number)
    with BadLink(site.server.host, site.server.port, rate_bps=24e6) as link:
        settings = {"port": link.port, "known_hosts": None, "host_key": site.server.host_key, "checkpoint_s": 0.1}
        command = site.spooler_command("run", **settings)
        with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL) as agent:
            until(lambda: link.up_bytes > 2 * MIB)
            agent.send_signal(signal.SIGKILL)
    damage(site.state / "journal.db")
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            (site.state / f"journal.db{ending}").unlink()
    drained = site.drain()
    assert drained.returncode == 0, drained.stderr
    assert site.left() == []
    assert site.content("large") == content
    assert {site.content(f"small{number}") for number in range(20)} == {b"%d" % number for number in range(20)}
    assert [name for name in site.arrived() if name.endswith(".part")] == []


def test_the_client_goes_on_with_a_corrupt_journal_set_aside(site: Site) -> None:
    site.state.mkdir()
    (site.state / "journal.db").write_bytes(os.urandom(50_000))
    source = site.put("file")
    assert site.iot_sftp("put", str(source), site.server.path("a")).returncode == 0
    assert len(list(site.state.glob("journal.corrupt-*.db"))) == 1


def test_a_state_directory_that_cannot_be_one_is_told(site: Site) -> None:
    site.state.write_bytes(b"a file")
    source = site.put("file")
    with site.client() as client, pytest.raises(JournalUnavailable, match=str(site.state)):
        client.upload(source, site.server.path("a"))
    assert site.iot_sftp("put", str(source), site.server.path("a")).returncode == 74
    drained = site.drain()
    assert drained.returncode == 75
    assert str(site.state) in drained.stderr
    assert site.left() == ["file"]


# -- a full disk


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


@pytest.mark.needs("mounts")
def test_a_disk_that_is_full_from_the_start_is_told_and_made_good(site: Site) -> None:
    for number in range(50):
        site.put(f"file{number}", b"%d" % number)
    with mounted(site.state, "tmpfs", "size=2m"):
        filler = fill(site.state)
        drained = site.drain()
        assert drained.returncode == 75, drained.stderr
        assert "no space left" in drained.stderr.lower()
        with site.client() as client, pytest.raises(DiskFull, match="free some space"):
            client.upload(site.box / "file1", site.server.path("a"))
        assert len(site.left()) == 50
        filler.unlink()
        assert site.drain().returncode == 0
    assert {site.content(f"file{number}") for number in range(50)} == {b"%d" % number for number in range(50)}
    assert site.left() == []


@pytest.mark.needs("mounts")
def test_a_disk_that_fills_while_the_agent_runs_loses_nothing_and_it_recovers(site: Site) -> None:
    """With the reserve given up deliveries go on for a while; then they are held until there is room."""
    wanted = {}
    with mounted(site.state, "tmpfs", "size=2m"), site.running() as agent:
        for round_ in range(3):
            for number in range(120):
                wanted[f"{round_}-{number}"] = os.urandom(100)
                site.put(f"{round_}-{number}", wanted[f"{round_}-{number}"])
            until(lambda: "delivered" in site.log)
            filler = fill(site.state)
            time.sleep(0.5)
            fill(site.state)  # what the reserve has freed, too
            for number in range(120):
                wanted[f"{round_}+{number}"] = b"later"
                site.put(f"{round_}+{number}", b"later")
            for name, content in wanted.items():
                place = site.box / name
                assert place.exists() or site.content(name) == content
            filler.unlink()
            until(lambda: site.left() == [], 60)
        assert agent.poll() is None
    assert {name: site.content(name) for name in wanted} == wanted
    assert [name for name in site.arrived() if name not in wanted] == []


@pytest.mark.needs("mounts")
def test_a_download_onto_a_full_disk_is_told_and_goes_on_when_there_is_room(site: Site, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    (site.server.root / "file").write_bytes(content)
    with mounted(tmp_path / "small", "tmpfs", "size=2m") as small, site.client() as client:
        with pytest.raises(DiskFull, match="free some space"):
            client.download(site.server.path("file"), small / "file")
        assert not (small / "file").exists()
        os.system(f"mount -o remount,size=8m '{small}'")
        client.download(site.server.path("file"), small / "file")
        assert (small / "file").read_bytes() == content


# -- a second agent


def test_a_second_agent_on_the_same_state_directory_is_kept_out(site: Site) -> None:
    with site.running() as agent:
        site.put("first")
        until(lambda: site.left() == [])
        for words in (("run",), ("run", "--drain")):
            second = site.spooler(*words)
            assert second.returncode == 75
            assert f"another agent (process {agent.pid}) works on {site.state}" in second.stderr
        site.put("second")
        until(lambda: site.left() == [])
        assert agent.poll() is None
    assert site.drain().returncode == 0


# -- settings

BAD = """
state_dir = "relative"
device_id = "../gw"
scan_s = "often"
small_file_bytes = -1
log_level = "loud"
surprise = 1
[server]
host = ""
port = 70000
key_file = "/no/such/key"
known_hosts = "/no/such/hosts"
host_key = "MD5:aa"
password = ["s3cret-one"]
key_passphrase = {a = "s3cret-two"}
pasword = "s3cret-three"
link_deadline_s = 0
server_durability = "hope"
verify = "never"
chunk_size = 1
part_suffix = "a/b"
ciphers = 7
attempts = "s3cret-no"
[retry]
base_s = -1
max_attempts = 0
[[outbox]]
path = "relative"
destination = "/{nobody}"
settle_s = "soon"
after_upload = "burn"
include = ["re:("]
archive = "/a/../b"
priority = 99
order = "random"
"""
KEYS = [
    "state_dir",
    "device_id",
    "scan_s",
    "small_file_bytes",
    "log_level",
    "surprise",
    *(f"server.{key}" for key in ("host", "port", "key_file", "known_hosts", "host_key", "password", "pasword")),
    *(f"server.{key}" for key in ("key_passphrase", "link_deadline_s", "server_durability", "verify", "chunk_size")),
    *(f"server.{key}" for key in ("part_suffix", "ciphers", "attempts")),
    *(f"retry.{key}" for key in ("base_s", "max_attempts")),
    *(f"outbox[0].{key}" for key in ("path", "destination", "settle_s", "after_upload", "include", "archive")),
    *(f"outbox[0].{key}" for key in ("priority", "order")),
]


@pytest.mark.parametrize("command", [["check"], ["run"], ["run", "--drain"], ["status"]], ids=" ".join)
def test_every_bad_setting_is_named_at_once_with_78_and_no_secret(command: list[str], tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(BAD)
    words = [sys.executable, "-m", "iot.spooler", *command, "--config", str(config)]
    done = subprocess.run(
        words, env=clean_environment(), capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
    )
    assert done.returncode == 78
    told = {line.partition(" ")[0].rstrip(":") for line in done.stderr.splitlines()}
    assert told >= set(KEYS)
    assert "s3cret-one" not in done.stderr
    assert "s3cret-two" not in done.stderr
    assert "s3cret-three" not in done.stderr  # a mistyped name: nothing but our care keeps its value back
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["bad.toml"]


LATE = {
    "ciphers": ["no-such-cipher"],
    "congestion": "no-such-control",
    "host": " ",
}
ALLOWED = {"ciphers": "known are aes128-ctr", "congestion": "available are ", "host": ""}


@pytest.mark.parametrize("key", LATE)
def test_a_setting_that_would_show_its_fault_late_is_named_before_anything_is_tried(key: str, site: Site) -> None:
    site.put("file")
    drained = site.drain(**{key: LATE[key]})
    assert drained.returncode == 78, drained.stderr
    assert f"server.{key} = " in drained.stderr
    assert ALLOWED[key] in drained.stderr
    assert site.left() == ["file"]
    value = ",".join(LATE[key]) if isinstance(LATE[key], list) else LATE[key]
    typed = site.iot_sftp("exists", "/", **{key: value})
    assert typed.returncode == 78, typed.stderr
    assert key in typed.stderr


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00secret"], ids=["empty", "not UTF-8"])
def test_a_password_file_that_holds_no_password_is_named(content: bytes, site: Site, tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(content)
    site.put("file")
    drained = site.drain(key_file=None, password_file=tmp_path / "password")
    assert drained.returncode == 78, drained.stderr
    assert "server.password_file" in drained.stderr
    assert "secret" not in drained.stderr.replace("secret_", "")
    typed = site.run(
        [
            sys.executable,
            "-m",
            "iot.sftp.client.cli.main",
            "exists",
            "/",
            "--password-file",
            str(tmp_path / "password"),
        ],
        {**os.environ, "SFTP_HOST": "localhost"},
    )
    assert typed.returncode == 78
    assert "--password-file" in typed.stderr


def test_every_bad_setting_of_the_command_line_is_named_at_once_with_78(tmp_path: Path) -> None:
    bad = {
        "SFTP_PORT": "0",
        "SFTP_HOST_KEY": "MD5:aa",
        "SFTP_LINK_DEADLINE_S": "-1",
        "SFTP_CHUNK_SIZE": "x",
        "SFTP_VERIFY": "never",
        "SFTP_SLOTS": "1e9",
        "SFTP_PART_SUFFIX": "a/b",
        "SFTP_AGENT": "perhaps",
    }
    words = [sys.executable, "-m", "iot.sftp.client.cli.main", "ls"]
    environment = {**clean_environment(), **bad, "SFTP_PASSWORD": "s3cret"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert done.returncode == 78
    for name in ("SFTP_HOST", *bad):
        assert name in done.stderr, done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_every_bad_option_of_the_client_is_named_at_once(tmp_path: Path) -> None:
    bad: dict[str, Any] = {
        "link_deadline_s": -1,
        "verify": "never",
        "chunk_size": 1,
        "whatever": 1,
        "key_passphrase": ["s3cret"],
    }
    password = "s3cret"
    with pytest.raises(ConfigurationError) as caught:
        IoTSFTPClient("host", 22, "user", password, **bad)
    for name in bad:
        assert name in str(caught.value)
    assert "s3cret" not in hung(caught.value.with_traceback(None))
    for port in (0, 70000, "22", True):
        with pytest.raises(ConfigurationError, match="sftp_port"):
            IoTSFTPClient("host", port)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="sftp_host"):
        IoTSFTPClient(" ")


# -- secrets

PASSPHRASE = "passphrase-s3cret"


def test_no_secret_shows_anywhere(sshd_with_password: OpenSSH, tmp_path: Path) -> None:
    """Logs of every level, process list, status, journal, repr, errors with all that hangs on them."""
    site = Site(sshd_with_password, tmp_path / "device")
    password = site.server.password or ""
    wrong = "wrong-s3cret"
    seen: list[str] = []
    for level, changes in (
        ("debug", {}),
        ("debug", {"password": wrong}),
        ("info", {"password": None, "key_file": client_key(passphrase=PASSPHRASE), "key_passphrase": PASSPHRASE}),
        ("info", {"password": None, "key_file": client_key(passphrase=PASSPHRASE), "key_passphrase": wrong}),
    ):
        site.top["log_level"] = level
        source = site.put("file")
        began = len(site.log)
        with site.running(**changes) as agent:
            until(lambda began=began: ended(site.log[began:]))  # type: ignore[misc]
            seen.append(cmdline(agent.pid))
        seen += [(site.state / "status.json").read_text(), site.spooler("status", **changes).stdout]
        seen.append(site.spooler("check", **changes).stdout)
        typed = site.iot_sftp("put", "-v", str(source), site.server.path("x"), **changes)
        seen += [typed.stdout, typed.stderr]
        client = site.client(**changes)
        client.upload_file(site.put("other"), site.server.path("y"))
        seen += [repr(client), hung(client.last_error)]
        client.close()
    seen.append(site.log)
    seen += [path.read_bytes().decode("latin-1") for path in site.state.iterdir() if path.is_file()]
    everything = "\n".join(seen)
    assert "delivered path=file" in everything
    assert "LoginRefused" in everything
    for secret in (password, wrong, PASSPHRASE):
        assert secret
        assert secret not in everything


def ended(log: str) -> bool:
    """Delivered, or refused and held."""
    return "delivered path=file" in log or "link held" in log


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def hung(error: BaseException | None) -> str:
    """The error as a handler may log it: with its causes and every local value of the frames it came through."""
    if error is None:
        return ""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())

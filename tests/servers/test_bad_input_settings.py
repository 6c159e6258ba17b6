"""Every bad setting is named at once, and a secret shows nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from servers.bad_input import Site, clean_environment, until
from servers.base import client_key
from servers.openssh import OpenSSH

from iot.sftp.client import ConfigurationError, IoTSFTPClient


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


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

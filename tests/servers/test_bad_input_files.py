"""Files that a setting names: a pipe, a folder or a device is told as such, and never waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.bad_input import Site, clean_environment
from servers.openssh import OpenSSH

from iot.sftp.client import ConfigurationError, CredentialsInvalid

PASSPHRASE = "of-the-locked-key"


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


NO_FILES = {"fifo": "is a pipe", "folder": "is a folder", "device": "is a device"}


def no_file(kind: str, folder: Path) -> Path:
    if kind == "device":
        return Path("/dev/zero")
    (os.mkfifo if kind == "fifo" else os.mkdir)(folder / "it")
    return folder / "it"


@pytest.mark.parametrize("key", ["key_file", "known_hosts", "password_file"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_a_file_setting_that_is_no_file_is_named_and_never_waited_for(
    key: str, kind: str, site: Site, tmp_path: Path
) -> None:
    path = no_file(kind, tmp_path)
    checked = site.spooler("check", **{"password": None, key: path})
    assert checked.returncode == 78, checked.stderr
    assert f"server.{key}" in checked.stderr
    assert f"cannot be read: {NO_FILES[kind]}, not a regular file" in checked.stderr


@pytest.mark.parametrize(("key", "error"), [("key_file", CredentialsInvalid), ("known_hosts", ConfigurationError)])
@pytest.mark.parametrize("kind", NO_FILES)
def test_the_client_never_waits_for_a_file_that_is_none(
    key: str, error: type[Exception], kind: str, site: Site, tmp_path: Path
) -> None:
    path = no_file(kind, tmp_path)
    with pytest.raises(error, match=f"{NO_FILES[kind]}, not a regular file"):
        site.client(password=None, **{key: path}).connect()


@pytest.mark.parametrize("kind", NO_FILES)
def test_the_command_line_never_waits_for_a_secret(kind: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "iot.sftp.client.cli.main", "ls", "--host", "localhost"]
    words += ["--password-file", str(no_file(kind, tmp_path))]
    done = subprocess.run(words, env=clean_environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert f"--password-file {tmp_path if kind != 'device' else '/dev/zero'}" in done.stderr
    assert NO_FILES[kind] in done.stderr


def test_a_secret_may_come_from_a_pipe_of_the_shell(site: Site, tmp_path: Path) -> None:
    """As in --key-passphrase-file <(pass show device)."""
    locked = tmp_path / "locked"
    shutil.copy(str(site.server.key_file), locked)  # with its mode
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", PASSPHRASE, "-f", locked], check=True, timeout=60)
    reader, writer = os.pipe()
    words = [sys.executable, "-m", "iot.sftp.client.cli.main", "exists", site.server.path("")]
    login = {"--host": site.server.host, "--port": site.server.port, "--user": site.server.user}
    login |= {"--known-hosts": site.server.known_hosts, "--key": locked, "--key-passphrase-file": f"/dev/fd/{reader}"}
    words += [str(word) for pair in login.items() for word in pair]
    with subprocess.Popen(words, env=clean_environment(), stderr=subprocess.PIPE, pass_fds=[reader]) as typed:
        os.close(reader)
        time.sleep(0.5)  # the secret comes late: it is waited for
        os.write(writer, PASSPHRASE.encode() + b"\n")
        os.close(writer)
        _, told = typed.communicate(timeout=30)
    assert typed.returncode == 0, told

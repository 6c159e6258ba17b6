"""What `iot-sftp` says against a real sshd: what went wrong, in its own words, and what to do."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.openssh import OpenSSH
from servers.shell import COMMAND, Shell


@pytest.fixture
def shell(sshd: OpenSSH, tmp_path: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "f").write_bytes(b"content")
    return Shell(sshd, folder)


@pytest.fixture
def reads_nothing(tmp_path: Path) -> Iterator[OpenSSH]:
    """An sshd that refuses to open any file, and has one of 7 bytes."""
    with OpenSSH(tmp_path / "closed", subsystem="internal-sftp -P open") as server:
        (server.root / "g").write_bytes(b"content")
        yield server


def test_verbose_tells_server_software_and_algorithms(shell: Shell, sshd: OpenSSH) -> None:
    done = shell("put", "-v", "f", sshd.path("f"))
    for expected in (
        'software="SSH-2.0-OpenSSH_',
        "host_key=ssh-",
        "fingerprint=SHA256:",
        "cipher=",
        f"port={sshd.port}",
    ):
        assert expected in done.stderr.decode()
    assert b"connected" not in shell("put", "f", sshd.path("g")).stderr


def test_quiet_and_verbose_may_come_from_the_environment_and_before_the_command(shell: Shell, sshd: OpenSSH) -> None:
    assert shell("put", "f", sshd.path("f"), SFTP_QUIET="1").stderr == b""
    assert shell("-q", "put", "f", sshd.path("f2")).stderr == b""
    assert b"connected" in shell("exists", sshd.path("f"), SFTP_VERBOSE="1").stderr


def test_options_stand_before_or_after_the_command(shell: Shell, sshd: OpenSSH) -> None:
    server = ("-H", sshd.host, "-P", str(sshd.port), "-u", sshd.user, "--proof", "full")
    nothing = {"SFTP_HOST": "", "SFTP_PORT": "", "SFTP_USER": ""}
    done = shell(*server, "put", "f", sshd.path("a"), **nothing)
    assert (done.returncode, b"proof full" in done.stderr) == (0, True)
    done = shell("put", *server, "f", sshd.path("b"), **nothing)
    assert (done.returncode, b"proof full" in done.stderr) == (0, True)


def test_a_folder_as_remote_name_is_said_with_what_was_meant(shell: Shell, sshd: OpenSSH) -> None:
    (sshd.root / "far").mkdir()
    done = shell("put", "-T", "f", sshd.path("far"))
    assert done.returncode == 74
    assert f"is a folder; did you mean '{sshd.path('far/f')}'?" in done.stderr.decode()
    assert sshd.names() == []


def test_a_download_that_never_began_leaves_nothing_here(reads_nothing: OpenSSH, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = Shell(reads_nothing, folder)("get", reads_nothing.path("g"))
    assert done.returncode == 77
    assert b"permission denied" in done.stderr.lower()
    assert [path.name for path in folder.iterdir()] == ["state"]


def test_errors_speak_of_options_as_they_are_given(shell: Shell, sshd: OpenSSH, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    unknown = shell("exists", "/", "--known-hosts", str(tmp_path / "none")).stderr.decode()
    assert "--host-key SHA256:" in unknown
    assert str(tmp_path / "none") in unknown
    nothing = shell("exists", "/", SFTP_KEY="")
    assert nothing.returncode == 78
    assert b"--key, or --agent with" in nothing.stderr
    assert b"agent=True" not in nothing.stderr


def test_a_password_file_may_be_named_by_its_variable(sshd_with_password: OpenSSH, tmp_path: Path) -> None:
    shell = Shell(sshd_with_password, tmp_path)
    (tmp_path / "pw").write_text(f"{sshd_with_password.password}\n")
    assert shell("exists", sshd_with_password.path(), SFTP_PASSWORD_FILE="pw").returncode == 0
    missing = shell("exists", sshd_with_password.path(), SFTP_PASSWORD_FILE="nowhere")
    assert missing.returncode == 78
    assert b"SFTP_PASSWORD_FILE nowhere: No such file" in missing.stderr


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [
        ("<&-", ["put", "-", "f"], 74),
        ("<&-", ["rm", "-r", "folder"], 64),
        (">&-", ["ls", "."], 74),
        (">&-", ["put", "source", "f"], 0),
        ("2>&-", ["put", "source", "f"], 0),
        ("<&- >&- 2>&-", ["put", "source", "f"], 0),
    ],
)
def test_a_closed_standard_stream_is_no_mistake_of_the_program(
    closed: str, words: list[str], code: int, shell: Shell, sshd: OpenSSH
) -> None:
    (shell.folder / "source").write_bytes(b"content")
    words = [sshd.path("f") if word == "f" else word for word in words]
    line = f"{shlex.join([*COMMAND, *words])} {closed}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=shell.folder, env=shell.environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
    assert [sshd.content(name) for name in sshd.names()] == ([b"content"] if code == 0 else [])


@pytest.mark.parametrize("mode", [0o666, 0o640, 0o601])
def test_a_private_key_that_others_may_use_is_refused_with_what_to_do(
    mode: int, shell: Shell, sshd: OpenSSH, tmp_path: Path
) -> None:
    key = tmp_path / "a key"
    shutil.copy(str(sshd.key_file), key)
    key.chmod(mode)
    done = shell("exists", sshd.path(), "--key", str(key))
    assert done.returncode == 78
    assert f"--key {key} may be read by others (mode {mode:04o}): chmod 600 '{key}'" in done.stderr.decode()
    key.chmod(0o600)
    assert shell("exists", sshd.path(), "--key", str(key)).returncode == 0


@pytest.mark.needs("root")
def test_a_private_key_of_another_user_is_not_ours_to_judge(shell: Shell, sshd: OpenSSH, tmp_path: Path) -> None:
    shutil.copy(str(sshd.key_file), tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    os.chown(tmp_path / "key", 1, 1)
    assert shell("exists", sshd.path(), "--key", str(tmp_path / "key")).returncode == 0


def test_a_password_file_that_others_may_read_is_warned_of(sshd_with_password: OpenSSH, tmp_path: Path) -> None:
    shell = Shell(sshd_with_password, tmp_path)
    (tmp_path / "pw").write_text(f"{sshd_with_password.password}\n")
    (tmp_path / "pw").chmod(0o644)
    done = shell("exists", sshd_with_password.path(), "--password-file", "pw")
    assert done.returncode == 0
    assert done.stderr == b"warning: --password-file pw may be read by others (mode 0644): chmod 600 pw\n"
    (tmp_path / "pw").chmod(0o600)
    assert shell("exists", sshd_with_password.path(), "--password-file", "pw").stderr == b""


def test_a_missing_key_and_a_missing_password_file_end_alike(shell: Shell) -> None:
    for option in ("--key", "--password-file", "--key-passphrase-file", "--prompt-file", "--env-file"):
        done = shell("exists", "/", option, "missing")
        assert (option, done.returncode) == (option, 78)
        assert b"missing" in done.stderr

"""`user@host:path` and its kin against a real sshd, nothing of a server in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers.openssh import OpenSSH
from servers.shell import Shell


@pytest.fixture
def shell(sshd: OpenSSH, tmp_path: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "f").write_bytes(b"content")
    shell = Shell(sshd, folder)
    for name in ("SFTP_HOST", "SFTP_PORT", "SFTP_USER"):
        del shell.environment[name]
    return shell


def test_a_server_may_stand_in_the_path_of_every_command(shell: Shell, sshd: OpenSSH) -> None:
    short, port = f"{sshd.user}@{sshd.host}", str(sshd.port)
    uri = f"sftp://{short}:{port}"
    for done in (
        shell("put", "f", f"{short}:{sshd.path('in/')}", "-P", port),
        shell("get", uri + sshd.path("in/f"), "g"),
        shell("mv", uri + sshd.path("in/f"), sshd.path("a")),
        shell("exists", f"{sshd.host}:{sshd.path('a')}", "-P", port, "-u", sshd.user),
        shell("ls", "-H", uri, sshd.path()),
        shell("-P", port, "ls", short),
        shell("rm", uri + sshd.path("a")),
    ):
        assert done.returncode == 0, (done.args, done.stderr)
    assert (shell.folder / "g").read_bytes() == b"content"
    assert sshd.names() == []


def test_an_address_means_its_server_whatever_the_environment_says(shell: Shell, sshd: OpenSSH) -> None:
    uri = f"sftp://{sshd.user}@{sshd.host}:{sshd.port}"
    assert shell("put", "f", uri + sshd.path("f"), SFTP_HOST="nowhere.invalid", SFTP_PORT="1").returncode == 0
    done = shell("put", "f", uri + sshd.path("f"), "-H", "elsewhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (64, 2)
    assert b"one server at a time" in done.stderr


def test_what_is_meant_is_said_where_an_address_stands_in_the_wrong_place(shell: Shell) -> None:
    done = shell("put", "u@h:/x", "y")
    assert (done.returncode, b"did you mean get?" in done.stderr) == (64, True)
    done = shell("ls", "sftp://u:hunter2@h/")
    assert (done.returncode, b"no password in an address" in done.stderr) == (64, True)
    assert b"hunter2" not in done.stderr
    done = shell("ls", "/x")
    assert (done.returncode, b"host: none is given, as in user@host:path" in done.stderr) == (78, True)


def test_a_host_in_front_of_a_path_counts_where_the_env_file_names_none(shell: Shell, sshd: OpenSSH) -> None:
    (shell.folder / "named").write_text(f"SFTP_PORT={sshd.port}\nSFTP_USER={sshd.user}\nSFTP_VERBOSE=1\n")
    done = shell("put", "f", f"{sshd.host}:{sshd.path('f')}", "--env-file", "named")
    assert done.returncode == 0, done.stderr
    assert sshd.content("f") == b"content"
    assert b"INFO connected" in done.stderr
    (shell.folder / "named").write_text(f"SFTP_PORT={sshd.port}\nSFTP_HOST={sshd.user}@{sshd.host}\n")
    assert shell("put", "f", sshd.path("12:30"), "--env-file", "named").returncode == 0
    assert shell("exists", sshd.path("12:30"), "--env-file", "named").returncode == 0

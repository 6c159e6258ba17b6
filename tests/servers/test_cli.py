"""`iot-sftp` as a user types it, against the real sshd: what it does, prints, and exits with."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from faults.proxy import BadLink
from servers.base import client_key, free_port
from servers.openssh import OpenSSH
from servers.shell import COMMAND, Shell, on_a_terminal


@pytest.fixture
def shell(sshd: OpenSSH, tmp_path: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(sshd, folder)


def test_put_and_get_give_the_same_bytes_back(shell: Shell, sshd: OpenSSH) -> None:
    content = os.urandom(3_000_001)
    (shell.folder / "a file").write_bytes(content)
    done = shell("put", "a file", sshd.path("new/folder/b"), "--sha256")
    assert done.returncode == 0, done.stderr
    assert sshd.content("new/folder/b") == content
    assert done.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()
    assert b"3000001 bytes" in done.stderr
    assert b"\x1b" not in done.stderr
    done = shell("get", sshd.path("new/folder/b"), "-q", "--proof", "full", "--verify", "full")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (shell.folder / "b").read_bytes() == content


def test_put_into_a_folder_keeps_the_name(shell: Shell, sshd: OpenSSH) -> None:
    (shell.folder / "name").write_bytes(b"1")
    (sshd.root / "in").mkdir()
    assert shell("put", "name", sshd.path("in")).returncode == 0
    assert shell("put", "name", sshd.path("other/")).returncode == 0
    assert sshd.names() == ["in/name", "other/name"]


def files(shell: Shell, *names: str) -> None:
    for name in names:
        (shell.folder / name).write_text(name)


def test_a_pattern_that_the_shell_expanded_never_sends_one_file_under_the_name_of_another(
    shell: Shell, sshd: OpenSSH
) -> None:
    files(shell, "a.csv", "b.csv", "c.csv")
    for words in (["a.csv", "b.csv"], ["a.csv", "b.csv", "c.csv"]):
        done = shell("put", *words)
        assert done.returncode == 64
        assert f"{words[-1]} is a file on this machine: did the shell expand a pattern?".encode() in done.stderr
        assert b"FOLDER/" in done.stderr
    assert (b"-T" in shell("put", "a.csv", "b.csv").stderr.splitlines()[-1]) is True
    assert sshd.names() == []


def test_a_pattern_that_ends_with_a_folder_never_sends_a_file_under_its_name(shell: Shell, sshd: OpenSSH) -> None:
    """`put *` beside a folder: unless the server has one of that name, nobody meant the folder's."""
    files(shell, "a.csv")
    (shell.folder / "logs").mkdir()
    (shell.folder / "none").symlink_to("nowhere")
    for dest, what in (("logs", b"a folder"), ("none", b"a name")):
        done = shell("put", "a.csv", dest)
        assert done.returncode == 64
        assert f"{dest} is ".encode() + what + b" on this machine: did the shell expand a pattern?" in done.stderr
    assert sshd.names() == []
    (shell.folder / "up").mkdir()
    (sshd.root / "up").mkdir()
    assert shell("put", "a.csv", sshd.path("up")).returncode == 0
    assert shell("put", "a.csv", "-T", sshd.path("logs")).returncode == 0
    assert sshd.names() == ["logs", "up/a.csv"]


@pytest.mark.parametrize(("source", "dest"), [("made/", "made"), ("./made", "made"), ("made", "./made")])
def test_the_name_of_the_source_itself_comes_from_no_pattern(shell: Shell, source: str, dest: str) -> None:
    """However it is written: a shell that completes the name of a folder ends it in /."""
    (shell.folder / "made").mkdir()
    files(shell, "made/a.csv")
    done = shell("put", "-r", "--dry-run", source, dest)
    assert done.returncode == 0, done.stderr
    assert b"made/a.csv" in done.stdout


def test_one_remote_name_for_several_files_is_refused(shell: Shell, sshd: OpenSSH) -> None:
    files(shell, "a.csv", "b.csv")
    done = shell("put", "-T", "a.csv", "b.csv", sshd.path("new"))
    assert done.returncode == 64
    assert b"-T names one remote file" in done.stderr
    assert sshd.names() == []


def test_several_files_go_into_a_folder(shell: Shell, sshd: OpenSSH) -> None:
    files(shell, "a.csv", "b.csv", "c.csv")
    done = shell("put", "a.csv", "b.csv", sshd.path("new/"))
    assert done.returncode == 0, done.stderr
    assert shell("put", "a.csv", "b.csv", "c.csv", sshd.path("new")).returncode == 0
    assert sshd.names() == ["new/a.csv", "new/b.csv", "new/c.csv"]
    assert sshd.content("new/b.csv") == b"b.csv"


@pytest.mark.parametrize("dest", ["nowhere", "there"])
def test_several_files_without_a_folder_are_refused_and_nothing_is_sent(shell: Shell, sshd: OpenSSH, dest: str) -> None:
    files(shell, "a.csv", "b.csv")
    (sshd.root / "there").write_bytes(b"a file")
    done = shell("put", "a.csv", "b.csv", sshd.path(dest), "--known-hosts", str(sshd.known_hosts))
    assert done.returncode == 64
    assert b"need a folder as DEST" in done.stderr or b"is a file on this machine" in done.stderr
    assert (sshd.names(), sshd.content("there")) == (["there"], b"a file")


def test_two_files_of_one_name_are_refused_and_nothing_is_sent(shell: Shell, sshd: OpenSSH) -> None:
    for folder in ("x", "y"):
        (shell.folder / folder).mkdir()
        (shell.folder / folder / "a.csv").write_text(folder)
    done = shell("put", "x/a.csv", "y/a.csv", sshd.path("in/"))
    assert done.returncode == 64
    assert b"several of the files are called a.csv" in done.stderr
    assert sshd.names() == []


def test_one_file_that_cannot_be_sent_does_not_hold_up_the_others(shell: Shell, sshd: OpenSSH) -> None:
    files(shell, "a.csv", "c.csv")
    done = shell("put", "a.csv", "missing", "c.csv", sshd.path("in/"))
    assert done.returncode == 1
    assert b"missing" in done.stderr
    assert sshd.names() == ["in/a.csv", "in/c.csv"]


def test_a_file_under_the_name_of_another_is_sent_when_asked_for(shell: Shell, sshd: OpenSSH) -> None:
    """-T; and a name given twice comes from no pattern."""
    name = sshd.path("a.csv")
    for words in (["a.csv", name, "-T"], ["b.csv", name, "-T"], [name, name]):
        files(shell, "a.csv", "b.csv")
        done = shell("put", *words)
        assert done.returncode == 0, done.stderr
    assert sshd.content("a.csv") == b"b.csv"


def test_get_compares_with_the_expected_hash(shell: Shell, sshd: OpenSSH) -> None:
    (sshd.root / "f").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    done = shell("get", sshd.path("f"), "--sha256", digest)
    assert done.returncode == 0, done.stderr
    assert b"proof full (expected SHA-256)" in done.stderr
    done = shell("get", sshd.path("f"), "-q", "--print-sha256")
    assert done.stdout.split()[0].decode() == digest
    (shell.folder / "f").unlink()
    done = shell("get", sshd.path("f"), "--sha256", "0" * 64)
    assert done.returncode == 74
    assert digest.encode() in done.stderr
    assert shell("get", sshd.path("f"), "--sha256", "12").returncode == 78
    assert not list(shell.folder.glob("f*"))


def test_get_of_a_generated_file_gives_all_of_it(shell: Shell) -> None:
    done = shell("get", "/proc/version", "f")
    assert done.returncode == 0, done.stderr
    assert (shell.folder / "f").read_bytes() == Path("/proc/version").read_bytes()
    assert b"proof none (end of file)" in done.stderr


def test_a_password_never_goes_to_the_host_of_an_env_file_that_nobody_asked_for(tmp_path: Path) -> None:
    """Not even a connection is made there."""
    with socket.create_server(("127.0.0.1", 0)) as evil:
        evil.settimeout(0.5)
        port = evil.getsockname()[1]
        foreign = f"SFTP_HOST=127.0.0.1\nSFTP_PORT={port}\nSFTP_HOST_KEY=SHA256:{'A' * 43}\nSFTP_ATTEMPTS=1\n"
        (tmp_path / ".env").write_text(foreign)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SFTP_")}
        environment |= {"SFTP_PASSWORD": "hunter2", "SFTP_CONNECT_TIMEOUT_S": "1", "SFTP_LINK_DEADLINE_S": "1"}
        done = subprocess.run(
            [*COMMAND, "exists", "/"], cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
        )
        with pytest.raises(TimeoutError):
            evil.accept()
    assert done.returncode == 78
    assert b"SFTP_HOST, SFTP_PORT, SFTP_HOST_KEY unless it is asked for: --env-file" in done.stderr
    assert str(tmp_path / ".env").encode() in done.stderr


def test_small_commands(shell: Shell, sshd: OpenSSH) -> None:
    assert shell("mkdir", sshd.path("a/b")).returncode == 0
    (shell.folder / "f").write_bytes(b"1")
    assert shell("put", "f", sshd.path("a/f.txt"), "-q").returncode == 0
    listed = shell("ls", sshd.path("a"))
    assert listed.stdout.decode().split() == ["b/", "f.txt"]
    assert shell("ls", sshd.path("a"), "--files").stdout.decode().split() == ["f.txt"]
    assert shell("ls", sshd.path("a"), "--directories").stdout.decode().split() == ["b/"]
    assert shell("mv", sshd.path("a/f.txt"), sshd.path("g")).returncode == 0
    assert shell("exists", sshd.path("g")).returncode == 0
    assert shell("exists", sshd.path("a/f.txt")).returncode == 1
    assert shell("rm", sshd.path("g")).returncode == 0
    assert shell("rm", sshd.path("g")).returncode == 1
    assert shell("ls", sshd.path("nowhere")).returncode == 1
    assert sshd.names() == []


def test_any_name_arrives_and_programs_get_its_bytes(shell: Shell, sshd: OpenSSH) -> None:
    name = b"-a\x1b[31m\n\xff"
    (Path(os.fsencode(shell.folder).decode()) / os.fsdecode(name)).write_bytes(b"1")
    done = shell("put", "--", b"./" + name, os.fsencode(sshd.path()) + b"/" + name)
    assert done.returncode == 0, done.stderr
    assert os.listdir(os.fsencode(sshd.root)) == [name]
    assert b"\x1b" not in done.stderr
    assert shell("ls", "-0", sshd.path()).stdout == name + b"\0"


def test_names_on_a_terminal_are_escaped(shell: Shell, sshd: OpenSSH) -> None:
    (sshd.root / "a\x1b[31mb").write_bytes(b"")
    assert b"a\\x1b[31mb" in on_a_terminal(shell, "ls", sshd.path())


def test_a_terminal_shows_progress(shell: Shell, sshd: OpenSSH) -> None:
    (shell.folder / "f").write_bytes(os.urandom(8_000_000))
    said = on_a_terminal(shell, "put", "f", sshd.path("f"))
    assert re.search(rb"f  \[=* *\]  \d+ %  ", said)
    assert b"8000000 bytes in " in said


@pytest.mark.parametrize(
    ("number", "words", "dest", "end"),
    [
        (signal.SIGINT, ["f"], "f", ""),
        (signal.SIGTERM, ["f"], "f", ""),
        (signal.SIGINT, ["-r", "d"], "new", " -T"),  # the new folder is there when the command is run again
    ],
)
def test_a_stopped_put_says_how_to_go_on_and_does(
    shell: Shell, sshd: OpenSSH, number: signal.Signals, words: list[str], dest: str, end: str, tmp_path: Path
) -> None:
    content = os.urandom(8_000_000)
    (shell.folder / "d").mkdir()
    (shell.folder / "f").write_bytes(content)
    (shell.folder / "d" / "f").write_bytes(content)
    with BadLink(sshd.host, sshd.port, rate_bps=16e6) as link:
        known = tmp_path / "known"
        known.write_text(sshd.known_hosts.read_text().replace(f":{sshd.port} ", f":{link.port} "))
        shell.environment |= {"SFTP_PORT": str(link.port), "SFTP_KNOWN_HOSTS": str(known)}
        command = [*COMMAND, "put", *words, sshd.path(dest), "--checkpoint-s", "0.2"]
        with subprocess.Popen(command, cwd=shell.folder, env=shell.environment, stderr=subprocess.PIPE) as process:
            while link.up_bytes < 3_000_000:
                assert process.poll() is None
            process.send_signal(number)
            assert process.wait(10) == 130
            assert process.stderr is not None
            said = process.stderr.read().decode().splitlines()[-1]
        assert said == f"  iot-sftp put {' '.join(words)} {sshd.path(dest)} --checkpoint-s 0.2{end}"
        assert all(name.endswith(".part") for name in sshd.names())
        before = link.up_bytes
        link_done = shell(*shlex.split(said)[1:])
        assert link_done.returncode == 0, link_done.stderr
        assert b"resumed at" in link_done.stderr
        assert link.up_bytes - before < 6_500_000
    (name,) = sshd.names()
    assert (name, sshd.content(name)) == ("f" if dest == "f" else "new/f", content)


def test_restart_starts_over(shell: Shell, sshd: OpenSSH) -> None:
    (shell.folder / "f").write_bytes(b"1" * 100_000)
    for _ in range(2):
        done = shell("put", "f", sshd.path("f"), "--restart", "-T")  # the server's files are this machine's
        assert done.returncode == 0, done.stderr
        assert b"resumed" not in done.stderr


def test_password_comes_from_file_or_environment(sshd_with_password: OpenSSH, tmp_path: Path) -> None:
    shell = Shell(sshd_with_password, tmp_path)
    password = sshd_with_password.password or ""
    (tmp_path / "pw").write_text(password + "\n")
    assert shell("exists", sshd_with_password.path(), "--password-file", "pw").returncode == 0
    assert shell("exists", sshd_with_password.path(), SFTP_PASSWORD=password).returncode == 0
    (tmp_path / ".env").write_text(f"SFTP_PASSWORD={password}\n")
    assert shell("exists", sshd_with_password.path()).returncode == 0
    (tmp_path / ".env").unlink()
    done = shell("exists", sshd_with_password.path(), SFTP_PASSWORD="wrong-secret")
    assert done.returncode == 77
    assert b"wrong-secret" not in done.stderr


def test_exit_codes_of_what_goes_wrong(shell: Shell, sshd: OpenSSH, tmp_path: Path) -> None:
    path = sshd.path()
    other = str(client_key("rsa", passphrase="locked"))
    assert shell("exists", path, "--port", str(free_port()), "--attempts", "1").returncode == 69
    assert shell("exists", path, "--host-key", "SHA256:" + "A" * 43).returncode == 77
    assert shell("exists", path, "--key", other).returncode == 78
    assert shell("exists", path, "--port", "70000").returncode == 78
    assert shell("exists", path, SFTP_HOST="").returncode == 78
    assert shell("put", "missing", path + "/x").returncode == 1
    assert shell("exists").returncode == 64
    assert shell("nonsense").returncode == 64
    (tmp_path / "none").write_text("")
    unknown = shell("exists", path, "--known-hosts", str(tmp_path / "none"))
    assert unknown.returncode == 77
    assert b"ssh-keyscan" in unknown.stderr
    assert b"SHA256:" in unknown.stderr


def test_silent_server_ends_at_the_deadline_with_75_or_69(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        done = shell("exists", "/", "--port", port, "--link-deadline-s", "1", "--attempts", "1")
    assert done.returncode in (69, 75), done.stderr


def test_help_lists_the_exit_codes() -> None:
    done = subprocess.run([*COMMAND, "put", "--help-all"], capture_output=True, text=True, timeout=30, check=True)
    assert "exit codes:" in done.stdout
    assert "--server-durability" in done.stdout

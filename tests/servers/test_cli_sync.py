"""iot-sftp sync against the real sshd; and put -r and get -r run again, over folders that may not be listed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from servers.openssh import OpenSSH
from servers.shell import Shell


@pytest.fixture
def shell(sshd: OpenSSH, tmp_path: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(sshd, folder)


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line.split(": ")[0] for line in done.stderr.decode().splitlines()]


def test_sync_goes_both_ways_and_prunes_only_when_asked(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "d/a", "d/s/b")
    make(sshd.root, "far/old/c")
    there = sshd.path("far")
    assert lines(shell("sync", "d", f":{there}")) == [f"d/a -> {there}/a", f"d/s/b -> {there}/s/b"]
    assert lines(shell("sync", "d", f":{there}")) == []
    planned = shell("sync", "--prune", "-n", "d", f":{there}")
    assert planned.stdout.decode().splitlines() == [f"would remove {there}/old/c", f"would remove {there}/old"]
    assert files(sshd.root / "far") == ["a", "old/c", "s/b"]
    assert lines(shell("sync", "--prune", "d", f":{there}")) == [f"removed {there}/old/c", f"removed {there}/old"]
    assert files(sshd.root / "far") == ["a", "s/b"]
    make(shell.folder, "e/x")
    assert lines(shell("sync", f":{there}", "e", "--prune"))[-1] == "removed e/x"
    assert files(shell.folder / "e") == ["a", "s/b"]
    assert lines(shell("sync", f":{there}", "e", "--prune")) == []


def test_sync_takes_the_server_from_its_words(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "d/a")
    word = f"{sshd.user}@{sshd.host}:{sshd.path('far')}"
    assert len(lines(shell("sync", "d", word, SFTP_HOST="", SFTP_USER=""))) == 1
    assert files(sshd.root / "far") == ["a"]
    for words in (["d", "e"], [":a", ":b"], [word, word]):
        done = shell("sync", *words)
        assert (done.returncode, b"one of SRC and DEST must be on the server" in done.stderr) == (64, True)


def test_a_sync_that_would_remove_everything_or_too_much_says_so(shell: Shell, sshd: OpenSSH) -> None:
    (shell.folder / "d").mkdir()
    make(sshd.root, "far/a", "far/b")
    there = sshd.path("far")
    done = shell("sync", "--prune", "d", f":{there}")
    assert (done.returncode, b"the source holds no files" in done.stderr) == (74, True)
    done = shell("sync", "--prune", "typo", f":{there}")
    assert (done.returncode, b"typo" in done.stderr) == (1, True)
    done = shell("sync", "--prune", "--allow-empty", "--max-remove", "1", "d", f":{there}")
    assert (done.returncode, b"--max-remove permits 1" in done.stderr) == (74, True)
    assert files(sshd.root / "far") == ["a", "b"]
    assert shell("sync", "--prune", "--max-remove", "-1", "d", f":{there}").returncode == 64
    shell("sync", "--prune", "--allow-empty", "d", f":{there}")
    assert files(sshd.root / "far") == []


def test_get_r_under_a_given_name_goes_to_the_same_folder_again(shell: Shell, sshd: OpenSSH) -> None:
    make(sshd.root, "far/a", "far/b")
    for _ in range(2):
        assert len(lines(shell("get", "-r", "-T", sshd.path("far"), "new"))) == 2
    assert files(shell.folder / "new") == ["a", "b"]
    done = shell("get", "-T", sshd.path("far/a"), sshd.path("far/b"), "new")
    assert (done.returncode, b"-T names one local file" in done.stderr) == (64, True)


@pytest.mark.needs("root")
def test_put_update_goes_on_over_a_folder_there_that_cannot_be_listed(shell: Shell, sshd: OpenSSH) -> None:
    """What cannot be compared is sent; a link to nowhere in its place cannot be listed, either."""
    make(shell.folder, "d/a", "d/s/b", "d/z")
    make(sshd.root, "far/z")
    (sshd.root / "far/s").symlink_to("nowhere")
    done = shell("put", "-r", "-T", "--update", "d", sshd.path("far"))
    assert done.returncode == 74
    assert (sshd.root / "far/a").exists()
    assert b"far/s is a link that cannot be followed" in done.stderr

"""put, get, rm, mv and their kin with many files, folders, patterns and streams, against the real sshd."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from servers.openssh import OpenSSH
from servers.shell import COMMAND, Shell, on_a_terminal


@pytest.fixture
def shell(sshd: OpenSSH, tmp_path: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(sshd, folder)


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (time.time() - 3600, 1_000_000_000))


def names(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if "state" not in path.parts[len(folder.parts) :][:1])
    return sorted(str(path.relative_to(folder)) + ("/" if path.is_dir() else "") for path in found)


def ok(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    assert done.returncode == 0, (done.args, done.stderr)
    return done


def test_a_folder_arrives_as_a_folder_with_empty_ones_and_comes_back(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "d/a", "d/.hidden", "d/s/t/b")
    (shell.folder / "d/empty").mkdir()
    (sshd.root / "there").mkdir()
    ok(shell("put", "-r", "d", sshd.path("new")))
    ok(shell("put", "-r", "d", sshd.path("there")))
    expected = [".hidden", "a", "empty/", "s/", "s/t/", "s/t/b"]
    assert names(sshd.root / "new") == names(sshd.root / "there/d") == expected
    ok(shell("get", "-r", sshd.path("new"), "back"))
    ok(shell("get", "-r", sshd.path("new"), "."))
    assert names(shell.folder / "back") == names(shell.folder / "new") == expected
    assert (shell.folder / "back/s/t/b").read_text() == "d/s/t/b"


def test_a_folder_without_r_is_refused_and_the_others_go(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "d/a", "f")
    done = shell("put", "d", "f", sshd.path("in/"))
    assert (done.returncode, b"d is a folder; send it with -r" in done.stderr) == (74, True)
    assert sshd.names() == ["in/f"]
    done = shell("get", sshd.path("in"), "x")
    assert (done.returncode, b"is a folder; fetch it with -r" in done.stderr) == (74, True)


def test_several_files_and_patterns_on_both_sides(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "a.csv", "b.csv", ".c.csv", "[x].txt")
    ok(shell("put", "*.csv", "[x].txt", sshd.path("in/")))
    assert sshd.names() == ["in/[x].txt", "in/a.csv", "in/b.csv"]
    make(sshd.root, "in/.hidden.csv", "in2/d.csv")
    done = ok(shell("get", sshd.path("in*/*.csv"), sshd.path("in/[x].txt"), "out/"))
    assert names(shell.folder / "out") == ["[x].txt", "a.csv", "b.csv", "d.csv"]
    assert len(done.stderr.splitlines()) == 4
    done = shell("get", sshd.path("in/*.nope"), sshd.path("in/a.csv"), "out2/")
    assert (done.returncode, names(shell.folder / "out2")) == (1, ["a.csv"])
    assert b"nothing on the server matches" in done.stderr
    assert shell("get", sshd.path("in/*.csv"), "one-name").returncode == 64


def test_two_files_never_share_a_destination(shell: Shell, sshd: OpenSSH) -> None:
    for root in (shell.folder, sshd.root):
        make(root, "a/x", "b/x", "b/y")
    done = shell("put", "-r", "a/.", "b/.", sshd.path("in/"))
    assert (done.returncode, b"two files would go to" in done.stderr) == (64, True)
    done = shell("get", "-r", sshd.path("a/."), sshd.path("b/./."), "out/")
    assert (done.returncode, b"would come to" in done.stderr or b"several of the files" in done.stderr) == (64, True)
    assert not (sshd.root / "in").exists()
    assert not list(shell.folder.rglob("out/x"))
    done = shell("get", "-r", sshd.path("a"), "-")
    assert (done.returncode, done.stdout, (shell.folder / "-").exists()) == (74, b"", False)


def test_no_shell_sees_a_name_of_a_pattern(shell: Shell, sshd: OpenSSH) -> None:
    evil = "$(touch owned);`touch owned`;a.csv"
    make(sshd.root, f"in/{evil}")
    ok(shell("get", sshd.path("in/*.csv"), "."))
    ok(shell("put", "./$(touch*", sshd.path("back/")))
    assert (sshd.names()[0], names(shell.folder)) == (f"back/{evil}", [evil])


@pytest.mark.parametrize("size", [6, 65_536 + 1, 300_000])
def test_streams(shell: Shell, sshd: OpenSSH, size: int) -> None:
    """The last bytes of a stream are the ones that a buffer keeps back."""
    content = os.urandom(size)
    command = [*COMMAND, "put", "-", sshd.path("f"), "--sha256"]
    done = subprocess.run(
        command, cwd=shell.folder, env=shell.environment, input=content, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sshd.content("f") == content
    make(sshd.root, "g")
    assert done.stderr.startswith(f"- -> {sshd.path('f')}: {size} bytes".encode())
    fetched = ok(shell("get", sshd.path("f"), sshd.path("g"), "-"))
    assert fetched.stdout == content + b"g"
    assert fetched.stderr.splitlines()[1].startswith(f"{sshd.path('g')} -> -: 1 bytes".encode())
    assert shell("put", "-", sshd.path("in/")).returncode == 64
    assert shell("put", "-").returncode == 64
    assert names(shell.folder) == []


def test_update_sends_and_fetches_only_what_differs(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "d/a", "d/b", "d/s/c")
    ok(shell("put", "-r", "--update", "d", sshd.path("d"), "-T"))
    assert ok(shell("put", "-r", "--update", "d", sshd.path("d"), "-T")).stderr == b""
    (shell.folder / "d/b").write_text("new content")
    done = ok(shell("put", "-r", "--update", "d", sshd.path("d"), "-T"))
    assert [line.split(b" ")[0] for line in done.stderr.splitlines()] == [b"d/b"]
    ok(shell("get", "-r", "--update", sshd.path("d"), "e"))
    assert ok(shell("get", "-r", "--update", sshd.path("d"), "e", "-n")).stdout.count(b"\n") == 3
    ok(shell("get", "-r", "--update", sshd.path("d/."), "e"))
    assert (shell.folder / "e/b").read_text() == "new content"


def test_dry_run_tells_and_does_nothing(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, "d/a", "d/s/b")
    done = ok(shell("put", "-rn", "d", sshd.path("new")))
    assert done.stdout.decode().splitlines() == [
        f"would send d/a -> {sshd.path('new/a')} (3 B)",
        f"would send d/s/b -> {sshd.path('new/s/b')} (5 B)",
    ]
    assert sshd.names() == []
    make(sshd.root, "x/y")
    assert b"would fetch" in ok(shell("get", "-r", "--dry-run", sshd.path("x"))).stdout
    assert names(shell.folder) == ["d/", "d/a", "d/s/", "d/s/b"]


def test_links_are_followed_to_files_and_never_into_folders(shell: Shell, sshd: OpenSSH) -> None:
    for root in (shell.folder, sshd.root):
        make(root, "d/a", "far/secret")
        (root / "d/file").symlink_to("a")
        (root / "d/loop").symlink_to(".")
        (root / "d/far").symlink_to("../far")
    done = ok(shell("put", "-r", "d", sshd.path("sent")))
    assert (names(sshd.root / "sent"), done.stderr.count(b"a link to a folder")) == (["a", "file"], 2)
    done = ok(shell("get", "-r", sshd.path("d"), "got"))
    assert (names(shell.folder / "got"), done.stderr.count(b"a link to a folder")) == (["a", "file"], 2)
    ok(shell("rm", "-r", "--yes", sshd.path("d")))
    assert "far/secret" in sshd.names()
    assert not (sshd.root / "d").exists()


def test_rm_takes_patterns_and_goes_on_after_a_failure(shell: Shell, sshd: OpenSSH) -> None:
    make(sshd.root, "a.tmp", "b.tmp", "c.csv", "d/x")
    (sshd.root / "gone.lnk").symlink_to("nowhere")
    done = shell("rm", sshd.path("*.tmp"), sshd.path("nope"), sshd.path("d"), sshd.path("gone.lnk"))
    assert (done.returncode, sshd.names()) == (1, ["c.csv", "d/x"])
    assert b"d is a folder; delete it with -r" in done.stderr
    assert not (sshd.root / "gone.lnk").is_symlink()


def test_rm_of_a_folder_asks_on_a_terminal_and_needs_yes_elsewhere(shell: Shell, sshd: OpenSSH) -> None:
    make(sshd.root, "d/a", "d/s/b")
    done = shell("rm", "-r", sshd.path("d"))
    assert (done.returncode, b"say --yes" in done.stderr) == (64, True)
    said = on_a_terminal(shell, "rm", "-r", sshd.path("d"), typed=b"n\n")
    assert b"with 2 files in 2 folders? [y/N]" in said
    assert len(sshd.names()) == 2
    on_a_terminal(shell, "rm", "-r", sshd.path("d"), typed=b"y\n")
    assert sshd.names() == []
    done = shell("rm", "-r", "--yes", "/")
    assert (done.returncode, done.stderr) == (74, b"iot-sftp: / is not deleted as a whole: name what is in it\n")


def test_mv_of_two_files_of_one_name_into_a_folder_moves_nothing(shell: Shell, sshd: OpenSSH) -> None:
    make(sshd.root, "x/a.csv", "y/a.csv")
    done = shell("mv", sshd.path("*/a.csv"), sshd.path("z/"))
    assert (done.returncode, b"Nothing was moved" in done.stderr) == (64, True)
    assert [(sshd.root / name).read_text() for name in sshd.names()] == ["x/a.csv", "y/a.csv"]


def test_mv_into_a_folder_and_folders_made_and_removed(shell: Shell, sshd: OpenSSH) -> None:
    make(sshd.root, "a.csv", "b.csv")
    ok(shell("mkdir", sshd.path("x/y"), sshd.path("z")))
    ok(shell("mv", sshd.path("*.csv"), sshd.path("x")))
    ok(shell("mv", sshd.path("x/a.csv"), sshd.path("new/")))
    assert sshd.names() == ["new/a.csv", "x/b.csv"]
    assert shell("mv", sshd.path("new/a.csv"), sshd.path("x/b.csv"), sshd.path("nowhere")).returncode == 64
    ok(shell("rmdir", sshd.path("z"), sshd.path("x/[y]")))
    done = shell("rmdir", sshd.path("x"))
    assert (done.returncode, (sshd.root / "z").exists()) == (74, False)


def test_stat_tells_of_files_and_folders(shell: Shell, sshd: OpenSSH) -> None:
    make(sshd.root, "f")
    (sshd.root / "f").chmod(0o640)
    line = ok(shell("stat", sshd.path("f"))).stdout.decode()
    assert line == f"-rw-r-----            1 2001-09-09T01:46:40Z {sshd.path('f')}\n"
    row = ok(shell("stat", "--json", sshd.path("*"))).stdout.decode()
    assert f'"name": "{sshd.path("f")}", "type": "file", "size": 1' in row
    assert shell("stat", sshd.path("g")).returncode == 1


def test_many_files_share_one_connection_and_one_bar(shell: Shell, sshd: OpenSSH) -> None:
    make(shell.folder, *(f"d/{number}" for number in range(300)))
    began = time.monotonic()
    said = on_a_terminal(shell, "put", "-r", "d", sshd.path("d"))
    assert time.monotonic() - began < 30
    assert len(sshd.names()) == 300
    assert said.count(b" bytes in ") == 300
    drawn = [line for line in said.replace(b"\x1b[K", b"\r").split(b"\r") if b" files  " in line]
    assert all(len(line) < 80 for line in drawn)

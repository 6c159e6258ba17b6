"""`iot-sftp ls` against the real sshd: what it shows, and what it keeps to itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from servers.openssh import OpenSSH
from servers.shell import Shell, on_a_terminal

WHEN = 1_000_000_000


@pytest.fixture
def shell(sshd: OpenSSH, tmp_path: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(sshd, folder)


@pytest.fixture(autouse=True)
def tree(sshd: OpenSSH) -> None:
    for name in (
        "up/a.csv",
        "up/b.csv",
        "up/sub/c.csv",
        "up/.hid",
        "up/.dir/x",
        f"up/big.{'0a' * 4}.part",
        "up/my.part",
    ):
        path = sshd.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o640)
        os.utime(path, (WHEN, WHEN))
    (sshd.root / "up/link").symlink_to("sub")


def lines(shell: Shell, *words: str, code: int = 0) -> list[str]:
    done = shell("ls", *words)
    assert done.returncode == code, done.stderr
    return done.stdout.decode().splitlines()


def test_names_stand_below_the_folder_without_what_is_hidden(shell: Shell, sshd: OpenSSH) -> None:
    shown = ["a.csv", "b.csv", "link/", "my.part", "sub/"]
    assert lines(shell, sshd.path("up")) == lines(shell, sshd.path("up/")) == shown
    assert lines(shell, sshd.path("up"), "--files") == ["a.csv", "b.csv", "my.part"]
    assert lines(shell, "-a", sshd.path("up")) == [".dir/", ".hid", "a.csv", "b.csv", "big.0a0a0a0a.part", *shown[2:]]


def test_the_login_folder_is_listed_without_a_path(shell: Shell) -> None:
    assert lines(shell) == lines(shell, ".") == lines(shell, "./")
    assert not any(name.startswith(("./", "/")) for name in lines(shell, "-a"))


def test_all_below_is_listed_with_the_path_from_the_folder(shell: Shell, sshd: OpenSSH) -> None:
    assert lines(shell, "-R", sshd.path("up")) == ["a.csv", "b.csv", "link/", "my.part", "sub/", "sub/c.csv"]
    assert ".dir/x" in lines(shell, "-Ra", sshd.path("up"))


def test_files_and_patterns_are_shown_as_they_were_asked_for(shell: Shell, sshd: OpenSSH) -> None:
    assert lines(shell, sshd.path("up/a.csv")) == [sshd.path("up/a.csv")]
    assert lines(shell, sshd.path("up/*.csv")) == [sshd.path("up/a.csv"), sshd.path("up/b.csv")]
    assert lines(shell, sshd.path("up/*/*.csv")) == [sshd.path("up/link/c.csv"), sshd.path("up/sub/c.csv")]
    assert lines(shell, sshd.path("up/.h*")) == [sshd.path("up/.hid")]
    assert lines(shell, sshd.path("up/nope"), sshd.path("up/sub"), code=1) == [sshd.path("up/sub/c.csv")]
    assert lines(shell, sshd.path("up/*.nope"), code=1) == []


LONG = """\
-rw-r-----            8 2001-09-09T01:46:40Z a.csv
-rw-r-----            8 2001-09-09T01:46:40Z b.csv
-rw-r-----   1234567890 2001-09-09T01:46:40Z large.bin
drwxr-x---            - 2001-09-09T01:46:40Z sub/
-rw-r-----           12 2001-09-09T01:46:40Z sub/c.csv
"""


def test_the_long_screen_fits_80_columns(shell: Shell, sshd: OpenSSH) -> None:
    (sshd.root / "up/link").unlink()
    (sshd.root / "up/my.part").unlink()
    (sshd.root / "up/large.bin").touch(mode=0o640)
    os.truncate(sshd.root / "up/large.bin", 1_234_567_890)
    (sshd.root / "up/sub").chmod(0o750)
    for name in ("large.bin", "sub"):
        os.utime(sshd.root / "up" / name, (WHEN, WHEN))
    shown = "\n".join(lines(shell, "-lR", sshd.path("up"))) + "\n"
    folder = (sshd.root / "up/sub").stat().st_size
    assert shown == LONG.replace(f"{'-':>12} 2001", f"{folder:>12} 2001")
    assert max(map(len, shown.splitlines())) <= 80


def test_long_and_json_tell_size_time_and_mode(shell: Shell, sshd: OpenSSH) -> None:
    assert lines(shell, "-l", sshd.path("up"))[0] == "-rw-r-----            8 2001-09-09T01:46:40Z a.csv"
    rows = [json.loads(line) for line in lines(shell, "--json", sshd.path("up"))]
    assert rows[0] == {"name": "a.csv", "type": "file", "size": 8, "mtime": "2001-09-09T01:46:40Z", "mode": "0640"}
    assert [row["type"] for row in rows] == ["file", "file", "folder", "file", "folder"]


def test_names_that_are_no_text_survive_json_and_harm_no_terminal(shell: Shell, sshd: OpenSSH) -> None:
    raw = b"\x1b[2J\n\xff"
    (Path(os.fsdecode(os.fsencode(sshd.root) + b"/" + raw))).write_bytes(b"")
    [found] = [json.loads(line)["name"] for line in lines(shell, "--json", sshd.path(), "--files")]
    assert os.fsencode(found) == raw
    assert b"\x1b[2J" not in on_a_terminal(shell, "ls", "-l", sshd.path())
    assert b"\x1b[2J" not in on_a_terminal(shell, "ls", "--json", sshd.path())


def test_many_links_cost_no_round_trip_each(shell: Shell, sshd: OpenSSH) -> None:
    for number in range(300):
        (sshd.root / f"up/l{number:03d}").symlink_to("a.csv" if number % 2 else "nowhere")
    assert len(lines(shell, sshd.path("up/l[0-9]*"))) == 300

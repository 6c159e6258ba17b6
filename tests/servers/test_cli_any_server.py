"""The command line against every kind of SFTP server: folders there and back, listed, moved and removed."""

from __future__ import annotations

import json
from pathlib import Path

from servers.base import Server
from servers.shell import Shell


def test_a_folder_goes_there_is_listed_comes_back_and_is_removed(any_server: Server, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "d/s").mkdir(parents=True)
    (here / "d/a.csv").write_bytes(b"a" * 70_000)
    (here / "d/s/b.csv").write_bytes(b"")
    shell, far = Shell(any_server, here), any_server.path("cli")
    if any_server.password:
        shell.environment["SFTP_PASSWORD"] = any_server.password

    def run(*words: str) -> str:
        done = shell(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.decode()

    run("put", "-r", "d", f"{far}/")
    assert run("ls", "-R", far).split() == ["d/", "d/a.csv", "d/s/", "d/s/b.csv"]
    [row] = [json.loads(line) for line in run("ls", "--json", f"{far}/d/*.csv").splitlines()]
    assert (row["name"], row["size"]) == (f"{far}/d/a.csv", 70_000)
    run("get", "-r", f"{far}/d", "back")
    assert (here / "back/a.csv").read_bytes() == b"a" * 70_000
    assert (here / "back/s/b.csv").read_bytes() == b""
    run("mv", f"{far}/d/a.csv", f"{far}/d/s")
    assert run("ls", f"{far}/d/s").split() == ["a.csv", "b.csv"]
    run("rm", "-r", "--yes", far)
    assert shell("exists", far).returncode == 1

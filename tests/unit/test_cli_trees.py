"""Folders: what cannot be listed does not hold up the others, but rm -r deletes nothing then; else it deletes all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from iot.sftp.client.cli.main import main
from iot.sftp.server import EmbeddedServer
from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import Reply, RequestRefused

PERMISSION_DENIED = 3


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a server shows that refuses to list /d/secret, with the command line set up for it."""

    def on_opendir(self: SFTPSession, message: paramiko.Message) -> Reply:
        if b"/secret" in message.asbytes():
            raise RequestRefused(PERMISSION_DENIED, "denied")
        return opendir(self, message)

    opendir = SFTPSession.on_opendir
    monkeypatch.setattr(SFTPSession, "on_opendir", on_opendir)
    there = tmp_path / "there"
    for name in ("a", "secret/x", "z"):
        (there / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (there / "d" / name).write_text(name)
    with EmbeddedServer(there) as server:
        values = {"HOST": server.host, "PORT": str(server.port), "USER": server.user, "PASSWORD": server.password}
        values |= {"HOST_KEY": server.host_key, "SSH_CONFIG": "none", "STATE_DIR": str(tmp_path / "state")}
        for name, value in values.items():
            monkeypatch.setenv(f"SFTP_{name}", value)
        yield there


def test_get_r_fetches_the_others_and_rm_r_deletes_nothing(there: Path, tmp_path: Path) -> None:
    assert main(["get", "-r", "/d", str(tmp_path / "back")]) == 77
    assert sorted(path.name for path in (tmp_path / "back").rglob("*")) == ["a", "secret", "z"]
    assert main(["rm", "-r", "--yes", "/d"]) == 77
    assert sorted(path.name for path in there.rglob("*")) == ["a", "d", "secret", "x", "z"]


def test_put_update_sends_what_it_cannot_compare(there: Path, tmp_path: Path) -> None:
    for name in ("a", "secret/x", "new"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text("newer content")
    assert main(["put", "-r", "-T", "--update", str(tmp_path / "d"), "/d"]) == 0
    assert {path.name: path.read_text() for path in there.rglob("*") if path.is_file()} == {
        "a": "newer content",
        "x": "newer content",
        "new": "newer content",
        "z": "z",
    }


def test_sync_prunes_nothing_where_it_could_not_look(there: Path, tmp_path: Path) -> None:
    for name in ("a", "old", "secret/kept"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text("here")
    assert main(["sync", "--prune", ":/d", str(tmp_path / "d")]) == 77
    assert sorted(path.name for path in (tmp_path / "d").rglob("*")) == ["a", "kept", "old", "secret", "z"]


def test_rm_r_removes_every_file_and_folder_below(there: Path) -> None:
    for name in ("e/a", "e/s/b", "e/s/t/c", "other"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    (there / "e/link").symlink_to("../other")
    assert main(["rm", "-r", "--yes", "/e"]) == 0
    assert not (there / "e").exists()
    assert (there / "other").read_text() == "other"


def test_ls_l_shows_mode_size_and_time_in_utc(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = there / "d/a"
    file.chmod(0o640)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert main(["ls", "-l", "/d/a"]) == 0
    assert capsys.readouterr().out.split() == ["-rw-r-----", "1", "2001-09-09T01:46:40Z", "/d/a"]

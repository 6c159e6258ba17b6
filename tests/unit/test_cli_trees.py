"""get -r: what cannot be listed does not hold up the others; rm -r deletes nothing then."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from iot.sftp.client.cli.main import main
from iot.sftp.server import EmbeddedServer
from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import Reply, RequestRefused

PERMISSION_DENIED = 3


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert main(["get", "-r", "/d", str(tmp_path / "back")]) == 77
        assert sorted(path.name for path in (tmp_path / "back").rglob("*")) == ["a", "secret", "z"]
        assert main(["rm", "-r", "--yes", "/d"]) == 77
    assert sorted(path.name for path in there.rglob("*")) == ["a", "d", "secret", "x", "z"]

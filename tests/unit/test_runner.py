"""Whether a client is connected: asked of the server, and any answer is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from paramiko import Message

from iot.sftp.client import EmbeddedServer, IoTSFTPClient
from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import Reply, RequestRefused

FAILURE = 4


class NoRealPath(SFTPSession):
    def on_realpath(self, message: Message) -> Reply:
        raise RequestRefused(FAILURE, "not today")


@pytest.fixture(params=[SFTPSession, NoRealPath])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    (tmp_path / "root").mkdir()
    with EmbeddedServer(tmp_path / "root", session=request.param) as running:
        yield running


def test_a_refusal_is_an_answer_of_a_server_that_is_there_and_silence_is_none(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    with IoTSFTPClient(
        server.host,
        server.port,
        server.user,
        server.password,
        host_key=server.host_key,
        state_dir=tmp_path / "state",
        attempts=1,
    ) as client:
        assert not client.is_connected()
        client.connect()
        assert client.is_connected()
        server.stop()
        assert not client.is_connected()
        assert client.last_error is not None


def test_a_connection_is_logged_with_who_answered_and_how_it_is_encrypted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iot")
    (tmp_path / "root").mkdir()
    with EmbeddedServer(tmp_path / "root") as server:
        options = {"host_key": server.host_key, "state_dir": tmp_path / "state"}
        with IoTSFTPClient(server.host, server.port, server.user, server.password, **options) as client:
            client.connect()
    [told] = [line for line in caplog.messages if line.startswith("connected ")]
    words = dict(re.findall(r'(\w+)=(".*?"|\S+)', told))
    assert (words["host"], words["port"]) == (server.host, str(server.port))
    assert (words["host_key"], words["fingerprint"]) == ("ssh-ed25519", server.host_key)
    assert words["cipher"]
    assert words["key_exchange"]

"""Whether a client is connected: asked of the server, and any answer is one."""

from __future__ import annotations

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

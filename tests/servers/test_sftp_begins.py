"""The SFTP subsystem's first packet: what a server may make of it, and that nobody waits for it in vain."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from servers.openssh import OpenSSH

from iot.sftp.client import IoTSFTPClient, LinkLost, ProtocolError, SFTPError, Timeout


@pytest.mark.parametrize(
    ("subsystem", "error", "told"),
    [
        ("true", LinkLost, "offers no SFTP"),
        ("echo Please change your password.", ProtocolError, "packet of"),
        ("sleep 60", Timeout, "did not answer SFTP's first packet in 2 s"),
    ],
)
def test_a_server_without_sftp_is_told_as_such(
    tmp_path: Path, subsystem: str, error: type[SFTPError], told: str
) -> None:
    """With OpenSSH's name, so that the first requests are sent before the server's first packet has come."""
    (tmp_path / "source").write_bytes(b"content")
    with OpenSSH(tmp_path / "root", subsystem=subsystem) as server:
        options = {**server.login(), "state_dir": tmp_path / "state", "attempts": 1, "link_deadline_s": 2}
        with IoTSFTPClient(**options) as client:
            began = time.monotonic()
            with pytest.raises(error, match=told):
                client.upload(tmp_path / "source", server.path("file"))
            assert time.monotonic() - began < 10
    assert server.names() == []

"""A connection that does not come about leaves nothing open, and one that was closed is not made again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client import IoTSFTPClient
from iot.sftp.client.ssh import connection as module
from iot.sftp.client.ssh.boundary import translated
from iot.sftp.client.ssh.connection import Connection
from iot.sftp.client.ssh.login import Credentials
from iot.transfer.errors import Cancelled, LinkLost
from iot.transfer.rate import Meter
from iot.transfer.stop import StopFlag


class Link:
    def __init__(self) -> None:
        self.closed, self.wakeups = 0, []

    def close(self) -> None:
        self.closed += 1

    def login_over(self, wakeup_s: float) -> None:
        self.wakeups.append(wakeup_s)


class Transport:
    fails: BaseException | None = None

    def __init__(self, *_: object) -> None:
        self.closed, self.keepalives, self.remote_version, self.host_key_blob = 0, [], "SSH-2.0-x", b"key"
        if self.fails is not None:
            raise self.fails

    def connect(self, **_: object) -> None: ...

    def use_compression(self, _: bool) -> None: ...

    def is_active(self) -> bool:
        return True

    def close(self) -> None:
        self.closed += 1

    def set_keepalive(self, seconds: float) -> None:
        self.keepalives.append(seconds)


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was dialled with; the links are in `link`."""
    calls: list[dict[str, Any]] = []

    def dial(host: str, port: int, **how: Any) -> Link:
        calls.append({"host": host, "port": port, **how, "link": Link()})
        return calls[-1]["link"]

    monkeypatch.setattr(module, "dial", dial)
    monkeypatch.setattr(module, "Transport", Transport)
    monkeypatch.setattr(Transport, "fails", None)
    return calls


def target(**more: Any) -> Any:
    values = {
        "host": "h", "port": 22, "credentials": Credentials("me", "secret"), "compression": False, "redial_s": None,
        "connect_timeout_s": 30.0, "link_deadline_s": 20.0, "keepalive_s": 15.0, "congestion": None,
        "bind_address": None, "bind_interface": None, "proxy_command": None, "via": None, "proxy": None, **more,
    }  # fmt: skip
    return SimpleNamespace(**values)


@pytest.mark.parametrize("error", [LinkLost("no"), KeyboardInterrupt()])
def test_a_connection_that_fails_closes_its_socket(dialled, monkeypatch, error):
    monkeypatch.setattr(Transport, "fails", error)
    with pytest.raises(type(error)):
        Connection(target(), StopFlag(), Meter())
    assert dialled[0]["link"].closed == 1


@pytest.mark.parametrize(("connect_s", "deadline_s", "expected"), [(30.0, 20.0, 20.0), (5.0, 20.0, 5.0)])
def test_dialling_takes_no_longer_than_either_deadline_and_is_told_when_it_is_done(
    dialled, connect_s, deadline_s, expected
):
    told, stop = [], StopFlag()
    made = Connection(
        target(connect_timeout_s=connect_s, link_deadline_s=deadline_s), stop, Meter(), lambda: told.append(1)
    )
    (call,) = dialled
    assert (call["host"], call["port"], call["connect_timeout_s"], call["deadline_s"]) == (
        "h",
        22,
        expected,
        deadline_s,
    )
    assert call["cancelled"] is stop
    assert told == [1]
    made.close()
    assert (made._transport.closed, call["link"].closed) == (1, 1)


@pytest.mark.parametrize(("keepalive_s", "kept"), [(15.0, [15.0]), (0.0, [])])
def test_after_the_login_the_connection_is_kept_alive_and_wakes_up_less_often(dialled, keepalive_s, kept):
    made = Connection(target(keepalive_s=keepalive_s), StopFlag(), Meter())
    made.login_over()
    assert made._transport.keepalives == kept
    assert dialled[0]["link"].wakeups == [module.IDLE_WAKEUP_S]
    assert made.banner == "SSH-2.0-x"
    assert made.host_key.startswith("SHA256:")
    made.close()


def test_what_was_closed_while_it_connected_makes_no_connection_and_opens_no_journal(tmp_path: Path):
    client = IoTSFTPClient("h", 22, "me", "secret", host_key="SHA256:" + "A" * 43, state_dir=tmp_path / "state")
    client.close()
    with pytest.raises(Cancelled, match="closed while connecting"):
        client._runner._connect_once(SimpleNamespace(beside=None))
    assert not client._runner._books.is_open
    assert not (tmp_path / "state" / "journal.db").exists()


def test_a_client_is_shown_with_its_state_and_without_its_password(tmp_path: Path):
    client = IoTSFTPClient("h", 22, "me", "secret", host_key="SHA256:" + "A" * 43, state_dir=tmp_path / "state")
    assert "not connected" in repr(client)
    client._runner.links.current = SimpleNamespace(close=lambda: None)
    shown = repr(client)
    client._runner.links.current = None
    client.close()
    assert "connected" in shown
    assert "not connected" not in shown
    assert "secret" not in shown


def test_an_end_in_the_handshake_is_told_in_words() -> None:
    with pytest.raises(LinkLost, match=r"^h: the other side closed the connection$"), translated("h"):
        raise EOFError

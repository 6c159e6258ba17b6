"""How a connection gets to its server - straight, through a proxy, a command or another host - and how it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from iot.sftp.client.ssh import connection as module
from iot.sftp.client.ssh.connection import Connection
from iot.sftp.client.ssh.login import Credentials
from iot.sftp.client.ssh.proxy import Proxy
from iot.transfer.errors import HostKeyUnknown, LinkLost
from iot.transfer.rate import Meter
from iot.transfer.stop import StopFlag


class Link:
    """A link that was made like this."""

    def __init__(self, *how: Any) -> None:
        self.how, self.closed, self.wakeups = how, 0, []

    def close(self) -> None:
        self.closed += 1

    def login_over(self, seconds: float) -> None:
        self.wakeups.append(seconds)


class CommandLink(Link):
    """One through a command."""

    def failure(self) -> str:
        return "the ProxyCommand ended"


class Transport:
    """paramiko's transport; `fails` is raised when it connects, `version` is what the server told before."""

    fails: BaseException | None = None
    version = ""
    made: list[Transport]

    def __init__(self, link: Link, target: Any, login: Any) -> None:
        self.link, self.target, self.login = link, target, login
        self.closed, self.keepalives, self.opened, self.compressed = 0, [], [], []
        self.remote_version, self.host_key_blob = Transport.version, b"key"
        self.key_exchange, self.host_key_type, self.local_cipher = "kex", "type", "cipher"
        Transport.made.append(self)

    def connect(self, **_: object) -> None:
        if Transport.fails is not None:
            raise Transport.fails

    def use_compression(self, yes: bool) -> None:
        self.compressed.append(yes)

    def is_active(self) -> bool:
        return True

    def close(self) -> None:
        self.closed += 1

    def set_keepalive(self, seconds: float) -> None:
        self.keepalives.append(seconds)

    def open_channel(self, *how: Any, **more: Any) -> Any:
        self.opened.append((how, more))
        return "channel"


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What was dialled, run and asked, in its order."""
    did: list[tuple[str, Any]] = []

    def note(what: str, kind: type[Link]) -> Any:
        def make(*how: Any, **more: Any) -> Link:
            did.append((what, how + tuple(more.values())))
            return kind(*how)

        return make

    monkeypatch.setattr(Transport, "made", [], raising=False)
    monkeypatch.setattr(Transport, "fails", None)
    monkeypatch.setattr(Transport, "version", "")
    monkeypatch.setattr(module, "Transport", Transport)
    monkeypatch.setattr(module, "CommandLink", CommandLink)
    monkeypatch.setattr(module, "dial", note("dial", Link))
    monkeypatch.setattr(module, "by_command", note("command", CommandLink))
    monkeypatch.setattr(module, "by_channel", note("channel", Link))
    monkeypatch.setattr(module, "connect_through", note("proxy", Link))
    return did


def target(**more: Any) -> Any:
    values = {
        "host": "h", "port": 22, "credentials": Credentials("me", "secret"), "compression": False, "redial_s": 1.0,
        "connect_timeout_s": 30.0, "link_deadline_s": 20.0, "login_deadline_s": 9.0, "keepalive_s": 15.0,
        "congestion": "bbr", "bind_address": "10.0.0.1", "bind_interface": "eth0", "proxy_command": None, "via": None,
        "proxy": None, **more,
    }  # fmt: skip
    return SimpleNamespace(**values)


def made(meter: Any = None, **more: Any) -> Connection:
    return Connection(target(**more), StopFlag(), meter or Meter())


def test_straight_to_the_server_as_the_settings_say(world) -> None:
    stop = StopFlag()
    Connection(target(), stop, Meter()).close()
    assert world == [("dial", ("h", 22, 20.0, 20.0, "bbr", stop, 1.0, "10.0.0.1", "eth0"))]


def test_through_a_proxy_the_proxy_is_dialled_and_asked_for_the_server(world) -> None:
    proxy = Proxy("http", "p", 8080)
    found = made(proxy=proxy)
    (dialled, how), (asked, with_what) = world
    assert (dialled, how[:2]) == ("dial", ("p", 8080))
    assert (asked, with_what) == ("proxy", (found.link, proxy, "h", 22, 9.0))
    found.close()


def test_a_proxy_that_refuses_is_hung_up_on(world, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Link] = []

    def refuse(link: Link, *_: Any) -> None:
        asked.append(link)
        raise LinkLost("the proxy refuses")

    monkeypatch.setattr(module, "connect_through", refuse)
    with pytest.raises(LinkLost, match="the proxy refuses"):
        made(proxy=Proxy("http", "p", 8080))
    assert asked[0].closed == 1
    assert Transport.made == []


class Metered:
    """In the place of the meter of the wire."""

    def __init__(self) -> None:
        self.followed: list[Any] = []

    def follow(self, link: Any) -> None:
        self.followed.append(link)


def test_through_another_host_only_its_own_connection_goes_over_the_wire(world) -> None:
    meter = Metered()
    found = made(meter, via=target(host="jump", port=2222))
    first, second = Transport.made
    assert [what for what, _ in world] == ["dial", "channel"]
    assert meter.followed == [first.link]
    assert first.opened == [(("direct-tcpip", ("h", 22), ("127.0.0.1", 0)), {"timeout": 20.0})]
    assert first.keepalives == [15.0], "it is logged in already"
    assert world[1][1][0] == "channel"
    hop = found._hop
    assert hop is not None
    assert world[1][1][2] == hop.close
    found.close()
    assert (first.closed, second.closed, first.link.closed) == (1, 1, 1)


def test_straight_to_the_server_its_own_link_is_followed(world) -> None:
    meter = Metered()
    found = made(meter)
    assert meter.followed == [found.link]
    found.close()


def test_through_a_command_that_failed_its_own_words_are_told(world) -> None:
    Transport.fails = LinkLost("the connection broke")
    with pytest.raises(LinkLost, match=r"^h: the ProxyCommand ended$") as told:
        made(proxy_command="nc h 22")
    assert str(told.value.__cause__) == "the connection broke"
    assert world[0][1][0] == "nc h 22"
    assert Transport.made[0].link.closed == 1


@pytest.mark.parametrize(("command", "version"), [("nc h 22", "SSH-2.0-x"), (None, "")])
def test_what_fails_behind_the_version_or_without_a_command_is_told_as_it_is(world, command, version) -> None:
    Transport.fails, Transport.version = LinkLost("the connection broke"), version
    with pytest.raises(LinkLost, match=r"^the connection broke$"):
        made(proxy_command=command)
    assert (Transport.made[0].closed, Transport.made[0].link.closed) == (1, 1)


def test_a_server_that_is_not_trusted_is_left_and_the_agent_let_go(world, monkeypatch: pytest.MonkeyPatch) -> None:
    Transport.fails = HostKeyUnknown("unknown")
    closed: list[int] = []
    monkeypatch.setattr(module.Login, "close", lambda _: closed.append(1))
    with pytest.raises(HostKeyUnknown):
        made(proxy_command="nc h 22")
    assert (Transport.made[0].link.closed, closed) == (1, [1])
    Transport.fails = None
    made().close()
    assert closed == [1, 1]


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_sent_is_compressed_where_that_is_wanted(world, wanted: bool) -> None:
    found = made(compression=wanted)
    assert (True in Transport.made[0].compressed) is wanted
    found.close()


def test_what_was_agreed_on_is_told(world) -> None:
    Transport.version = "SSH-2.0-x"
    found = made()
    assert (found.banner, found.algorithms) == ("SSH-2.0-x", ("kex", "type", "cipher"))
    found.close()


def test_the_channels_of_the_pipeline_and_of_pysftp_are_opened_on_the_same_transport(world, monkeypatch) -> None:
    found, opened = made(), []
    monkeypatch.setattr(module, "SFTPChannel", lambda *how: opened.append(how) or "pipeline's")
    assert found.open_sftp_channel(True) == "pipeline's"
    assert opened == [(Transport.made[0], found.link, found.target, True)]
    sftp, asked = SimpleNamespace(closed=0), []

    def close() -> None:
        sftp.closed += 1
        raise EOFError("dead")

    sftp.close = close
    monkeypatch.setattr(paramiko.SFTPClient, "from_transport", lambda transport: asked.append(transport) or sftp)
    found._sftp_connect()
    found._sftp_connect()
    assert asked == [Transport.made[0]]
    found.close()
    assert (sftp.closed, found._sftp, found._sftp_live) == (1, None, False)
    assert (Transport.made[0].closed, found.link and found.link.closed) == (1, 1)


def test_pysftp_keeps_no_log_and_checks_no_keys_of_its_own() -> None:
    for compression in (True, False):
        found = module._CnOpts(compression)
        assert (found.log, found.ciphers, found.hostkeys, found.compression) == (False, None, None, compression)
    assert Connection._cnopts.compression is False
    assert Connection._sftp_live is False

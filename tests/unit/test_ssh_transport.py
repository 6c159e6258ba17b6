"""SSH below the connection, message by message: what a server sends is believed as far as the protocol goes."""

from __future__ import annotations

import io
import logging
import re
import threading
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from paramiko.packet import Packetizer as PlainPacketizer

from iot.sftp.client.ssh import packetizer as packets
from iot.sftp.client.ssh import transport as module
from iot.sftp.client.ssh.boundary import SHOWN, printable, translated
from iot.sftp.client.ssh.packetizer import CHACHA20, GREETING_SHOWN, MAX_PACKET_BYTES, BoundedDecompressor, Packetizer
from iot.sftp.client.ssh.transport import EXTENSIONS_MAX, Target, Transport
from iot.transfer.errors import ConfigurationError, Incompatible, LinkLost, LoginRefused, ServerBusy, Timeout


class HostKeys:
    """A policy that asks for these kinds of keys; what it is shown is noted."""

    def __init__(self, *kinds: str) -> None:
        self.kinds, self.shown = list(kinds), []

    def key_types(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("h", 22)
        return self.kinds

    def check(self, *shown: Any) -> None:
        self.shown.append(shown)


class Link:
    """What paramiko asks of a socket before there is a connection."""

    def settimeout(self, _: float) -> None: ...

    def close(self) -> None: ...


def transport(*kinds: str, login_s: float = 20.0, ciphers: tuple[str, ...] = (), login: Any = None) -> Any:
    """One that has not begun; a thread of its own it has only after start_client."""
    target = Target(
        "h", 22, None, HostKeys(*kinds), 30.0, login_s, 60.0, 15.0, ciphers, False, None  # type: ignore[arg-type]
    )  # fmt: skip
    return Transport(Link(), target, login)  # type: ignore[arg-type]


def message(*parts: Any) -> paramiko.Message:
    found = paramiko.Message()
    for part in parts:
        found.add_int(part) if isinstance(part, int) else found.add_string(part)
    found.rewind()
    return found


# -- how it begins


@pytest.mark.parametrize(("login_s", "clear_s"), [(20.0, 20.0), (90.0, 30.0)])
def test_every_phase_has_the_deadline_of_the_login(login_s: float, clear_s: float) -> None:
    found = transport(login_s=login_s)
    waits = {found.banner_timeout, found.handshake_timeout, found.auth_timeout, found.channel_timeout}
    assert waits == {found.packetizer.greeting_deadline_s} == {login_s}
    assert found.clear_to_send_timeout == clear_s
    assert (found.host_key_blob, found.key_exchange) == (b"", "")
    assert isinstance(found.packetizer, Packetizer)


def test_a_target_goes_straight_to_its_host_unless_it_is_told_otherwise() -> None:
    found = transport()._target
    assert (found.redial_s, found.bind_address, found.bind_interface) == (None, None, None)
    assert (found.proxy_command, found.via, found.proxy) == (None, None, None)


@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        (("ssh-ed25519",), ("ssh-ed25519",)),
        (("ssh-rsa", "ssh-ed25519"), ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")),
    ],
)
def test_the_kinds_of_keys_that_are_known_of_the_server_are_asked_for(kinds: Any, asked: Any) -> None:
    assert tuple(transport(*kinds).get_security_options().key_types) == asked


def test_of_an_unknown_server_any_key_will_do() -> None:
    assert tuple(transport().get_security_options().key_types) == tuple(paramiko.Transport._preferred_keys)


def test_a_cipher_that_is_not_known_is_a_wrong_setting_and_the_known_ones_are_named() -> None:
    assert tuple(transport(ciphers=("aes256-ctr",)).get_security_options().ciphers) == ("aes256-ctr",)
    with pytest.raises(ConfigurationError, match=r"^ciphers: .*; known are aes"):
        transport(ciphers=("nonsense",))


GCM, CTR = "aes128-gcm@openssh.com", "aes128-ctr"
OFFERED = ("aes128-cbc", "aes192-ctr", GCM, CTR, CHACHA20)


@pytest.mark.parametrize(
    ("aes", "expected"),
    [(True, (GCM, "aes192-ctr", CTR, CHACHA20)), (False, (CTR, "aes192-ctr", GCM, CHACHA20))],
)
def test_the_quickest_ciphers_of_this_machine_come_first_and_none_with_cbc(
    monkeypatch: pytest.MonkeyPatch, aes: bool, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, "_has_aes", lambda: aes)
    assert module._default_ciphers(OFFERED, OFFERED) == expected
    assert module._default_ciphers(OFFERED, (CTR, "aes256-ctr")) == (CTR,)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model\t: x\nflags\t\t: fpu aes sse\n", True),
        ("Features\t: fp asimd aes\n", True),
        ("flags\t\t: fpu vaes\n", False),
        ("model name\t: an aes one\n", False),
        (None, False),
    ],
)
def test_whether_the_machine_has_aes_is_told_by_its_flags(
    monkeypatch: pytest.MonkeyPatch, content: str | None, expected: bool
) -> None:
    def opened(*_: Any, **__: Any) -> Any:
        if content is None:
            raise FileNotFoundError
        return io.StringIO(content)

    monkeypatch.setattr("builtins.open", opened)
    assert module._has_aes() is expected


# -- what the server sends


def test_a_server_that_closes_says_why_whatever_its_encoding() -> None:
    found = transport()
    found._parse_disconnect(message(2, b"bye \xff!\x1b[2J", b""))
    assert type(found.saved_exception) is paramiko.SSHException
    assert re.fullmatch(r"the server closed the connection: 'bye .!\\\\x1b\[2J' \(code 2\)", str(found.saved_exception))


@pytest.mark.parametrize(
    ("logging_in", "inside", "code", "reason", "kind"),
    [
        (True, False, module.NO_MORE_METHODS, b"x", LoginRefused),
        (True, False, 2, b"Too many Authentication failures", LoginRefused),
        (True, False, 2, b"x", paramiko.SSHException),
        (True, True, module.NO_MORE_METHODS, b"x", paramiko.SSHException),
        (False, False, module.NO_MORE_METHODS, b"x", paramiko.SSHException),
        (False, False, 2, b"Too many authentication failures", paramiko.SSHException),
    ],
)
def test_a_server_that_closes_during_the_login_refuses_it(logging_in, inside, code, reason, kind) -> None:
    found = transport()
    found.auth_handler = SimpleNamespace(is_authenticated=lambda: inside) if logging_in else None
    found.authenticated = inside
    found._parse_disconnect(message(code, reason, b""))
    assert type(found.saved_exception) is kind


@pytest.mark.parametrize(("count", "fine"), [(0, True), (EXTENSIONS_MAX, True), (EXTENSIONS_MAX + 1, False)])
def test_a_server_announces_only_so_many_extensions(count: int, fine: bool) -> None:
    told = message(count, *[part for number in range(count) for part in (b"x%d" % number, b"y")])
    if fine:
        found = transport()
        found._parse_ext_info(told)
        assert len(found.server_extensions) == count
        return
    with pytest.raises(paramiko.SSHException, match=f"announced more than {EXTENSIONS_MAX} extensions"):
        transport()._parse_ext_info(told)


def test_a_server_may_send_what_its_window_allows_and_one_packet_that_was_under_way() -> None:
    channel: Any = SimpleNamespace(in_buffer=b"x" * 5, in_stderr_buffer=b"y" * 3, in_window_size=8)
    fed: list[Any] = []
    module._feed(channel, lambda *given: fed.append(given), "message")  # type: ignore[arg-type]
    channel.in_buffer = bytes(5 + MAX_PACKET_BYTES)
    module._feed(channel, lambda *_: None, None)  # type: ignore[arg-type]
    assert fed == [(channel, "message")]
    channel.in_stderr_buffer += b"z"
    with pytest.raises(paramiko.SSHException, match=f"sent {9 + MAX_PACKET_BYTES} bytes; its window is 8$"):
        module._feed(channel, lambda *_: None, None)  # type: ignore[arg-type]


def test_both_kinds_of_data_are_held_to_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[Any] = []
    monkeypatch.setattr(module, "_feed", lambda *given: fed.append(given))
    table = Transport._channel_handler_table
    for kind in (module.MSG_CHANNEL_DATA, module.MSG_CHANNEL_EXTENDED_DATA):
        table[kind]("channel", "message")
    assert fed == [
        ("channel", paramiko.Channel._feed, "message"), ("channel", paramiko.Channel._feed_extended, "message")
    ]  # fmt: skip
    assert table.keys() >= paramiko.Transport._channel_handler_table.keys()


def test_what_is_compressed_is_opened_with_a_limit_and_what_is_not_is_not_opened() -> None:
    assert Transport._compression_info["zlib"][1] is BoundedDecompressor
    assert Transport._compression_info["none"][1] is None
    assert Transport._cipher_info.keys() >= paramiko.Transport._cipher_info.keys()


# -- the steps of a login


def test_a_key_exchange_that_does_not_end_is_a_timeout_and_no_key_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ran = transport(login_s=7.0, login=SimpleNamespace(run=lambda *given: ran.append(given))), []
    begun: list[float] = []
    monkeypatch.setattr(found, "start_client", lambda *, timeout: begun.append(timeout))
    with pytest.raises(Timeout, match=r"^h did not finish the key exchange in 7 s$"):
        found.connect()
    found.initial_kex_done, found.host_key_type, found.host_key_blob = True, "ssh-ed25519", b"key"
    found.connect()
    assert found._target.host_keys.shown == [("h", 22, "ssh-ed25519", b"key")]
    assert (ran, begun) == ([(found, "h")], [7.0, 7.0])


def test_the_login_service_is_asked_for_once_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found, posted = transport(), []
    monkeypatch.setattr(found, "post", lambda each: posted.append(each.asbytes()))
    found.ensure_session()
    found.ensure_session()
    assert posted == [b"\x05\x00\x00\x00\x0cssh-userauth"]
    assert isinstance(found.auth_handler, module.AuthHandler)


@pytest.mark.parametrize(("kind", "waits"), [("ssh-rsa", 1), ("ssh-rsa-cert-v01@openssh.com", 1), ("ssh-ed25519", 0)])
def test_only_for_an_rsa_key_the_server_has_to_say_first_how_it_is_to_sign(monkeypatch, kind: str, waits: int) -> None:
    found, waited = transport(), []
    monkeypatch.setattr(found, "_await_service", lambda: waited.append(1))
    monkeypatch.setattr(found, "ensure_session", lambda: waited.append(0))
    monkeypatch.setattr(
        paramiko.ServiceRequestingTransport, "auth_publickey", lambda _, user, key: (user, key.get_name())
    )
    assert found.auth_publickey("me", SimpleNamespace(get_name=lambda: kind)) == ["me", kind]
    assert waited == [0, *[1] * waits]


def test_a_login_service_that_is_not_offered_is_waited_for_as_long_as_the_login_may_take(monkeypatch) -> None:
    found, now = transport(login_s=7.0), iter([100.0, 104.0, 107.0, 107.1])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(found, "is_active", lambda: True)
    looks: list[float] = []
    found._service_offered = SimpleNamespace(wait=looks.append)
    with pytest.raises(Timeout, match=r"^h did not offer a login in 7 s$"):
        found._await_service()
    assert (next(now, None), looks) == (None, [0.1] * 3)
    now = iter([100.0])
    monkeypatch.setattr(found, "is_active", lambda: False)
    with pytest.raises(EOFError):
        found._await_service()


def test_a_login_service_that_was_offered_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = transport()
    monkeypatch.setattr(paramiko.ServiceRequestingTransport, "_parse_service_accept", lambda *_: None)
    found._parse_service_accept(message(b"ssh-userauth"))
    found._await_service()


def test_the_key_is_kept_as_the_server_sent_it_with_the_way_it_was_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    found, checked = transport(), []
    monkeypatch.setattr(paramiko.Transport, "_verify_key", lambda _, *given: checked.append(given))
    name, engine = list(paramiko.Transport._kex_info.items())[-1]
    found.kex_engine = engine.__new__(engine)
    found._verify_key(bytearray(b"key"), b"signature")
    assert (found.host_key_blob, checked) == (b"key", [(b"key", b"signature")])
    assert paramiko.Transport._kex_info[found.key_exchange] is paramiko.Transport._kex_info[name]
    found.kex_engine = object()
    found._verify_key(b"key", b"signature")
    assert found.key_exchange == ""


def test_an_error_in_paramikos_thread_wakes_everybody_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise KeyError("x")

    found, closed = transport(), []
    monkeypatch.setattr(paramiko.ServiceRequestingTransport, "run", broken)
    monkeypatch.setattr(found, "close", lambda: closed.append(1))
    found.completion_event, found.channel_events = threading.Event(), {1: threading.Event()}
    found.run()
    assert found.completion_event.is_set()
    assert found.channel_events[1].is_set()
    assert (closed, type(found.saved_exception)) == ([1], KeyError)
    found.completion_event = None
    found.run()


def test_what_paramiko_logs_is_seen_only_by_who_looks_closely_and_cannot_act_on_a_terminal(caplog) -> None:
    found = transport()
    found.logger = logging.getLogger("iot.test.paramiko")
    caplog.set_level(logging.INFO)
    found._log(logging.ERROR, "raw")
    assert caplog.messages == []
    caplog.set_level(logging.DEBUG, "iot.test.paramiko")
    found._log(logging.ERROR, "server says %s", "x\x1b")
    found._log(logging.ERROR, ["one", "two %s"])
    found._log(logging.ERROR, "100 %s")
    assert caplog.messages == [r"server says x\x1b", "one", "two %s", "100 %s"]


# -- the lines before the packets


def test_a_greeting_that_breaks_off_is_told_with_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []

    def readline(_: Any, timeout: float) -> str:
        assert timeout == 3.0
        if isinstance(lines[0], Exception):
            raise lines[0]
        return str(lines.pop(0))

    monkeypatch.setattr(PlainPacketizer, "readline", readline)
    found = Packetizer(None)
    lines[:] = [EOFError()]
    with pytest.raises(EOFError):
        found.readline(3.0)
    lines[:] = ["220" + "x" * 200, "second", paramiko.SSHException("end")]
    assert [found.readline(3.0), found.readline(3.0)] == ["220" + "x" * 200, "second"]
    with pytest.raises(paramiko.SSHException, match=f"^end: it begins with '220{'x' * (GREETING_SHOWN - 3)}'$"):
        found.readline(3.0)
    other = Packetizer(None)
    lines[:] = ["220 welcome", OSError("broken")]
    other.readline(3.0)
    with pytest.raises(paramiko.SSHException, match=r"begins with '220 welcome', as an FTP server does$"):
        other.readline(3.0)
    assert packets.FTP_GREETING.match("421-busy")


# -- errors at the boundary


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (paramiko.ssh_exception.IncompatiblePeer("no cipher"), Incompatible, "h: no cipher"),
        (paramiko.ChannelException(1, "no"), ServerBusy, "h refuses to open another session: .*no.*"),
        (TimeoutError(), Timeout, "h did not answer in time"),
        (EOFError(), LinkLost, "h: the other side closed the connection"),
        (OSError("banner x"), LinkLost, r"h: banner x; is this an SSH server's port\?"),
        (OSError(), LinkLost, "h: OSError"),
        (KeyError(), Exception, "h violated the SSH protocol: KeyError"),
        (LoginRefused("own"), LoginRefused, "own"),
        (
            paramiko.SSHException("it begins with 'Exceeded MaxStartups'"),
            ServerBusy,
            r"h: too many others are logging in \(Exceeded MaxStartups\)",
        ),
    ],
)
def test_whatever_paramiko_raises_is_one_of_our_errors_with_its_cause(error, kind, told) -> None:
    with pytest.raises(kind, match=f"^{told}$") as caught, translated("h"):
        raise error
    assert caught.value is error or caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [("abc", 3, "abc"), ("abcd", 3, "abc..."), ("a\x1b", 5, r"a\x1b"), ("a\x1b", 4, "a\\x1..."), ("", 3, "")],
)
def test_a_servers_text_is_shown_as_far_as_there_is_room(text: str, most: int, shown: str) -> None:
    assert printable(text, most) == shown
    assert printable("x" * SHOWN) == "x" * SHOWN
    assert printable("x" * (SHOWN + 1)) == "x" * SHOWN + "..."


def test_only_an_rsa_key_has_more_than_one_way_to_sign() -> None:
    assert [module._signature_names(kind) for kind in ("sk", "zz")] == [("sk",), ("zz",)]

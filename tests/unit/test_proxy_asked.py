"""What a proxy is asked, byte for byte, and what its answers mean; what the server sends behind them is kept."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from iot.sftp.client.ssh import proxy as module
from iot.sftp.client.ssh.proxy import HEADER_BYTES, REFUSALS, Proxy, connect_through, proxy_from
from iot.transfer.errors import ConfigurationError, LinkLost, LoginRefused

SECRET = "correct-horse"
HEADER = b"HTTP/1.1 200 Connected\r\nX: y\r\n\r\n"
BEHIND = b"SSH-2.0-server"


class Link:
    """A link to a proxy that answers this, at most `most` bytes at a time; an error in its place is raised once."""

    def __init__(self, *answers: bytes | Exception, most: int = 1000) -> None:
        self.answers, self.most, self.sent = list(answers), most, b""

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def recv(self, count: int) -> bytes:
        if not self.answers:
            return b""
        first = self.answers.pop(0)
        if isinstance(first, Exception):
            raise first
        size = min(count, self.most)
        if first[size:]:
            self.answers.insert(0, first[size:])
        return first[:size]


def asked(scheme: str, *answers: bytes | Exception, user: str = "", host: str = "gw", most: int = 1000) -> Link:
    link: Any = Link(*answers, BEHIND, most=most)
    connect_through(link, Proxy(scheme, "p", 1, user, SECRET if user else ""), host, 0x1602, 5.0)
    assert link.recv(100) == BEHIND[:most], "what follows is the server's"
    return link


# -- SOCKS5

CONNECT = b"\5\1\0\3\2gw\x16\2"
NO_LOGIN, PASSWORD = b"\5\0", b"\5\2"
DONE = b"\5\0\0\1\x7f\0\0\1\0\x16"


@pytest.mark.parametrize(
    "answer",
    [DONE, b"\5\0\0\4" + bytes(16) + b"\0\x16", b"\5\0\0\3\4host\0\x16", b"\5\0\0\3\0\0\x16", b"\5\0\0\x09abcd\0\x16"],
)
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_socks_is_asked_for_the_host_by_its_name(answer: bytes, most: int) -> None:
    assert asked("socks5", NO_LOGIN, answer, most=most).sent == b"\5\1\0" + CONNECT


def test_socks_is_given_user_and_password_where_it_asks_for_them() -> None:
    login = b"\1\2me\x0d" + SECRET.encode()
    assert asked("socks5", PASSWORD, b"\1\0", DONE, user="me").sent == b"\5\2\0\2" + login + CONNECT
    assert asked("socks5", NO_LOGIN, DONE, user="me").sent == b"\5\2\0\2" + CONNECT


@pytest.mark.parametrize(
    ("answers", "user", "kind", "told"),
    [
        ([b"\4\0"], "", LinkLost, "^proxy p port 1 is no SOCKS5 proxy$"),
        ([b"\6\xff"], "", LinkLost, "is no SOCKS5 proxy$"),
        ([b"\6\0"], "", LinkLost, "is no SOCKS5 proxy$"),
        ([b"\4\xff"], "", LinkLost, "is no SOCKS5 proxy$"),
        ([PASSWORD], "", LoginRefused, "^proxy p port 1 asks for a login: give its user and proxy_password$"),
        ([b"\5\xff"], "", LoginRefused, "asks for a login"),
        ([b"\5\xff"], "me", LoginRefused, "^proxy p port 1 offers no login of ours$"),
        ([PASSWORD, b"\1\1"], "me", LoginRefused, "^proxy p port 1 refused user 'me'$"),
        ([NO_LOGIN, b"\5\1\0\1"], "", LinkLost, f"cannot connect to gw port 5634: {REFUSALS[0]}$"),
        ([NO_LOGIN, b"\5\5\0\1"], "", LinkLost, "cannot connect to gw port 5634: the connection was refused$"),
        ([NO_LOGIN, b"\5\x08\0\1"], "", LinkLost, f": {REFUSALS[7]}$"),
        ([NO_LOGIN, b"\5\x09\0\1"], "", LinkLost, ": code 9$"),
        ([NO_LOGIN, b"\5\0"], "", LinkLost, "^proxy p port 1 ended the connection$"),
    ],
)
def test_what_socks_refuses_is_told_as_what_it_is(answers: list[bytes], user: str, kind: Any, told: str) -> None:
    link: Any = Link(*answers)
    with pytest.raises(kind, match=told) as caught:
        connect_through(link, Proxy("socks5", "p", 1, user, SECRET), "gw", 0x1602, 5.0)
    assert SECRET not in str(caught.value)


# -- HTTP


@pytest.mark.parametrize(("host", "where"), [("gw", "gw:5634"), ("2001:db8::7", "[2001:db8::7]:5634")])
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_http_is_asked_to_connect(host: str, where: str, most: int) -> None:
    assert (
        asked("http", HEADER, host=host, most=most).sent
        == f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
    )


def test_http_is_given_the_login_at_once() -> None:
    token = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert asked("http", HEADER, user="me").sent == (
        f"CONNECT gw:5634 HTTP/1.1\r\nHost: gw:5634\r\nProxy-Authorization: Basic {token}\r\n\r\n".encode()
    )


@pytest.mark.parametrize("status", [b"HTTP/1.0 200", b"HTTP/1.1 299 what ever it says"])
def test_any_success_is_one(status: bytes) -> None:
    asked("http", status + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "user", "kind", "told"),
    [
        (b"HTTP/1.1 407 Login\r\n\r\n", "", LoginRefused, "^proxy p port 1 asks for a login$"),
        (b"HTTP/1.1 407 Login\r\n\r\n", "me", LoginRefused, "^proxy p port 1 refused user 'me'$"),
        (
            b"HTTP/1.1 503 Not \x1b[2Jnow\r\n\r\n",
            "",
            LinkLost,
            r"connect to gw port 5634: HTTP/1.1 503 Not \\x1b\[2Jnow$",
        ),
        (b"HTTP/1.1 100 Go on\r\n\r\n", "", LinkLost, "cannot connect"),
        (b"HTTP/2 200\r\n\r\n", "", LinkLost, "^proxy p port 1 is no HTTP proxy$"),
        (b"HTTP/1.1\r\n\r\n", "", LinkLost, "is no HTTP proxy"),
        (b"HTTP/1.1 200\r\n", "", LinkLost, "ended the connection"),
    ],
)
def test_what_http_refuses_is_told_as_what_it_is(answer: bytes, user: str, kind: Any, told: str) -> None:
    link: Any = Link(answer)
    with pytest.raises(kind, match=told) as caught:
        connect_through(link, Proxy("http", "p", 1, user, SECRET), "gw", 0x1602, 5.0)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("more", "fine"), [(0, True), (1, False)])
def test_a_header_without_end_is_given_up(more: int, fine: bool) -> None:
    header = b"HTTP/1.1 200 x\r\n"
    header += b"x" * (HEADER_BYTES - len(header) - 4 + more) + b"\r\n\r\n"
    if fine:
        asked("http", header)
        return
    with pytest.raises(LinkLost, match="is no HTTP proxy"):
        asked("http", header)


# -- both


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("host", ["", "x" * 256, "a..\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_what_is_no_name_of_a_host_is_not_asked_for(scheme: str, host: str) -> None:
    link: Any = Link(NO_LOGIN)
    with pytest.raises(LinkLost, match=r"^proxy p port 1 cannot be asked for .*: it is no host name$"):
        connect_through(link, Proxy(scheme, "p", 1), host, 22, 5.0)
    assert link.sent == (b"" if scheme == "http" else b"\5\1\0")


@pytest.mark.parametrize("host", ["a b", "a\r\nEvil: x", "a\x7f"])
def test_no_name_makes_a_line_of_its_own_for_http(host: str) -> None:
    link: Any = Link()
    with pytest.raises(LinkLost, match="it is no host name"):
        connect_through(link, Proxy("http", "p", 1), host, 22, 5.0)
    assert link.sent == b""


@pytest.mark.parametrize(
    ("host", "name"), [("x" * 255, b"x" * 255), ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}", b"xn--b-eha")]
)
def test_a_name_is_sent_as_long_as_it_may_be_and_in_its_ascii_form(host: str, name: bytes) -> None:
    sent = asked("socks5", NO_LOGIN, DONE, host=host).sent
    assert sent == b"\5\1\0\5\1\0\3" + bytes([len(name)]) + name + b"\x16\2"


def test_a_proxy_that_takes_its_time_is_waited_for_and_one_that_takes_too_long_is_not(monkeypatch) -> None:
    asked("socks5", TimeoutError(), NO_LOGIN, TimeoutError(), TimeoutError(), DONE)
    now = iter([100.0, 104.0, 104.5, 105.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    link: Any = Link(*[TimeoutError()] * 9)
    with pytest.raises(LinkLost, match=r"^proxy p port 1 gave no answer in time$"):
        connect_through(link, Proxy("http", "p", 1), "gw", 22, 5.0)
    assert len(link.answers) == 7


def test_a_link_that_breaks_is_one_of_the_proxy(monkeypatch) -> None:
    for error, told in ((OSError(5, "I/O error"), "I/O error"), (OSError("strange"), "strange")):
        with pytest.raises(LinkLost, match=f"^proxy p port 1: {told}$"):
            connect_through(Link(error), Proxy("socks5", "p", 1), "gw", 22, 5.0)  # type: ignore[arg-type]

        def refuse(_: bytes, error: OSError = error) -> int:
            raise error

        link: Any = Link()
        link.send = refuse
        with pytest.raises(LinkLost, match=f"^proxy p port 1: {told}$"):
            connect_through(link, Proxy("socks5", "p", 1), "gw", 22, 5.0)


# -- the setting


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("socks5://p", Proxy("socks5", "p", 1080)),
        ("http://p/", Proxy("http", "p", 8080)),
        ("http://me%40corp@[::1]:3128", Proxy("http", "::1", 3128, "me@corp")),
    ],
)
def test_a_proxy_is_named_by_its_address(url: str, expected: Proxy) -> None:
    assert proxy_from(url, None) == expected


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://p:x", "its port is no port"),
        ("http://p:70000", "its port is no port"),
        (f"http://me:{SECRET}@p", "use proxy_password"),
        ("http://me:@p", "use proxy_password"),
        ("ftp://p", "must be socks5://"),
        ("http://", "must be socks5://"),
        ("http://p/x", "must be socks5://"),
        (f"http://{'u' * 256}@p", "255 bytes at most"),
        ("http://a%3Ab@p", "no colon in the user"),
        ("http://a%0Ab@p", "no colon in the user"),
    ],
)
def test_an_address_that_is_none_of_a_proxy_is_refused_and_shows_no_password(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        proxy_from(url, SECRET)
    assert SECRET not in str(caught.value)


def test_user_and_password_may_be_as_long_as_the_protocol_has_room_for() -> None:
    found = proxy_from(f"http://{'u' * 255}@p", "x" * 255)
    assert (len(found.user), len(found.password)) == (255, 255)
    with pytest.raises(ConfigurationError, match="255 bytes at most"):
        proxy_from("http://u@p", "x" * 256)
    assert SECRET not in repr(Proxy("http", "p", 1, "me", SECRET))
    assert (Proxy("http", "p", 1).user, Proxy("http", "p", 1).password) == ("", "")

"""The order of what is offered at a login: only what the server asks for next, and nothing that it has refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from iot.sftp.client.ssh.login import TRIES_MAX, Credentials, Login
from iot.transfer.errors import LinkLost, LoginRefused

Answer = Callable[[], list[str]]


def accepted() -> list[str]:
    return []


def next_asked(*methods: str) -> Answer:
    return lambda: list(methods)


def refused() -> list[str]:
    raise paramiko.AuthenticationException("no")


def not_offered(*methods: str) -> Answer:
    def answer() -> list[str]:
        raise paramiko.BadAuthenticationType("not here", list(methods))

    return answer


class Server:
    """A transport whose server gives these answers, one to each method that it is asked by."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.alive = True
        self._in = False

    def _ask(self, method: str) -> list[str]:
        self.asked.append(method)
        allowed = self.answers[method].pop(0)()
        self._in = not allowed
        return allowed

    def auth_publickey(self, user: str, key: Any) -> list[str]:
        return self._ask("publickey")

    def auth_password(self, user: str, password: str, *, fallback: bool) -> list[str]:
        assert (user, password, fallback) == ("me", "secret", False)
        return self._ask("password")

    def auth_interactive(self, user: str, give: Any) -> list[str]:
        return self._ask("prompts")

    def is_active(self) -> bool:
        return self.alive

    def is_authenticated(self) -> bool:
        return self._in


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    key = tmp_path / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(key))
    key.chmod(0o600)
    return Credentials("me", "secret", key)


def log_in(server: Any, credentials: Credentials) -> list[str]:
    Login(credentials).run(server, "host")
    return list(server.asked)


def test_a_key_comes_first_and_is_enough_where_the_server_says_so(credentials: Credentials) -> None:
    assert log_in(Server(publickey=[accepted]), credentials) == ["publickey"]


def test_after_a_refused_key_the_password_is_tried(credentials: Credentials) -> None:
    assert log_in(Server(publickey=[refused], password=[accepted]), credentials) == ["publickey", "password"]


def test_a_second_step_is_the_one_that_the_server_asks_for(credentials: Credentials) -> None:
    both = Server(publickey=[next_asked("keyboard-interactive")], prompts=[accepted])
    assert log_in(both, credentials) == ["publickey", "prompts"]
    other = Server(publickey=[next_asked("password")], password=[accepted])
    assert log_in(other, credentials) == ["publickey", "password"]


def test_what_was_refused_is_never_tried_again(credentials: Credentials) -> None:
    server = Server(publickey=[refused], password=[refused])
    with pytest.raises(LoginRefused, match=r"tried key .*, password$"):  # the prompts would get the same password
        log_in(server, credentials)
    assert server.asked == ["publickey", "password"]


def test_what_was_not_offered_is_tried_once_more_when_it_is_asked_for(credentials: Credentials) -> None:
    server = Server(publickey=[not_offered("password"), accepted], password=[next_asked("publickey")])
    assert log_in(server, credentials) == ["publickey", "password", "publickey"]


def test_a_server_that_goes_round_in_circles_is_left(credentials: Credentials) -> None:
    server = Server(publickey=[not_offered("publickey")] * 9)
    with pytest.raises(LoginRefused, match="the server asks for publickey"):
        log_in(server, credentials)
    assert server.asked == ["publickey"] * TRIES_MAX


def test_a_link_that_breaks_during_the_login_is_no_refusal(credentials: Credentials) -> None:
    server = Server(publickey=[refused])
    server.alive = False
    with pytest.raises(LinkLost, match="during login"):
        log_in(server, credentials)
    assert server.asked == ["publickey"]

"""What a login has to offer: keys, agent and password, in their order, and what is told of those that are of no use."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from iot.sftp.client.ssh import login as module
from iot.sftp.client.ssh.login import AuthHandler, Credentials, Login, _end_of, _load_key, _options_for
from iot.transfer.errors import CredentialsInvalid, LinkLost, LoginRefused

SECRET = "correct-horse"


class Agent:
    """An ssh-agent with these keys; `closed` counts."""

    def __init__(self, *keys: str, connected: bool = True) -> None:
        self.keys = [SimpleNamespace(get_name=lambda: "ssh-ed25519", fingerprint=key) for key in keys]
        self._conn = object() if connected else None
        self.closed = 0

    def get_keys(self) -> list[Any]:
        return self.keys

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the ssh-agent that is asked the one that is given, or an error in its place."""

    def use(found: Any) -> Any:
        def connect() -> Any:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
        monkeypatch.setattr(paramiko, "Agent", connect)
        return found

    return use


def write_key(path: Path, passphrase: str | None = None, mode: int = 0o600) -> Path:
    paramiko.ECDSAKey.generate().write_private_key_file(str(path), password=passphrase)
    path.chmod(mode)
    return path


def steps(credentials: Credentials) -> list[str]:
    return [step.name for step in Login(credentials)._steps]


def test_secrets_are_not_shown_and_nothing_is_offered_that_was_not_given() -> None:
    assert SECRET not in repr(Credentials("me", SECRET, key_passphrase=SECRET, answers=lambda: lambda *_: SECRET))
    assert "answers" not in repr(Credentials("me"))
    bare = Credentials("me")
    assert (bare.password, bare.key_file, bare.key_passphrase, bare.answers, bare.certificate) == (None,) * 5
    assert (bare.agent, bare.identities) == (False, ())


def test_keys_come_first_then_the_agents_then_identities_then_what_is_typed(tmp_path: Path, agent: Any) -> None:
    key, more = write_key(tmp_path / "key"), write_key(tmp_path / "more")
    agent(Agent("aa:bb"))
    given = Credentials("me", SECRET, key, agent=True, identities=(more,))
    assert steps(given) == [f"key {key}", "agent's ssh-ed25519 aa:bb", f"key {more}", "password", "prompts"]


def test_who_configured_other_answers_is_asked_before_the_password_is_sent() -> None:
    assert steps(Credentials("me", SECRET, answers=lambda: lambda *_: "1")) == ["prompts", "password"]
    assert steps(Credentials("me", answers=lambda: lambda *_: "1")) == ["prompts"]


def test_an_agent_is_asked_only_where_that_was_asked_for(agent: Any) -> None:
    agent(Agent("aa:bb"))
    assert steps(Credentials("me", SECRET)) == ["password", "prompts"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Agent(), "nothing to log in with (ssh-agent: it holds no key): give a password"),
        (Agent(connected=False), "(ssh-agent: none answers)"),
        (paramiko.SSHException("strange\x1b[2J"), r"(ssh-agent: strange\x1b[2J)"),
        (OSError("refused"), "(ssh-agent: refused)"),
    ],
)
def test_an_agent_that_is_of_no_use_is_told_and_let_go(agent: Any, found: Any, told: str) -> None:
    agent(found)
    with pytest.raises(CredentialsInvalid) as caught:
        Login(Credentials("me", agent=True))
    assert told in str(caught.value)
    assert getattr(found, "closed", 1) == 1


def test_without_an_agents_socket_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(paramiko, "Agent", lambda: pytest.fail("asked"))
    with pytest.raises(CredentialsInvalid, match=r"with \(ssh-agent: SSH_AUTH_SOCK is not set\): give"):
        Login(Credentials("me", agent=True))
    with pytest.raises(CredentialsInvalid, match="nothing to log in with: give"):
        Login(Credentials("me"))


def test_an_agent_is_let_go_at_the_end_of_the_login(agent: Any) -> None:
    found = agent(Agent("aa:bb"))
    login = Login(Credentials("me", agent=True))
    assert found.closed == 0
    login.close()
    assert found.closed == 1
    Login(Credentials("me", SECRET)).close()


def test_identities_that_cannot_be_used_are_passed_over_and_told_where_nothing_else_is_there(tmp_path: Path) -> None:
    missing, locked = tmp_path / "missing", write_key(tmp_path / "locked", SECRET)
    open_to_all = write_key(tmp_path / "open", mode=0o644)
    good = write_key(tmp_path / "good")
    assert steps(Credentials("me", identities=(missing, locked, open_to_all, good))) == [f"key {good}"]
    with pytest.raises(CredentialsInvalid) as caught:
        Login(Credentials("me", identities=(missing, locked, open_to_all)))
    said = str(caught.value)
    assert f"({missing} does not exist; {locked} is encrypted: give its key_passphrase; {open_to_all} " in said
    assert "key_file /" not in said


def test_a_key_takes_the_certificate_that_is_its_own_and_no_other(tmp_path: Path, monkeypatch: Any) -> None:
    loaded: list[str] = []

    def load(_: Any, path: str) -> None:
        loaded.append(path)
        raise ValueError("of another key")

    key = write_key(tmp_path / "key")
    monkeypatch.setattr(paramiko.PKey, "load_certificate", load)
    assert _load_key(key, Credentials("me", certificate=tmp_path / "cert")) is not None
    assert loaded == [str(tmp_path / "cert")]
    assert _load_key(key, Credentials("me")) is not None
    assert len(loaded) == 1


def test_a_passphrase_opens_its_key_and_is_ignored_for_one_that_needs_none(tmp_path: Path) -> None:
    locked, plain = write_key(tmp_path / "locked", SECRET), write_key(tmp_path / "plain")
    assert _load_key(locked, Credentials("me", key_passphrase=SECRET)).can_sign()
    assert _load_key(plain, Credentials("me", key_passphrase=SECRET)).can_sign()


# -- the login itself


class Transport:
    """A server that answers each method with the next of these: what it asks for then, or an error."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers, self.asked, self.inside, self.joined = answers, [], False, []
        self.ended: Exception | None = None
        self.alive = True

    def _answer(self, method: str) -> list[str]:
        self.asked.append(method)
        answer = self.answers[method].pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.inside = not answer
        return list(answer)

    def auth_publickey(self, *_: Any) -> list[str]:
        return self._answer("key")

    def auth_password(self, _: str, password: str, *, fallback: bool) -> list[str]:
        assert (password, fallback) == (SECRET, False)
        return self._answer("password")

    def auth_interactive(self, _: str, give: Any) -> list[str]:
        assert give("", "", [("Password: ", False)]) == [SECRET]
        return self._answer("prompts")

    def is_active(self) -> bool:
        return self.alive

    def is_authenticated(self) -> bool:
        return self.inside

    def join(self, seconds: float) -> None:
        self.joined.append(seconds)

    def get_exception(self) -> Exception | None:
        return self.ended


def test_the_password_may_be_asked_for_again_by_the_step_after_one_that_it_has_passed() -> None:
    server: Any = Transport(password=[["keyboard-interactive"]], prompts=[[]])
    Login(Credentials("me", SECRET)).run(server, "h")
    assert server.asked == ["password", "prompts"]


def test_a_prompt_may_be_repeated_by_the_step_after_one_that_it_has_passed() -> None:
    login = Login(Credentials("me", answers=lambda: lambda *_: "123"))
    assert login._answers.give("", "", [("Code:", False)]) == ["123"]
    server: Any = SimpleNamespace(auth_interactive=lambda *_: [], is_authenticated=lambda: True)
    login.run(server, "h")
    assert login._answers.give("", "", [("Code:", False)]) == ["123"]


def test_a_silent_server_is_a_lost_link_and_no_refusal() -> None:
    server: Any = Transport(password=[paramiko.AuthenticationException("Authentication timeout.")])
    with pytest.raises(LinkLost, match=r"^h: connection lost during login: Authentication timeout"):
        Login(Credentials("me", SECRET)).run(server, "h")


def test_a_server_that_ends_the_connection_is_told_with_what_it_said() -> None:
    server: Any = Transport(password=[EOFError()])
    server.ended = LoginRefused("too many failures")
    with pytest.raises(LoginRefused, match="too many failures"):
        Login(Credentials("me", SECRET)).run(server, "h")
    assert server.joined == [module.ENDS_S]
    server.ended = None
    assert isinstance(_end_of(server), EOFError)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"password": [paramiko.AuthenticationException("no")]}, "h refused user 'me'; tried password$"),
        (
            {"password": [paramiko.BadAuthenticationType("x", ["publickey", "gss\x1b"])]},
            r"tried password \(not offered by the server\); the server asks for publickey, gss\\x1b$",
        ),
        ({"password": [["publickey"]]}, r"^h accepted password and asks for publickey as well: give key_file or agent"),
        ({"password": [["keyboard-interactive"]], "prompts": [["password", "keyboard-interactive"]]},
         r"tried all credentials; the server asks for password, keyboard-interactive$"),
    ],
)  # fmt: skip
def test_a_login_that_fails_says_what_was_tried_and_what_would_be_needed(answers: Any, told: str) -> None:
    server: Any = Transport(**answers)
    with pytest.raises((LoginRefused, CredentialsInvalid), match=told):
        Login(Credentials("me", SECRET)).run(server, "h")


def test_each_setting_that_would_do_is_named_once() -> None:
    assert _options_for(["keyboard-interactive", "password"]) == [
        "password", "prompt_file", "prompt_command", "prompts",
    ]  # fmt: skip
    assert _options_for(["publickey"]) == ["key_file", "agent"]
    assert _options_for(["gssapi"]) == []


def test_an_answer_is_waited_for_from_before_the_request_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """paramiko makes the event too late for a server that answers at once."""
    seen: list[Any] = []
    monkeypatch.setattr(
        module.AuthOnlyHandler,
        "send_auth_request",
        lambda self, *given: seen.append((self.auth_event, given)) or "sent",
    )
    handler = AuthHandler.__new__(AuthHandler)
    assert handler.auth_event is None
    assert handler.send_auth_request("me", "password") == "sent"
    ((event, given),) = seen
    assert isinstance(event, threading.Event)
    assert given == ("me", "password")
    handler.auth_event = threading.Event()
    assert handler.auth_event is event
    handler.send_auth_request("me", "password")
    assert seen[1][0] is not event


def test_on_windows_an_agent_needs_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Agent("aa:bb")
    monkeypatch.setattr(paramiko, "Agent", lambda: found)
    monkeypatch.setattr(module, "os", SimpleNamespace(name="nt", environ={}))
    assert steps(Credentials("me", agent=True)) == ["agent's ssh-ed25519 aa:bb"]

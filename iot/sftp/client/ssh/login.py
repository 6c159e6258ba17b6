"""Log in: credentials in order of preference, and logins of one or several steps."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import cMSG_USERAUTH_INFO_RESPONSE

from iot.sftp.client.ssh.boundary import printable, translated
from iot.sftp.client.ssh.prompts import Answerer, Answers, Password
from iot.transfer.errors import CredentialsInvalid, LinkLost, LoginRefused
from iot.transfer.givenfile import check_readable, exposure

TRIES_MAX = 2
ENDS_S = 2.0
PROMPTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Credentials:
    """What may be offered; secrets are kept out of repr. Loading a key raises CredentialsInvalid.

    answers: makes what answers the prompts of one login that do not ask for the password.
    identities: further keys; one that is not there, or that needs a passphrase, is passed over. certificate: of a key.
    """

    user: str
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    key_passphrase: str | None = field(default=None, repr=False)
    agent: bool = False
    answers: Callable[[], Answerer] | None = field(default=None, repr=False)
    identities: tuple[Path, ...] = ()
    certificate: Path | None = None


@dataclass(slots=True)
class Step:
    """One way to log in: its name, the SSH method it needs, and how to try it. ready: whether it can still be tried."""

    name: str
    method: str
    attempt: Callable[[paramiko.Transport], list[str]]
    ready: Callable[[], bool] = lambda: True
    tries: int = 0


class Login:
    """The credentials of one login, keys first; checked before anything is sent. Raises: CredentialsInvalid."""

    def __init__(self, credentials: Credentials) -> None:
        user = credentials.user
        self._user = user
        self._password = password = Password(credentials.password)
        source = credentials.answers() if credentials.answers is not None else None
        self._answers = answers = Answers(password, source)
        passed_over: list[str] = []
        self._agent = _agent(passed_over) if credentials.agent else None
        self._steps = [_key_step(user, name, key) for name, key in _keys(credentials, self._agent, passed_over)]
        typed = [
            Step(
                "password",
                "password",
                lambda transport: transport.auth_password(user, password.take(), fallback=False),
                lambda: not password.spent,
            ),
            Step(
                "prompts",
                "keyboard-interactive",
                lambda transport: transport.auth_interactive(user, answers.give),
                lambda: answers.has_any,
            ),
        ]
        # a user who configured other answers expects more prompts than the password's
        self._steps += [step for step in (typed if source is None else reversed(typed)) if step.ready()]
        if not self._steps:
            self.close()
            reasons = f" ({'; '.join(passed_over)})" if passed_over else ""
            raise CredentialsInvalid(
                f"nothing to log in with{reasons}: give a password, a key_file, or agent=True with a running ssh-agent"
                " that has keys"
            )

    def run(self, transport: paramiko.Transport, host: str) -> None:
        """Try the steps until the login succeeds; after a partial success continue with what the server asks for next.

        Raises: LoginRefused, CredentialsInvalid, LinkLost, ProtocolError.
        """
        tried: list[str] = []
        accepted: list[str] = []
        allowed: list[str] | None = None
        while step := self._next(allowed):
            step.tries += 1
            with translated(host):
                try:
                    allowed = step.attempt(transport)
                    step.tries = TRIES_MAX
                    accepted.append(step.name)
                    self._password.accepted()
                    self._answers.accepted()
                except paramiko.BadAuthenticationType as error:
                    allowed = list(error.allowed_types)
                    tried.append(f"{step.name} (not offered by the server)")
                except paramiko.AuthenticationException as error:
                    if not transport.is_active() or "timeout" in str(error):  # paramiko's wording for a silent server
                        raise LinkLost(f"{host}: connection lost during login: {error}") from error
                    step.tries = TRIES_MAX
                    tried.append(step.name)
                except EOFError:
                    raise _end_of(transport) from None
            if transport.is_authenticated():
                return
        if allowed and accepted and not {step.method for step in self._steps}.intersection(allowed):
            raise CredentialsInvalid(
                f"{host} accepted {', '.join(accepted)} and asks for {printable(', '.join(allowed))} as well: give"
                f" {' or '.join(_options_for(allowed))}"
            )
        more = f"; the server asks for {printable(', '.join(allowed))}" if allowed else ""
        raise LoginRefused(f"{host} refused user {self._user!r}; tried {', '.join(tried) or 'all credentials'}{more}")

    def close(self) -> None:
        """Disconnect from the agent."""
        if self._agent is not None:
            self._agent.close()

    def _next(self, allowed: list[str] | None) -> Step | None:
        """A refused step is never tried again; one that was not offered may be requested after another step."""
        for step in self._steps:
            if step.tries < TRIES_MAX and step.ready() and (allowed is None or step.method in allowed):
                return step
        return None


def _options_for(methods: list[str]) -> list[str]:
    """The settings that provide what the server asks for."""
    options = {
        "publickey": ("key_file", "agent"),
        "password": ("password",),
        "keyboard-interactive": ("password", "prompt_file", "prompt_command", "prompts"),
    }
    return list(dict.fromkeys(option for method in methods for option in options.get(method, ())))


class AuthHandler(AuthOnlyHandler):  # type: ignore[misc]
    """paramiko's handler, but ready for the answer before the request is sent: its event is created too late."""

    def send_auth_request(self, *arguments: Any) -> Any:
        self._answered = threading.Event()
        return super().send_auth_request(*arguments)

    @property
    def auth_event(self) -> threading.Event | None:
        return self._answered

    @auth_event.setter
    def auth_event(self, _: threading.Event | None) -> None:
        """The event already exists."""

    _answered: threading.Event | None = None

    def _parse_userauth_info_request(self, message: paramiko.Message) -> None:
        """Like paramiko's, but does not trust the number of prompts or their encoding (RFC 4256, section 3.2)."""
        if self.auth_method == "password":
            raise LoginRefused("the server requires a password change first")
        if self.auth_method != "keyboard-interactive":
            raise paramiko.SSHException("the server sent a prompt that was not expected")
        title, instructions, _, count = _text(message), _text(message), message.get_string(), message.get_int()
        if count > PROMPTS_MAX:
            raise paramiko.SSHException(f"the server sent {count} prompts at once; the limit is {PROMPTS_MAX}")
        prompts = [(_text(message), message.get_boolean()) for _ in range(count)]
        answers = self.interactive_handler(title, instructions, prompts)
        reply = paramiko.Message()
        reply.add_byte(cMSG_USERAUTH_INFO_RESPONSE)
        reply.add_int(len(answers))
        for answer in answers:
            reply.add_string(answer)
        self.transport._send_message(reply)


def _end_of(transport: paramiko.Transport) -> Exception:
    """Why the connection is closed: the transport's thread knows, a sender only finds it closed."""
    transport.join(ENDS_S)
    return transport.get_exception() or EOFError()


def _text(message: paramiko.Message) -> str:
    return str(message.get_string().decode("utf-8", "replace"))


def _key_step(user: str, name: str, key: paramiko.PKey) -> Step:
    return Step(name, "publickey", lambda transport: transport.auth_publickey(user, key))


def _agent(passed_over: list[str]) -> paramiko.Agent | None:
    """Connect to the ssh-agent; why there is none, or none of use, is added to what is passed over."""
    if not os.environ.get("SSH_AUTH_SOCK") and os.name != "nt":
        passed_over.append("ssh-agent: SSH_AUTH_SOCK is not set")
        return None
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError) as error:
        passed_over.append(f"ssh-agent: {printable(str(error))}")
        return None
    if not agent.get_keys():
        passed_over.append("ssh-agent: it holds no key" if agent._conn is not None else "ssh-agent: none answers")
    return agent


def _keys(
    credentials: Credentials, agent: paramiko.Agent | None, passed_over: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    if credentials.key_file is not None:
        yield f"key {credentials.key_file}", _load_key(credentials.key_file, credentials)
    if agent is not None:
        for key in agent.get_keys():
            yield f"agent's {key.get_name()} {key.fingerprint}", key
    for path in credentials.identities:
        try:
            exposed = exposure(path)
            if exposed:
                raise CredentialsInvalid(f"{path} {exposed}")
            yield f"key {path}", _load_key(path, credentials)
        except CredentialsInvalid as error:
            passed_over.append(str(error).removeprefix("key_file "))


def _load_key(path: Path, credentials: Credentials) -> paramiko.PKey:
    """The cause is dropped: its frames contain the passphrase, and some loggers print local variables."""
    try:
        key = _open_key(path.expanduser(), credentials.key_passphrase)
        if credentials.certificate is not None:
            with contextlib.suppress(ValueError):  # it is of another key
                key.load_certificate(str(credentials.certificate.expanduser()))
        return key
    except (paramiko.PasswordRequiredException, TypeError):
        raise CredentialsInvalid(f"key_file {path} is encrypted: give its key_passphrase") from None
    except FileNotFoundError:
        raise CredentialsInvalid(f"key_file {path} does not exist") from None
    except OSError as error:
        raise CredentialsInvalid(f"key_file {path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - cryptography and paramiko raise many kinds for a key they cannot read
        given = credentials.key_passphrase is not None
        wrong = "wrong key_passphrase" if given else "not a private key"
        raise CredentialsInvalid(f"key_file {path}: {wrong} ({type(error).__name__})") from None


def _open_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """cryptography takes the passphrase as bytes, and raises TypeError if it is missing or not needed."""
    check_readable(path)
    if passphrase is not None:
        with contextlib.suppress(TypeError):  # the key is not encrypted: ignore the passphrase, like ssh
            # positional, because paramiko 5.0 renamed this argument
            return paramiko.PKey.from_path(path, passphrase.encode())
    return paramiko.PKey.from_path(path)

"""Who we are: the credentials in their order, and a login of one or several steps."""

from __future__ import annotations

import contextlib
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
from iot.transfer.givenfile import check_readable

TRIES_MAX = 2
PROMPTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Credentials:
    """What may be offered; secrets are kept out of repr. Loading a key raises CredentialsInvalid.

    answers: makes what answers the prompts of one login that do not ask for the password.
    """

    user: str
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    key_passphrase: str | None = field(default=None, repr=False)
    agent: bool = False
    answers: Callable[[], Answerer] | None = field(default=None, repr=False)


@dataclass(slots=True)
class Step:
    """One way to log in: what it is called, the SSH method it needs, and how to try it. ready: whether it still can."""

    name: str
    method: str
    attempt: Callable[[paramiko.Transport], list[str]]
    ready: Callable[[], bool] = lambda: True
    tries: int = 0


class Login:
    """What can be offered in one login, keys first; checked before anything is sent. Raises: CredentialsInvalid."""

    def __init__(self, credentials: Credentials) -> None:
        user = credentials.user
        self._user = user
        self._password = password = Password(credentials.password)
        source = credentials.answers() if credentials.answers is not None else None
        self._answers = answers = Answers(password, source)
        self._agent = paramiko.Agent() if credentials.agent else None
        self._steps = [_key_step(user, name, key) for name, key in _keys(credentials, self._agent)]
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
        # whoever has answers beside the password expects more than that one prompt
        self._steps += [step for step in (typed if source is None else reversed(typed)) if step.ready()]
        if not self._steps:
            self.close()
            raise CredentialsInvalid(
                "nothing to log in with: give a password, a key_file, or agent=True with a running ssh-agent that has"
                " keys"
            )

    def run(self, transport: paramiko.Transport, host: str) -> None:
        """Go through the steps until the server lets us in; a partial success goes on with what it asks for next.

        Raises: LoginRefused, CredentialsInvalid, LinkLost, ProtocolError.
        """
        tried: list[str] = []
        allowed: list[str] | None = None
        while step := self._next(allowed):
            step.tries += 1
            with translated(host):
                try:
                    allowed = step.attempt(transport)
                    step.tries = TRIES_MAX
                    self._password.accepted()
                    self._answers.accepted()
                except paramiko.BadAuthenticationType as error:
                    allowed = list(error.allowed_types)
                    tried.append(f"{step.name} (not offered by the server)")
                except paramiko.AuthenticationException as error:
                    if not transport.is_active() or "timeout" in str(error):  # paramiko says so of a silent server
                        raise LinkLost(f"{host}: connection lost during login: {error}") from error
                    step.tries = TRIES_MAX
                    tried.append(step.name)
            if transport.is_authenticated():
                return
        more = f"; the server asks for {printable(', '.join(allowed))}" if allowed else ""
        raise LoginRefused(f"{host} refused user {self._user!r}; tried {', '.join(tried) or 'all we have'}{more}")

    def close(self) -> None:
        """Leave the agent."""
        if self._agent is not None:
            self._agent.close()

    def _next(self, allowed: list[str] | None) -> Step | None:
        """What is refused is never tried again; what was not offered may be asked for after another step."""
        for step in self._steps:
            if step.tries < TRIES_MAX and step.ready() and (allowed is None or step.method in allowed):
                return step
        return None


class AuthHandler(AuthOnlyHandler):  # type: ignore[misc]
    """paramiko's, but ready for the answer before the question is sent: it makes its event only afterwards."""

    def send_auth_request(self, *arguments: Any) -> Any:
        self._answered = threading.Event()
        return super().send_auth_request(*arguments)

    @property
    def auth_event(self) -> threading.Event | None:
        return self._answered

    @auth_event.setter
    def auth_event(self, _: threading.Event | None) -> None:
        """There is one already."""

    _answered: threading.Event | None = None

    def _parse_userauth_info_request(self, message: paramiko.Message) -> None:
        """As paramiko's, but it believes neither the number of prompts nor their encoding (RFC 4256, section 3.2)."""
        if self.auth_method == "password":
            raise LoginRefused("the server wants the password to be changed first")
        if self.auth_method != "keyboard-interactive":
            raise paramiko.SSHException("the server asks where nobody answers")
        title, instructions, _, count = _text(message), _text(message), message.get_string(), message.get_int()
        if count > PROMPTS_MAX:
            raise paramiko.SSHException(f"the server asks {count} things at once; {PROMPTS_MAX} are allowed")
        prompts = [(_text(message), message.get_boolean()) for _ in range(count)]
        answers = self.interactive_handler(title, instructions, prompts)
        reply = paramiko.Message()
        reply.add_byte(cMSG_USERAUTH_INFO_RESPONSE)
        reply.add_int(len(answers))
        for answer in answers:
            reply.add_string(answer)
        self.transport._send_message(reply)


def _text(message: paramiko.Message) -> str:
    return str(message.get_string().decode("utf-8", "replace"))


def _key_step(user: str, name: str, key: paramiko.PKey) -> Step:
    return Step(name, "publickey", lambda transport: transport.auth_publickey(user, key))


def _keys(credentials: Credentials, agent: paramiko.Agent | None) -> Iterator[tuple[str, paramiko.PKey]]:
    if credentials.key_file is not None:
        yield f"key {credentials.key_file}", _load_key(credentials.key_file, credentials)
    if agent is not None:
        for key in agent.get_keys():
            yield f"agent's {key.get_name()} {key.fingerprint}", key


def _load_key(path: Path, credentials: Credentials) -> paramiko.PKey:
    """No cause is kept: its frames hold the passphrase, and there are loggers that show local values."""
    try:
        return _open_key(path.expanduser(), credentials.key_passphrase)
    except (paramiko.PasswordRequiredException, TypeError):
        raise CredentialsInvalid(f"key_file {path} is encrypted: give its key_passphrase") from None
    except FileNotFoundError:
        raise CredentialsInvalid(f"key_file {path} is not there") from None
    except OSError as error:
        raise CredentialsInvalid(f"key_file {path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - cryptography and paramiko raise many kinds for a key they cannot read
        given = credentials.key_passphrase is not None
        wrong = "the key_passphrase does not open it" if given else "it is not a private key"
        raise CredentialsInvalid(f"key_file {path}: {wrong} ({type(error).__name__})") from None


def _open_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """cryptography wants the passphrase as bytes, and says TypeError when it is missing, or not needed."""
    check_readable(path)
    if passphrase is not None:
        with contextlib.suppress(TypeError):  # the key is not encrypted: it opens without, as it does for ssh
            # by position: the name of this argument changed in paramiko 5.0
            return paramiko.PKey.from_path(path, passphrase.encode())
    return paramiko.PKey.from_path(path)

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

from iot.sftp.client.errors import CredentialsInvalid, LinkLost, LoginRefused
from iot.sftp.client.givenfile import check_file


@dataclass(frozen=True, slots=True)
class Credentials:
    """What may be offered; secrets are kept out of repr. Loading a key raises CredentialsInvalid."""

    user: str
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    key_passphrase: str | None = field(default=None, repr=False)
    agent: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One way to log in: what it is called, the SSH method it needs, and how to try it."""

    name: str
    method: str
    attempt: Callable[[paramiko.Transport], list[str]]


def load_steps(credentials: Credentials) -> list[Step]:
    """All that can be offered, keys first; checked before anything is sent. Raises: CredentialsInvalid."""
    user = credentials.user
    steps = [_key_step(user, name, key) for name, key in _keys(credentials)]
    if credentials.password is not None:
        password = credentials.password
        steps.append(Step("password", "password", lambda transport: transport.auth_password(user, password)))
    if not steps:
        raise CredentialsInvalid(
            "nothing to log in with: give a password, a key_file, or agent=True with a running ssh-agent that has keys"
        )
    return steps


def log_in(transport: paramiko.Transport, steps: list[Step], user: str, host: str) -> None:
    """Go through the steps until the server lets us in; a partial success goes on with what it asks next.

    Raises: LoginRefused, LinkLost.
    """
    refused = []
    allowed: list[str] | None = None
    for step in steps:
        if allowed and step.method not in allowed:
            continue
        try:
            allowed = step.attempt(transport)
        except paramiko.BadAuthenticationType as error:
            allowed = list(error.allowed_types)
            refused.append(f"{step.name} (not offered by the server)")
        except paramiko.AuthenticationException as error:
            if not transport.is_active() or "timeout" in str(error):  # paramiko says so of a server that fell silent
                raise LinkLost(f"{host}: connection lost during login: {error}") from error
            refused.append(step.name)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise LinkLost(f"{host}: connection lost during login: {error}") from error
        if transport.is_authenticated():
            return
    more = f"; the server asks for {', '.join(allowed)}" if allowed else ""
    raise LoginRefused(f"{host} refused user {user!r}; tried {', '.join(refused) or 'all we have'}{more}")


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


def _key_step(user: str, name: str, key: paramiko.PKey) -> Step:
    return Step(name, "publickey", lambda transport: transport.auth_publickey(user, key))


def _keys(credentials: Credentials) -> Iterator[tuple[str, paramiko.PKey]]:
    if credentials.key_file is not None:
        yield f"key {credentials.key_file}", _load_key(credentials.key_file, credentials)
    if credentials.agent:
        for key in paramiko.Agent().get_keys():
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
    check_file(path)
    if passphrase is not None:
        with contextlib.suppress(TypeError):  # the key is not encrypted: it opens without, as it does for ssh
            # by position: the name of this argument changed in paramiko 5.0
            return paramiko.PKey.from_path(path, passphrase.encode())
    return paramiko.PKey.from_path(path)

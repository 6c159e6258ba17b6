"""The prompts of a keyboard-interactive login (RFC 4256), and where the answers come from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from iot.sftp.client.ssh.boundary import printable
from iot.sftp.client.ssh.children import environment
from iot.transfer.errors import CredentialsInvalid, LoginRefused, SFTPError
from iot.transfer.givenfile import read_text_once

__all__ = ["Answerer", "Answers", "Password", "from_command", "from_file"]

Answerer: TypeAlias = Callable[[str, bool], str]
"""(text of the prompt, whether typed input may be shown) -> the answer."""
COMMAND_S = 15.0
"""Seconds that a command may take to answer; servers wait about a minute."""
PROMPT_SHOWN = 100
ROUNDS_MAX = 16
PASSWORD = re.compile(r"passw|kennwort|mot de passe|contrase", re.IGNORECASE)
NOT_THE_PASSWORD = re.compile(r"\bnew\b|one.?time|verification|token|otp", re.IGNORECASE)


class Password:
    """The password of one login. It is not sent again after a refusal; a successful step resets this."""

    def __init__(self, value: str | None) -> None:
        self._value = value
        self.spent = value is None

    def take(self) -> str:
        self.spent = True
        return self._value or ""

    def accepted(self) -> None:
        self.spent = self._value is None


class Answers:
    """Answers the prompts of one login: the password's from the password, all others from `source`; each only once.

    Raises: CredentialsInvalid if there is no answer; LoginRefused if the server repeats a prompt.
    """

    def __init__(self, password: Password, source: Answerer | None) -> None:
        self._password = password
        self._source = source
        self._answered: set[str] = set()
        self._rounds = 0

    @property
    def has_any(self) -> bool:
        return self._source is not None or not self._password.spent

    def accepted(self) -> None:
        """A step has succeeded: the next one may repeat a prompt."""
        self._answered.clear()

    def give(self, _: str, __: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        """paramiko's callback: (title, instructions, prompts) -> an answer for each prompt."""
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise LoginRefused(f"the server keeps prompting: gave up after {ROUNDS_MAX} rounds")
        return [self._answer(text, echo) for text, echo in prompts]

    def _answer(self, text: str, echo: bool) -> str:
        shown = printable(text.strip(), PROMPT_SHOWN)
        if not self._password.spent and self._is_for_the_password(text, echo):
            self._answered.add(text)
            return self._password.take()
        if text in self._answered:
            raise LoginRefused(f"the server asks {shown!r} again: it ignored or refused the answer")
        if self._source is None:
            raise CredentialsInvalid(
                f"the server asks {shown!r}, but no answer is configured: set prompt_file, prompt_command or prompts"
            )
        self._answered.add(text)
        return _asked(self._source, shown, echo)

    def _is_for_the_password(self, text: str, echo: bool) -> bool:
        """In any language if there is no other source; never a prompt whose input is shown."""
        if echo or NOT_THE_PASSWORD.search(text):
            return False
        return self._source is None or PASSWORD.search(text) is not None


def _asked(source: Answerer, shown: str, echo: bool) -> str:
    """Ask the caller's code. Its errors are its own, not the server's; their text may contain the answer."""
    try:
        answer = source(shown, echo)
    except SFTPError:
        raise
    except Exception as error:
        raise CredentialsInvalid(f"prompts raised {type(error).__name__} for the prompt {shown!r}") from error
    if not isinstance(answer, str):
        raise CredentialsInvalid(f"prompts must return text for {shown!r}, not {type(answer).__name__}")
    return answer


def from_file(path: Path) -> Answerer:
    """One answer per line, in the order of the prompts. Raises: CredentialsInvalid."""
    try:
        lines = iter(read_text_once(path.expanduser()).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsInvalid(f"prompt_file {path}: {getattr(error, 'strerror', None) or error}") from None

    def answer(text: str, _: bool) -> str:
        for line in lines:
            return line
        raise CredentialsInvalid(f"prompt_file {path} has no line left for the prompt {text!r}")

    return answer


def from_command(command: Sequence[str]) -> Answerer:
    """The first line that a command prints, such as a TOTP generator; the prompt is in $IOT_SFTP_PROMPT.

    Neither the answer nor the arguments, which may be secrets, ever appear in a message.
    """

    def answer(text: str, _: bool) -> str:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(IOT_SFTP_PROMPT=text),
                timeout=COMMAND_S,
                check=True,
            )
            return done.stdout.decode().splitlines()[0]
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            raise CredentialsInvalid(f"prompt_command {command[0]!r} gave no answer: {_fault(error)}") from None

    return answer


def _fault(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took more than {COMMAND_S:g} s"
    return str(error.strerror) if isinstance(error, OSError) else "its output has no line of UTF-8 text"

"""Interprets replies, from the code and, where it is ambiguous, from the text. Pure."""

from __future__ import annotations

import re

from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    LoginRefused,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerBusy,
    ServerRefused,
    TransferError,
    Unsupported,
)

__all__ = ["error_of", "hide", "is_ambiguous", "one_line", "without_secrets"]

_secrets: set[str] = set()
SHOWN = 300
"""Maximum length of a reply in an error message."""
FULL = re.compile(
    r"no space|disk (is )?full|quota|insufficient|exceeded storage"
    r"|writing to local file|error during write to file",  # the wording of vsftpd and pure-ftpd
    re.IGNORECASE,
)
ABSENT = re.compile(r"no such|not found|does ?n[o']t exist|not exist|can't find|cannot find", re.IGNORECASE)
FORBIDDEN = re.compile(r"permission|denied|not permitted|access|not allowed|read-only|forbidden", re.IGNORECASE)
PRESENT = re.compile(r"already exist|file exists|exists already", re.IGNORECASE)
NAME = re.compile(
    r"name too long|illegal name|invalid (file ?)?name|bad (file)?name|not allowed in filename", re.IGNORECASE
)

BY_CODE: dict[int, type[TransferError]] = {
    421: LinkLost,
    425: LinkLost,
    426: LinkLost,
    452: NoSpaceOnServer,
    500: Unsupported,
    502: Unsupported,
    504: Unsupported,
    530: LoginRefused,
    532: PermissionDenied,
    552: NoSpaceOnServer,
}
ABOUT_A_FILE = (450, 451, 550, 551, 553)
STORING = (*ABOUT_A_FILE, 426, 552)
BY_WORDS: tuple[tuple[re.Pattern[str], type[TransferError]], ...] = (
    (FULL, NoSpaceOnServer),
    (NAME, NameRefused),
    (PRESENT, AlreadyExists),
    (ABSENT, NotFound),
    (FORBIDDEN, PermissionDenied),
)


def error_of(reply: str, what: str) -> TransferError:
    """The error for a negative reply: LinkLost, ServerBusy, or a PermanentError or LoginRefused by code and text.

    what: the attempted operation, for the message.
    """
    code, text = code_of(reply), f"{what}: {one_line(reply)}"
    kind = next((kind for words, kind in BY_WORDS if words.search(reply)), None)
    if kind is NoSpaceOnServer and code in STORING:
        return kind(text)
    if code in BY_CODE:
        return BY_CODE[code](text)
    if kind is not None and code in ABOUT_A_FILE:
        return kind(text)
    return ServerBusy(text) if 400 <= code < 500 else ServerRefused(text)


def is_ambiguous(reply: str) -> bool:
    """Whether the file may be missing or just inaccessible: RFC 959 has one code for both."""
    return code_of(reply) in (450, 550, 553) and not any(words.search(reply) for words, _ in BY_WORDS)


def code_of(reply: str) -> int:
    return int(reply[:3]) if reply[:3].isdigit() and reply[:3].isascii() else 0


def hide(secret: str) -> None:
    """Never show this in a message: a server may echo in any reply what it was sent."""
    if secret:
        _secrets.add(secret)


def without_secrets(text: str) -> str:
    for secret in _secrets:
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    return text


def one_line(reply: str) -> str:
    """A reply for a message: one line, without terminal control characters or secrets."""
    text = without_secrets(reply.encode("latin-1", "replace").decode("utf-8", "backslashreplace"))
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= SHOWN else plain[:SHOWN] + "..."

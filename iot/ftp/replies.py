"""What a reply of the server means: pure, from its code and, where the code is ambiguous, from its words."""

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

__all__ = ["error_of", "hide", "is_ambiguous", "shown", "without_secrets"]

_secrets: set[str] = set()
SHOWN = 300
"""Characters of a reply that an error shows."""
FULL = re.compile(
    r"no space|disk (is )?full|quota|insufficient|exceeded storage"
    r"|writing to local file|error during write to file",  # vsftpd's and pure-ftpd's words for it
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
    """The error that a negative reply stands for. what: was asked for; it heads the text."""
    code, text = code_of(reply), f"{what}: {shown(reply)}"
    kind = next((kind for words, kind in BY_WORDS if words.search(reply)), None)
    if kind is NoSpaceOnServer and code in STORING:
        return kind(text)
    if code in BY_CODE:
        return BY_CODE[code](text)
    if kind is not None and code in ABOUT_A_FILE:
        return kind(text)
    return ServerBusy(text) if 400 <= code < 500 else ServerRefused(text)


def is_ambiguous(reply: str) -> bool:
    """Whether the reply leaves open if the file is missing or may not be touched: RFC 959 gives both one code."""
    return code_of(reply) in (450, 550, 553) and not any(words.search(reply) for words, _ in BY_WORDS)


def code_of(reply: str) -> int:
    return int(reply[:3]) if reply[:3].isdigit() and reply[:3].isascii() else 0


def hide(secret: str) -> None:
    """A server may repeat what it was sent, in any reply, at any time: from now on no message shows this."""
    if secret:
        _secrets.add(secret)


def without_secrets(text: str) -> str:
    for secret in _secrets:
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    return text


def shown(reply: str) -> str:
    """A reply as a message may show it: one line, nothing that would steer a terminal."""
    text = without_secrets(reply.encode("latin-1", "replace").decode("utf-8", "backslashreplace"))
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= SHOWN else plain[:SHOWN] + "..."

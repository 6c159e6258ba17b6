"""Commands on the far side that belong to an upload: rename, delete, mkdir, chmod and touch.

They are carried out in order, in each attempt, so each can be repeated: after a crash or a lost answer, a rename whose
source is gone and whose target is there is done, and so are a delete of what is missing and a mkdir of a folder that
is there. One that fails before the file is published is the failure of the upload, and nothing is published.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from iot.transfer.errors import ConfigurationError, NameRefused
from iot.transfer.terminal import quoted

__all__ = ["NO_COMMANDS", "RemoteCommand", "RemoteCommands", "RemoteStep", "Verb"]

OF_THE_FILE = re.compile(rb"\{(path|folder|name)\}")
MODES = 0o7777


class Verb(str, enum.Enum):
    """What a command does. RENAME: replaces what has the new name. DELETE: of a file. MKDIR: with parents. CHMOD: also
    of a folder. TOUCH: makes an empty file, or sets the time of what is there to that of this device's clock."""

    RENAME = "rename"
    DELETE = "delete"
    MKDIR = "mkdir"
    CHMOD = "chmod"
    TOUCH = "touch"


class RemoteStep(NamedTuple):
    """A command with its paths filled in. to: of RENAME. mode: of CHMOD. at_s: of TOUCH, seconds since 1970."""

    verb: Verb
    path: bytes
    to: bytes
    mode: int
    at_s: int

    def __str__(self) -> str:
        mode = f" {self.mode:o}" if self.verb is Verb.CHMOD else ""
        to = f" {quoted(self.to)}" if self.verb is Verb.RENAME else ""
        return f"{self.verb.value}{mode} {quoted(self.path)}{to}"


@dataclass(frozen=True, slots=True)
class RemoteCommand:
    """One command.

    verb: a Verb, or its value in words. path: what it works on; to: the new name, of RENAME. mode: of CHMOD, such as
    0o640. In path and to, {path} stands for the path that the file has, or will have, {folder} for its folder and
    {name} for its last component. Paths are relative to RemoteCommands.base, unless they start with a slash.

    Raises: ConfigurationError for a verb that there is not, an empty path, or a mode that is none.
    """

    verb: Verb
    path: str
    to: str = ""
    mode: int = 0

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "verb", Verb(self.verb))
        except ValueError:
            known = ", ".join(each.value for each in Verb)
            raise ConfigurationError(f"verb: must be one of {known} (got {self.verb!r})") from None
        if not self.path or (self.verb is Verb.RENAME) is not bool(self.to):
            raise ConfigurationError(f"{self.verb.value}: takes a path, and rename alone the new one as well")
        if not 0 <= self.mode <= MODES:
            raise ConfigurationError(f"mode: must be from 0 to {MODES:o}, octal (got {self.mode!r})")


@dataclass(frozen=True, slots=True)
class RemoteCommands:
    """The commands of an upload.

    before: before the transfer. before_publish: when the part is complete and proven, before it gets its name; both are
    the upload's failure if one of them fails. after_success: once the file is published; a failure is only logged.
    base: the folder that their paths are relative to; {path} is the file's path below it.
    """

    before: tuple[RemoteCommand, ...] = ()
    before_publish: tuple[RemoteCommand, ...] = ()
    after_success: tuple[RemoteCommand, ...] = ()
    base: str = ""

    def steps(self, commands: Sequence[RemoteCommand], final: bytes) -> list[RemoteStep]:
        """final: the path of the file. Raises: NameRefused for a path that leaves its folder, or names none."""
        if not commands:
            return []
        base = _names(self.base.encode("utf-8", "surrogateescape"))
        path = _below(base, final)
        folder, _, name = path.rpartition(b"/")
        own = {b"path": path, b"folder": folder or b".", b"name": name}
        now = int(time.time())
        return [
            RemoteStep(
                each.verb,
                _place(base, each.path, own, each.verb),
                _place(base, each.to, own, each.verb) if each.to else b"",
                each.mode,
                now,
            )
            for each in commands
        ]


NO_COMMANDS = RemoteCommands()


def _below(base: bytes, path: bytes) -> bytes:
    plain = _names(path)
    return plain[len(base) :].lstrip(b"/") if base and plain.startswith(base.rstrip(b"/") + b"/") else plain


def _place(base: bytes, text: str, own: dict[bytes, bytes], verb: Verb) -> bytes:
    path = OF_THE_FILE.sub(lambda match: own[match[1]], text.encode("utf-8", "surrogateescape"))
    found = _names(path if path.startswith(b"/") or not base else base + b"/" + path)
    if found.strip(b"/") == b"" or (found == base and verb is not Verb.MKDIR):
        raise NameRefused(f"remote command {verb.value}: {quoted(path)} names no file or folder below {quoted(base)}")
    return found


def _names(path: bytes) -> bytes:
    """The same path without "." and repeated slashes. Raises: NameRefused."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names or b"\0" in path:
        raise NameRefused(f'remote command: {quoted(path)} must not contain ".." or a NUL')
    return (b"/" if path.startswith(b"/") else b"") + b"/".join(names)

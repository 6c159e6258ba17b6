"""Remote commands as they are configured: a list of words whose paths are templates. Pure.

Besides the fields of a destination they may have {path}, {folder} and {name}: those of the file itself, below the base
destination. They are left for the upload to fill in, which alone knows the name that the file has got.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from iot.spooler.naming.template import Facts, Template
from iot.transfer import RemoteCommand, Verb

__all__ = ["CommandTemplate"]

OF_THE_FILE = re.compile(r"(\{(?:path|folder|name)\})")
USAGE = {
    Verb.RENAME: "rename PATH PATH",
    Verb.DELETE: "delete PATH",
    Verb.MKDIR: "mkdir PATH",
    Verb.CHMOD: "chmod MODE PATH",
    Verb.TOUCH: "touch PATH",
}
MODE = re.compile(r"[0-7]{3,4}")


class CommandTemplate(NamedTuple):
    """mode: of chmod, else 0. paths: one, or the two of rename."""

    verb: Verb
    mode: int
    paths: tuple[str, ...]

    @classmethod
    def parse(cls, words: Sequence[str], *, absolute: bool) -> CommandTemplate:
        """absolute: whether its paths may begin with a slash. Raises: ValueError saying what is wrong with it."""
        verb = next((each for each in Verb if words and words[0] == each.value), None)
        if verb is None:
            raise ValueError("must begin with one of " + ", ".join(each.value for each in Verb))
        mode, paths = "0", tuple(words[1:])
        if verb is Verb.CHMOD:
            mode, paths = (paths[0] if paths else ""), paths[1:]
        if len(words) != len(USAGE[verb].split()):
            raise ValueError(f"must be {USAGE[verb]}")
        if verb is Verb.CHMOD and not MODE.fullmatch(mode):
            raise ValueError(f"{mode!r} is no mode: three or four octal digits, such as 640")
        for path in paths:
            _check(path, absolute=absolute)
        return cls(verb, int(mode, 8), paths)

    @property
    def fields(self) -> set[str]:
        return {field for path in self.paths for field in Template(OF_THE_FILE.sub("", path)).fields}

    def filled(self, facts: Facts, *, device_id: str, outbox: str) -> RemoteCommand:
        path, *to = (_filled(path, facts, device_id=device_id, outbox=outbox) for path in self.paths)
        return RemoteCommand(self.verb, path, to[0] if to else "", self.mode)


def _check(path: str, *, absolute: bool) -> None:
    """Raises: ValueError."""
    sample = _filled(path, Facts(0), device_id="x", outbox="x")
    names = OF_THE_FILE.sub("x", sample).split("/")
    if not any(name not in ("", ".") for name in names):
        raise ValueError(f"{path!r} names no file or folder")
    if path.startswith("/") and not absolute:
        raise ValueError(f"{path!r} is absolute: paths are relative to the destination unless absolute_paths is set")


def _filled(path: str, facts: Facts, *, device_id: str, outbox: str) -> str:
    pieces = OF_THE_FILE.split(path)
    return "".join(
        piece if OF_THE_FILE.fullmatch(piece) else Template(piece).filled(facts, device_id=device_id, outbox=outbox)
        for piece in pieces
    )

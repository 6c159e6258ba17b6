"""From a path in an outbox to a path on the server. Pure.

Paths in an outbox are bytes, separated by "/"; on the server side they are str with surrogateescape, so that every
byte of a name is kept.
"""

from __future__ import annotations

import json

from iot.spooler.naming.paths import check_path
from iot.spooler.naming.template import VARYING, Facts, Template

__all__ = ["Naming", "destination_for"]


class Naming:
    """How the files of one outbox are named on the server.

    rule: identifies this naming; attempts are recorded with it. decided: a name cannot be found again from the rule,
    the path and the file's time alone, so it is recorded before the first attempt. needs_hash: names depend on the
    content.

    Raises: ValueError saying what is wrong with the template.
    """

    def __init__(self, destination: str, *, device_id: str, outbox: str) -> None:
        self._template = Template(destination)
        self._constants = {"device_id": device_id, "outbox": outbox}
        self.base = self._template.rule(**self._constants)
        self.decided = not self._template.is_simple
        self.needs_hash = "hash8" in self._template.fields
        self.rule = json.dumps({"destination": self.base}) if self.decided else self.base

    def destination(self, path: bytes, facts: Facts) -> str:
        """The remote path of a file: the folder that the template gives, then its path in the outbox.

        Raises: UnsafeName, see check_path.
        """
        check_path(path)
        return _join(self._template.filled(facts, **self._constants), path.decode("utf-8", "surrogateescape"))


def destination_for(path: bytes, rule: str, mtime_ns: int) -> str:
    """The destination under a rule whose names are not `decided`. Raises: UnsafeName, see check_path."""
    check_path(path)
    base = rule.replace(VARYING, Template("{date}").filled(Facts(mtime_ns), device_id="", outbox=""))
    return _join(base, path.decode("utf-8", "surrogateescape"))


def _join(base: str, path: str) -> str:
    return path if base in ("", ".") else f"{base.rstrip('/')}/{path}"

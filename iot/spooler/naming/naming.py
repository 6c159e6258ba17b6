"""From a path in an outbox to a path on the server. Pure.

Paths in an outbox are bytes, separated by "/"; on the server side they are str with surrogateescape, so that every
byte of a name is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from iot.spooler.naming.collision import Collision, marked, other_names, stamp, unique_digits
from iot.spooler.naming.paths import check_path, encoded
from iot.spooler.naming.rules import Action, Rule, Rules
from iot.spooler.naming.template import VARYING, Facts, Template
from iot.transfer import Fingerprint, IfExists

__all__ = ["Naming", "destination_for"]

DATE = Template("{date}")


class Naming:
    """How the files of one outbox are named on the server.

    rule: identifies this naming; attempts are recorded with it. decided: a name cannot be found again from the rule,
    the path and the file's time alone, so it is recorded before the first attempt. needs_hash: names depend on the
    content, or something else that is told of the file: more_fields. compression: whether some names get its suffix,
    see Packing. part_suffixes: what rules put behind names until a file is complete. may_take_long: names are matched
    with a regular expression.

    Raises: ValueError saying what is wrong with a template.
    """

    def __init__(
        self,
        destination: str,
        rules: Sequence[Rule] = (),
        collision: Collision = Collision.OVERWRITE,
        *,
        device_id: str,
        outbox: str,
        ignore_case: bool = False,
        percent_encode: str = "",
        compression: str = "",
        more_fields: Iterable[str] = (),
    ) -> None:
        self._template = Template(destination)
        self.part_suffixes = frozenset(rule.value for rule in rules if rule.action is Action.TEMPORARY_SUFFIX)
        self._constants = {"device_id": device_id, "outbox": outbox}
        self._rules = Rules(rules, ignore_case=ignore_case, **self._constants) if rules else None
        prefixes = [Template(rule.value) for rule in rules if rule.action is Action.PREFIX]
        self.fields = self._template.fields.union(*(prefix.fields for prefix in prefixes))
        self.base = self._template.rule(**self._constants)
        self._collision = collision
        self._stamps_always = collision is Collision.TIMESTAMP_ALWAYS
        self._percent_encode = percent_encode
        self.decided = (
            bool(rules or percent_encode or compression) or not self._template.is_simple or self._stamps_always
        )
        self.needs_hash = "hash8" in self.fields.union(more_fields)
        self.may_take_long = any(rule.action is Action.REPLACE for rule in rules)
        whole = {"destination": self.base, "rules": rules, "ignore_case": ignore_case, **self._constants}
        whole |= {"timestamp": self._stamps_always, "percent_encode": percent_encode}
        whole |= {"compression": compression} if compression else {}
        self.rule = json.dumps(whole) if self.decided else self.base

    def destination(self, path: bytes, facts: Facts) -> str:
        """The remote path of a file: the folder that the template gives, then its path in the outbox as the rules have
        changed it.

        Raises: UnsafeName, see check_path; also if there are rules and none matches.
        """
        check_path(path)
        name = path.decode("utf-8", "surrogateescape")
        if self._rules is not None:
            name = self._rules.name(name, facts)
        if self._percent_encode:
            name = encoded(name, self._percent_encode)
        if self._stamps_always:
            name = marked(name, stamp(facts.mtime_ns))
        return self.place(name, facts)

    def temporary_suffix(self, path: bytes) -> str | None:
        """What its name has in addition until it is complete, if a rule says so."""
        text = path.decode("utf-8", "surrogateescape")
        return self._rules.temporary_suffix(text) if self._rules is not None else None

    def alternatives(self, path: bytes, destination: str, version: Fingerprint) -> tuple[str, ...]:
        """Further names, in order, for when another file has its destination; the same for a version at any time."""
        if self._collision.if_exists is not IfExists.RENAME:
            return ()
        owner = (*self._constants.values(), path.decode("utf-8", "surrogateescape"))
        return other_names(
            destination, self._collision, version.mtime_ns, unique_digits(*owner, version.size, version.mtime_ns)
        )

    def place(self, name: str, facts: Facts) -> str:
        """The path of this name in the folder that the template gives."""
        return _join(self._template.filled(facts, **self._constants), name)


def destination_for(path: bytes, rule: str, mtime_ns: int) -> str:
    """The destination under a rule whose names are not `decided`. Raises: UnsafeName, see check_path."""
    check_path(path)
    if VARYING in rule:
        rule = rule.replace(VARYING, DATE.filled(Facts(mtime_ns), device_id="", outbox=""))
    return _join(rule, path.decode("utf-8", "surrogateescape"))


def _join(base: str, path: str) -> str:
    return path if base in ("", ".") else f"{base.rstrip('/')}/{path}"

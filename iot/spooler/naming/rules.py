"""Rules that change the names of files on their way to the server. Pure.

Each rule has a pattern. Every rule whose pattern matches the path of a file in its outbox is applied, in order, to the
result of the one before:

    no-action                      nothing; the file only counts as matched
    only-filename                  a/b/c.csv -> c.csv
    lowercase                      A/b.CSV -> a/b.csv
    replace-separator CHAR         a/b/c.csv -> a_b_c.csv
    prefix TEXT                    a/c.csv -> a/TEXTc.csv; TEXT may have the fields of a template, and slashes
    replace REGEX by TEXT          every match; TEXT may refer to groups, \\1 or \\g<name>
    temporary-suffix SUFFIX        the file has its name and SUFFIX until it is complete

The folder that the files go to is never changed. A regular expression may be of any kind: the caller limits the time,
since a match can take for ever on a name made for that.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from iot.spooler.naming.paths import UnsafeName, check_path
from iot.spooler.naming.template import Facts, Template
from iot.spooler.patterns import check_pattern, matcher

__all__ = ["Action", "Rule", "Rules", "undoing", "useless"]

SUFFIX_MAX = 32
SEPARATOR = "/"


class Action(str, Enum):
    NO_ACTION = "no-action"
    ONLY_FILENAME = "only-filename"
    LOWERCASE = "lowercase"
    REPLACE_SEPARATOR = "replace-separator"
    TEMPORARY_SUFFIX = "temporary-suffix"
    PREFIX = "prefix"
    REPLACE = "replace"

    @property
    def takes_value(self) -> bool:
        return self not in (Action.NO_ACTION, Action.ONLY_FILENAME, Action.LOWERCASE)


MERGING = (Action.ONLY_FILENAME, Action.LOWERCASE, Action.REPLACE_SEPARATOR, Action.REPLACE)
"""Actions that may give two files one name."""


class Rule(NamedTuple):
    """match: a pattern, see patterns. value: CHAR, TEXT or SUFFIX. regex: of `replace` only."""

    match: str
    action: Action
    value: str = ""
    regex: str = ""

    def check(self) -> None:
        """Raises: ValueError saying what is wrong with it."""
        check_pattern(self.match)
        if "\0" in self.value + self.regex:
            raise ValueError("must not contain a NUL")
        if bool(self.regex) is not (self.action is Action.REPLACE):
            raise ValueError("regex: goes with replace, which must have one, and with nothing else")
        if self.value and not self.action.takes_value:
            raise ValueError(f"value: {self.action.value} takes none")
        self._check_value()

    def _check_value(self) -> None:
        if self.action is Action.REPLACE_SEPARATOR and (len(self.value) != 1 or self.value == SEPARATOR):
            raise ValueError("value: must be the one character that takes the place of a slash")
        if self.action is Action.TEMPORARY_SUFFIX and (
            not 1 <= len(self.value) <= SUFFIX_MAX or SEPARATOR in self.value
        ):
            raise ValueError(f"value: must be 1 to {SUFFIX_MAX} characters without a slash")
        if self.action is Action.PREFIX:
            if not self.value:
                raise ValueError("value: must be the text to put before the name")
            Template(self.value)
        if self.action is Action.REPLACE:
            try:
                re.compile(self.regex).sub(self.value, "")
            except (re.error, IndexError) as error:
                raise ValueError(f"not a regular expression, or no replacement for it: {error}") from None


class Rules:
    """The rules of one outbox. constants: device_id and outbox of a template."""

    def __init__(self, rules: Sequence[Rule], *, ignore_case: bool, device_id: str, outbox: str) -> None:
        matchers = [matcher([rule.match], ignore_case=ignore_case) for rule in rules]
        self._steps = [(matchers[each], _step(rule, device_id, outbox)) for each, rule in enumerate(rules)]
        is_suffix = [rule.action is Action.TEMPORARY_SUFFIX for rule in rules]
        self._suffixes = [(matchers[each], rule.value) for each, rule in enumerate(rules) if is_suffix[each]]

    def name(self, path: str, facts: Facts) -> str:
        """Raises: UnsafeName if no rule matches, or if they make a path of it that no file can have."""
        name, matched = path, False
        for matches, step in self._steps:
            if matches(path):
                name, matched = step(name, facts), True
        if not matched:
            raise UnsafeName("no rule matches this file")
        try:
            check_path(name.encode("utf-8", "surrogateescape"))
        except UnsafeName as error:
            raise UnsafeName(f"the rules give it a name that cannot be: {error}") from None
        return name

    def temporary_suffix(self, path: str) -> str | None:
        """Of the last rule that matches and has one."""
        return next((suffix for matches, suffix in reversed(self._suffixes) if matches(path)), None)


Step = Callable[[str, Facts], str]


def _step(rule: Rule, device_id: str, outbox: str) -> Step:
    if rule.action is Action.ONLY_FILENAME:
        return lambda name, _: name.rpartition(SEPARATOR)[2]
    if rule.action is Action.LOWERCASE:
        return lambda name, _: name.lower()
    if rule.action is Action.REPLACE_SEPARATOR:
        return lambda name, _: name.replace(SEPARATOR, rule.value)
    if rule.action is Action.PREFIX:
        prefix = Template(rule.value)

        def put_before(name: str, facts: Facts) -> str:
            folder, slash, last = name.rpartition(SEPARATOR)
            return folder + slash + prefix.filled(facts, device_id=device_id, outbox=outbox) + last

        return put_before
    if rule.action is Action.REPLACE:
        regex = re.compile(rule.regex)
        return lambda name, _: regex.sub(rule.value, name)
    return lambda name, _: name


def undoing(rules: Sequence[Rule]) -> Iterator[tuple[int, int]]:
    """The pairs of rules, by number, of which the later one undoes the earlier one; a file has one temporary suffix.

    Rules with other patterns concern other files. What two rules do is tried out on names made of the characters that
    they mention.
    """
    for (one, first), (other, second) in itertools.combinations(enumerate(rules), 2):
        both_suffixes = first.action is second.action is Action.TEMPORARY_SUFFIX
        if first.match == second.match and (both_suffixes or _undoes(first, second)):
            yield one, other


def useless(rules: Sequence[Rule]) -> Iterator[tuple[int, int]]:
    """The pairs of neighbours, by number, of which the later one leaves nothing of what the earlier one did, without
    undoing it: so is a prefix with a slash before only-filename. Tried out in the same way."""
    for number, (first, second) in enumerate(itertools.pairwise(rules)):
        both = first.match == second.match and not _undoes(first, second)
        if both and _is_useless_before(first, second):
            yield number, number + 1


def _is_useless_before(first: Rule, second: Rule) -> bool:
    one, other = (_step(rule, "d", "o") for rule in (first, second))
    facts = Facts(0)
    changed = [(path, name) for path in _samples(first, second) if (name := one(path, facts)) != path]
    return bool(changed) and all(other(name, facts) == other(path, facts) for path, name in changed)


def _undoes(first: Rule, second: Rule) -> bool:
    there, back = (_step(rule, "d", "o") for rule in (first, second))
    facts = Facts(0)
    changed = [(path, name) for path in _samples(first, second) if (name := there(path, facts)) != path]
    return bool(changed) and all(back(name, facts) == path for path, name in changed)


def _samples(*rules: Rule) -> list[str]:
    letters = dict.fromkeys("/_- .aA" + "".join(rule.value + rule.regex for rule in rules))
    return ["a/b/Name.csv", *(f"x{letter}y" for letter in letters if letter != "\0")]

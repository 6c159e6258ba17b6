"""Changes that cannot matter, whatever the tests are: the product does the same with them. README.md lists them.

Only what can be seen in the text itself is here; all else is explained one by one in survivors.toml.
"""

from __future__ import annotations

import re

from parso.tree import NodeOrLeaf, search_ancestor

MEMBER = re.compile(r"[A-Z]\w*\.[A-Z][A-Z0-9_]*")
"""A member of an enumeration, or a constant of a class."""
FLAG = re.compile(r"(os\.[ORWX]_|fcntl\.LOCK_|socket\.SOCK_|inotify\.|Flag\.)[A-Z_]*")
TO_EQUALITY = ("ReplaceComparisonOperator_Is_Eq", "ReplaceComparisonOperator_IsNot_NotEq")
OF_FLAGS = ("ReplaceBinaryOperator_BitOr_BitXor", "ReplaceBinaryOperator_BitOr_Add")


def cannot_matter(operator: str, node: NodeOrLeaf, start: tuple[int, int]) -> bool:
    """node: what the operator changes. start: line and column of what is changed in it."""
    if operator in TO_EQUALITY:
        return any(MEMBER.fullmatch(text) for text in _beside(node, start))
    if operator in OF_FLAGS:
        return all(FLAG.fullmatch(text) for text in _beside(node.parent, start))
    if operator == "ReplaceTrueWithFalse":
        return _is_strict_of_zip(node)
    return operator == "RemoveDecorator" and (_is_abstract(node) or _is_classmethod_of_validator(node))


def _beside(node: NodeOrLeaf, start: tuple[int, int]) -> tuple[str, str]:
    at = next(number for number, child in enumerate(node.children) if child.start_pos == start)
    return node.children[at - 1].get_code().strip(), node.children[at + 1].get_code().strip()


def _is_strict_of_zip(node: NodeOrLeaf) -> bool:
    argument, trailer = node.parent, search_ancestor(node, "trailer")
    if argument.type != "argument" or trailer is None or argument.children[0].get_code().strip() != "strict":
        return False
    return bool(trailer.get_previous_sibling().get_code().strip() == "zip")


def _is_abstract(node: NodeOrLeaf) -> bool:
    return bool(node.get_code().strip() == "@abstractmethod")


def _is_classmethod_of_validator(node: NodeOrLeaf) -> bool:
    decorators = [child.get_code().strip() for child in node.parent.children]
    return node.get_code().strip() == "@classmethod" and any(each.startswith("@field_validator") for each in decorators)

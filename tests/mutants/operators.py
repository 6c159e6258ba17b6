"""Changes that cosmic-ray does not make: a step that is not done, a check that is skipped or always holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cosmic_ray.operators.operator import Operator
from parso.python.tree import Keyword
from parso.tree import NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]
STEPS = ("atom_expr", "power", "yield_expr", "raise_stmt", "await_expr")


class DropStep(Operator):
    """A call whose result nobody uses, a `yield` and a `raise` become `pass`: no fsync, no close, no refusal."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        if node.type == "simple_stmt" and node.children[0].type in STEPS:
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        step = node.children[0]
        node.children[0] = Keyword("pass", step.start_pos, prefix=step.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class FixCondition(Operator):
    """The condition of an `if` or `elif` is never, or always, true."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        for at in self._conditions(node):
            for _ in (False, True):
                yield node.children[at].start_pos, node.children[at].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        at, value = self._conditions(node)[index // 2], ("False", "True")[index % 2]
        old = node.children[at]
        node.children[at] = Keyword(value, old.start_pos, prefix=old.get_first_leaf().prefix)
        return node

    @staticmethod
    def _conditions(node: Any) -> list[int]:
        if node.type != "if_stmt":
            return []
        words = [getattr(child, "value", "") for child in node.children]
        return [at + 1 for at, word in enumerate(words) if word in ("if", "elif")]

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()

"""Which mutants there are: one for each place in the code, chosen by a seed, and made by an operator of cosmic-ray."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from mutants.equivalents import cannot_matter
from mutants.operators import DropStep, FixCondition
from parso.tree import NodeOrLeaf, search_ancestor

HEAVY = 3.0
"""How much more often a module is drawn on which files depend; by the last part of its name."""
CRITICAL = """
    archive quarantine removal moving departure owed trust outcomes dispatch agent queue rows policy deliveries scan
    intake readiness lease lock download upload sending publish proof landing sink reading content source plan window
    names ownership beneath abandoned_parts store place journal checkpoints books group_commit attempts standby batch
    uploads downloads pipeline workers hostkeys login
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """path: below the root. line: where the change is. in_function: not only run at import. was, becomes: the lines
    that differ, without their indent."""

    path: str
    operator: str
    line: int
    in_function: bool
    was: str
    becomes: str
    code: str


def module_paths(root: Path, only: Sequence[str]) -> list[str]:
    """All modules of the product, below the root; only: beginnings of their paths."""
    found = sorted(path.relative_to(root).as_posix() for path in (root / "iot").rglob("*.py"))
    return [path for path in found if not only or path.startswith(tuple(only))]


def draw(root: Path, paths: Iterable[str], seed: int) -> tuple[dict[str, int], Iterator[Mutant]]:
    """-> how many places each module has, and their mutants in the order of a weighted draw without replacement."""
    dice = random.Random(seed)
    places: list[tuple[float, str, _Choice]] = []
    counts: dict[str, int] = {}
    for path in paths:
        found = _places((root / path).read_text(encoding="utf-8"))
        counts[path] = len(found)
        weight = HEAVY if Path(path).stem in CRITICAL.split() else 1.0
        places += [(dice.random() ** (1 / weight), path, dice.choice(choices)) for choices in found]
    places.sort(key=lambda place: place[0], reverse=True)
    made = (_make(root, path, choice) for _, path, choice in places)
    return counts, (mutant for mutant in made if mutant is not None)


@dataclass(frozen=True, slots=True)
class _Choice:
    name: str
    operator: Operator
    occurrence: int
    line: int
    in_function: bool


def _operators() -> list[tuple[str, Operator]]:
    kinds = {name.partition("/")[2]: get_operator(name) for name in operator_names()}
    plain = [(name, kind()) for name, kind in kinds.items() if not kind.arguments() and name != "NoOp"]
    return [*plain, ("DropStep", DropStep()), ("FixCondition", FixCondition())]


OPERATORS = _operators()


FOR_TYPES_ONLY = "if TYPE_CHECKING:"


def _places(source: str) -> list[list[_Choice]]:
    """What can be changed where; all operators' ways for one stretch of text are one place."""
    nodes, lines = list(ast_nodes(get_ast(source))), source.split("\n")
    places: dict[tuple[tuple[int, int], tuple[int, int]], list[_Choice]] = {}
    for name, operator in OPERATORS:
        found = ((node, place) for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (node, place) in enumerate(found):
            if _is_amount(name, node) or cannot_matter(name, node, place[0]):
                continue
            if lines[place[0][0] - 1] != FOR_TYPES_ONLY:
                line = _first_line_of_body(node) or place[0][0]
                places.setdefault(place, []).append(_Choice(name, operator, occurrence, line, _in_function(node)))
    return list(places.values())


def _is_amount(name: str, node: NodeOrLeaf) -> bool:
    """A number outside a function is a size or a time, and so is what is calculated there: a little more or less of it
    is a matter of taste. Flags are not."""
    amount = name == "NumberReplacer" or (name.startswith("ReplaceBinaryOperator") and "BitOr_" not in name)
    return amount and not _in_function(node)


def _in_function(node: NodeOrLeaf) -> bool:
    return search_ancestor(node, "funcdef") is not None


def _first_line_of_body(node: NodeOrLeaf) -> int | None:
    """Where the function begins whose parameter the node is: a default is read at import, and used by who calls it."""
    if search_ancestor(node, "parameters") is None:
        return None
    function = search_ancestor(node, "funcdef")
    steps = [step for step in getattr(function.children[-1], "children", ()) if step.type != "newline"]
    lines = [step.start_pos[0] for step in steps if step.get_first_leaf().type != "string"]  # not its docstring
    return lines[0] if lines else None


def _make(root: Path, path: str, choice: _Choice) -> Mutant | None:
    """None where nothing that runs is changed: types, protocols, docstrings and log messages."""
    source = (root / path).read_text(encoding="utf-8")
    try:
        code = MutationVisitor.mutate_code(source, choice.operator, choice.occurrence)
        if code is None or _running(code) == _running(source):
            return None
    except (SyntaxError, AttributeError):  # the latter by cosmic-ray, which cannot replace one of (a.Error, ValueError)
        return None
    before, after = source.split("\n"), code.split("\n")
    was = [line.strip() for line, other in zip(before, after, strict=False) if line != other]
    becomes = [line.strip() for line, other in zip(after, before, strict=False) if line != other]
    return Mutant(
        path, choice.name, choice.line, choice.in_function, was[0] if was else "", becomes[0] if becomes else "", code
    )


def _running(source: str) -> str:
    return ast.dump(_OnlyWhatRuns().visit(ast.parse(source)))


class _OnlyWhatRuns(ast.NodeTransformer):
    """Without annotations (all modules have them as text), docstrings, aliases of types, protocols and log messages.
    What the type checker sees to, too: that a dataclass is frozen or has slots, that an argument goes by its name."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(re.match(r"Protocol\b", ast.unparse(base)) for base in node.bases):
            return ast.Pass()
        for call in node.decorator_list:
            if isinstance(call, ast.Call):
                call.keywords = [each for each in call.keywords if each.arg not in ("frozen", "slots")]
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *(each for each in node.kw_defaults if each is not None)]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("")
        if isinstance(node.target, ast.Name) and "Alias" in ast.dump(node):
            node.value = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Constant):
            return ast.Pass()
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log."):
            return ast.Pass()
        return self.generic_visit(node)

"""What to do to make a destination hold what a source holds. Pure.

Both sides are trees of names; the answer is a list of steps, each with its reason. A name that is unknown on one side
is never treated as missing there.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from iot.transfer.errors import NameRefused, TransferError
from iot.transfer.names import SIDECAR
from iot.transfer.trees.model import Act, Kind, Node, Step, Tree

__all__ = ["Ends", "PlanRules", "plan_tree", "why_not_prune"]

ENDINGS = re.compile(r"[. ]+(?=/|\Z)")
"""Of names: Windows and FAT drop them."""


@dataclass(frozen=True, slots=True)
class PlanRules:
    """update: leave what is the same. prune: remove what is only at the destination.

    keeps_times: the destination can be given the time of the source; otherwise a file that is not older than its
        source counts as the same. time_tolerance_s: difference up to which times are the same (FAT: 1).
    refused: says why a name cannot be used at the destination; None if it can.
    part_suffix: of unfinished parts, which are nobody's files. exact_parts: that alone makes a part. sidecar:
        `<name>.sha256` belongs to `<name>`.
    named: the files were named one by one, so nothing is left out silently.
    """

    update: bool = False
    prune: bool = False
    keeps_times: bool = True
    time_tolerance_s: int = 0
    refused: Callable[[str], str | None] = lambda _: None
    part_suffix: str = ".part"
    exact_parts: bool = False
    sidecar: bool = False
    named: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """Full paths on both sides of a path below the folder ("": the folder itself)."""

    source: Callable[[str], str]
    dest: Callable[[str], str]


def plan_tree(source: Tree, dest: Tree, ends: Ends, rules: PlanRules) -> list[Step]:
    """Folders before their content; removals last, content before its folder."""
    planner = _Planner(source, dest, ends, rules)
    steps = [*planner.unknown(), *planner.transfers()]
    return [*steps, *planner.removals()] if rules.prune else steps


def why_not_prune(source: Tree, removals: int, *, allow_empty: bool, max_remove: int | None) -> str:
    """Why these removals should not happen; empty if nothing speaks against them."""
    if not removals:
        return ""
    names = f"{removals} name{'s' * (removals != 1)}"
    if not allow_empty and not any(node.kind is Kind.FILE for node in source.nodes.values()):
        return f"the source holds no files, and {names} would be removed; allow_empty permits that"
    if max_remove is not None and removals > max_remove:
        return f"{names} would be removed, and max_remove permits {max_remove}"
    return ""


class _Planner:
    def __init__(self, source: Tree, dest: Tree, ends: Ends, rules: PlanRules) -> None:
        self._source, self._dest, self._ends, self._rules = source, dest, ends, rules
        owner = r"(\.[0-9a-f]{8})?" if rules.exact_parts else r"\.[0-9a-f]{8}"
        self._part = re.compile(f".*{owner}{re.escape(rules.part_suffix)}({re.escape(SIDECAR.decode())})?", re.DOTALL)
        self._failed: dict[str, TransferError] = {}
        self._clashes: dict[str, str] = {}
        self._source_by_key: dict[str, str] = {}
        self._dest_by_key = {_key(path): path for path in dest.nodes}

    # -- transfers

    def unknown(self) -> Iterator[Step]:
        for path, error in self._source.unknown.items():
            yield self._fail(path, error)

    def transfers(self) -> Iterator[Step]:
        for path, node in self._source.nodes.items():
            yield from self._steps(path, node)

    def _steps(self, path: str, node: Node) -> Iterator[Step]:
        folder_error = self._failed.get(posixpath.dirname(path))
        if folder_error is not None:
            yield self._fail(path, folder_error)
            return
        left_out = self._left_out(path, node)
        if left_out:
            yield self._step(Act.LEAVE_OUT, path, left_out)
            return
        error = self._error(path, node)
        if error is not None:
            yield self._fail(path, error)
            return
        self._note_clash(path)
        if node.kind is Kind.FILE:
            yield self._file(path, node)
        elif path not in self._dest.nodes:
            yield self._step(Act.MAKE_FOLDER, path, "not there yet")

    def _left_out(self, path: str, node: Node) -> str:
        if self._rules.named:
            return ""
        if node.kind not in (Kind.FILE, Kind.FOLDER):
            return str(node.kind.value)
        return "an unfinished part" if self._is_part(path, node) else ""

    def _error(self, path: str, node: Node) -> TransferError | None:
        why = self._rules.refused(posixpath.basename(path))
        if why is not None:
            return NameRefused(f"{self._ends.source(path)}: {why}")
        if node.kind not in (Kind.FILE, Kind.FOLDER):
            return NameRefused(f"{self._ends.source(path)} is {node.kind.value}")
        there = None if self._rules.named else self._dest.nodes.get(path)
        fits = there is None or there.kind is node.kind or (node.kind is Kind.FILE and there.kind is Kind.DEAD_LINK)
        if fits or there is None:
            return None
        return NameRefused(f"{self._ends.dest(path)} is {there.kind.value}, and {self._ends.source(path)} is not")

    def _file(self, path: str, node: Node) -> Step:
        act, reason = Act.TRANSFER, "not there yet"
        if path in self._dest.nodes:
            reason = self._difference(node, self._dest.nodes[path])
            if self._rules.update and not reason:
                act, reason = Act.LEAVE, "same size and time"
        elif _is_below(path, self._dest.unknown):
            reason = "the destination cannot be listed"
        return self._step(act, path, reason or "replaced", node.size or 0)

    def _difference(self, here: Node, there: Node) -> str:
        """Why they are not the same; empty if they are, as far as size and time can tell."""
        if here.size is None or here.size != there.size:
            return "another size"
        if here.mtime_s is None or there.mtime_s is None:
            return "its time is unknown"
        later_s = here.mtime_s - there.mtime_s
        if later_s > self._rules.time_tolerance_s:
            return "newer at the source"
        is_older = -later_s > self._rules.time_tolerance_s
        return "older at the source" if is_older and self._rules.keeps_times else ""

    # -- removals

    def removals(self) -> Iterator[Step]:
        odd = {path for path, node in self._source.nodes.items() if node.kind not in (Kind.FILE, Kind.FOLDER)}
        uncertain = {*self._source.unknown, *odd, *self._failed}  # a dead link may lead to a disk that is not mounted
        holding: set[str] = set()
        for path, node in reversed(list(self._dest.nodes.items())):
            if path in self._source.nodes:
                continue
            clash = self._source_by_key.get(_key(path), "")
            reason = self._why_stays(path, node, uncertain, holding, clash)
            if reason:
                holding.update(_above(path))
                yield self._step(Act.LEAVE, path, reason, to_source=False)
            else:
                act = Act.REMOVE_FOLDER if node.kind is Kind.FOLDER else Act.REMOVE
                yield self._step(act, path, "not in the source", to_source=False, clash=clash)

    def _why_stays(self, path: str, node: Node, uncertain: set[str], holding: set[str], clash: str) -> str:
        name_only = posixpath.dirname(clash) == posixpath.dirname(path)
        reasons = (
            (_is_below(path, uncertain), "whether it is in the source is unknown"),
            (node.kind is Kind.SPECIAL, Kind.SPECIAL.value),
            (self._is_part(path, node), "an unfinished part"),
            (self._is_sidecar(path), "the checksum of a file"),
            (path in self._dest.unknown, "cannot be listed"),
            (path in holding, "not everything in it is removed"),
            (bool(clash) and not name_only, f"differs from {clash} only in case or dots at the end"),
            (bool(clash) and node.kind is Kind.FOLDER, f"differs from {clash} only in case or dots at the end"),
        )
        return next((reason for holds, reason in reasons if holds), "")

    def _is_part(self, path: str, node: Node) -> bool:
        return node.kind is Kind.FILE and self._part.fullmatch(posixpath.basename(path)) is not None

    def _is_sidecar(self, path: str) -> bool:
        ending = SIDECAR.decode()
        return self._rules.sidecar and path.endswith(ending) and path[: -len(ending)] in self._source.nodes

    # -- both

    def _note_clash(self, path: str) -> None:
        """Another name that may be this one: in the source, or at the destination and not in the source."""
        key, folder = _key(path), posixpath.dirname(path)
        there = self._dest_by_key.get(key, path)
        clash = self._source_by_key.setdefault(key, path)
        if clash == path and there != path and there not in self._source.nodes:
            clash = there
        if clash != path:
            self._clashes[path] = clash
        elif folder in self._clashes:
            self._clashes[path] = self._clashes[folder]

    def _fail(self, path: str, error: TransferError) -> Step:
        self._failed[path] = error
        return Step(Act.FAIL, path, self._ends.source(path), self._ends.dest(path), str(error), error=error)

    def _step(
        self, act: Act, path: str, reason: str, size: int = 0, *, to_source: bool = True, clash: str = ""
    ) -> Step:
        source = self._ends.source(path) if to_source else ""
        return Step(act, path, source, self._ends.dest(path), reason, size, clash or self._clashes.get(path, ""))


def _key(path: str) -> str:
    """The same for names that a file system may take for one."""
    return ENDINGS.sub("", unicodedata.normalize("NFC", path).casefold())


def _above(path: str) -> Iterator[str]:
    """The folders that hold it, innermost first, with the folder of all ("")."""
    while (folder := posixpath.dirname(path)) != path:
        yield folder
        path = folder


def _is_below(path: str, folders: Container[str]) -> bool:
    """Whether it is one of these, or lies below one."""
    return path in folders or any(folder in folders for folder in _above(path))

"""What trees are made of, and what a plan for them says. Frozen values."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from iot.transfer.errors import TransferError
from iot.transfer.model import Direction, TransferResult

__all__ = ["Act", "Kind", "Node", "Step", "StepResult", "Tree", "TreePlan", "TreeResult"]


class Kind(enum.Enum):
    """What a name stands for. The value of those that are left out is the reason."""

    FILE = "a file"
    FOLDER = "a folder"
    FOLDER_LINK = "a link to a folder"
    DEAD_LINK = "a link that cannot be followed"
    SPECIAL = "not a regular file"


@dataclass(frozen=True, slots=True)
class Node:
    """One name. size, mtime_s: None if not known. is_link: removing it removes the link, never its target."""

    kind: Kind
    size: int | None = None
    mtime_s: int | None = None
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies below a folder.

    nodes: by path below the folder, with slashes; a folder comes before its content. unknown: what could not be listed,
    by path ("": the folder itself), with the reason. Nothing below it is known, and unknown is never "gone".
    exists: whether the folder itself is there.
    """

    nodes: Mapping[str, Node] = field(default_factory=dict)
    unknown: Mapping[str, TransferError] = field(default_factory=dict)
    exists: bool = True


class Act(enum.Enum):
    """What a plan does about a name.

    LEAVE: it is the same on both sides, or it is only at the destination and stays. LEAVE_OUT: a link to a folder, a
    device and the like, or an unfinished part. FAIL: it cannot be transferred.
    """

    MAKE_FOLDER = "make folder"
    TRANSFER = "transfer"
    LEAVE = "leave"
    LEAVE_OUT = "leave out"
    FAIL = "fail"
    REMOVE = "remove"
    REMOVE_FOLDER = "remove folder"


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one name.

    path: below the folder. source: empty for a removal. reason: in a few words. size: in bytes, of the source.
    clash: another path that differs only in case, or in dots and blanks at the end of a name, so that both may be one
        file at the destination.
    """

    act: Act
    path: str
    source: str
    dest: str
    reason: str
    size: int = 0
    clash: str = ""
    error: TransferError | None = None


@dataclass(frozen=True, slots=True)
class TreePlan:
    """What will be done, in this order, and why. Nothing was changed by making it.

    dest: the folder that is pruned; empty without `prune`. leads_to: where it is, without links, if it is a local one;
    removed is only what is there. keep_times: give each file the time of its source.
    prune_refused: why nothing will be removed, although `prune` asks for it; empty if nothing speaks against it.
    """

    direction: Direction
    steps: tuple[Step, ...] = ()
    dest: str = ""
    leads_to: str = ""
    keep_times: bool = False
    prune_refused: str = ""

    def of(self, *acts: Act) -> list[Step]:
        """The steps of these kinds, in order."""
        return [step for step in self.steps if step.act in acts]

    @property
    def transfers(self) -> list[Step]:
        return self.of(Act.TRANSFER)

    @property
    def removals(self) -> list[Step]:
        return self.of(Act.REMOVE, Act.REMOVE_FOLDER)

    @property
    def total_bytes(self) -> int:
        """The size of all that is transferred."""
        return sum(step.size for step in self.transfers)

    @property
    def twice(self) -> str | None:
        """A destination to which two files would go; None if there is none."""
        seen: set[str] = set()
        for step in self.transfers:
            if step.dest in seen:
                return step.dest
            seen.add(step.dest)
        return None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step. result: of a transfer. error: why it failed; None: it succeeded."""

    step: Step
    result: TransferResult | None = None
    error: TransferError | None = None


@dataclass(frozen=True, slots=True)
class TreeResult:
    """What became of a plan. done: of every step that was taken or failed; empty after a dry run."""

    plan: TreePlan
    done: tuple[StepResult, ...] = ()

    def __iter__(self) -> Iterator[StepResult]:
        return iter(self.done)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(each.error is None for each in self.done)

    @property
    def transferred(self) -> list[TransferResult]:
        return [each.result for each in self.done if each.result is not None]

    @property
    def removed(self) -> list[str]:
        """The paths that were removed at the destination."""
        acts = (Act.REMOVE, Act.REMOVE_FOLDER)
        return [each.step.dest for each in self.done if each.step.act in acts and each.error is None]

    @property
    def failed(self) -> list[StepResult]:
        return [each for each in self.done if each.error is not None]

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        for each in self.failed:
            if each.error is not None:
                raise each.error

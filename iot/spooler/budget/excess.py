"""How much too much there is. Pure."""

from __future__ import annotations

from typing import NamedTuple

from iot.spooler.config.budget import BudgetSettings
from iot.transfer import human_bytes

__all__ = ["NOTHING", "Excess", "Space", "beyond_backlog", "beyond_space"]


class Space(NamedTuple):
    """Of a file system: bytes and inodes that it has and that are free for this user; block_bytes: what a file takes
    up is a multiple of that. inodes is 0 where the file system does not count them."""

    bytes: int
    free_bytes: int
    inodes: int
    free_inodes: int
    block_bytes: int


class Excess(NamedTuple):
    """files, bytes: what has to go, at least; both 0 or less: nothing. why: which limit, in words."""

    files: int
    bytes: int
    why: str

    @property
    def is_over(self) -> bool:
        return self.files > 0 or self.bytes > 0

    def without(self, size: int, block_bytes: int) -> Excess:
        """After a file of so many bytes has gone."""
        taken = -(-size // block_bytes) * block_bytes
        return self._replace(files=self.files - 1, bytes=self.bytes - taken)


NOTHING = Excess(0, 0, "")


def beyond_backlog(budget: BudgetSettings, files: int, size: int) -> Excess:
    """files, size: what waits to be sent."""
    if budget.max_files is not None and files > budget.max_files:
        over = max(size - budget.max_bytes, 0) if budget.max_bytes is not None else 0
        return Excess(files - budget.max_files, over, f"more than max_files = {budget.max_files}")
    if budget.max_bytes is not None and size > budget.max_bytes:
        return Excess(0, size - budget.max_bytes, f"more than max_bytes = {human_bytes(budget.max_bytes)}")
    return NOTHING


def beyond_space(budget: BudgetSettings, space: Space) -> Excess:
    if budget.min_free_percent is not None:
        lacking = int(space.bytes * budget.min_free_percent / 100) - space.free_bytes
        if lacking > 0:
            return Excess(0, lacking, f"less free than min_free_percent = {budget.min_free_percent:g}")
    if budget.min_free_inodes is not None and space.inodes:
        lacking = budget.min_free_inodes - space.free_inodes
        if lacking > 0:
            return Excess(lacking, 0, f"less free than min_free_inodes = {budget.min_free_inodes}")
    return NOTHING

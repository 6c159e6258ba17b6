"""What came of the faults, as rows of one table: markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Row", "as_json", "as_markdown"]

HEAD = ("fault", "times", "files", "lost", "half", "mixed", "twice", "extra sent", "extra received")


@dataclass(slots=True)
class Row:
    """One kind of fault.

    injected: how often it happened. files: how many had to be delivered. lost: a file or its last version is not there
        at the end. half, mixed: a final was seen that is no version of its file: of another size, or of the right size
        with other content. twice: one version was published again, and not marked as a possible repeat. repeats: marked
        (the answer to the rename was lost, and the final is not there any more). left: parts that stayed on the server.
    *_bytes: the payload, and all that went over the socket both ways, SSH and the repeated logins included.
    """

    fault: str
    injected: int = 0
    files: int = 0
    lost: int = 0
    half: int = 0
    mixed: int = 0
    twice: int = 0
    repeats: int = 0
    left: int = 0
    payload_bytes: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def extra_percent(self) -> float:
        """Bytes sent beyond the payload."""
        return 100.0 * (self.up_bytes / self.payload_bytes - 1) if self.payload_bytes else 0.0

    @property
    def down_percent(self) -> float:
        """Bytes received, all of them overhead of an upload."""
        return 100.0 * self.down_bytes / self.payload_bytes if self.payload_bytes else 0.0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.half or self.mixed or self.twice or self.left)

    def add(self, other: Row) -> None:
        for name in ("injected", "files", "lost", "half", "mixed", "twice", "repeats", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("payload_bytes", "up_bytes", "down_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes += other.notes

    def cells(self) -> list[str]:
        zeros = [str(number) for number in (self.lost, self.half, self.mixed, self.twice)]
        return [
            self.fault,
            str(self.injected),
            str(self.files),
            *zeros,
            f"{self.extra_percent:.1f} %",
            f"{self.down_percent:.1f} %",
        ]


def as_markdown(rows: Iterable[Row]) -> str:
    lines = [list(HEAD), ["---", *["---:"] * (len(HEAD) - 1)], *[row.cells() for row in rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(rows: Iterable[Row]) -> str:
    items: list[dict[str, Any]] = []
    for row in rows:
        shares = {"extra_percent": round(row.extra_percent, 2), "down_percent": round(row.down_percent, 2)}
        items.append({**asdict(row), **shares})
    return json.dumps(items, indent=1)

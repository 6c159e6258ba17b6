"""What lies in a quarantine, for tests of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Quarantined", "quarantined"]


class Quarantined(NamedTuple):
    path: str
    content: bytes
    record: dict[str, Any]


def quarantined(folder: Path) -> list[Quarantined]:
    """By path below the outbox; a file without a record is an error."""
    if not folder.is_dir():
        return []
    assert {path.stem for path in folder.glob("*.json")} == {path.name for path in folder.iterdir() if path.is_dir()}
    found = []
    for file in folder.glob("*/*"):
        record = json.loads((folder / f"{file.parent.name}.json").read_text())
        assert Path(record["path"]).name == file.name
        found.append(Quarantined(record["path"], file.read_bytes(), record))
    return sorted(found, key=lambda each: (each.path, each.content))

"""Files that leave an outbox without an agent around them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from iot.spooler.leaving.removal import Item, Leaver, Outcome, take_away
from iot.spooler.leaving.unlinking import Unlinking
from iot.spooler.outbox.departure import Departure
from iot.spooler.outbox.lease import Leases
from iot.spooler.outbox.mounts import FileSystem

__all__ = ["is_waited_for", "outcome_of", "taken"]


def outcome_of(
    outbox: int, items: Iterable[Item], leaver: Leaver, *, rested: bool = True, inodes: bool = True
) -> Outcome:
    """rested: a guess is good enough. inodes: they last on this file system."""
    departure = Departure(Leases(outbox), lambda _: rested, FileSystem(inodes=inodes))
    works: list[Unlinking] = []

    def at_once(work: Unlinking) -> None:
        work.run()
        works.append(work)

    outcome = take_away(outbox, items, leaver, departure, at_once)
    for work in works:
        outcome.done.extend(work.done)
        outcome.failed.extend(work.failed)
    return outcome


def taken(outbox: int, items: Iterable[Item], leaver: Leaver) -> tuple[list[int], list[tuple[int, OSError]]]:
    """Keys that are done, and what could not be done; nothing may have to stay."""
    outcome = outcome_of(outbox, items, leaver)
    assert outcome.stays == []
    return outcome.done, outcome.failed


def is_waited_for(path: Path) -> bool:
    """Whether somebody waits for the end of a lease on this file (proc_locks(5): the lease is BREAKING)."""
    inode = f":{path.stat().st_ino}"
    lines = map(str.split, Path("/proc/locks").read_text().splitlines())
    return any("BREAKING" in words and any(word.endswith(inode) for word in words) for words in lines)

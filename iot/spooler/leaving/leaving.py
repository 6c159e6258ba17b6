"""What becomes of the files of each outbox when they leave it, as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from iot.spooler.config.outboxes import AfterUpload
from iot.spooler.config.settings import Settings
from iot.spooler.leaving.archive import Archive
from iot.spooler.leaving.census import Census
from iot.spooler.leaving.forward import Forward
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.removal import Delete, Leaver, key_of, private_names
from iot.spooler.outbox.intake import Intake
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Queue
from iot.spooler.state.homes import Homes
from iot.transfer.beneath import join, split

__all__ = ["Leaving", "leaving", "unclaimed"]

OWED = (State.DELIVERED, State.QUARANTINED, State.DROPPED)
PAGE = 256


class Leaving(NamedTuple):
    """delivered, given_up, dropped: by number of the outbox. archives: each once. census: of the quarantines. forwards:
    those of `delivered` that are links of a chain."""

    delivered: Mapping[int, Leaver]
    given_up: Mapping[int, Leaver]
    dropped: Mapping[int, Leaver]
    archives: tuple[Archive, ...]
    census: Census
    forwards: tuple[Forward, ...] = ()


def leaving(
    settings: Settings, intakes: Iterable[Intake], alive: Callable[[], None], homes: Homes | None = None
) -> Leaving:
    """alive: called while a large file is copied to another file system. homes: as Forward has them."""
    archives: dict[Path, Archive] = {}
    forwards: dict[int, Forward] = {}
    delivered: dict[int, Leaver] = {}
    given_up: dict[int, Leaver] = {}
    for intake in intakes:
        outbox = intake.settings
        given_up[intake.number] = Quarantine(settings.quarantine_of(outbox), outbox.path, alive=alive)
        if outbox.after_upload is AfterUpload.FORWARD:
            target = settings.next_of(outbox)
            assert target is not None, "an outbox without its next one is no valid configuration"
            delivered[intake.number] = forwards[intake.number] = Forward(target, outbox.path, homes=homes, alive=alive)
            continue
        if outbox.after_upload is not AfterUpload.ARCHIVE:
            delivered[intake.number] = Delete()
            continue
        folder = settings.archive_of(outbox)
        if folder not in archives:
            archives[folder] = Archive(
                folder, max_age_s=outbox.archive_max_age_s, max_bytes=outbox.archive_max_bytes, alive=alive
            )
        delivered[intake.number] = archives[folder]
    census = Census(map(settings.quarantine_of, settings.outbox))
    dropped = dict.fromkeys(given_up, Delete())
    return Leaving(delivered, given_up, dropped, tuple(archives.values()), census, tuple(forwards.values()))


def unclaimed(queue: Queue, outbox: int, leftovers: Sequence[bytes]) -> list[bytes]:
    """Those of these private names that no row claims. The others are waiting to leave."""
    keys = [key for path in leftovers if (key := key_of(split(path)[1])) is not None]
    claimed = {
        join(split(entry.path)[0], private)
        for start in range(0, len(keys), PAGE)
        for entry in queue.entries(keys[start : start + PAGE])
        if entry.outbox == outbox and entry.state in OWED
        for private in private_names(entry.id, split(entry.path)[1])
    }
    return [path for path in leftovers if path not in claimed]

"""What `check` looks at beyond the settings themselves: whether the agent could log in, and use its folders.

Nothing is changed and no connection is made. Rights are those of the user who asks; `iot-spooler check`, run by root,
asks as the user that the state directory belongs to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from iot.spooler.config.load import Origins
from iot.spooler.config.settings import AfterUpload, OutboxSettings, Settings
from iot.spooler.leaving.trust import open_trusted
from iot.spooler.naming import shown

__all__ = ["doubts", "obstacles"]

Place = tuple[str | int, ...]


def obstacles(settings: Settings, origins: Origins, config: Path | None) -> list[str]:
    """One line for each thing that keeps the agent from its work, with its key and where that was set."""
    unreadable = config is not None and not _may(config, os.R_OK)
    return [f"{shown(str(config))}: user {os.geteuid()} cannot read it"] * unreadable + [
        f"{Origins.key(place)}{value}: {reason} (from {origins.of(place)})" for place, value, reason in _all(settings)
    ]


def doubts(settings: Settings, origins: Origins) -> list[str]:
    """What may keep the agent from its work: a login needs what the settings do not give, which the service may get as
    a systemd credential; files of other users cannot be taken out of a sticky folder."""
    place = ("server",)
    sticky = [
        f"outbox[{number}].path = {shown(str(outbox.path))}: it is sticky, so files of other users stay there when they"
        f" are delivered; chmod -t (from {origins.of(('outbox', number, 'path'))})"
        for number, outbox in enumerate(settings.outbox)
        if outbox.after_upload is not AfterUpload.KEEP and _is_sticky(outbox.path)
    ]
    return sticky + [
        f"{Origins.key(place)}: {reason}; unless the service gets it as a credential (from {origins.of(place)})"
        for key, reason in settings.server.login_problems()
        if not key
    ]


def _all(settings: Settings) -> Iterator[tuple[Place, str, str]]:
    for key, reason in settings.server.login_problems():
        if key:
            yield ("server", key), "", reason
    yield from _shown(("state_dir",), settings.state_dir, _own_folder(settings.state_dir))
    for number, outbox in enumerate(settings.outbox):
        if outbox.enabled:
            yield from _of_outbox(settings, outbox, ("outbox", number))


def _of_outbox(settings: Settings, outbox: OutboxSettings, place: Place) -> Iterator[tuple[Place, str, str]]:
    removes = outbox.after_upload is not AfterUpload.KEEP
    yield from _shown((*place, "path"), outbox.path, _outbox(outbox.path, removes=removes))
    archives = outbox.after_upload is AfterUpload.ARCHIVE
    for key, folder in (
        ("archive", settings.archive_of(outbox) if archives else None),
        ("quarantine", settings.quarantine_of(outbox)),
    ):
        if folder is not None and (getattr(outbox, key) is not None or settings.state_dir.is_dir()):
            yield from _shown((*place, key), folder, _own_folder(folder))


def _shown(place: Place, path: Path, reason: str | None) -> Iterator[tuple[Place, str, str]]:
    if reason is not None:
        yield place, f" = {shown(str(path))}", reason


def _outbox(path: Path, *, removes: bool) -> str | None:
    """Why files cannot be taken from this folder; None when they can."""
    if not path.exists():
        return "is not there; the agent would wait for it"
    if not path.is_dir():
        return "is not a folder"
    if not _may(path, os.R_OK | os.X_OK):
        return f"cannot be read by user {os.geteuid()}"
    if removes and not _may(path, os.W_OK):
        return f"user {os.geteuid()} may not take files out of it, or its file system is read-only"
    return None


def _own_folder(path: Path) -> str | None:
    """Why the agent cannot use a folder of its own, or make it; None when it can."""
    try:
        os.close(open_trusted(path))
    except FileNotFoundError:
        pass  # it will be made
    except OSError as error:
        return error.strerror
    here = path
    while not here.exists():
        here = here.parent
    if _may(here, os.W_OK | os.X_OK):
        return None
    does = "write to it" if here == path else f"make it in {shown(str(here))}"
    return f"user {os.geteuid()} may not {does}, or its file system is read-only"


def _is_sticky(path: Path) -> bool:
    """Whether this user may take out his own files only."""
    try:
        status = path.stat()
    except OSError:
        return False
    return bool(status.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, status.st_uid)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)

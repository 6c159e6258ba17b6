"""What `check` looks at beyond the settings themselves: whether the agent could log in, and use its folders.

Nothing is changed and no connection is made. Rights are those of the user who asks; `iot-spooler check`, run by root,
asks as the user that the state directory belongs to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.origins import Origins, Place
from iot.spooler.config.outboxes import AfterUpload, OutboxSettings
from iot.spooler.config.settings import Settings
from iot.spooler.leaving.trust import open_trusted
from iot.spooler.naming import shown
from iot.spooler.state.homes import unmounted

__all__ = ["credentials_of_unit", "doubts", "obstacles"]


def credentials_of_unit(config: Path | None) -> Path | None:
    """The folder that our unit gives credentials from to the agent of this configuration; None where there are none."""
    if config is None:
        return None
    folder = config.with_name("credentials" if config.stem == "iot-spooler" else f"credentials-{config.stem}")
    try:
        return folder if any(folder.iterdir()) else None
    except OSError as error:
        return folder if error.errno == errno.EACCES else None  # root's, as it should be


def obstacles(settings: Settings, origins: Origins, config: Path | None, *, by_unit: bool) -> list[str]:
    """One line for each thing that keeps the agent from its work, with its key and where that was set.

    by_unit: what is missing for a login may come as a credential, which nobody but the service sees.
    """
    unreadable = config is not None and not _may(config, os.R_OK)
    return [f"{shown(str(config))}: user {os.geteuid()} cannot read it"] * unreadable + [
        _line(origins, place, f"{value}: {reason}") for place, value, reason in _all(settings, by_unit=by_unit)
    ]


def doubts(settings: Settings, origins: Origins, *, by_unit: bool) -> list[str]:
    """What may keep the agent from its work: a login needs what the settings do not give, which the service may get as
    a systemd credential; files of other users cannot be taken out of a sticky folder."""
    found = [
        _line(origins, (table, key), f": {reason}")
        for table, server in settings.servers.items()
        for key, reason in server.doubts()
    ]
    for number, outbox in enumerate(settings.outbox):
        if outbox.after_upload is not AfterUpload.KEEP and _is_sticky(outbox.path):
            reason = "it is sticky, so files of other users stay there when they are delivered; chmod -t"
            found.append(_line(origins, ("outbox", number, "path"), f" = {shown(str(outbox.path))}: {reason}"))
    for table, server in settings.servers.items():
        for key, reason in server.login_problems():
            if not key and by_unit:
                found.append(_line(origins, (table,), f": {reason}; unless the service gets it as a credential"))
    return found


def _line(origins: Origins, place: Place, words: str) -> str:
    return f"{origins.key(place)}{words} (from {origins.of(place)})"


def _all(settings: Settings, *, by_unit: bool) -> Iterator[tuple[Place, str, str]]:
    for table, server in settings.servers.items():
        for key, reason in server.login_problems():
            if key or not by_unit:
                yield (table, key) if key else (table,), "", reason
    yield from _shown(("state_dir",), settings.state_dir, _own_folder(settings.state_dir))
    for number, outbox in enumerate(settings.outbox):
        if outbox.enabled:
            yield from _of_outbox(settings, outbox, ("outbox", number))
    for number, inbox in enumerate(settings.inbox):
        if inbox.enabled:
            yield from _shown(
                ("inbox", number, "path"), inbox.path, _not_mounted(inbox.path, settings.mounts) or _inbox(inbox)
            )


def _of_outbox(settings: Settings, outbox: OutboxSettings, place: Place) -> Iterator[tuple[Place, str, str]]:
    removes = outbox.after_upload is not AfterUpload.KEEP
    mounts = settings.mounts
    yield from _shown(
        (*place, "path"), outbox.path, _not_mounted(outbox.path, mounts) or _outbox(outbox.path, removes=removes)
    )
    target = settings.next_of(outbox)
    if target is not None:
        yield from _shown((*place, "forward_to"), target, _not_mounted(target, mounts) or _next_outbox(target))
    archives = outbox.after_upload is AfterUpload.ARCHIVE
    for key, folder in (
        ("archive", settings.archive_of(outbox) if archives else None),
        ("quarantine", settings.quarantine_of(outbox)),
    ):
        if folder is not None and (getattr(outbox, key) is not None or settings.state_dir.is_dir()):
            yield from _shown((*place, key), folder, _own_folder(folder))


def _not_mounted(folder: Path, mounts: Sequence[Path]) -> str | None:
    missing = unmounted(folder, mounts)
    return None if missing is None else f"{shown(str(missing))} is not mounted; the agent would wait for it"


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


def _next_outbox(path: Path) -> str | None:
    """Why files cannot be forwarded to this folder; None when they can."""
    if not path.exists():
        return "is not there; delivered files would wait for it"
    if not path.is_dir():
        return "is not a folder"
    may = _may(path, os.W_OK | os.X_OK)
    return None if may else f"user {os.geteuid()} may not put files into it, or its file system is read-only"


def _inbox(inbox: InboxSettings) -> str | None:
    """Why files cannot get their names in this folder; None when they can."""
    if not inbox.path.is_dir():
        return "is not a folder" if inbox.path.exists() else "is not there; the agent would wait for it"
    if not _may(inbox.path, os.W_OK | os.X_OK):
        return f"user {os.geteuid()} may not write to it, or its file system is read-only"
    status = inbox.path.stat()
    others_write = status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022
    if inbox.before_publish and others_write and not status.st_mode & stat.S_ISVTX:
        return "other users may write to it, and could exchange what before_publish judges; chmod +t"
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

"""Finds exposed secrets: files whose permissions are wider than the agent needs.

systemd's credentials are left out, because it protects them itself, by an access list that looks like group permission.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from iot.spooler.config.load import secrets_in
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown

__all__ = ["exposed_secrets"]


def exposed_secrets(settings: Settings, config: Path | None, environment: Mapping[str, str]) -> list[str]:
    """One line for each file with a secret that its group or others may read, with the commands that fix it."""
    return [
        f"{shown(str(path))}: holds {what} and may be read by others; chmod 600 {shown(str(path))}, and chown it to the"
        f" user of the agent"
        for path, what in _files(settings, config)
        if _readable_by_others(path, environment.get("CREDENTIALS_DIRECTORY"))
    ]


def _files(settings: Settings, config: Path | None) -> Iterator[tuple[Path, str]]:
    if config is not None and (keys := secrets_in(config)):
        yield config, " and ".join(keys)
    for table, server in settings.servers.items():
        for key, path in server.secret_files().items():
            yield path, f"what {table}.{key} names"


def _readable_by_others(path: Path, credentials: str | None) -> bool:
    if credentials and path.is_relative_to(credentials):
        return False
    try:
        status = os.stat(path)
    except OSError:
        return False  # what cannot be read is reported where it is used
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o077)

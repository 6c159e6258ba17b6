"""A file on the server in a line: for people as `ls -l` has it, or as JSON."""

from __future__ import annotations

import datetime as dt
import stat

from iot.transfer.model import RemoteFile

__all__ = ["json_line", "long_line"]

KINDS = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
UNKNOWN = "?"


def long_line(name: str, file: RemoteFile) -> str:
    """Mode, size in bytes, time in UTC, name."""
    mode = stat.filemode(file.mode) if file.mode is not None else UNKNOWN * 10
    size = UNKNOWN if file.size is None else str(file.size)
    return f"{mode} {size:>12} {_time(file.mtime_s) or UNKNOWN:<20} {name}"


def json_line(name: str, file: RemoteFile) -> str:
    """What the server does not tell is null; bytes that are no UTF-8 are escaped as Python's surrogates."""
    import json

    kind = None if file.mode is None else KINDS.get(stat.S_IFMT(file.mode), "other")
    mode = None if file.mode is None else f"{stat.S_IMODE(file.mode):04o}"
    row = {"name": name, "type": kind, "size": file.size, "mtime": _time(file.mtime_s) or None, "mode": mode}
    return json.dumps(row)


def _time(seconds: int | None) -> str:
    """ISO 8601 in UTC, which sorts; empty for what is no date."""
    try:
        when = dt.datetime.fromtimestamp(seconds, dt.timezone.utc) if seconds is not None else None
    except (OverflowError, OSError, ValueError):
        return ""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when is not None else ""

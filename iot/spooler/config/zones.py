"""Time zones by name, and the device's own."""

from __future__ import annotations

import os
from datetime import timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

__all__ = ["zone_named"]

DEVICE = Path("/etc/localtime")


def zone_named(name: str | None) -> tzinfo:
    """None: the device's own, as TZ or /etc/localtime say. Raises: ValueError for an unknown one."""
    if name is None:
        return _device_zone(os.environ.get("TZ", ""))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder, such as "Europe"
        raise ValueError(_unknown(name)) from None


def _device_zone(variable: str) -> tzinfo:
    """UTC where the device says nothing that can be understood, as in the C library."""
    try:
        if variable:
            return ZoneInfo(variable.removeprefix(":"))
        with DEVICE.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return timezone.utc


def _unknown(name: str) -> str:
    import difflib  # a valid configuration does not need it

    known = available_timezones()
    if not known:
        return "this device has no time zones: install tzdata (the system's package, or from PyPI), or leave it out"
    close = difflib.get_close_matches(name, known, 1)
    return "no such time zone; " + (f"perhaps {close[0]}" if close else 'names are like "Europe/Berlin" and "UTC"')

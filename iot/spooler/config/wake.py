"""What ends a wait for the server early."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from iot.spooler.config.table import Table

__all__ = ["WakeSettings"]


class WakeSettings(Table):
    """A hold (login or host key refused) is not ended by these: see auth_hold_s."""

    on_address: bool = Field(
        True, description="try the server as soon as this device gets an address, or a cable its carrier back (Linux)"
    )
    file: Path | None = Field(
        None,
        description="try the server as soon as this file is touched, an absolute path; by default `wake` in the runtime"
        " directory",
    )
    min_s: float = Field(
        5.0,
        ge=1,
        le=3600,
        description="seconds between two such tries at least; doubled with each until the server answers, up to"
        " retry.cap_s",
    )

    @field_validator("file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

"""Who may give commands to the running agent."""

from __future__ import annotations

import grp

from pydantic import Field, field_validator

from iot.spooler.config.table import Table

__all__ = ["ControlSettings"]


class ControlSettings(Table):
    """Who may use start, stop, suspend, resume and flush, apart from root and the user of the agent."""

    group: str | None = Field(
        None,
        description="name of a group whose members may give commands, too; the agent has to be a member of it itself;"
        " by default nobody else",
    )

    @field_validator("group")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                grp.getgrnam(value)
            except KeyError:
                raise ValueError(f"there is no group {value!r} on this device") from None
        return value

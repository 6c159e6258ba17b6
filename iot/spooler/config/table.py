"""What all tables of the configuration have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ByteSize, ConfigDict, Field

__all__ = ["MIB", "Size", "Table"]

MIB = 1024 * 1024
Size = Annotated[ByteSize, Field(ge=0)]


class Table(BaseModel):
    """A table: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # most are used only within others

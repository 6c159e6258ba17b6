"""What all tables of the configuration have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ByteSize, ConfigDict, Field

__all__ = ["MIB", "Size", "Table", "tables_within"]

MIB = 1024 * 1024
Size = Annotated[ByteSize, Field(ge=0)]


class Table(BaseModel):
    """A table: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # most are used only within others


def tables_within(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The keys of a table that are tables themselves, such as [outbox.retry]."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}

"""What all tables of the configuration have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import BaseModel, ByteSize, ConfigDict, Field

__all__ = ["MIB", "Size", "Table", "check_each", "tables_within"]

MIB = 1024 * 1024
Size = Annotated[ByteSize, Field(ge=0)]


class Table(BaseModel):
    """A table: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # most are used only within others


def check_each(check: Callable[[str], object], texts: Sequence[str]) -> None:
    """Raises: ValueError that names all that `check` refuses, each with its text."""
    problems = []
    for text in texts:
        try:
            check(text)
        except ValueError as error:
            words = str(error)
            problems.append(words if words.startswith(repr(text)) else f"{text!r}: {words}")
    if problems:
        raise ValueError("; ".join(problems))


def tables_within(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The keys of a table that are tables themselves, such as [outbox.retry]."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}

"""TOML knows numbers, text and true or false: a value of the file has to be of the kind that its setting wants.

The environment holds nothing but text, so it is not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ByteSize

from iot.spooler.config.origins import Place

__all__ = ["WrongLiteral", "wrong_literals"]

WORDS = {
    bool: "true or false, without quotes",
    float: "a number, without quotes",
    int: "a whole number, without quotes",
    ByteSize: 'a whole number of bytes, or text such as "10 MiB"',
}


class WrongLiteral(NamedTuple):
    """A value of the wrong kind: where it stands, and what is wanted in words."""

    place: Place
    value: object
    wanted: str


def wrong_literals(values: Mapping[str, Any], model: type[BaseModel], place: Place = ()) -> Iterator[WrongLiteral]:
    """Of one table. values: as the file has them; keys that the model does not know are left to the model."""
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None or isinstance(value, (dict, list)):
            continue
        kinds = set(_kinds(field.annotation))
        wanted = next((kind for kind in WORDS if kind in kinds), None)
        if wanted is not None and not _fits(value, wanted, kinds):
            yield WrongLiteral((*place, key), value, WORDS[wanted])


def _kinds(annotation: object) -> Iterator[type]:
    """The types that a union or an Annotated is made of."""
    if isinstance(annotation, type):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _fits(value: object, wanted: type, kinds: set[type]) -> bool:
    if isinstance(value, str):
        return wanted is ByteSize or any(issubclass(kind, str) for kind in kinds)
    if wanted is bool:
        return isinstance(value, bool)
    numbers = (int, float) if wanted is float else (int,)
    return isinstance(value, numbers) and not isinstance(value, bool)

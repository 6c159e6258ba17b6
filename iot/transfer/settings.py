"""The settings common to all remotes, validated once; below this module they are plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from iot.transfer.errors import ConfigurationError
from iot.transfer.model import Proof
from iot.transfer.options import TransferOptions
from iot.transfer.rate import Rate
from iot.transfer.terminal import brief, in_our_words

__all__ = ["Durability", "TransferSettings", "Verify", "checked", "describe_errors", "lists_options"]

KIB = 1024
MIB = 1024 * KIB


MESSAGE = 1000
"""Maximum length in characters of an error message, which may repeat the value."""


class Verify(str, Enum):
    """How to decide, before a resume, that the source is still the version that the part was made from."""

    SIZE = "size"
    TIMESTAMP = "timestamp"
    TAIL = "tail"
    FULL = "full"


class Durability(str, Enum):
    """FSYNC: the server confirms that content and name are on its disk. TRUST: an answered write is enough."""

    FSYNC = "fsync"
    TRUST = "trust"


class PartName(str, Enum):
    """OWNED: `<dest>.<8 hex digits><suffix>`. EXACT: `<dest><suffix>`."""

    OWNED = "owned"
    EXACT = "exact"


class TransferSettings(BaseModel):
    model_config = ConfigDict(defer_build=True)  # only subclasses are instantiated

    attempts: int = Field(3, ge=1, description="attempts of one operation over lost links; progress resets the count")
    backoff_s: float = Field(
        1.0, ge=0, description="seconds of the first wait between attempts, doubled each time, with jitter"
    )
    backoff_cap_s: float = Field(60.0, ge=0, description="seconds of the longest wait between attempts")
    max_rate: Rate | None = Field(
        None,
        description='bytes/s that the wire carries at most (or "2 Mbit/s"), headers and retransmissions included',
    )
    part_suffix: str = Field(
        ".part",
        description="ending of the name under which a file is sent until it is whole; 1 to 32 characters, no slash",
    )
    part_name: PartName = Field(
        PartName.OWNED,
        description="owned: that name is <dest>.<8 hex digits><part_suffix>; exact: <dest><part_suffix>, if it is free",
    )
    make_dirs: bool = Field(True, description="upload: make missing destination folders")
    keep_times: bool = Field(False, description="copy the source's modification time to the destination, best effort")
    keep_mode: bool = Field(False, description="copy the source's permission bits to the destination, best effort")
    replace_by_remove: bool = Field(
        False, description="if the server cannot rename over a file, remove the old one first (not atomic)"
    )
    verify: Verify = Field(
        Verify.TIMESTAMP, description="what must match before a resume: size, timestamp, tail or full"
    )
    proof: Proof = Field(Proof.SIZE, description="what is verified before publishing: size, tail or full")
    tail_size: int = Field(MIB, ge=1, description="bytes of a tail for verify and proof")
    server_durability: Durability = Field(
        Durability.FSYNC,
        description="fsync: wait until data is on the server's disk, where it can tell; trust: answered is enough",
    )
    publish_grace_s: float = Field(
        30.0, ge=0, description="seconds before a published file that no fsync confirmed is checked once more"
    )
    sidecar: bool = Field(
        False, description="upload: also write <dest>.sha256, as sha256sum does; download: must match <source>.sha256"
    )
    checkpoint_bytes: int = Field(
        4 * MIB, ge=64 * KIB, description="the most bytes between two checkpoints; of a fast download, four times that"
    )
    checkpoint_s: float = Field(10.0, gt=0, description="the most seconds between two checkpoints")
    stale_part_s: float = Field(
        24 * 3600.0, gt=0, description="remove our own parts of abandoned uploads after this many seconds"
    )
    state_dir: Path | None = Field(
        None, description="journal directory; default: $STATE_DIRECTORY, else ~/.local/state/iot-sftp"
    )
    owner_tag: str = Field("", description="mixed into part names, e.g. the device's id")

    @field_validator("part_suffix")
    @classmethod
    def _suffix_is_a_name(cls, value: str) -> str:
        if not value or "/" in value or "\0" in value or len(value) > 32:
            raise ValueError("must be 1 to 32 characters without a slash")
        return value

    def plain(self, owner: str) -> TransferOptions:
        """The settings as plain values, matched by name. owner: identifies the state directory."""
        names = {option.name for option in fields(TransferOptions)} & set(type(self).model_fields)
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values.update(verify=self.verify.value, trust=self.server_durability is Durability.TRUST)
        values.update(exact_part=self.part_name is PartName.EXACT)
        return TransferOptions(**values, owner=owner + self.owner_tag)


Model = TypeVar("Model", bound=BaseModel)
Documented = TypeVar("Documented", bound=type)


def checked(
    model: type[Model], options: Mapping[str, Any], problems: Iterable[str] = (), words: Mapping[str, str] | None = None
) -> Model:
    """Options given as keywords.

    problems: what is wrong with the caller's other arguments. words: names that are no options, but may be meant by an
    unknown one, with the name to suggest.

    Raises: ConfigurationError naming everything that is wrong.
    """
    found = [*problems]
    try:
        settings = model(**options)
    except ValidationError as error:
        names = {name: name for name in model.model_fields} | dict(words or {})
        found += describe_errors(error, names)
    else:
        if not found:
            return settings
    raise ConfigurationError("; ".join(found)) from None


def describe_errors(error: ValidationError, known: Mapping[str, str] | None = None) -> list[str]:
    """One line per invalid setting: its key, what is wrong, and its value unless that could be a secret.

    An unknown key could be a mistyped password. known: names that may be meant by one, with the name to suggest.
    """
    details = error.errors(include_url=False, include_context=False)
    return [_describe(dict(detail), known or {}) for detail in details]


def lists_options(model: type[BaseModel]) -> Callable[[Documented], Documented]:
    """A decorator: the class's docstring, which help() shows, goes on with its parent's and with every option."""

    def documented(client: Documented) -> Documented:
        own, parents = client.__doc__, client.__base__.__doc__
        if own is not None and parents is not None:  # python -OO has none
            common = parents.partition("\n\n")[2].rstrip()
            options = "".join(_listed(name, field) for name, field in model.model_fields.items())
            client.__doc__ = f"{own.rstrip()}\n\n{common}\n\n    Options and their defaults:\n{options}"
        return client

    return documented


def _listed(name: str, field: FieldInfo) -> str:
    default = field.default.value if isinstance(field.default, Enum) else field.default
    return f"        {name} = {default!r}\n            {field.description}\n"


def _describe(detail: dict[str, Any], known: Mapping[str, str]) -> str:
    setting, *inside = detail["loc"] or ("",)  # inside: the place in a list, or which of several types was tried
    key = brief(".".join([str(setting), *(str(part) for part in inside if isinstance(part, int))]))
    if detail["type"] == "extra_forbidden":
        return f"unknown option {key!r}{_meant(key, known)}"
    message = brief(in_our_words(detail["msg"]), MESSAGE)
    if not key:
        return message
    shown = f" (got {brief(repr(detail['input']))})" if _may_be_shown(key, detail) else ""
    return f"{key}: {message}{shown}"


def _meant(key: str, known: Mapping[str, str]) -> str:
    """The nearest name; of names equally near, the first."""
    import difflib  # valid options do not need it

    close = difflib.get_close_matches(key, known, 5)
    if not close:
        return "; help() of the client lists all" if known else ""

    def edits(name: str) -> int:
        steps = difflib.SequenceMatcher(None, key, name).get_opcodes()
        return sum(max(i2 - i1, j2 - j1) for what, i1, i2, j1, j2 in steps if what != "equal")

    return f": did you mean {known[min((name for name in known if name in close), key=edits)]!r}?"


def _may_be_shown(key: str, detail: dict[str, Any]) -> bool:
    """A mapping contains other settings as well, and for a missing value pydantic shows its neighbours."""
    secret = any(word in key.lower() for word in ("pass", "secret", "prompt", "proxy"))
    return not secret and detail["type"] != "missing" and not isinstance(detail["input"], Mapping)

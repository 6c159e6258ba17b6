"""Which remotes there are: the one place of the service that knows protocols, each loaded only when configured."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from iot.transfer import Journal

__all__ = ["KINDS", "NOT_FROM_FILE", "UNKNOWN", "ServerSettings", "server_keys", "server_settings"]

KINDS = {
    "sftp": "iot.sftp.client.configured",
    "folder": "iot.folder.configured",
    "ftp": "iot.ftp.configured",
}
"""kind -> module with its `ServerSettings`."""
DEFAULT = "sftp"
NOT_FROM_FILE = ("attempts", "owner_tag", "prompts", "state_dir")
"""Options of a client that the spooler sets itself."""


class ServerSettings(Protocol):
    """The table [server], whatever the protocol: checked, and able to make the remote it describes."""

    @property
    def address(self) -> str:
        """For people: where files go, without a secret."""

    @property
    def local_folder(self) -> Path | None:
        """Where files go, if that is a folder of this device."""

    @property
    def identity(self) -> str:
        """What the server proves itself by, in a word or two; "" where it does not."""

    def secret_files(self) -> Mapping[str, Path]:
        """The files with secrets that are named here, by their keys."""

    def login_files(self) -> list[Path]:
        """All files that a login depends on: whoever is refused may be let in when one of them has changed."""

    def login_problems(self) -> list[tuple[str, str]]:
        """What keeps these settings from a login, as far as this device can tell: (key, or "", and the reason)."""

    def doubts(self) -> list[tuple[str, str]]:
        """What may go wrong there, and why, by key."""

    def remote(self, journal: Journal, device_id: str) -> Any:
        """A client as the settings say. One attempt each: the spooler's policy does the waiting."""


class _Unknown:
    """Stands for a [server] that is wrong, so that the rest of the configuration can be looked at."""

    address = identity = ""
    local_folder = None

    def secret_files(self) -> Mapping[str, Path]:
        return {}

    def login_files(self) -> list[Path]:
        return []

    def login_problems(self) -> list[tuple[str, str]]:
        return []

    def doubts(self) -> list[tuple[str, str]]:
        return []

    def remote(self, _journal: Journal, _device_id: str) -> Any:
        raise NotImplementedError


UNKNOWN: ServerSettings = _Unknown()


class _Model(Protocol):
    model_fields: Mapping[str, Any]

    def model_validate(self, values: object) -> ServerSettings: ...


def server_model(kind: str) -> _Model:
    return cast(_Model, importlib.import_module(KINDS[kind]).ServerSettings)


def server_keys() -> set[str]:
    """What [server] may hold, of whatever kind."""
    names = {name for kind in KINDS for name in server_model(kind).model_fields}
    return names.difference(NOT_FROM_FILE) | {"kind"}


def server_settings(values: object) -> ServerSettings:
    """Check [server]; its key `kind` decides by which model, SFTP's without it. Raises: ValidationError, ValueError."""
    if values is UNKNOWN:
        return UNKNOWN
    kind: object = DEFAULT
    if isinstance(values, Mapping) and "kind" in values:
        kind = values["kind"]
        values = {key: value for key, value in values.items() if key != "kind"}
    if not isinstance(kind, str) or kind not in KINDS:
        wrong = PydanticCustomError("value_error", f"there is {', '.join(sorted(KINDS))}")
        raise ValidationError.from_exception_data("server", [InitErrorDetails(type=wrong, loc=("kind",), input=kind)])
    return server_model(kind).model_validate(values)

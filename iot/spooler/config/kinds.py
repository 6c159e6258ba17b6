"""Which remotes there are: the one place of the service that knows protocols, each loaded only when configured."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from iot.transfer import Journal

__all__ = ["KINDS", "ServerSettings", "keys_not_from_file", "server_keys", "server_settings"]

KINDS = {
    "sftp": "iot.sftp.client.configured",
    "folder": "iot.folder.configured",
    "ftp": "iot.ftp.configured",
}
"""kind -> module with its `ServerSettings`."""
DEFAULT = "sftp"


class ServerSettings(Protocol):
    """The table [server], whatever the protocol: checked, and able to make the remote it describes."""

    @property
    def address(self) -> str:
        """For people: where files go, without a secret."""

    def secret_files(self) -> Mapping[str, Path]:
        """The files with secrets that are named here, by their keys."""

    def login_problems(self) -> list[tuple[str, str]]:
        """What keeps these settings from a login, as far as this device can tell: (key, or "", and the reason)."""

    def remote(self, journal: Journal, device_id: str) -> Any:
        """A client as the settings say. One attempt each: the spooler's policy does the waiting."""


class _Model(Protocol):
    model_fields: Mapping[str, Any]
    NOT_FROM_FILE: tuple[str, ...]

    def model_validate(self, values: object) -> ServerSettings: ...


def server_model(kind: str) -> _Model:
    return cast(_Model, importlib.import_module(KINDS[kind]).ServerSettings)


def server_keys() -> list[str]:
    """What [server] may hold."""
    model = server_model("sftp")
    return [name for name in model.model_fields if name not in model.NOT_FROM_FILE]


def keys_not_from_file() -> tuple[str, ...]:
    """Options of a client that the spooler sets itself."""
    return server_model("sftp").NOT_FROM_FILE


def server_settings(values: object) -> ServerSettings:
    """Check [server]; its key `kind` decides by which model, SFTP's without it. Raises: ValidationError, ValueError."""
    kind: object = DEFAULT
    if isinstance(values, Mapping) and "kind" in values:
        kind = values["kind"]
        values = {key: value for key, value in values.items() if key != "kind"}
    if not isinstance(kind, str) or kind not in KINDS:
        wrong = PydanticCustomError("value_error", f"there is {', '.join(sorted(KINDS))}")
        raise ValidationError.from_exception_data("server", [InitErrorDetails(type=wrong, loc=("kind",), input=kind)])
    return server_model(kind).model_validate(values)

"""The registry of remotes: the only place of the service that names protocols. Each is loaded only when configured.

Whatever the service needs to know about a kind of server is stated by its class: see iot.transfer's ConfiguredRemote.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from iot.transfer import ConfiguredRemote

__all__ = [
    "KIND",
    "KINDS",
    "SERVERS",
    "UNKNOWN",
    "fallback_settings",
    "model_of",
    "server_keys",
    "server_model",
    "server_settings",
]

KINDS = {
    "sftp": "iot.sftp.client.configured",
    "folder": "iot.folder.configured",
    "ftp": "iot.ftp.configured",
}
"""kind -> module with its `ServerSettings`."""
DEFAULT = "sftp"
KIND = "kind"
"""The key of [server] that selects one."""
SERVERS = ("server", "fallback")
"""The tables that describe a server."""


class _Unknown:
    """Stands for a [server] that is invalid, so that the rest of the configuration can be looked at."""

    address = account = identity = ""
    local_folder = None

    def secret_files(self) -> dict[str, Path]:
        return {}

    def login_files(self) -> list[Path]:
        return []

    def login_problems(self) -> list[tuple[str, str]]:
        return []

    def doubts(self) -> list[tuple[str, str]]:
        return []


UNKNOWN = cast(ConfiguredRemote, _Unknown())


def server_model(kind: str) -> type[ConfiguredRemote]:
    return cast(type[ConfiguredRemote], importlib.import_module(KINDS[kind]).ServerSettings)


def server_keys() -> set[str]:
    """The keys of [server], of all kinds."""
    models = [server_model(kind) for kind in KINDS]
    return {name for model in models for name in set(model.model_fields).difference(model.NOT_FROM_FILE)} | {KIND}


def model_of(values: object) -> type[ConfiguredRemote] | None:
    """The model that [server] is validated with: SFTP's if no kind is given, None if there is no such kind."""
    kind = _kind(values)
    return server_model(kind) if isinstance(kind, str) and kind in KINDS else None


def server_settings(values: object) -> ConfiguredRemote:
    """Validate [server]. Raises: ValidationError."""
    if values is UNKNOWN:
        return UNKNOWN
    model = model_of(values)
    if model is None:
        raise _no_such_kind(_kind(values))
    if isinstance(values, Mapping):
        values = {key: value for key, value in values.items() if key != KIND}
    return model.model_validate(values)


def fallback_settings(values: object) -> ConfiguredRemote | None:
    """Validate [fallback]; None where there is none. Raises: ValidationError."""
    return None if values is None else server_settings(values)


def _kind(values: object) -> object:
    return values.get(KIND, DEFAULT) if isinstance(values, Mapping) else DEFAULT


def _no_such_kind(kind: object) -> ValidationError:
    wrong = PydanticCustomError("value_error", f"must be one of {', '.join(sorted(KINDS))}")
    return ValidationError.from_exception_data("server", [InitErrorDetails(type=wrong, loc=(KIND,), input=kind)])

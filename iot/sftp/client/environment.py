"""The client's settings from the environment and .env. Separate from settings.py because a spooler never needs it: its
imports would cost a device a sixth of its startup time, and memory.

A `.env` that happens to be in the working directory may be anybody's: from an unpacked archive, or a checkout. Unless
it is requested by name, it cannot set anything in TRUST: which server to talk to, how to identify it, which keys to
use, which command to run for answers, where to keep state. So such a file can never send a password from the
environment to another host.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr

from iot.sftp.client.settings import ClientOptions, OptionFields
from iot.transfer.deferred import deferred
from iot.transfer.errors import ConfigurationError
from iot.transfer.givenfile import read_text_once
from iot.transfer.terminal import did_you_mean

with deferred("asyncio"):  # only used for commands that are coroutines
    from pydantic_settings import (
        BaseSettings,
        DotEnvSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        SettingsError,
    )

__all__ = ["TRUST", "ClientSettings", "EnvFile", "SettingsError", "env_file_here", "named_env_file"]

TRUST = frozenset(
    (
        "host",
        "port",
        "known_hosts",
        "host_key",
        "key_file",
        "key_passphrase",
        "agent",
        "prompt_file",
        "prompt_command",
        "ssh_config",
        "bind_address",
        "bind_interface",
        "proxy",
        "proxy_password",
        "ciphers",
        "state_dir",
    )
)
"""Settings that a .env file may give only if it is requested by name."""
HERE = ".env"
PREFIX = "SFTP_"
SWITCHES = ("sftp_verbose", "sftp_quiet")
"""Variables of the command line that are no settings."""


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A .env file that was not requested by name.

    taken: the settings it gives, by the lower-case names of their variables. refused: variables it must not set.
    problem: why it could not be read; otherwise empty.
    """

    path: Path
    taken: dict[str, str]
    refused: tuple[str, ...] = ()
    problem: str = ""


class ClientSettings(OptionFields, BaseSettings):
    """The options and the login, from SFTP_<NAME> variables and .env; keyword arguments take precedence.

    _env_file: a file that may set everything. By default, .env in the working directory is read, but cannot set
        anything in TRUST; None reads none.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=(),
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        enable_decoding=False,
    )

    host: str = Field(min_length=1, description="server name or address")
    port: int = Field(22, ge=1, le=65535, description="TCP port")
    user: str | None = Field(None, description="login name")
    password: SecretStr | None = Field(None, description="login password")
    key_file: Path | None = Field(
        None,
        validation_alias=AliasChoices("SFTP_KEY", "SFTP_KEY_FILE", "key_file", "key"),
        description="private key of any type (RSA, ECDSA, Ed25519, with certificate)",
    )

    def options(self) -> ClientOptions:
        """The part of these settings that IoTSFTPClient takes as keywords."""
        return ClientOptions(**{name: getattr(self, name) for name in OptionFields.model_fields})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if isinstance(dotenv_settings, DotEnvSettingsSource) and dotenv_settings.env_file == ():
            found = env_file_here()
            dotenv_settings.env_vars = dict(found.taken) if found is not None else {}
        return init_settings, env_settings, dotenv_settings, file_secret_settings


def env_file_here() -> EnvFile | None:
    """What the .env of the working directory may and may not set; None if there is none, or nothing of ours in it.

    Values are taken literally: ${NAME} is not expanded, or such a file could pass on a secret.
    """
    path = Path(HERE).absolute()
    try:
        given = dotenv_values(stream=io.StringIO(read_text_once(path)), interpolate=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return EnvFile(path, {}, problem=str(error.strerror or error))
    except UnicodeDecodeError:
        return EnvFile(path, {}, problem="is not UTF-8 text")
    settings = _variables()
    ours = {name: value for name, value in given.items() if value and name.lower() in settings}
    if not ours:
        return None
    refused = tuple(name for name in ours if settings[name.lower()] in TRUST)
    return EnvFile(path, {name.lower(): value for name, value in ours.items() if name not in refused}, refused)


def named_env_file(path: Path) -> dict[str, str]:
    """What a file that was requested by name sets, by the upper-case names of its variables.

    Raises: ConfigurationError if it cannot be read, and for each variable that looks like ours and is none.
    """
    try:
        given = dotenv_values(stream=io.StringIO(read_text_once(path)))
    except FileNotFoundError:
        raise ConfigurationError(f"--env-file {path}: no such file") from None
    except OSError as error:
        raise ConfigurationError(f"--env-file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:  # its words quote what it could not read
        raise ConfigurationError(f"--env-file {path}: is not UTF-8 text") from None
    known = {*_variables(), *SWITCHES, *(f"sftp_{name}_file" for name in _secrets())}
    wrong = [name for name in given if _looks_like_ours(name) and name.lower() not in known]
    if wrong:
        raise ConfigurationError("\n".join(f"--env-file {path}: {_neighbour(name, known)}" for name in wrong))
    return {name.upper(): value for name, value in given.items() if value}


def _looks_like_ours(name: str) -> bool:
    """It has our prefix, be it with two letters exchanged. What else such a file holds is for other programs."""
    return name[len(PREFIX) - 1 : len(PREFIX)] == "_" and sorted(name.upper()[: len(PREFIX)]) == sorted(PREFIX)


def _neighbour(name: str, known: set[str]) -> str:
    return f"{name}: no such setting{did_you_mean(name.upper(), sorted(map(str.upper, known)))}"


def _secrets() -> list[str]:
    return [name for name, field in ClientSettings.model_fields.items() if SecretStr in get_args(field.annotation)]


def _variables() -> dict[str, str]:
    """The setting for each variable; names in lower case."""
    names = {f"sftp_{name}": name for name in ClientSettings.model_fields}
    return names | {"sftp_key": "key_file"}

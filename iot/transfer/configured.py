"""A remote as the spooler is configured to use it: what the table [server] of every kind has to tell.

Each remote has a class `ServerSettings` of its own, made of its options and of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from iot.transfer.address import host_problems
from iot.transfer.errors import ConfigurationError
from iot.transfer.givenfile import check_readable, read_text_once
from iot.transfer.journal.journal import Journal

__all__ = ["ConfiguredLogin", "ConfiguredRemote", "checked_file"]


class ConfiguredRemote(BaseModel):
    """The table [server], whatever its kind: checked, and able to make the client it describes."""

    OPTIONS: ClassVar[type[BaseModel]]
    """The options of the client."""
    NOT_FROM_FILE: ClassVar[tuple[str, ...]] = ("attempts", "owner_tag", "state_dir")
    """Those that the spooler sets itself."""
    SECRET_FILES: ClassVar[tuple[str, ...]] = ()
    """The keys that name a file with a secret."""
    CREDENTIALS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Name of a systemd credential -> the key it gives, and those that make it unnecessary where they are set."""

    @classmethod
    def secret_keys(cls) -> list[str]:
        """The keys whose value is a secret itself."""
        return [name for name, field in cls.model_fields.items() if SecretStr in get_args(field.annotation)]

    @classmethod
    def list_keys(cls) -> list[str]:
        """The keys that hold several values."""
        return [name for name, field in cls.model_fields.items() if get_origin(field.annotation) is tuple]

    @property
    def address(self) -> str:
        """For people: where files go, without a secret."""
        raise NotImplementedError

    @property
    def account(self) -> str:
        """What tells it from another one: where files go, and as whom."""
        return self.address

    @property
    def local_folder(self) -> Path | None:
        """Where files go, if that is a folder of this device."""
        return None

    @property
    def identity(self) -> str:
        """What the server proves itself by, in a word or two; "" where it does not."""
        return ""

    def login_files(self) -> list[Path]:
        """All files that a login depends on: whoever is refused may be let in when one of them has changed."""
        return list(self.secret_files().values())

    def doubts(self) -> list[tuple[str, str]]:
        """What may go wrong there: (key, reason)."""
        return []

    def secret_files(self) -> dict[str, Path]:
        """The files with secrets that are named here, by their keys."""
        named = {key: getattr(self, key) for key in self.SECRET_FILES}
        return {key: path for key, path in named.items() if path is not None}

    def login_problems(self) -> list[tuple[str, str]]:
        """What keeps these settings from a login, as far as this device can tell: (key, or "", and the reason)."""
        return []

    def client_options(self) -> dict[str, Any]:
        """The options that were given, as keywords of the client."""
        names = self.model_fields_set & set(self.OPTIONS.model_fields) - set(self.NOT_FROM_FILE)
        return {name: getattr(self, name) for name in sorted(names)}

    def remote(self, journal: Journal, device_id: str) -> Any:
        """A client as the settings say. Raises: ConfigurationError when a file it needs has gone bad."""
        raise NotImplementedError

    def options_here(self, device_id: str) -> dict[str, Any]:
        """The options of a client of the spooler. One attempt each: the spooler's policy does the waiting."""
        return {**self.client_options(), "attempts": 1, "owner_tag": device_id}


class ConfiguredLogin(ConfiguredRemote):
    """A remote at another host, which asks for a password or takes one."""

    SECRET_FILES: ClassVar[tuple[str, ...]] = ("password_file",)
    CREDENTIALS: ClassVar[Mapping[str, tuple[str, ...]]] = {"password": ("password_file", "password")}

    host: str = Field(min_length=1, pattern=r"^[^\s\x00]+$", description="server name or address")
    password: SecretStr | None = Field(None, description="login password; better in password_file")
    password_file: Path | None = Field(None, description="file that holds the login password")

    @field_validator("host")
    @classmethod
    def _host_alone(cls, value: str) -> str:
        for problem in host_problems("host", value):
            raise ValueError(problem.removeprefix("host: "))
        return value

    @model_validator(mode="after")
    def _one_password(self) -> ConfiguredLogin:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self

    @field_validator("password")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_one_line(value.get_secret_value()):
            raise ValueError("must not hold a line end or NUL")
        return value

    @field_validator("password_file")
    @classmethod
    def _holds_a_password(cls, value: Path | None) -> Path | None:
        if value is not None:
            _password_in(value)
        return value

    def login_problems(self) -> list[tuple[str, str]]:
        try:
            self.login_password()
        except ConfigurationError as error:
            return [("password_file", str(error))]
        return []

    def login_password(self) -> str | None:
        """The password, from wherever it was given. Raises: ConfigurationError when its file has gone bad."""
        if self.password_file is None:
            return self.password.get_secret_value() if self.password is not None else None
        try:
            return _password_in(self.password_file)
        except ValueError as error:
            raise ConfigurationError(f"password_file = {str(self.password_file)!r}: {error}") from None


def checked_file(path: Path) -> Path:
    """A file that can be read. Raises: ValueError saying why it cannot."""
    try:
        check_readable(path)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return path


def _password_in(path: Path) -> str:
    """The password that a file holds. Raises: ValueError, which never quotes the content."""
    try:
        password = read_text_once(checked_file(path)).rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("holds no UTF-8 text") from None
    if not password or not _is_one_line(password):
        raise ValueError("holds no password")
    return password


def _is_one_line(text: str) -> bool:
    return not any(char in text for char in "\r\n\0")

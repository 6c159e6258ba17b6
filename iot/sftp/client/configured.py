"""SFTP as one of the spooler's remotes: the table [server] of its configuration, and the client that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator, model_validator

from iot.sftp.client.client import IoTSFTPClient
from iot.sftp.client.session import known_hosts_of
from iot.sftp.client.settings import ClientOptions
from iot.transfer.errors import ConfigurationError
from iot.transfer.givenfile import check_readable
from iot.transfer.journal.journal import Journal

__all__ = ["ServerSettings"]

SECRET_FILES = ("password_file", "key_file")


class ServerSettings(ClientOptions):
    """Where to log in and how: host, port, user, password, and every option of the client."""

    NOT_FROM_FILE: ClassVar[tuple[str, ...]] = ("attempts", "owner_tag", "prompts", "state_dir")

    host: str = Field(min_length=1, pattern=r"\S")
    port: int = Field(22, ge=1, le=65535)
    user: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one_password(self) -> ServerSettings:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self

    @field_validator("password_file", "key_file", "known_hosts")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                check_readable(value)
            except OSError as error:
                raise ValueError(f"cannot be read: {error.strerror}") from None
        return value

    @field_validator("password_file")
    @classmethod
    def _holds_a_password(cls, value: Path | None) -> Path | None:
        if value is not None:
            _password_in(value)
        return value

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def local_folder(self) -> Path | None:
        return None

    @property
    def identity(self) -> str:
        return "host key"

    def secret_files(self) -> dict[str, Path]:
        """The files with secrets that are named here, by their keys."""
        named = {key: getattr(self, key) for key in SECRET_FILES}
        return {key: path for key, path in named.items() if path is not None}

    def login_files(self) -> list[Path]:
        """All files that a login depends on; a certificate lies beside its key."""
        files = [*self.secret_files().values(), self.prompt_file, known_hosts_of(self)]
        if self.key_file is not None:
            files.append(self.key_file.with_name(f"{self.key_file.name}-cert.pub"))
        return [file for file in files if file is not None]

    def login_problems(self) -> list[tuple[str, str]]:
        """What keeps these settings from a login, as far as this device can tell: (key, or "", and the reason)."""
        try:
            password = self.login_password()
        except ConfigurationError as error:
            return [("password_file", str(error))]
        try:
            client = IoTSFTPClient(self.host, self.port, self.user, password, **self.client_options())
        except ConfigurationError as error:
            return [("user", str(error))]
        return client.login_problems()

    def doubts(self) -> list[tuple[str, str]]:
        return []

    def remote(self, journal: Journal, device_id: str) -> IoTSFTPClient:
        """A client as the settings say. One attempt each: the spooler's policy does the waiting."""
        options = {**self.client_options(), "attempts": 1, "owner_tag": device_id}
        return IoTSFTPClient(self.host, self.port, self.user, self.login_password(), journal=journal, **options)

    def login_password(self) -> str | None:
        """The password, from wherever it was given. Raises: ConfigurationError when its file has gone bad."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is not None:
            try:
                return _password_in(self.password_file)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"server.password_file = {str(self.password_file)!r}: {error}") from None
        return None

    def client_options(self) -> dict[str, Any]:
        """The options that were given, as keywords of the client."""
        names = self.model_fields_set & set(ClientOptions.model_fields) - set(self.NOT_FROM_FILE)
        return {name: getattr(self, name) for name in sorted(names)}


def _password_in(path: Path) -> str:
    """The password that a file holds. Raises: OSError; ValueError, which never quotes the content."""
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("holds no UTF-8 text") from None
    if not password or "\0" in password:
        raise ValueError("holds no password")
    return password

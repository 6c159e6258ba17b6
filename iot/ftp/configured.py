"""FTP as one of the spooler's remotes: the table [server], and the client that it describes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from iot.ftp.client import IMPLICIT_PORT, PORT, FTPClient
from iot.ftp.settings import TLS, FTPOptions
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.journal import Journal

__all__ = ["ServerSettings"]

NOT_FROM_FILE = {"attempts", "owner_tag", "state_dir"}


class ServerSettings(FTPOptions):
    """Where to log in and how, and every option of the client."""

    host: str = Field(min_length=1, pattern=r"^[^\s\x00]+$")
    port: int | None = Field(None, ge=1, le=65535)
    user: str = Field("anonymous", min_length=1, pattern=r"^[^\r\n\x00]+$")
    password: SecretStr | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one_password(self) -> ServerSettings:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self

    @field_validator("password")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and any(char in value.get_secret_value() for char in "\r\n\0"):
            raise ValueError("must not hold a line end or NUL")
        return value

    @field_validator("password_file")
    @classmethod
    def _holds_a_password(cls, value: Path | None) -> Path | None:
        if value is not None:
            _password_in(value)
        return value

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port or (IMPLICIT_PORT if self.tls is TLS.IMPLICIT else PORT)}"

    @property
    def local_folder(self) -> Path | None:
        return None

    @property
    def identity(self) -> str:
        return "certificate" if self.tls else ""

    def secret_files(self) -> dict[str, Path]:
        return {"password_file": self.password_file} if self.password_file is not None else {}

    def login_files(self) -> list[Path]:
        return [file for file in (self.password_file, self.ca_file) if file is not None]

    def login_problems(self) -> list[tuple[str, str]]:
        """What keeps these settings from a login, as far as this device can tell: (key, or "", and the reason)."""
        try:
            self._login_password()
        except ConfigurationError as error:
            return [("password_file", str(error))]
        if self.user != "anonymous" and self.password is None and self.password_file is None:
            return [("", f"nothing to log in with: user {self.user!r} needs a password or password_file")]
        return []

    def doubts(self) -> list[tuple[str, str]]:
        return [("tls", "the password and all files go in clear text")] if not self.tls else []

    def remote(self, journal: Journal, device_id: str) -> FTPClient:
        """A client as the settings say. One attempt each: the spooler's policy does the waiting."""
        names = self.model_fields_set & set(FTPOptions.model_fields) - NOT_FROM_FILE
        options = {name: getattr(self, name) for name in sorted(names)}
        return FTPClient(
            self.host,
            self.port,
            self.user,
            self._login_password(),
            journal=journal,
            **options,
            attempts=1,
            owner_tag=device_id,
        )

    def _login_password(self) -> str:
        """Raises: ConfigurationError when its file has gone bad."""
        if self.password_file is None:
            return self.password.get_secret_value() if self.password is not None else ""
        try:
            return _password_in(self.password_file)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"server.password_file = {str(self.password_file)!r}: {error}") from None


def _password_in(path: Path) -> str:
    """Raises: OSError, as it was; ValueError, which never quotes the content. A fifo is not waited for."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            password = file.read().decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("holds no UTF-8 text") from None
    if not password or any(char in password for char in "\r\n\0"):
        raise ValueError("holds no password")
    return password

"""FTP as a remote of the spooler: the table [server] of its configuration, and the client it describes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from iot.ftp.client import IMPLICIT_PORT, PORT, FTPClient
from iot.ftp.settings import TLS, FTPOptions
from iot.transfer.configured import ConfiguredLogin
from iot.transfer.journal.journal import Journal

__all__ = ["ServerSettings"]


class ServerSettings(ConfiguredLogin, FTPOptions):
    """Where to log in and how, and every option of the client."""

    OPTIONS = FTPOptions

    port: int | None = Field(None, ge=1, le=65535, description="TCP port; by default 21, or 990 with implicit TLS")
    user: str = Field("anonymous", min_length=1, pattern=r"^[^\r\n\x00]+$", description="login name")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port or (IMPLICIT_PORT if self.tls is TLS.IMPLICIT else PORT)}"

    @property
    def account(self) -> str:
        return f"{self.user}@{self.address}"

    @property
    def identity(self) -> str:
        return "certificate" if self.tls else ""

    def login_files(self) -> list[Path]:
        return [*super().login_files(), *([self.ca_file] if self.ca_file is not None else [])]

    def login_problems(self) -> list[tuple[str, str]]:
        if self.user != "anonymous" and self.password is None and self.password_file is None:
            return [("", f"nothing to log in with: user {self.user!r} needs a password or password_file")]
        return super().login_problems()

    def doubts(self) -> list[tuple[str, str]]:
        return [("tls", "the password and all files go in clear text")] if not self.tls else []

    def remote(self, journal: Journal, device_id: str) -> FTPClient:
        password = self.login_password() or ""
        return FTPClient(self.host, self.port, self.user, password, journal=journal, **self.options_here(device_id))

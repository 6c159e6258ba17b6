"""FTP as a remote of the spooler: the table [server] of its configuration, and the client it describes."""

from __future__ import annotations

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

    def remote(self, journal: Journal, device_id: str) -> FTPClient:
        password = self.login_password() or ""
        return FTPClient(self.host, self.port, self.user, password, journal=journal, **self.options_here(device_id))

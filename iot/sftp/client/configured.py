"""SFTP as a remote of the spooler: the table [server] of its configuration, and the client it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from iot.sftp.client.client import IoTSFTPClient
from iot.sftp.client.session import known_hosts_of
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.ssh import openssh_config
from iot.transfer.configured import ConfiguredLogin, checked_file
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.journal import Journal

__all__ = ["ServerSettings"]


class ServerSettings(ConfiguredLogin, ClientOptions):
    """Where to log in and how: host, port, user, password, and every option of the client."""

    OPTIONS = ClientOptions
    NOT_FROM_FILE: ClassVar[tuple[str, ...]] = (*ConfiguredLogin.NOT_FROM_FILE, "prompts")
    SECRET_FILES: ClassVar[tuple[str, ...]] = (*ConfiguredLogin.SECRET_FILES, "key_file", "prompt_file")
    CREDENTIALS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ConfiguredLogin.CREDENTIALS,
        "key": ("key_file",),
        "key_passphrase": ("key_passphrase",),
        "known_hosts": ("known_hosts", "host_key"),
    }

    port: int = Field(22, ge=1, le=65535, description="TCP port")
    user: str | None = Field(None, description="login name; by default that of the user who runs the agent")

    @field_validator("key_file", "known_hosts")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        return value if value is None else checked_file(value)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def account(self) -> str:
        return f"{self.user}@{self.address}"

    @property
    def identity(self) -> str:
        return "host key"

    def login_files(self) -> list[Path]:
        """A certificate lies beside its key. Of an OpenSSH configuration, what it names for this host counts, too."""
        way = self._way_of_ssh()
        files = [*super().login_files(), self.prompt_file, *known_hosts_of(self, way.known_hosts if way else ())]
        if self.key_file is not None:
            files.append(self.key_file.with_name(f"{self.key_file.name}-cert.pub"))
        if self.ssh_config is not None:
            files += [*openssh_config.files(self.ssh_config), *(way.identities if way else ())]
        return [file for file in files if file is not None]

    def login_problems(self) -> list[tuple[str, str]]:
        found = super().login_problems()
        if found:
            return found
        try:
            return self._client(self.client_options()).login_problems()
        except ConfigurationError as error:
            return [("user", str(error))]

    def doubts(self) -> list[tuple[str, str]]:
        return []

    def remote(self, journal: Journal, device_id: str) -> IoTSFTPClient:
        return self._client(self.options_here(device_id), journal)

    def _way_of_ssh(self) -> openssh_config.Way | None:
        """What the OpenSSH configuration says; None where there is none, or it is wrong by now."""
        if self.ssh_config is None:
            return None
        try:
            return openssh_config.way_to(self.host, self._port(), self.user, self.ssh_config)
        except ConfigurationError:
            return None  # the login says it

    def _port(self) -> int | None:
        return self.port if "port" in self.model_fields_set else None  # else the OpenSSH configuration may say

    def _client(self, options: Mapping[str, Any], journal: Journal | None = None) -> IoTSFTPClient:
        return IoTSFTPClient(self.host, self._port(), self.user, self.login_password(), journal=journal, **options)

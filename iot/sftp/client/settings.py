"""Every setting of the client, validated once; below this module they are plain values.

`ClientOptions` only takes keywords. `environment.ClientSettings`, for the command line, reads the same fields, and
host, port, user and password, from SFTP_<NAME> variables and a .env file.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from iot.sftp.client.ssh.capabilities import check_ciphers, check_congestion
from iot.sftp.client.ssh.dial import check_interface
from iot.sftp.client.ssh.openssh_config import NONE
from iot.sftp.client.ssh.openssh_config import check as check_config
from iot.sftp.client.ssh.proxy import proxy_from
from iot.transfer.errors import ConfigurationError
from iot.transfer.settings import Durability, TransferSettings, Verify, checked, describe_errors
from iot.transfer.terminal import terminal_safe

__all__ = ["ClientOptions", "Durability", "OptionFields", "Verify", "describe_errors", "options_from"]

FINGERPRINT = re.compile("SHA256:[A-Za-z0-9+/]{43}=?")
KIB = 1024
MIB = 1024 * KIB


class OptionFields(TransferSettings):
    # -- who we are
    key_file: Path | None = Field(None, description="private key of any type (RSA, ECDSA, Ed25519, with certificate)")
    key_passphrase: SecretStr | None = Field(None, description="passphrase of key_file")
    agent: bool = Field(False, description="offer the keys of a running ssh-agent")
    prompt_file: Path | None = Field(
        None, description="file with answers to prompts other than the password, one per line, in order"
    )
    prompt_command: tuple[str, ...] = Field(
        (), description="command whose first line of output answers prompts other than the password, e.g. a TOTP code"
    )
    ssh_config: str | None = Field(
        None, description="OpenSSH configuration to follow: a file, default (the user's, the system's) or none"
    )
    # -- the way there
    proxy: str | None = Field(None, description="socks5://[user@]host[:port] or http://..., which connects for us")
    proxy_password: SecretStr | None = Field(None, description="password of the proxy's user")
    bind_address: str | None = Field(None, description="address of this device to connect from")
    bind_interface: str | None = Field(
        None, description="network interface of this device to connect through, e.g. wwan0 (Linux)"
    )
    # -- who the server is
    known_hosts: Path | None = Field(None, description="known_hosts file; default: ~/.ssh/known_hosts")
    host_key: str | None = Field(
        None, description='pinned fingerprint of the host key, "SHA256:..."; known_hosts is not read'
    )
    # -- deadlines
    connect_timeout_s: float = Field(20.0, gt=0, description="seconds for TCP to connect, per address")
    link_deadline_s: float = Field(
        60.0, gt=0, description="seconds without a byte from the server until the link counts as dead"
    )
    server_reply_s: float = Field(
        600.0, gt=0, description="seconds that the server may take for one answer while the link is alive"
    )
    keepalive_s: float = Field(30.0, ge=0, description="seconds between keepalives on an idle connection; 0: none")
    # -- transfer
    chunk_size: int | None = Field(
        None, ge=KIB, le=16 * MIB, description="bytes per request; default: from the server's limits and the rate"
    )
    slots: int = Field(
        1024,
        ge=1,
        le=4096,
        description="files whose content is in flight at most; half as many once they hold 1 MiB together",
    )
    max_in_flight_bytes: int = Field(
        8 * MIB, ge=64 * KIB, description="maximum bytes sent or requested but not yet answered"
    )
    direct_write: bool = Field(
        False, description="if the server refuses rename, write to the final name (not atomic, no resume)"
    )
    # -- transport
    ciphers: tuple[str, ...] = Field(
        (), description="ciphers in order of preference; default: AES-GCM first if the CPU supports AES"
    )
    compression: bool = Field(False, description="SSH zlib compression")
    congestion: str | None = Field(None, description="TCP congestion control for this socket, e.g. bbr")

    @field_validator("ciphers", mode="before")
    @classmethod
    def _ciphers_from_text(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("prompt_command", mode="before")
    @classmethod
    def _words_from_text(cls, value: object) -> object:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @field_validator("ssh_config")
    @classmethod
    def _readable_config(cls, value: str | None) -> str | None:
        """None for "none"."""
        if value is None or value == NONE:
            return None
        try:
            check_config(value)
        except ConfigurationError as error:
            raise ValueError(terminal_safe(str(error).removeprefix("ssh_config: "))) from None
        return value

    @field_validator("proxy")
    @classmethod
    def _usable_proxy(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                proxy_from(value, None)
            except ConfigurationError as error:
                raise ValueError(terminal_safe(str(error).removeprefix("proxy: "))) from None
        return value

    @field_validator("bind_address")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            ipaddress.ip_address(value)
        return value

    @field_validator("bind_interface")
    @classmethod
    def _usable_interface(cls, value: str | None) -> str | None:
        if value is not None:
            check_interface(value)
        return value

    @field_validator("ciphers")
    @classmethod
    def _known_ciphers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_ciphers(value)
        return value

    @field_validator("congestion")
    @classmethod
    def _usable_congestion(cls, value: str | None) -> str | None:
        if value:
            check_congestion(value)
        return value

    @field_validator("host_key")
    @classmethod
    def _pin_is_sha256(cls, value: str | None) -> str | None:
        if value is not None and not FINGERPRINT.fullmatch(value):
            raise ValueError('must be "SHA256:" and 43 characters, as ssh-keygen -lf prints it')
        return value


class ClientOptions(OptionFields):
    """All options of IoTSFTPClient except host, port, user and password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: Callable[[str, bool], str] | None = Field(
        None,
        exclude=True,
        description="function that answers prompts other than the password: (prompt, echo) -> answer",
    )

    @model_validator(mode="after")
    def _one_answer(self) -> ClientOptions:
        if sum(map(bool, (self.prompts, self.prompt_command, self.prompt_file))) > 1:
            raise ValueError("give only one of prompts, prompt_command and prompt_file")
        return self


ARGUMENTS = ("sftp_host", "sftp_port", "sftp_user", "sftp_pass", "journal")
WORDS = {name: name for name in ARGUMENTS} | {
    "host": "sftp_host",
    "port": "sftp_port",
    "user": "sftp_user",
    "username": "sftp_user",
    "password": "sftp_pass",
    "key": "key_file",
    "key_filename": "key_file",
    "timeout": "connect_timeout_s",
}
"""What may be meant by an unknown option: the other arguments of IoTSFTPClient, and other tools' words for them."""


def options_from(values: Mapping[str, Any], problems: Iterable[str] = ()) -> ClientOptions:
    """Check keyword options. problems: what is wrong beside them. Raises: ConfigurationError naming all of it."""
    return checked(ClientOptions, values, problems, WORDS)

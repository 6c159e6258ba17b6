"""The client's settings from the environment and .env. Apart from settings.py, since an agent never needs it: what it
imports would cost a device a sixth of its start, and memory."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from iot.sftp.client.settings import ClientOptions, Options

__all__ = ["ClientSettings"]


class ClientSettings(Options, BaseSettings):
    """The options, and where to log in, from SFTP_<NAME> and .env; keyword arguments win."""

    model_config = SettingsConfigDict(
        env_prefix="SFTP_",
        env_file=".env",
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
        return ClientOptions(**{name: getattr(self, name) for name in ClientOptions.model_fields})

"""The settings of an FTP server as a remote."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from pydantic import ConfigDict, Field, field_validator

from iot.transfer.settings import TransferSettings

__all__ = ["TLS", "FTPOptions"]


class TLS(str, Enum):
    """EXPLICIT: AUTH TLS before login (RFC 4217). IMPLICIT: TLS from the first byte, usually on port 990."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


class FTPOptions(TransferSettings):
    """All options of FTPClient except host, port, user and password."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    tls: TLS | bool = Field(
        TLS.EXPLICIT,
        description="explicit, implicit, or false: plain FTP, which sends the password and all files in clear text",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of authorities to check the server's certificate against; default: the system's"
    )
    certificate: str = Field(
        "", description="SHA-256 of the only certificate that is accepted: 64 hex digits, colons allowed"
    )
    active: bool = Field(False, description="active mode: the server connects to this device for each transfer")
    connect_timeout_s: float = Field(30.0, gt=0, description="seconds until a connection stands")
    timeout_s: float = Field(60.0, gt=0, description="seconds without a byte from the server until the link is dead")
    connections: int = Field(2, ge=1, le=16, description="files that are sent at the same time")

    @field_validator("tls")
    @classmethod
    def _explicit_by_default(cls, value: TLS | bool) -> TLS | bool:
        return TLS.EXPLICIT if value is True else value

    @field_validator("certificate")
    @classmethod
    def _is_a_fingerprint(cls, value: str) -> str:
        digits = value.lower().removeprefix("sha256:").replace(":", "")
        if digits and not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError("must be the 64 hex digits that `openssl x509 -fingerprint -sha256` prints")
        return digits

"""Every setting of the spooler: one TOML file, then the environment, then systemd credentials; read once.

Below this module they are plain frozen values. What is wrong is reported all at once: key, value (never that of a
secret), what is allowed, and where it came from.
"""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ByteSize, ConfigDict, Field, PlainValidator, ValidationInfo, field_validator

from iot.spooler.config.kinds import ServerSettings, server_settings
from iot.spooler.naming import check_template
from iot.spooler.patterns import check_pattern

__all__ = ["AfterUpload", "Order", "OutboxSettings", "RetrySettings", "Settings"]

MIB = 1024 * 1024
Size = Annotated[ByteSize, Field(ge=0)]


class AfterUpload(str, enum.Enum):
    DELETE = "delete"
    ARCHIVE = "archive"
    KEEP = "keep"


class Order(str, enum.Enum):
    OLDEST = "oldest"
    NEWEST = "newest"
    NAME = "name"
    SIZE = "size"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # most are used only within others


class OutboxSettings(_Part):
    """One outbox. Times in seconds, sizes in bytes (or text such as "10 MiB")."""

    path: Path
    name: str = Field("", max_length=80)
    destination: str
    settle_s: float = Field(2.0, ge=0, le=86400)
    hold_s: float = Field(60.0, ge=0, le=86400)
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    urgent: tuple[str, ...] = ()
    ignore_case: bool = False
    after_upload: AfterUpload = AfterUpload.DELETE
    archive: Path | None = None
    archive_max_age_s: float | None = Field(None, gt=0)
    archive_max_bytes: Size | None = None
    quarantine: Path | None = None
    priority: int = Field(5, ge=1, le=9)
    order: Order = Order.OLDEST
    enabled: bool = True

    @field_validator("path", "archive", "quarantine")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and (not value.is_absolute() or ".." in value.parts or "\0" in str(value)):
            raise ValueError('must be an absolute path without ".."')
        return value

    @field_validator("destination")
    @classmethod
    def _known_template(cls, value: str) -> str:
        if not value.strip():
            raise ValueError('must name a folder; "." is the one that the login begins in')
        check_template(value)
        return value

    @field_validator("include", "exclude", "urgent")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            check_pattern(pattern)
        return value

    @property
    def label(self) -> str:
        return self.name or self.path.name or "outbox"


class RetrySettings(_Part):
    """When to try again, in seconds, and when to give a file up.

    max_attempts: permanent errors of a file until it goes to quarantine. drain_attempts: tries of `run --drain`.
    auth_hold_s, auth_hold_max_s: how long a refused login or host key holds the server, first and at most.
    """

    base_s: float = Field(1.0, gt=0)
    cap_s: float = Field(300.0, gt=0, validate_default=True)
    max_attempts: int = Field(8, ge=1)
    drain_attempts: int = Field(3, ge=1)
    auth_hold_s: float = Field(900.0, ge=1)
    auth_hold_max_s: float = Field(3600.0, ge=1)

    @field_validator("cap_s")
    @classmethod
    def _not_below_the_first(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("base_s", 0):
            raise ValueError(f"is less than base_s = {info.data['base_s']}, with which the waits begin")
        return value


class Settings(_Part):
    """The whole configuration."""

    state_dir: Path
    device_id: str = Field("device", max_length=64)
    scan_s: float = Field(2.0, gt=0, le=3600)
    small_file_bytes: Size = Field(ByteSize(MIB))
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    server: Annotated[ServerSettings, PlainValidator(server_settings)]
    retry: RetrySettings = RetrySettings()
    outbox: tuple[OutboxSettings, ...] = Field(min_length=1)

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @field_validator("device_id")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value):
            raise ValueError("letters, digits, dot, dash and underscore only, no dot or dash in front")
        return value

    @property
    def default_archive(self) -> Path:
        """What the archives lie in that have no place of their own."""
        return self.state_dir / "archive"

    @property
    def default_quarantine(self) -> Path:
        return self.state_dir / "quarantine"

    def archive_of(self, outbox: OutboxSettings) -> Path:
        return outbox.archive or self.default_archive / _folder_name(outbox.label)

    def quarantine_of(self, outbox: OutboxSettings) -> Path:
        return outbox.quarantine or self.default_quarantine


def _folder_name(label: str) -> str:
    """A label as the name of a folder: no slash, not hidden, never "." or ".."."""
    name = label.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return "%2E" + name[1:] if name.startswith(".") else name

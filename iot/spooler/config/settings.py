"""All settings of the spooler: from a TOML file, the environment and systemd credentials, read once.

Everywhere else they are plain frozen values. Invalid settings are all reported at once: key, value (never a secret),
what is allowed, and the source.
"""

from __future__ import annotations

import grp
import re
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, PlainValidator, field_validator

from iot.spooler.commands import executable
from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.kinds import fallback_settings, server_settings
from iot.spooler.config.outboxes import AfterUpload, OutboxSettings
from iot.spooler.config.retry import RetrySettings
from iot.spooler.config.table import MIB, Size, Table, check_each
from iot.spooler.config.zones import zone_named
from iot.spooler.timetable.pacing import timed_rate
from iot.transfer import ConfiguredRemote

__all__ = ["Settings", "WakeSettings"]


class ControlSettings(Table):
    """Who may use start, stop, suspend, resume and flush, apart from root and the user of the agent."""

    group: str | None = Field(
        None,
        description="name of a group whose members may give commands, too; the agent has to be a member of it itself;"
        " by default nobody else",
    )

    @field_validator("group")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                grp.getgrnam(value)
            except KeyError:
                raise ValueError(f"there is no group {value!r} on this device") from None
        return value


class WakeSettings(Table):
    """A hold (login or host key refused) is not ended by these: see auth_hold_s."""

    on_address: bool = Field(
        True, description="try the server as soon as this device gets an address, or a cable its carrier back (Linux)"
    )
    file: Path | None = Field(
        None,
        description="try the server as soon as this file is touched, an absolute path; by default `wake` in the runtime"
        " directory",
    )
    min_s: float = Field(
        5.0,
        ge=1,
        le=3600,
        description="seconds between two such tries at least; doubled with each until the server answers, up to"
        " retry.cap_s",
    )

    @field_validator("file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value


class Settings(Table):
    """The whole configuration."""

    state_dir: Path = Field(
        description="folder of the queue and the checkpoints, an absolute path; each agent and each device has its own"
    )
    device_id: str = Field(
        "device",
        max_length=64,
        description="name of this device, for {device_id} and for the names of parts: letters, digits, dots, dashes and"
        " underscores",
    )
    mounts: tuple[Path, ...] = Field(
        (),
        description="mount points of disks that may be missing, absolute paths: while nothing is mounted on one, no"
        " outbox, inbox or next outbox (forward_to) below it is used. Without it, where a folder was mounted is known"
        " from earlier runs",
    )
    time_zone: str | None = Field(
        None, description='time zone of all schedules, such as "Europe/Berlin"; by default that of the device'
    )
    rates: tuple[str, ...] = Field(
        (),
        description='timetable of the rate, such as "Mon-Fri 08:00-18:00 1 Mbit/s": the first entry counts whose window'
        " is open, in time_zone; at other times server.max_rate",
    )
    quota_day: Size | None = Field(
        None,
        gt=0,
        description="bytes that the wire may carry between two midnights of time_zone, both directions, headers and"
        " retransmissions included; by default unlimited",
    )
    quota_month: Size | None = Field(
        None, gt=0, description="bytes of a calendar month, counted in the same way; by default unlimited"
    )
    condition: tuple[str, ...] = Field(
        (),
        description="command (a list of words, no shell) whose exit code 0 allows sending; at any other, and while it"
        " fails or takes too long, files wait",
    )
    metered_command: tuple[str, ...] = Field(
        (),
        description="command (a list of words, no shell) that exits with 0 on a metered link and with 1 on any other;"
        " each outbox says with on_metered what it sends then",
    )
    command_every_s: float = Field(
        60.0, ge=1, le=86400, description="seconds between two runs of condition and of metered_command"
    )
    command_limit_s: float = Field(
        10.0, gt=0, le=3600, description="seconds until such a command is killed with its children"
    )
    hint_file: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00-\x1f]+$",
        description="file on the server, relative to the login folder, in which it may ask all devices to wait or to"
        " send slower; read after each connect; by default none is",
    )
    fallback_after_s: float = Field(
        900.0,
        ge=1,
        le=7 * 86400,
        description="seconds that [server] must be down before files go to [fallback]; up to a quarter more, different"
        " for each device",
    )
    fallback_check_s: float = Field(
        60.0,
        ge=1,
        le=86400,
        description="seconds until the server that is not used is asked again; doubled each time that it is down, up to"
        " retry.cap_s, plus jitter",
    )
    fallback_back_after_s: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="seconds between the two answers of [server] after which files go there again; 0: one is enough",
    )
    fallback_when_held: bool = Field(
        False,
        description="whether a refused login or host key of [server] counts as down, too; else files wait for it",
    )
    scan_s: float | None = Field(
        None,
        gt=0,
        le=7 * 86400,
        description="seconds between two scans of the outboxes, unless an outbox has its own; by default 900 where the"
        " kernel tells of every change, else 10",
    )
    small_file_bytes: Size = Field(
        ByteSize(MIB), description="files of up to this many bytes do not wait for a larger one that is being sent"
    )
    compress_max_bytes: Size = Field(
        ByteSize(256 * MIB),
        gt=0,
        description="bytes of compressed files in state_dir at most; a larger file is sent as it is",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    server: Annotated[ConfiguredRemote, PlainValidator(server_settings)]
    fallback: Annotated[ConfiguredRemote | None, PlainValidator(fallback_settings)] = None
    control: ControlSettings = ControlSettings.model_construct()
    retry: RetrySettings = RetrySettings.model_construct()  # its validator is built as part of that of Settings
    wake: WakeSettings = WakeSettings.model_construct()  # as above
    outbox: tuple[OutboxSettings, ...] = Field(min_length=1)
    inbox: tuple[InboxSettings, ...] = ()

    @field_validator("mounts")
    @classmethod
    def _mount_points(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for point in value:
            if not point.is_absolute() or ".." in point.parts or "\0" in str(point):
                raise ValueError(f'{str(point)!r} is not an absolute path without ".."')
        return value

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    _executable = field_validator("condition", "metered_command")(executable)

    @field_validator("rates")
    @classmethod
    def _timed_rates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(timed_rate, value)
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            zone_named(value)
        return value

    @field_validator("device_id")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value):
            raise ValueError("letters, digits, dot, dash and underscore only, no dot or dash in front")
        return value

    @property
    def servers(self) -> dict[str, ConfiguredRemote]:
        """All that are configured, by the names of their tables."""
        return {"server": self.server} | ({"fallback": self.fallback} if self.fallback is not None else {})

    @property
    def uses_fallback(self) -> bool:
        """Whether the fallback stands in the place of the first server."""
        return self.fallback is not None and self.server is self.fallback

    @property
    def zone(self) -> tzinfo:
        return zone_named(self.time_zone)

    @property
    def default_archive(self) -> Path:
        """The parent of archives that have no configured folder."""
        return self.state_dir / "archive"

    @property
    def default_quarantine(self) -> Path:
        return self.state_dir / "quarantine"

    def archive_of(self, outbox: OutboxSettings) -> Path:
        return outbox.archive or self.default_archive / _folder_name(outbox.label)

    def retry_of(self, outbox: OutboxSettings) -> RetrySettings:
        """When files of this outbox are tried again and given up."""
        return self.retry.changed_by(outbox.retry)

    def quarantine_of(self, outbox: OutboxSettings) -> Path:
        return outbox.quarantine or self.default_quarantine

    def lists_of(self, outbox: OutboxSettings) -> Path:
        """Where the lists of what this outbox has dropped wait to be sent."""
        return self.state_dir / "dropped" / _folder_name(outbox.label)

    def next_of(self, outbox: OutboxSettings) -> Path | None:
        """The outbox that its delivered files go on to; None where they do not, or no outbox has the name."""
        if outbox.after_upload is not AfterUpload.FORWARD or outbox.forward_to is None:
            return None
        named = (each.path for each in self.outbox if each.label == outbox.forward_to)
        return next(named, Path(outbox.forward_to) if outbox.forward_to.startswith("/") else None)


def _folder_name(label: str) -> str:
    """A label turned into the name of a folder: without a slash, not hidden, never "." or ".."."""
    name = label.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return "%2E" + name[1:] if name.startswith(".") else name

"""The settings of an outbox."""

from __future__ import annotations

import enum
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from iot.spooler.config.budget import BudgetSettings
from iot.spooler.config.commands import CommandSettings
from iot.spooler.config.hooks import HookSettings
from iot.spooler.config.packed import Compression
from iot.spooler.config.retry import OutboxRetry
from iot.spooler.config.table import Size, Table, check_each
from iot.spooler.naming import Action, Collision, Naming, Rule, Template
from iot.spooler.patterns import MarkerName, check_pattern
from iot.spooler.timetable.schedule import window
from iot.transfer import Fingerprint, check_partial_name

__all__ = ["AfterUpload", "Beyond", "NameRule", "Order", "OutboxSettings", "Ready", "Zeros"]


class AfterUpload(str, enum.Enum):
    DELETE = "delete"
    ARCHIVE = "archive"
    KEEP = "keep"
    FORWARD = "forward"


class Beyond(str, enum.Enum):
    """What of an outbox is still sent when a quota is used up, or on a metered link."""

    STOP = "stop"
    URGENT = "urgent"
    SEND = "send"


class Ready(str, enum.Enum):
    """What makes a file complete."""

    CLOSED = "closed"
    SETTLED = "settled"
    RENAMED = "renamed"
    MARKER = "marker"


class Zeros(str, enum.Enum):
    """What becomes of a file that a power cut may have damaged."""

    QUARANTINE = "quarantine"
    SEND = "send"


class Order(str, enum.Enum):
    OLDEST = "oldest"
    NEWEST = "newest"
    NAME = "name"
    SIZE = "size"

    def rank(self, path: bytes, version: Fingerprint) -> int | bytes:
        """What files are sent in the order of. Within a second the order of the walk counts."""
        second = max(version.mtime_ns // 10**9, 1 - 2**63)  # its negative must fit into 64 bits, too
        ranks = {Order.OLDEST: second, Order.NEWEST: -second, Order.SIZE: version.size}
        return ranks.get(self, path)


class NameRule(Table):
    """One rule for the names of files on the server."""

    match: str = Field("*", description="pattern of the paths in the outbox that it applies to, as in include")
    action: Action = Field(
        description="no-action; only-filename (a/b.csv: b.csv); lowercase; replace-separator (a/b.csv, value _:"
        " a_b.csv); temporary-suffix (a/b.csv, value .tmp: a/b.csv.tmp until it is complete); prefix (a/b.csv, value"
        " x-: a/x-b.csv); replace (each match of regex becomes value)"
    )
    value: str = Field(
        "",
        description="what the action needs: one character for replace-separator; the suffix; text for prefix, filled in"
        " like destination; text for replace, with \\1 for a group",
    )
    regex: str = Field("", description="regular expression of replace")

    @model_validator(mode="after")
    def _makes_sense(self) -> NameRule:
        self.plain.check()
        return self

    @property
    def plain(self) -> Rule:
        return Rule(self.match, self.action, self.value, self.regex)


class OutboxSettings(Table):
    """One outbox. Times are in seconds, sizes in bytes (or text such as "10 MiB")."""

    path: Path = Field(description="the folder, an absolute path; no outbox may lie within another")
    name: str = Field(
        "",
        max_length=80,
        description="name in status and logs, unique; by default the last part of path",
    )
    destination: str = Field(
        description="remote folder; each file goes there under its path relative to the outbox. {device_id}, {outbox},"
        " {date} and {mtime} (UTC time of the file's last modification; {date:%Y/%m/%d}, {mtime:%H%M%S}), {boot_id},"
        " {seq} (number in the journal; {seq:4}) and {hash8} (of the content) are filled in"
    )
    rules: tuple[NameRule, ...] = Field(
        (),
        description="tables with match, action, value and regex: every rule whose pattern matches a path is applied, in"
        " order, to the result of the one before; a file that none matches goes to quarantine; by default no rules",
    )
    collision: Collision = Field(
        Collision.OVERWRITE,
        description="where another file has a name on the server: overwrite it; skip (the file stays in the outbox, and"
        " is not tried again until it changes); fail (after retry.max_attempts it goes to quarantine); timestamp (a"
        " name with the file's time instead); timestamp-always (every name has the time); unique (a name with 8 hex"
        " digits instead)",
    )
    percent_encode: str = Field(
        "",
        max_length=64,
        description="characters that the server refuses in names: they become %XX, and with them %, control characters"
        ' and what is not UTF-8; for Windows: \\:*?"<>|',
    )
    server_ignores_case: bool = Field(
        False,
        description="the server ignores case in names: a file that is replaced keeps the spelling of its name there;"
        " its folder is listed for that",
    )
    adopt_partial: str | None = Field(
        None,
        description="name, beside the destination, of what another program may have left of a file; {name} stands for"
        " the file's name: {name}.filepart, or {name}; if its content is that of the file so far, the upload goes on"
        " from there, otherwise it is left alone",
    )
    compress: Compression | None = Field(
        None,
        description="gzip or zstd: files are compressed once, into state_dir, and sent from there with .gz or .zst"
        " behind their name; as they are where their name or first MiB says that less than 5 % would be saved, where"
        " state_dir has no room, or where another file of the outbox has that name",
    )
    ready: Ready | None = Field(
        None,
        description="when a file is ready: closed (as soon as its writer has closed it, where the kernel tells so and"
        " that nobody else writes to it; elsewhere as settled), settled (unchanged for settle_s), renamed (at once, but"
        " *.tmp, *.part and names that begin with a dot are not sent), marker (when its ready_marker is there); with"
        " these two also unchanged for settle_s, where that is set; by default settled where settle_s is set, else"
        " closed",
    )
    ready_marker: str = Field(
        "",
        description="with ready = marker: name of the file, in the same folder, that says that another is complete:"
        ' "{name}.done" (a.csv.done for a.csv), "{stem}.done" (a.done for it) or "READY" (for all in its folder). It'
        " must not be older than the file. Markers are not sent; that of a file is removed after it",
    )
    settle_s: float = Field(
        2.0,
        ge=0,
        le=86400,
        description="seconds without a change of size and times until a file is ready; 0: at once",
    )
    hold_s: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="seconds without a change until a delivered file leaves the outbox, where the system cannot tell"
        " whether it is open for writing",
    )
    scan_s: float | None = Field(
        None, gt=0, le=7 * 86400, description="seconds between two scans of this outbox; by default as scan_s above"
    )
    recursive: bool = Field(True, description="include subfolders")
    zeros_after_power_cut: Zeros = Field(
        Zeros.QUARANTINE,
        description="what becomes of files that were written shortly before the device went down without a stop and end"
        " in zeros, as a power cut leaves them: quarantine or send",
    )
    include: tuple[str, ...] = Field(
        (),
        description='patterns of paths to send; by default all. * also matches "/"; with "re:" in front a pattern is a'
        " regular expression",
    )
    exclude: tuple[str, ...] = Field((), description="patterns of paths that are not sent, even if included")
    urgent: tuple[str, ...] = Field((), description="patterns of paths that are sent before all others")
    ignore_case: bool = Field(False, description="patterns ignore case")
    after_upload: AfterUpload = Field(
        AfterUpload.DELETE,
        description="what happens to a delivered file; keep: it stays, and is sent again only if it changes; forward:"
        " it is moved into the outbox forward_to, under the same path",
    )
    forward_to: str | None = Field(
        None,
        description="next outbox of a chain: the name of another outbox of this configuration, or an absolute path,"
        " such as an outbox of another agent; needed with after_upload = forward",
    )
    archive: Path | None = Field(
        None, description="folder of delivered files, an absolute path; by default <state_dir>/archive/<name>"
    )
    archive_max_age_s: float | None = Field(
        None, gt=0, description="seconds until an archived file is removed; by default never"
    )
    archive_max_bytes: Size | None = Field(
        None, description="bytes of the archive at most, the oldest files are removed first; by default unlimited"
    )
    quarantine: Path | None = Field(
        None,
        description="folder of files that failed retry.max_attempts times, an absolute path; by default"
        " <state_dir>/quarantine",
    )
    priority: int = Field(5, ge=1, le=9, description="rank among the outboxes: 1 is sent first, 9 last")
    order: Order = Field(Order.OLDEST, description="which file of this outbox is sent first")
    schedule: tuple[str, ...] = Field(
        (),
        description='windows in which files are sent, such as "08:00-18:00", "Mon-Fri 23:00-01:00", "Sat-Sun" or'
        ' "Mon 10:00 - Wed 18:00", in time_zone; outside them files wait, and one in flight is suspended; by default'
        " always",
    )
    batch_interval_s: float | None = Field(
        None,
        gt=0,
        le=7 * 86400,
        description="seconds without a new file after which all that have come are sent, as a batch; by default each is"
        " sent as it comes",
    )
    batch_marker: str | None = Field(
        None,
        description="pattern of paths, as in include: a file that matches says that its folder is complete; the files"
        " in it and below are sent then, as a batch, and it comes last; files without a marker wait",
    )
    batch_grace_s: float = Field(
        15.0, ge=0, le=86400, description="seconds after a marker has come in which files still come to its batch"
    )
    beyond_quota: Beyond = Field(
        Beyond.STOP,
        description="what is sent when quota_day or quota_month is used up: stop (nothing), urgent (what matches an"
        " urgent pattern), send (all)",
    )
    on_metered: Beyond = Field(
        Beyond.SEND,
        description="what is sent while metered_command says that the link is metered: stop, urgent or send (all)",
    )
    enabled: bool = Field(True, description="false: ignore this outbox")
    hooks: HookSettings = HookSettings.model_construct()
    commands: CommandSettings = CommandSettings.model_construct()
    retry: OutboxRetry = OutboxRetry.model_construct()  # as in Settings
    budget: BudgetSettings = BudgetSettings.model_construct()

    @field_validator("path", "archive", "quarantine")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and (not value.is_absolute() or ".." in value.parts or "\0" in str(value)):
            raise ValueError('must be an absolute path without ".."')
        return value

    @field_validator("forward_to")
    @classmethod
    def _name_or_path(cls, value: str | None) -> str | None:
        if value is not None and (not value or ".." in value.split("/") or "\0" in value):
            raise ValueError('must be the name of an outbox, or an absolute path without ".."')
        return value

    @field_validator("compress")
    @classmethod
    def _installed(cls, value: Compression | None) -> Compression | None:
        if value is not None:
            value.check_installed()
        return value

    @field_validator("adopt_partial")
    @classmethod
    def _partial_name(cls, value: str | None) -> str | None:
        if value is not None:
            check_partial_name(value)
        return value

    @field_validator("destination")
    @classmethod
    def _known_template(cls, value: str) -> str:
        if not value.strip():
            raise ValueError('must name a folder; "." is the one that the login begins in')
        Template(value)
        return value

    @field_validator("percent_encode")
    @classmethod
    def _encodable(cls, value: str) -> str:
        wrong = next((each for each in value if each in "/.-" or each.isalnum()), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} cannot be among them: no slash, dot, dash, letter or digit")
        return value

    @field_validator("ready_marker")
    @classmethod
    def _marker_name(cls, value: str) -> str:
        if value:
            MarkerName(value)
        return value

    @model_validator(mode="after")
    def _ready_as_said(self) -> OutboxSettings:
        if (self.ready is Ready.MARKER) is not bool(self.ready_marker):
            raise ValueError('ready = "marker" and ready_marker, such as "{name}.done", belong together')
        return self

    @field_validator("include", "exclude", "urgent")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(check_pattern, value)
        return value

    @field_validator("batch_marker")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            check_pattern(value)
        return value

    @field_validator("schedule")
    @classmethod
    def _windows(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(window, value)
        return value

    @property
    def label(self) -> str:
        return self.name or self.path.name or "outbox"

    @property
    def readiness(self) -> Ready:
        """What was chosen: whoever sets a quiet time asks for it."""
        return self.ready or (Ready.SETTLED if "settle_s" in self.model_fields_set else Ready.CLOSED)

    @property
    def quiet_s(self) -> float:
        """Seconds for which a file must not have changed."""
        names_tell = self.ready in (Ready.RENAMED, Ready.MARKER)
        return self.settle_s if "settle_s" in self.model_fields_set or not names_tell else 0.0

    def naming(self, device_id: str) -> Naming:
        """How its files are named on the server."""
        rules = [rule.plain for rule in self.rules]
        return Naming(
            self.destination,
            rules,
            self.collision,
            device_id=device_id,
            outbox=self.label,
            ignore_case=self.ignore_case,
            percent_encode=self.percent_encode,
            compression=self.compress.value if self.compress is not None else "",
            more_fields=self.commands.fields,
        )

"""The settings of an inbox: a folder on the server whose files are fetched."""

from __future__ import annotations

import enum
import posixpath
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from iot.spooler.commands import executable
from iot.spooler.config.outboxes import Beyond
from iot.spooler.config.table import Table, check_each
from iot.spooler.naming import Facts, Template
from iot.spooler.patterns import check_pattern
from iot.spooler.timetable.schedule import window

__all__ = ["AfterDownload", "Checksum", "InboxSettings"]


class AfterDownload(str, enum.Enum):
    KEEP = "keep"
    DELETE = "delete"
    MOVE = "move"


class Checksum(str, enum.Enum):
    """Whether a file needs its `<name>.sha256` on the server; WAIT, REQUIRE: what it means that there is none."""

    OFF = "off"
    WAIT = "wait"
    REQUIRE = "require"


class InboxSettings(Table):
    """One inbox. Times are in seconds."""

    path: Path = Field(
        description="the local folder, an absolute path; it must exist. Files arrive in a hidden folder in it, and get"
        " their names when they are complete"
    )
    name: str = Field(
        "",
        max_length=80,
        description="name in status and logs, unique; by default the last part of path",
    )
    source: str = Field(description="remote folder whose files are fetched; {device_id} is filled in")
    after_download: AfterDownload = Field(
        AfterDownload.KEEP,
        description="what happens on the server to a file that has been fetched: keep (it is fetched again only when"
        " its size or time changes), delete, or move (to move_to); never before the file is on the local disk, and only"
        " if it has not changed since",
    )
    move_to: str = Field("", description="remote folder for after_download = move; {device_id} is filled in")
    replace: bool = Field(
        True,
        description="a changed file takes the place of the one that lies in the folder; false: it waits until that has"
        " been taken out, so that no version is lost where files are sent on from there",
    )
    recursive: bool = Field(False, description="include subfolders")
    include: tuple[str, ...] = Field((), description="patterns of paths to fetch, as for an outbox; by default all")
    exclude: tuple[str, ...] = Field((), description="patterns of paths that are not fetched, even if included")
    ignore_case: bool = Field(False, description="patterns ignore case")
    settle_s: float = Field(
        10.0,
        ge=0,
        le=86400,
        description="seconds between two looks at which size and time must be the same before a file is fetched; 0: one"
        " look is enough. A file with a checksum does not wait",
    )
    poll_s: float = Field(300.0, ge=1, le=7 * 86400, description="seconds between two looks at the remote folder")
    checksum: Checksum = Field(
        Checksum.OFF,
        description="wait: a file is fetched once <name>.sha256, as sha256sum writes it, lies beside it; require: a"
        " file without one is reported as an error; either way the content must match. off: such files are like any"
        " other",
    )
    before_publish: tuple[str, ...] = Field(
        (),
        description="command (a list of words, no shell) that judges a fetched file before it appears: its path is in"
        " IOT_PATH. Exit code 0: it gets its name; 75: not yet, ask again later; any other: it is discarded, and not"
        " fetched again until it changes on the server",
    )
    before_publish_limit_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="seconds until that command is killed with its children, and tried again later",
    )
    schedule: tuple[str, ...] = Field(
        (), description="windows in which files are fetched, as for an outbox; by default always"
    )
    beyond_quota: Beyond = Field(
        Beyond.STOP, description="whether files are fetched when a quota is used up: stop (no; so does urgent) or send"
    )
    on_metered: Beyond = Field(
        Beyond.SEND, description="whether files are fetched on a metered link: stop (no; so does urgent) or send"
    )
    enabled: bool = Field(True, description="false: ignore this inbox")

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute() or ".." in value.parts or "\0" in str(value):
            raise ValueError('must be an absolute path without ".."')
        return value

    @field_validator("source", "move_to")
    @classmethod
    def _constant_template(cls, value: str) -> str:
        other = sorted(Template(value).fields - {"device_id"})
        if other:
            raise ValueError(f"{{{other[0]}}} cannot be used here; known is {{device_id}}")
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(check_pattern, value)
        return value

    @field_validator("schedule")
    @classmethod
    def _windows(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(window, value)
        return value

    _executable = field_validator("before_publish")(executable)

    @model_validator(mode="after")
    def _makes_sense(self) -> InboxSettings:
        if not self.source.strip():
            raise ValueError('source must name a folder; "." is the one that the login begins in')
        moves = self.after_download is AfterDownload.MOVE
        if moves is not bool(self.move_to.strip()):
            raise ValueError('after_download = "move" and move_to go together')
        if moves and self._is_taken_again():
            raise ValueError(f"move_to = {self.move_to!r} lies in source, so that files would be fetched again")
        return self

    @property
    def label(self) -> str:
        return self.name or self.path.name or "inbox"

    def source_of(self, device_id: str) -> str:
        return _filled(self.source, device_id)

    def move_to_of(self, device_id: str) -> str:
        return _filled(self.move_to, device_id)

    def _is_taken_again(self) -> bool:
        source, target = posixpath.normpath(self.source), posixpath.normpath(self.move_to)
        inside = target.startswith(source.rstrip("/") + "/") or (source == "." and not target.startswith("/"))
        return target == source or (inside and self.recursive)


def _filled(text: str, device_id: str) -> str:
    return Template(text).filled(Facts(0), device_id=device_id, outbox="")

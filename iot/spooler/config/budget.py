"""How much may wait in an outbox and for how long, and what is dropped beyond that."""

from __future__ import annotations

import enum

from pydantic import Field, field_validator, model_validator

from iot.spooler.config.table import Size, Table, check_each
from iot.spooler.naming import Template
from iot.spooler.patterns import check_pattern

__all__ = ["BudgetSettings", "Evict", "Expired"]

LIMITS = ("max_bytes", "max_files", "min_free_percent", "min_free_inodes")


class Evict(str, enum.Enum):
    """Which files of a class are dropped first."""

    OLDEST = "oldest"
    NEWEST = "newest"
    NONE = "none"


class Expired(str, enum.Enum):
    """What becomes of a file that has waited for too long."""

    DROP = "drop"
    QUARANTINE = "quarantine"


class BudgetSettings(Table):
    """What may wait to be sent. A file that is being sent is never dropped, nor is one that is not queued yet."""

    max_bytes: Size | None = Field(
        None, gt=0, description="bytes of all files that wait to be sent; by default unlimited"
    )
    max_files: int | None = Field(None, ge=1, description="files that wait to be sent; by default unlimited")
    min_free_percent: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="percent of the outbox's file system that stay free for other programs; by default none",
    )
    min_free_inodes: int | None = Field(
        None,
        ge=1,
        description="inodes of that file system that stay free, where it counts them; by default none",
    )
    evict: Evict = Field(
        Evict.OLDEST,
        description="what is dropped beyond these limits, of files that are not urgent: the oldest first, the newest"
        " first (in the order in which they were queued), or none",
    )
    evict_urgent: Evict = Field(
        Evict.NONE,
        description="the same of urgent files, after all others: by default they are spared",
    )
    preserve: tuple[str, ...] = Field((), description="patterns of paths that are never dropped, as in include")
    ttl_s: float | None = Field(
        None,
        ge=1,
        description="seconds after which a file that still waits is dropped, urgent or not, counted from when it was"
        " queued; by default never",
    )
    expired: Expired = Field(Expired.DROP, description="what becomes of such a file: drop or quarantine")
    log_destination: str = Field(
        "",
        description="remote folder for the lists of what was dropped, a template as destination; by default the"
        " destination",
    )

    @field_validator("preserve")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(check_pattern, value)
        return value

    @field_validator("log_destination")
    @classmethod
    def _known_template(cls, value: str) -> str:
        Template(value)
        return value

    @model_validator(mode="after")
    def _has_an_effect(self) -> BudgetSettings:
        given = self.model_fields_set
        if not self.is_limited:
            for key in ("evict", "evict_urgent"):
                if key in given:
                    raise ValueError(f"{key} has no effect without one of {', '.join(LIMITS)}")
        if self.ttl_s is None and "expired" in given:
            raise ValueError("expired has no effect without ttl_s")
        for key in ("preserve", "log_destination"):
            if key in given and getattr(self, key) and not self.may_drop:
                raise ValueError(f"{key} has no effect where nothing is ever dropped")
        return self

    @property
    def is_limited(self) -> bool:
        return any(getattr(self, key) is not None for key in LIMITS)

    @property
    def limits_backlog(self) -> bool:
        return self.max_bytes is not None or self.max_files is not None

    @property
    def may_drop(self) -> bool:
        """Whether anything may ever be dropped without a trace on this device."""
        evicts = self.is_limited and (self.evict, self.evict_urgent) != (Evict.NONE, Evict.NONE)
        return evicts or (self.ttl_s is not None and self.expired is Expired.DROP)

"""When to try again, and when to give up: for the server and for all outboxes, and what an outbox changes of it."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from iot.spooler.config.table import Table

__all__ = ["OutboxRetry", "RetrySettings"]


def _not_below_the_first(value: float | None, info: ValidationInfo) -> float | None:
    first = info.data.get("base_s")
    if value is not None and first is not None and value < first:
        raise ValueError(f"is less than base_s = {first}, with which the waits begin")
    return value


class RetrySettings(Table):
    """When to try again, and when to give a file up."""

    base_s: float = Field(
        1.0,
        gt=0,
        description="seconds to wait after the first lost link or failure of a file; doubled each time, plus jitter",
    )
    cap_s: float = Field(
        900.0,
        gt=0,
        validate_default=True,
        description="seconds to wait at most; jitter is added, of up to as much as the wait and 30 % of this",
    )
    herd_window_s: float = Field(
        1200.0,
        ge=0,
        le=86400,
        validate_default=True,
        description="seconds over which the devices of a fleet spread their first try after an outage of more than an"
        " hour; 0: none",
    )
    max_attempts: int = Field(
        8, ge=1, description="permanent errors of a file until it is quarantined; lost links do not count"
    )
    drain_attempts: int = Field(3, ge=1, description="attempts of `run --drain`")
    auth_hold_s: float = Field(
        900.0, ge=1, description="seconds that a refused login or host key holds the server at first; doubled each time"
    )
    auth_hold_max_s: float = Field(
        3600.0, ge=1, validate_default=True, description="seconds of a hold at most; up to 10 % of jitter is added"
    )

    _check = field_validator("cap_s")(_not_below_the_first)

    @field_validator("herd_window_s")
    @classmethod
    def _none_or_not_below_the_first(cls, value: float, info: ValidationInfo) -> float:
        _not_below_the_first(value or None, info)
        return value

    @field_validator("auth_hold_max_s")
    @classmethod
    def _not_below_the_first_hold(cls, value: float, info: ValidationInfo) -> float:
        first = info.data.get("auth_hold_s")
        if first is not None and value < first:
            raise ValueError(f"is less than auth_hold_s = {first}, with which the holds begin")
        return value

    def changed_by(self, outbox: OutboxRetry) -> RetrySettings:
        """What counts for the files of an outbox."""
        return self.model_copy(update=outbox.model_dump(exclude_none=True))


class OutboxRetry(Table):
    """What an outbox changes of the above, for its files. A lost link is not theirs: its waits are those of [retry]."""

    base_s: float | None = Field(
        None, gt=0, description="seconds to wait after the first failure of a file; by default retry.base_s"
    )
    cap_s: float | None = Field(
        None, gt=0, description="seconds to wait at most after a failure of a file; by default retry.cap_s"
    )
    max_attempts: int | None = Field(
        None, ge=1, description="permanent errors of a file until it is quarantined; by default retry.max_attempts"
    )

    _check = field_validator("cap_s")(_not_below_the_first)

"""The commands of an outbox that run around the delivery of its files."""

from __future__ import annotations

from pydantic import Field, field_validator

from iot.spooler.commands import executable
from iot.spooler.config.table import Table

__all__ = ["HookSettings"]


class HookSettings(Table):
    """Commands, each a list of words, run without a shell; what they are about is in their environment."""

    before: tuple[str, ...] = Field(
        (),
        description="command that runs before a file is sent, which is sent only if it ends with exit code 0; 75: not"
        " yet, try again later; any other exit code is a permanent error of the file",
    )
    after_success: tuple[str, ...] = Field(
        (), description="command that runs once a file is delivered, before it leaves the outbox"
    )
    after_failure: tuple[str, ...] = Field(
        (), description="command that runs after an attempt of a file has failed; a lost link is no failure of a file"
    )
    before_batch: tuple[str, ...] = Field(
        (),
        description="command that runs before a batch is sent, of which nothing is sent until it ends with exit code 0;"
        " until then it is tried again, after waits as those of files",
    )
    after_batch: tuple[str, ...] = Field(
        (), description="command that runs once no file of a batch waits to be sent any more"
    )
    limit_s: float = Field(60.0, gt=0, le=86400, description="seconds until such a command is killed with its children")
    at_once: int = Field(
        2, ge=1, le=32, description="how many such commands run at the same time, before and after each"
    )

    @property
    def of_batches(self) -> bool:
        """Whether one of them is about batches."""
        return bool(self.before_batch or self.after_batch)

    _executable = field_validator("before", "after_success", "after_failure", "before_batch", "after_batch")(executable)

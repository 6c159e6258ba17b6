"""The commands of an outbox that are carried out on the server."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, ValidationInfo, field_validator

from iot.spooler.config.table import Table
from iot.spooler.naming import CommandTemplate, Facts
from iot.transfer import RemoteCommand, RemoteCommands

__all__ = ["CommandSettings"]

Words = tuple[str, ...]


class CommandSettings(Table):
    """Commands, each a list of words: rename PATH PATH, delete PATH, mkdir PATH, chmod MODE PATH or touch PATH."""

    absolute_paths: bool = Field(
        False, description="paths of these commands may be absolute, that is, lie outside the destination"
    )
    before: tuple[Words, ...] = Field(
        (),
        description="commands that are carried out on the server before a file is sent: rename PATH PATH, delete PATH,"
        " mkdir PATH, chmod MODE PATH, touch PATH; paths are relative to the destination, and filled in like it, also"
        " with {path}, {folder} and {name} of the file there. One that fails is an error of the file",
    )
    before_publish: tuple[Words, ...] = Field(
        (), description="the same, when all of the file is there, before it gets its name"
    )
    after_success: tuple[Words, ...] = Field(
        (), description="the same, once the file is published; one that fails is only logged"
    )

    @field_validator("before", "before_publish", "after_success")
    @classmethod
    def _known_commands(cls, value: tuple[Words, ...], info: ValidationInfo) -> tuple[Words, ...]:
        problems = []
        for words in value:
            try:
                CommandTemplate.parse(words, absolute=bool(info.data.get("absolute_paths")))
            except ValueError as error:
                problems.append(f"{list(words)}: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @property
    def fields(self) -> set[str]:
        """The fields of all their templates."""
        every = (*self.before, *self.before_publish, *self.after_success)
        return {field for words in every for field in CommandTemplate.parse(words, absolute=True).fields}

    @property
    def is_empty(self) -> bool:
        return not (self.before or self.before_publish or self.after_success)

    def filled(self, facts: Facts, base: str, *, device_id: str, outbox: str) -> RemoteCommands:
        """For a file. base: its destination, without its own path."""

        def fill(commands: Sequence[Words]) -> tuple[RemoteCommand, ...]:
            templates = (CommandTemplate.parse(words, absolute=self.absolute_paths) for words in commands)
            return tuple(each.filled(facts, device_id=device_id, outbox=outbox) for each in templates)

        return RemoteCommands(fill(self.before), fill(self.before_publish), fill(self.after_success), base)

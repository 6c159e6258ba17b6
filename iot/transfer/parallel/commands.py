"""The commands of an upload on the far side, over a store. See remote_commands for what each of them means."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from iot.transfer.errors import NotFound, PermanentError, Unsupported
from iot.transfer.remote import Store
from iot.transfer.remote_commands import RemoteCommand, RemoteCommands, RemoteStep, Verb
from iot.transfer.terminal import quoted

__all__ = ["run_after_success", "run_commands"]

log = logging.getLogger(__name__)


def run_commands(store: Store, all_of_them: RemoteCommands, chosen: Sequence[RemoteCommand], final: bytes) -> None:
    """final: the path that the file will have. Raises: the PermanentError of the first that fails."""
    for step in all_of_them.steps(chosen, final):
        try:
            _carry_out(store, step)
        except PermanentError as error:
            raise type(error)(f"remote command {step}: {error}") from error


def run_after_success(store: Store, commands: RemoteCommands, final: bytes) -> None:
    """The file is delivered, whatever becomes of these."""
    for command in commands.after_success:
        try:
            run_commands(store, commands, [command], final)
        except PermanentError as error:
            log.warning("remote command failed after the delivery path=%s error=%s", quoted(final), error)


def _carry_out(store: Store, step: RemoteStep) -> None:
    if step.verb not in store.capabilities.commands:
        raise Unsupported(f"this server cannot {step.verb.value}: it offers no command for that")
    match step.verb:
        case Verb.RENAME:
            _rename(store, step)
        case Verb.DELETE:
            try:
                store.delete(step.path)
            except NotFound:
                pass  # an earlier attempt has deleted it
        case Verb.MKDIR:
            store.mkdir(step.path)
        case Verb.CHMOD:
            store.chmod(step.path, step.mode)
        case Verb.TOUCH:
            store.touch(step.path, step.at_s)


def _rename(store: Store, step: RemoteStep) -> None:
    if step.path == step.to:
        return
    try:
        store.move(step.path, step.to)
    except NotFound:
        if store.stat(step.path) is not None or store.stat(step.to) is None:
            raise

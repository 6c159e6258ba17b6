"""The commands of an upload on the server. See iot.transfer.remote_commands for what each of them means."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.folders import create_in_folder
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.paths import Earlier, make_dir, move
from iot.sftp.client.pipeline.job import Work, ask, expect_handle, expect_ok, expect_status
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Flag, Status
from iot.transfer.errors import NotFound, PermanentError
from iot.transfer.remote_commands import RemoteCommand, RemoteCommands, RemoteStep, Verb
from iot.transfer.terminal import quoted

log = logging.getLogger(__name__)

CREATE = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE | Flag.EXCLUSIVE
GONE = (Code.NO_SUCH_FILE, Code.NO_SUCH_PATH)


def run_commands(
    context: Context, all_of_them: RemoteCommands, chosen: Sequence[RemoteCommand], final: bytes
) -> Work[None]:
    """final: the path that the file will have. Raises: the PermanentError of the first that fails."""
    for step in all_of_them.steps(chosen, final):
        try:
            yield from _carry_out(context, step)
        except PermanentError as error:
            raise type(error)(f"remote command {step}: {error}") from error


def run_after_success(context: Context, commands: RemoteCommands, final: bytes) -> Work[None]:
    """The file is delivered, whatever becomes of these."""
    for command in commands.after_success:
        try:
            yield from run_commands(context, commands, [command], final)
        except PermanentError as error:
            log.warning("remote command failed after the delivery path=%s error=%s", quoted(final), error)


def _carry_out(context: Context, step: RemoteStep) -> Work[None]:
    match step.verb:
        case Verb.RENAME:
            yield from _rename(context, step)
        case Verb.DELETE:
            yield from _delete(step.path)
        case Verb.MKDIR:
            yield from make_dir(context, step.path)
        case Verb.CHMOD:
            reply = yield from ask(packets.setstat(step.path, Attributes(mode=step.mode)))
            expect_ok(reply, f"cannot set the mode of {quoted(step.path)}")
        case Verb.TOUCH:
            yield from _touch(context, step)


def _rename(context: Context, step: RemoteStep) -> Work[None]:
    if step.path == step.to:
        return
    try:
        yield from move(context, step.path, step.to, Earlier())
    except NotFound:
        if (yield from look(step.path)) is not None or (yield from look(step.to)) is None:
            raise


def _delete(path: bytes) -> Work[None]:
    doing = f"cannot delete {quoted(path)}"
    reply = expect_status((yield from ask(packets.remove(path))), doing)
    if not reply.ok and reply.code not in GONE:
        raise reply.error(doing)


def _touch(context: Context, step: RemoteStep) -> Work[None]:
    """What is there gets the time; only what is missing is made, by a request that is refused if it exists."""
    doing = f"cannot touch {quoted(step.path)}"
    reply = expect_status((yield from ask(packets.setstat(step.path, Attributes(mtime_s=step.at_s)))), doing)
    if reply.ok:
        return
    if (yield from look(step.path)) is not None:
        raise reply.error(doing)
    [made] = yield from create_in_folder(context, step.path, [packets.open_file(step.path, CREATE)])
    if isinstance(made, Status) and (yield from look(step.path)) is not None:
        return  # another upload has made it just now
    expect_ok((yield from ask(packets.close(expect_handle(made, doing)))), doing)

"""The names that an upload may get, and what happens where another file has one of them.

A file is published without replacing another by a hard link (`hardlink@openssh.com`), which no server makes over an
existing file, so two devices cannot take one name. Servers without it are asked first; then RENAME, which the protocol
does not let replace a file (draft-ietf-secsh-filexfer-02, 6.5), though a few servers do.

Where the answer to that was lost, our own file stands there: the intent is in the journal, and the content proves it.
"""

from __future__ import annotations

import posixpath

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import stands
from iot.sftp.client.jobs.paths import scan
from iot.sftp.client.jobs.proof import final_stands
from iot.sftp.client.jobs.publish import publish
from iot.sftp.client.pipeline.job import Work, ask, ask_all, expect_status
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes
from iot.sftp.client.protocol.server import HARDLINK
from iot.transfer.errors import AlreadyExists, Unsupported
from iot.transfer.model import IfExists, RemoteFile, UploadJob
from iot.transfer.names import as_spelled, check_final_name, remote_path
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

__all__ = ["Finals", "Taken"]


class Taken(Exception):
    """Another file has the name, and the upload is to be skipped then."""


class Finals:
    """names: in the order in which they are tried; the first is the job's destination.

    Raises: NameRefused if one is not a valid path.
    """

    def __init__(self, context: Context, job: UploadJob, source: Source) -> None:
        self.names = [remote_path(name, "dest") for name in (job.dest, *job.alternatives)]
        self._policy = job.if_exists
        self._ignores_case = job.ignores_case
        self._publishes_with_commands = bool(job.commands.before_publish)
        self._context = context
        self._source = source
        self._part_suffix = context.options.exact_suffix(job)
        self._alike: list[bytes] = []

    def check_names(self) -> None:
        """Raises: NameRefused; Unsupported for a policy that needs a part."""
        if self._context.options.direct_write and self._policy is not IfExists.OVERWRITE:
            raise Unsupported(f"direct_write replaces what is there: if_exists={self._policy.value} cannot be kept")
        if self._context.options.direct_write and self._publishes_with_commands:
            raise Unsupported("direct_write publishes nothing: there is no moment for commands before that")
        options = self._context.options
        for name in self.names:
            check_final_name(name, self._source.path, sidecar=options.sidecar, part_suffix=self._part_suffix)

    def check_free(self) -> Work[None]:
        """Raises: Taken, AlreadyExists, where nothing would come of sending it."""
        if self._policy in (IfExists.SKIP, IfExists.FAIL) and (yield from stands(self.names[0])):
            raise self._taken()

    def of_this_size(self, found: list[RemoteFile | None]) -> RemoteFile | None:
        """found: what is there under each name; only files of the size of the source can be ours."""
        size = self._source.fingerprint.size
        self._alike = [name for name, there in zip(self.names, found, strict=True) if there and there.size == size]
        return RemoteFile(size) if self._alike else None

    def ours(self) -> Work[bytes | None]:
        """The first name under which the whole content of the source stands."""
        for name in self._alike:
            if (yield from final_stands(self._context, name, self._source)):
                return name
        return None

    def number(self, name: bytes) -> int:
        """Of a name that the source has got, for `published`."""
        return self.names.index(name) if name in self.names else 0

    def published(self, number: int) -> Work[bytes | None]:
        """The name that an earlier attempt gave to the source, unless another file has it now. Commands may have taken
        ours away from there: then those that follow are still to be carried out."""
        for name in self.names[number : number + 1]:
            if not (yield from stands(name)) or (yield from final_stands(self._context, name, self._source)):
                return name
        return None

    def publish(self, part: bytes, *, reopen: bool) -> Work[tuple[bytes, bytes]]:
        """Give the part its name -> the name, and a handle as from publish.publish.

        Raises: Taken, AlreadyExists; see publish.publish.
        """
        if self._policy is IfExists.OVERWRITE:
            final = yield from self._as_spelled(self.names[0])
            return final, (yield from publish(self._context, part, final, self._source.path, reopen))
        for name in self.names:
            if (yield from _claim(self._context, part, name)):
                return name, b""
        raise self._taken()

    def _as_spelled(self, name: bytes) -> Work[bytes]:
        """The folder is listed only if a file is there that the new one replaces."""
        if not self._ignores_case or not (yield from stands(name)):
            return name
        entries = yield from scan(self._context, posixpath.dirname(name) or b".")
        return as_spelled(name, [entry.name for entry in entries])

    def _taken(self) -> Exception:
        if self._policy is IfExists.SKIP:
            return Taken()
        others = " (and so does each name to use instead)" if len(self.names) > 1 else ""
        return AlreadyExists(f"{quoted(self.names[0])} exists{others}, and is not to be replaced")


def _claim(context: Context, part: bytes, name: bytes) -> Work[bool]:
    """Give the part this name unless something has it -> whether it got it."""
    if (yield from stands(name)):
        return False
    if context.server.can_link and (yield from _link(context, part, name)):
        return True
    doing = f"cannot publish {quoted(name)}"
    renamed = expect_status((yield from ask(packets.rename(part, name))), doing)
    if renamed.ok:
        context.server.forget_extension(HARDLINK)  # if it has that, it makes no links there
        return True
    if (yield from stands(name)):
        return False
    raise renamed.error(doing)


def _link(context: Context, part: bytes, name: bytes) -> Work[bool]:
    """-> whether the file has the name now, and no other. rclone says OK to a link, and makes none."""
    requests = [packets.hardlink(part, name), packets.lstat(name)]
    linked, there = yield from ask_all(requests, context.server.in_order)
    if not expect_status(linked, f"cannot publish {quoted(name)}").ok:
        return False
    if not isinstance(there, Attributes):
        context.server.forget_extension(HARDLINK)
        return False
    expect_status((yield from ask(packets.remove(part))), f"cannot remove {quoted(part)}")
    return True

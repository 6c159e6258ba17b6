"""Operations on remote paths that need only a few requests, each as a job."""

from __future__ import annotations

import posixpath
import stat as modes
from collections.abc import Callable
from dataclasses import dataclass

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.folders import make_folder, make_parents
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.opening import open_one
from iot.sftp.client.jobs.publish import replace
from iot.sftp.client.pipeline.job import Work, ask, ask_at_once, closing, expect_names, expect_ok
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Name, Reply, Status
from iot.transfer.errors import AlreadyExists, NameRefused, NotFound, PermanentError, ServerRefused
from iot.transfer.model import RemoteEntry, RemoteFile
from iot.transfer.names import check_no_folder, path_text
from iot.transfer.terminal import quoted

LISTING_BYTES = 32 * 1024 * 1024
NAME_BYTES = 64  # approximate overhead of a name in Python
ASKED_AT_ONCE = 128


def real_path(path: bytes) -> Work[bytes]:
    """The server's absolute form of a path."""
    doing = f"cannot resolve {quoted(path)}"
    entries = expect_names((yield from ask(packets.realpath(path))), doing).entries
    if not entries:
        raise ServerRefused(f"{doing}: the server answered without a name")
    return entries[0].filename


@dataclass(slots=True)
class Earlier:
    """What earlier attempts of an operation may have done.

    asking: the decisive request was made. done: it may have reached the server, and its answer was lost.
    """

    asking: bool = False
    done: bool = False

    def lost(self, *, something_sent: bool) -> None:
        """The link was lost. something_sent: data has left this device since the attempt started."""
        self.done = self.done or (self.asking and something_sent)
        self.asking = False


def delete(path: bytes, earlier: Earlier) -> Work[None]:
    """Delete a file. If an earlier answer was lost, a file that is gone means success."""
    earlier.asking = True
    _expect_gone((yield from ask(packets.remove(path))), earlier, f"cannot delete {quoted(path)}")


def move(context: Context, source: bytes, dest: bytes, earlier: Earlier) -> Work[None]:
    """Rename a file or folder; a file at `dest` is replaced, atomically if the server can."""
    if (yield from look(source)) is None:
        if earlier.done and (yield from look(dest)) is not None:
            return  # it had succeeded, and only the answer was lost
        raise NotFound(f"cannot move {quoted(source)}: it is not on the server")
    if context.options.make_dirs:
        yield from make_parents(context, dest)
    if context.options.replace_by_remove:
        yield from _check_not_itself(source, dest)
    earlier.asking = True
    try:
        yield from replace(context, source, dest)
    except PermanentError:
        there = yield from look(dest)
        check_no_folder(there.mode if there else None, dest, source)
        raise


def _check_not_itself(source: bytes, dest: bytes) -> Work[None]:
    """What stands at `dest` may be removed first: never when that is the file itself under another name.

    Case does not count: there are servers for which it does not, either. Raises: AlreadyExists.
    """
    if (yield from look(dest)) is None:
        return
    real_source, real_dest = (yield from real_path(source)), (yield from real_path(dest))
    if real_source.lower() == real_dest.lower():
        raise AlreadyExists(f"cannot move {quoted(source)}: {quoted(dest)} is the same file")


def _expect_gone(reply: Reply, earlier: Earlier, doing: str) -> None:
    if earlier.done and isinstance(reply, Status) and reply.code == Code.NO_SUCH_FILE:
        return
    expect_ok(reply, doing)


def make_dir(context: Context, path: bytes) -> Work[None]:
    """Make a folder and any missing parents; an existing folder is fine."""
    folder = path.rstrip(b"/")
    yield from make_parents(context, folder)
    yield from make_folder(context, folder)


def delete_dir(context: Context, path: bytes, earlier: Earlier) -> Work[None]:
    """Delete an empty folder."""
    earlier.asking = True
    for known in (context.folders, context.asked_folders):
        known.discard(path.rstrip(b"/"))
    _expect_gone((yield from ask(packets.rmdir(path))), earlier, f"cannot delete folder {quoted(path)} (is it empty?)")


def scan(
    context: Context, path: bytes, leave_out: Callable[[bytes, bytes], None] | None = None
) -> Work[list[RemoteEntry]]:
    """What is right below `path`, sorted by name. leave_out: see Remote.scan.

    Raises: NotFound, PermissionDenied, NameRefused, ServerRefused; ServerBusy (see opening).
    """
    handle = yield from open_one(context, packets.opendir(path), path, f"cannot list {quoted(path)}")
    try:
        names = sorted((yield from closing(handle, _names(path, handle, leave_out))), key=lambda name: name.filename)
    finally:
        context.handles.discard(handle)
    unknown = [name for name, told in names if told.mode is None]
    told_now = dict(zip(unknown, (yield from _asked(path, unknown, packets.lstat)), strict=True))
    found = {name: told_now.get(name) or told for name, told in names}
    links = [name for name, told in found.items() if told.mode is not None and modes.S_ISLNK(told.mode)]
    targets = dict(zip(links, (yield from _asked(path, links, packets.stat)), strict=True))
    return [_entry(name, targets.get(name) or told, name in targets) for name, told in found.items()]


def _entry(name: bytes, told: Attributes, is_link: bool) -> RemoteEntry:
    file = RemoteFile(told.size, told.mtime_s, told.mode)
    return RemoteEntry(path_text(name), file, is_link)


def _asked(
    path: bytes, names: list[bytes], request: Callable[[bytes], packets.Request]
) -> Work[list[Attributes | None]]:
    """What the server tells of these names, many in one flight; None where it refuses."""
    found: list[Attributes | None] = []
    for start in range(0, len(names), ASKED_AT_ONCE):
        some = names[start : start + ASKED_AT_ONCE]
        replies = yield from ask_at_once([request(posixpath.join(path, name)) for name in some])
        found += [reply if isinstance(reply, Attributes) else None for reply in replies]
    return found


def _names(path: bytes, handle: bytes, leave_out: Callable[[bytes, bytes], None] | None) -> Work[list[Name]]:
    """All entries up to the end of READDIR; an endless listing is given up before it fills the memory."""
    found: list[Name] = []
    listed_bytes = 0
    while True:
        reply = yield from ask(packets.readdir(handle))
        if isinstance(reply, Status) and reply.code == Code.EOF:
            return found
        entries = expect_names(reply, f"cannot list {quoted(path)}").entries
        if not entries:
            return found  # OpenSSH's client also takes an empty answer as the end
        for name in entries:
            listed_bytes += len(path) + len(name.filename) + NAME_BYTES
            if listed_bytes > LISTING_BYTES:
                raise ServerRefused(
                    f"cannot list {quoted(path)}: the listing exceeds {LISTING_BYTES >> 20} MiB of names"
                )
            if name.filename not in (b".", b"..") and _is_name(path, name.filename, leave_out):
                found.append(name)


def _is_name(folder: bytes, name: bytes, leave_out: Callable[[bytes, bytes], None] | None) -> bool:
    """A name in a listing must not be a path: a server must not lead us out of a folder."""
    if not (b"/" in name or b"\0" in name or not name):
        return True
    if leave_out is None:
        raise NameRefused(f"server lists the name {quoted(name)} in {quoted(folder)}; a name must not contain a slash")
    leave_out(folder, name)
    return False

"""The small operations on remote paths, each a job of a few requests."""

from __future__ import annotations

import posixpath
import stat as modes
from dataclasses import dataclass

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.folders import make_folder, make_parents
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.publish import publish
from iot.sftp.client.pipeline.job import Work, ask, closing, expect_handle, expect_names, expect_ok
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Name, Reply, Status
from iot.transfer.errors import NameRefused, NotFound, ServerRefused

LISTING_BYTES = 32 * 1024 * 1024
NAME_BYTES = 64  # what Python adds to a name, about


def real_path(path: bytes) -> Work[bytes]:
    """The server's own absolute name of a path."""
    return expect_names((yield from ask(packets.realpath(path))), f"cannot resolve {path!r}").entries[0].filename


@dataclass(slots=True)
class Earlier:
    """What earlier attempts of an operation may have done already.

    asking: the request that does it has been made. done: it may have reached the server, and its answer was lost.
    """

    asking: bool = False
    done: bool = False

    def lost(self, *, something_sent: bool) -> None:
        """The link broke; something_sent: bytes have left this device since the attempt began."""
        self.done = self.done or (self.asking and something_sent)
        self.asking = False


def delete(path: bytes, earlier: Earlier) -> Work[None]:
    """A file that is gone after an answer was lost is what was wanted."""
    earlier.asking = True
    _expect_gone((yield from ask(packets.remove(path))), earlier, f"cannot delete {path!r}")


def move(context: Context, source: bytes, dest: bytes, earlier: Earlier) -> Work[None]:
    """Rename; a file that stands at `dest` is replaced in one step where the server can."""
    if (yield from look(source)) is None:
        if earlier.done and (yield from look(dest)) is not None:
            return  # the lost answer was a yes
        raise NotFound(f"cannot move {source!r}: it is not on the server")
    if context.options.make_dirs:
        yield from make_parents(context, dest)
    earlier.asking = True
    yield from publish(context, source, dest)


def _expect_gone(reply: Reply, earlier: Earlier, doing: str) -> None:
    if earlier.done and isinstance(reply, Status) and reply.code == Code.NO_SUCH_FILE:
        return
    expect_ok(reply, doing)


def make_dir(context: Context, path: bytes) -> Work[None]:
    """Make a folder and the missing ones above it; one that is there already is fine."""
    folder = path.rstrip(b"/")
    yield from make_parents(context, folder)
    yield from make_folder(context, folder)


def delete_dir(context: Context, path: bytes, earlier: Earlier) -> Work[None]:
    """Delete an empty folder."""
    earlier.asking = True
    context.folders.discard(path.rstrip(b"/"))
    _expect_gone((yield from ask(packets.rmdir(path))), earlier, f"cannot delete folder {path!r} (is it empty?)")


def list_paths(path: bytes, folders: bool) -> Work[list[bytes]]:
    """Paths of the files (or folders) right below `path`, sorted. Raises: NotFound, NameRefused, ServerRefused ..."""
    handle = expect_handle((yield from ask(packets.opendir(path))), f"cannot list {path!r}")
    return sorted((yield from closing(handle, _listed(path, handle, folders))))


def _listed(path: bytes, handle: bytes, folders: bool) -> Work[list[bytes]]:
    """What READDIR gives until its end; a listing without an end is given up before it fills the memory."""
    found: list[bytes] = []
    listed_bytes = 0
    while True:
        reply = yield from ask(packets.readdir(handle))
        if isinstance(reply, Status) and reply.code == Code.EOF:
            return found
        entries = expect_names(reply, f"cannot list {path!r}").entries
        if not entries:
            return found  # for OpenSSH's client, too, an empty answer is the end
        for name in entries:
            listed_bytes += len(path) + len(name.filename) + NAME_BYTES
            if listed_bytes > LISTING_BYTES:
                raise ServerRefused(
                    f"cannot list {path!r}: the server lists more than {LISTING_BYTES >> 20} MiB of names"
                )
            if name.filename not in (b".", b"..") and (yield from _is_folder(path, name)) is folders:
                found.append(_join(path, name.filename))


def _is_folder(path: bytes, name: Name) -> Work[bool]:
    """A link counts as what it leads to; a server that tells no mode is asked once more."""
    mode = name.attributes.mode
    if mode is None or modes.S_ISLNK(mode):
        reply = yield from ask(packets.stat(_join(path, name.filename)))
        mode = reply.mode if isinstance(reply, Attributes) else None
    return mode is not None and modes.S_ISDIR(mode)


def _join(folder: bytes, name: bytes) -> bytes:
    """A name in a listing is a name and never a path: a server cannot lead us out of a folder."""
    if b"/" in name or b"\0" in name or not name:
        raise NameRefused(f"server lists the name {name!r} in {folder!r}; a name may not hold a slash")
    return posixpath.join(folder, name)

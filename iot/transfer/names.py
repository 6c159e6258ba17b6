"""The name under which a file travels. Pure.

`<dest>.<8 hex><suffix>`: the hex is a hash of who sends what to where. So a part's name says whose it is: two
devices, or two files flattened to one destination, never write to the same part; after a crash, and even after
a lost journal, a part of ours is ours beyond doubt; a part of others is never touched.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat

from iot.transfer.errors import NameRefused
from iot.transfer.terminal import quoted

NAME_MAX_BYTES = 255
SIDECAR = b".sha256"


def part_name(dest: bytes, source: bytes, owner: str, suffix: str) -> bytes:
    """Name of the part of `source` on its way to `dest`; `owner` names this device's state directory."""
    identity = b"\0".join((owner.encode("utf-8", "surrogateescape"), source, dest))
    ending = b"." + hashlib.sha256(identity).hexdigest()[:8].encode() + suffix.encode()
    folder, name = posixpath.split(dest)
    return posixpath.join(folder, _cut(name, NAME_MAX_BYTES - len(ending)) + ending)


def check_final_name(dest: bytes, source: bytes = b"", *, sidecar: bool = False) -> None:
    """Told before a byte is sent: the part's name is cut to fit, so the server would refuse only the rename.

    Raises: NameRefused when `dest` can only be a folder; when a name in it, or that of its sidecar, is too long.
    """
    if posixpath.basename(dest) in (b"", b".", b".."):
        raise _folder_meant(dest, source)
    longest = max(dest.split(b"/"), key=len)
    if len(longest) > NAME_MAX_BYTES:
        raise NameRefused(f"{quoted(longest)} has {len(longest)} bytes; a name has {NAME_MAX_BYTES} at most")
    name = posixpath.basename(dest) + SIDECAR
    if sidecar and len(name) > NAME_MAX_BYTES:
        raise NameRefused(
            f"{quoted(name)} has {len(name)} bytes; a name has {NAME_MAX_BYTES} at most: send without sidecar"
        )


def check_no_folder(mode: int | None, dest: bytes, source: bytes) -> None:
    """mode: what STAT tells of `dest`. Raises: NameRefused when a folder stands there."""
    if mode is not None and stat.S_ISDIR(mode):
        raise _folder_meant(dest, source)


def _folder_meant(dest: bytes, source: bytes) -> NameRefused:
    meant = posixpath.join(dest, posixpath.basename(source) or b"NAME")
    return NameRefused(f"{quoted(dest)} is a folder; did you mean {quoted(meant)}?")


def sidecar_part(part: bytes) -> bytes:
    """The name under which `<dest>.sha256` is sent: the end of the part's own name, which tells whose it is."""
    folder, name = posixpath.split(part)
    start = max(0, len(name) + len(SIDECAR) - NAME_MAX_BYTES)
    while 0 < start < len(name) and name[start] & 0xC0 == 0x80:
        start += 1
    return posixpath.join(folder, name[start:] + SIDECAR)


def _cut(name: bytes, most: int) -> bytes:
    """At most so many bytes of a name, ending between characters: some servers take valid UTF-8 only."""
    while len(name) > most > 0 and name[most] & 0xC0 == 0x80:
        most -= 1
    return name[:most]


def remote_path(path: str) -> bytes:
    """A remote path as the wire wants it. Raises: NameRefused."""
    if not path or "\0" in path:
        raise NameRefused(f"{path!r} is no path: it is empty or holds a NUL character")
    return path.encode("utf-8", "surrogateescape")


def parents(path: bytes) -> list[bytes]:
    """The folders above `path`, the outermost first, without the root and the login folder."""
    found = []
    folder = posixpath.dirname(path.rstrip(b"/"))
    while folder.strip(b"/") not in (b"", b"."):  # "//" is a root, too, and its own parent
        found.append(folder)
        folder = posixpath.dirname(folder)
    return found[::-1]

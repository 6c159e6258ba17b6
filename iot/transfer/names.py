"""The name of a part, under which a file is sent. Pure.

`<dest>.<8 hex><suffix>`: the hex digits are a hash of sender, source and destination, so a part's name identifies its
owner. Two devices, or two files flattened to one destination, never write to the same part; after a crash, even after
the journal is lost, our own parts can be told apart, and those of others are never touched.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat
from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath

from iot.transfer.errors import ConfigurationError, NameRefused
from iot.transfer.model import NAME, RemotePath
from iot.transfer.terminal import quoted

NAME_MAX_BYTES = 255
SIDECAR = b".sha256"


def part_name(dest: bytes, source: bytes, owner: str, suffix: str) -> bytes:
    """The part name for `source` on its way to `dest`; `owner` identifies this device's state directory."""
    identity = b"\0".join((owner.encode("utf-8", "surrogateescape"), source, dest))
    ending = b"." + hashlib.sha256(identity).hexdigest()[:8].encode() + suffix.encode()
    folder, name = posixpath.split(dest)
    return posixpath.join(folder, _cut(name, NAME_MAX_BYTES - len(ending)) + ending)


def part_names(
    dest: bytes, source: bytes, owner: str, suffix: str, exact_suffix: str | None = None
) -> tuple[bytes, ...]:
    """The names of the part to try, in order. With `exact_suffix`, `<dest><exact_suffix>` comes first; that does not
    identify its owner, so it is taken only where nothing has it, or where the journal knows it as ours."""
    owned = part_name(dest, source, owner, suffix)
    exact = dest + (exact_suffix or "").encode("utf-8", "surrogateescape")
    fits = len(posixpath.basename(exact)) <= NAME_MAX_BYTES
    return (exact, owned) if exact_suffix and fits else (owned,)


def partial_name(dest: bytes, pattern: str) -> bytes | None:
    """Where another program's part of `dest` would lie; see UploadJob.adopt_partial. None: no name can be that long."""
    folder, name = posixpath.split(dest)
    partial = pattern.encode("utf-8", "surrogateescape").replace(NAME.encode(), name)
    return posixpath.join(folder, partial) if len(partial) <= NAME_MAX_BYTES else None


def as_spelled(path: bytes, names: Iterable[str]) -> bytes:
    """The path in the spelling of the file that a server which ignores case has in its place.

    names: of the files in its folder.
    """
    folder, name = posixpath.split(path)
    wanted = path_text(name)
    alike = [each for each in names if each.casefold() == wanted.casefold()]
    spelt = wanted if wanted in alike or not alike else min(alike)
    return posixpath.join(folder, spelt.encode("utf-8", "surrogateescape"))


def check_final_name(
    dest: bytes, source: bytes = b"", *, sidecar: bool = False, part_suffix: str | None = None
) -> None:
    """Checked before a byte is sent: the part's name is truncated to fit, so the server would refuse only the rename.

    part_suffix: of exact part names.

    Raises: NameRefused if `dest` can only be a folder or could be the part of another file, or if a name in it, or that
        of its sidecar, is too long.
    """
    if posixpath.basename(dest) in (b"", b".", b".."):
        raise _folder_meant(dest, source)
    if part_suffix and may_be_part(path_text(dest), part_suffix):
        raise NameRefused(
            f"{quoted(dest)} ends in {part_suffix!r}, as the part of another file does: give parts another ending"
        )
    longest = max(dest.split(b"/"), key=len)
    if len(longest) > NAME_MAX_BYTES:
        raise NameRefused(f"{quoted(longest)} has {len(longest)} bytes; the limit for a name is {NAME_MAX_BYTES}")
    name = posixpath.basename(dest) + SIDECAR
    if sidecar and len(name) > NAME_MAX_BYTES:
        raise NameRefused(
            f"{quoted(name)} has {len(name)} bytes; the limit for a name is {NAME_MAX_BYTES}: send without sidecar"
        )


def may_be_part(dest: str, part_suffix: str) -> bool:
    """Whether it could be the exact part name of another file, also on a server that ignores case. If it were sent, the
    two would be mixed up."""
    return dest.casefold().endswith(part_suffix.casefold())


def check_no_folder(mode: int | None, dest: bytes, source: bytes) -> None:
    """mode: as reported by STAT for `dest`. Raises: NameRefused if it is a folder."""
    if mode is not None and stat.S_ISDIR(mode):
        raise _folder_meant(dest, source)


def _folder_meant(dest: bytes, source: bytes) -> NameRefused:
    meant = posixpath.join(dest, posixpath.basename(source) or b"NAME")
    return NameRefused(f"{quoted(dest)} is a folder; did you mean {quoted(meant)}?")


def sidecar_part(part: bytes) -> bytes:
    """The name under which `<dest>.sha256` is sent: the end of the part's own name, which identifies its owner."""
    folder, name = posixpath.split(part)
    start = max(0, len(name) + len(SIDECAR) - NAME_MAX_BYTES)
    while 0 < start < len(name) and name[start] & 0xC0 == 0x80:
        start += 1
    return posixpath.join(folder, name[start:] + SIDECAR)


def _cut(name: bytes, most: int) -> bytes:
    """Truncate a name to `most` bytes, between characters: some servers accept valid UTF-8 only."""
    while len(name) > most > 0 and name[most] & 0xC0 == 0x80:
        most -= 1
    return name[:most]


def remote_path(path: RemotePath, argument: str = "path") -> bytes:
    """Encode a remote path for the wire.

    argument: the name of the caller's argument, for the error. Raises: ConfigurationError (wrong type), NameRefused.
    """
    encoded = path if isinstance(path, bytes) else _text(path, argument).encode("utf-8", "surrogateescape")
    if not encoded or b"\0" in encoded:
        raise NameRefused(f"{quoted(encoded)} is not a valid path: it is empty or contains a NUL character")
    return encoded


def _text(path: object, argument: str) -> str:
    if isinstance(path, (str, PurePosixPath)):
        return str(path)
    if isinstance(path, PureWindowsPath):
        raise ConfigurationError(
            f"{argument}: a {type(path).__name__} cannot name a remote path: on a server a backslash is part of a name;"
            " use PurePosixPath or str, with slashes"
        )
    raise ConfigurationError(f"{argument}: must be str, bytes or PurePosixPath (got {type(path).__name__})")


def path_text(path: object) -> str:
    """A remote path as results show it, whatever the caller passed as one."""
    return path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else str(path)


def parents(path: bytes) -> list[bytes]:
    """The parent folders of `path`, outermost first, without the root and the login folder."""
    found = []
    folder = posixpath.dirname(path.rstrip(b"/"))
    while folder.strip(b"/") not in (b"", b"."):  # "//" is a root, too, and its own parent
        found.append(folder)
        folder = posixpath.dirname(folder)
    return found[::-1]

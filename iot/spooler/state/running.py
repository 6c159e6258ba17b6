"""Where the running agent keeps its files, so that `status`, `retry` and `flush` find them.

A unit may set another state directory than its configuration names, and the unit's environment is invisible from
outside. So the agent leaves a note in a folder in memory and locks it while it runs: $RUNTIME_DIRECTORY under systemd,
else $XDG_RUNTIME_DIR/iot-spooler, else, for root, /run/iot-spooler. An unlocked note is that of an agent that has
died. The status lies beside it, for everybody to read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown

__all__ = ["STATUS", "WAKE", "Running", "announced", "control_of", "control_path", "find", "status_path", "wake_path"]

log = logging.getLogger(__name__)

RUN = Path("/run")
NAME = "iot-spooler"
STATUS = "status.json"
CONTROL = "control"
WAKE = "wake"
NOT_OURS = '"this user cannot make it, or it belongs to another"'
NOTE_MAX = 64 * 1024
FLAGS = os.O_NONBLOCK | os.O_NOFOLLOW


class Running(NamedTuple):
    """config: its configuration file. status: its status file."""

    pid: int
    config: str
    state_dir: str
    status: str


def status_path(config: Path | None, state_dir: Path, environment: Mapping[str, str]) -> tuple[Path, bool]:
    """Where the status of an agent goes, and whether that is in memory, where writing costs no flash."""
    folder = _own_folder(environment)
    if folder is None or not _is_ours(folder):
        return state_dir / STATUS, False
    return folder / (STATUS if _is_private(environment) else f"status-{_mark(config, state_dir)}.json"), True


def wake_path(environment: Mapping[str, str]) -> Path | None:
    """The file that is touched to have the server tried; None without a runtime directory."""
    folder = _own_folder(environment)
    return folder / WAKE if folder is not None and _is_ours(folder) else None


def control_path(config: Path | None, state_dir: Path, environment: Mapping[str, str]) -> Path:
    """Where an agent takes commands: beside its status."""
    return control_of(status_path(config, state_dir, environment)[0])


def control_of(status: Path) -> Path:
    """Where the agent with this status file takes commands."""
    return status.with_name(status.stem.replace("status", CONTROL, 1) + ".sock")


@contextlib.contextmanager
def announced(config: Path | None, state_dir: Path, status: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Keep the note for the length of a with-block. Without a runtime directory the agent runs without one."""
    folder = _own_folder(environment)
    if folder is None:
        yield
        return
    if not _is_ours(folder):
        log.warning("cannot write the note of the agent's files path=%s error=%s", shown(str(folder)), NOT_OURS)
        yield
        return
    note = Running(os.getpid(), _resolved(config), os.path.abspath(state_dir), os.path.abspath(status))
    path = folder / f"agent-{_mark(config, state_dir)}.json"
    _sweep(folder)
    try:
        held = _written(path, note)
    except OSError as error:
        log.warning("cannot write the note of the agent's files path=%s error=%s", shown(str(path)), error.strerror)
        yield
        return
    try:
        yield
    finally:
        shared = [status] if status.parent == folder and not _is_private(environment) else []
        for mine in (path, *shared):
            with contextlib.suppress(OSError):
                os.unlink(mine)
        os.close(held)


def find(
    config: Path | None, environment: Mapping[str, str], *, state_dir: Path | None = None, dead: bool = False
) -> Running | None:
    """The agent that runs with this configuration file; None when none is found.

    state_dir: where no file is read, the agent that keeps its state there. dead: one that has died without a word.
    """
    wanted = _resolved(config)
    notes = (_read(path, dead=dead) for folder in _folders(environment) for path in sorted(folder.glob("agent-*.json")))
    for note in notes:
        if note is not None and note.config == wanted and (config or note.state_dir == str(state_dir)):
            return note
    return None


def _resolved(config: Path | None) -> str:
    return "" if config is None else os.path.realpath(config)


def _mark(config: Path | None, state_dir: Path) -> str:
    names = _resolved(config) + chr(0) + os.path.abspath(state_dir)
    return hashlib.sha256(os.fsencode(names)).hexdigest()[:16]


def _is_private(environment: Mapping[str, str]) -> bool:
    """Whether the folder is one agent's, as a unit makes it."""
    return bool(environment.get("RUNTIME_DIRECTORY"))


def _own_folder(environment: Mapping[str, str]) -> Path | None:
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime)
    of_user = environment.get("XDG_RUNTIME_DIR")
    if of_user:
        return Path(of_user) / NAME
    return RUN / NAME if os.geteuid() == 0 else None


def _is_ours(folder: Path) -> bool:
    """Whether it is there, or could be made, and belongs to this user, as all on the way to it does, or to root: else
    somebody may lead its names elsewhere."""
    with contextlib.suppress(OSError):
        _check_way(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)
        _check_way(folder)
        return os.stat(folder).st_uid == os.geteuid() and os.access(folder, os.W_OK | os.X_OK)
    return False


def _check_way(folder: Path) -> None:
    """Links and what they lead to. Raises: OSError."""
    real = folder.resolve()
    for path in {folder, real, *folder.absolute().parents, *real.parents}:
        if os.lstat(path).st_uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, "belongs to another user", str(path))


def _sweep(folder: Path) -> None:
    """Remove the notes of dead agents whose state directory is gone, for which nobody will ask, and the sockets of all
    dead agents."""
    for path in folder.glob("agent-*.json"):
        note = _read(path, dead=True)
        if note is not None and not os.path.isdir(note.state_dir):
            for mine in (path, Path(note.status)):
                if mine.parent == folder:
                    with contextlib.suppress(OSError):
                        mine.unlink()
    for path in folder.glob(f"{CONTROL}-*.sock"):
        note_path = folder / f"{path.stem.replace(CONTROL, 'agent', 1)}.json"
        with contextlib.suppress(OSError):
            if not _is_held(note_path) and _is_deserted(path):
                path.unlink()


def _is_held(note: Path) -> bool:
    """Whether its agent lives. Raises: OSError where that cannot be known."""
    try:
        file = os.open(note, os.O_RDONLY | FLAGS)
    except FileNotFoundError:
        return False
    try:
        return _is_locked(file)
    finally:
        os.close(file)


def _is_deserted(path: Path) -> bool:
    """Whether it is a socket at which nobody listens. Raises: OSError."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
            # by the folder's descriptor, since the path of a socket may have 107 bytes at most
            return client.connect_ex(f"/proc/self/fd/{folder}/{path.name}") == errno.ECONNREFUSED
    finally:
        os.close(folder)


def _folders(environment: Mapping[str, str]) -> list[Path]:
    own = _own_folder(environment)
    found = [own] if own is not None else []
    found += [RUN / NAME, *sorted(RUN.glob(f"{NAME}-*"))]
    if os.geteuid() == 0:
        found += sorted(RUN.glob(f"user/*/{NAME}"))
    return list(dict.fromkeys(found))


def _written(path: Path, note: Running) -> int:
    """The note's descriptor, which holds its lock. Raises: OSError."""
    held = os.open(path, os.O_RDWR | os.O_CREAT | FLAGS, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(held, 0o644)
        os.ftruncate(held, 0)
        os.write(held, json.dumps(note._asdict(), indent=1).encode("ascii") + b"\n")
    except BaseException:
        os.close(held)
        raise
    return held


def _read(path: Path, *, dead: bool = False) -> Running | None:
    """A note of an agent that lives (or, when `dead`, that does not), written by the user whose state directory it
    names, or by root; where that is not to be seen, by the owner of the folder: nothing but a status is read then."""
    try:
        file = os.open(path, os.O_RDONLY | FLAGS)
    except OSError:
        return None
    try:
        if _is_locked(file) is dead:
            return None
        values = json.loads(os.read(file, NOTE_MAX))
        note = Running(int(values["pid"]), *(str(values[key]) for key in Running._fields[1:]))
        return note if os.fstat(file).st_uid in (0, _owner(Path(note.state_dir), path.parent, dead=dead)) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    finally:
        os.close(file)


def _owner(state_dir: Path, folder: Path, *, dead: bool) -> int:
    try:
        return os.stat(state_dir).st_uid
    except OSError as error:
        if not dead and error.errno != errno.EACCES:
            raise
        return os.stat(folder).st_uid


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    return False

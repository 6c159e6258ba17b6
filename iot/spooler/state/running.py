"""Where the running agent keeps its files, so that `status`, `retry` and `flush` find them.

A unit may set another state directory than its configuration names, and the unit's environment is invisible from
outside. So the agent leaves a note in its runtime directory and locks it while it runs: $RUNTIME_DIRECTORY under
systemd, else $XDG_RUNTIME_DIR/iot-spooler, else, for root, /run/iot-spooler. An unlocked note was left by an agent that
has died, and is ignored.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown

__all__ = ["Running", "announced", "find"]

log = logging.getLogger(__name__)

RUN = Path("/run")
NAME = "iot-spooler"
NOTE_MAX = 64 * 1024
FLAGS = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class Running(NamedTuple):
    """config: its configuration file. status: its status file."""

    pid: int
    config: str
    state_dir: str
    status: str


@contextlib.contextmanager
def announced(config: Path | None, state_dir: Path, status: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Keep the note for the length of a with-block. Without a runtime directory the agent runs without one."""
    folder = _own_folder(environment)
    if config is None or folder is None:
        yield
        return
    note = Running(os.getpid(), os.path.realpath(config), os.path.abspath(state_dir), os.path.abspath(status))
    path = folder / f"agent-{hashlib.sha256(os.fsencode(note.config + chr(0) + note.state_dir)).hexdigest()[:16]}.json"
    try:
        held = _written(path, note)
    except OSError as error:
        log.warning("cannot write the note of the agent's files path=%s error=%s", shown(str(path)), error.strerror)
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(held)


def find(config: Path | None, environment: Mapping[str, str]) -> Running | None:
    """The agent running with this configuration file; None if there is none."""
    if config is None:
        return None
    wanted = os.path.realpath(config)
    notes = (_read(path) for folder in _folders(environment) for path in sorted(folder.glob("agent-*.json")))
    return next((note for note in notes if note is not None and note.config == wanted), None)


def _own_folder(environment: Mapping[str, str]) -> Path | None:
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime)
    of_user = environment.get("XDG_RUNTIME_DIR")
    if of_user:
        return Path(of_user) / NAME
    return RUN / NAME if os.geteuid() == 0 else None


def _folders(environment: Mapping[str, str]) -> list[Path]:
    own = _own_folder(environment)
    found = [own] if own is not None else []
    found += [RUN / NAME, *sorted(RUN.glob(f"{NAME}-*"))]
    if os.geteuid() == 0:
        found += sorted(RUN.glob(f"user/*/{NAME}"))
    return list(dict.fromkeys(found))


def _written(path: Path, note: Running) -> int:
    """The note's descriptor, which holds its lock. Raises: OSError."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
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


def _read(path: Path) -> Running | None:
    """The note of a running agent, written by the owner of the state directory it names, or by root."""
    try:
        file = os.open(path, os.O_RDONLY | FLAGS)
    except OSError:
        return None
    try:
        if not _is_locked(file):
            return None
        values = json.loads(os.read(file, NOTE_MAX))
        note = Running(int(values["pid"]), *(str(values[key]) for key in Running._fields[1:]))
        owners = {0, os.stat(note.state_dir).st_uid}
        return note if os.fstat(file).st_uid in owners else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    return False

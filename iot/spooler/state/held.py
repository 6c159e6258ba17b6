"""A refused login holds the server also for later processes: a cron job must not try it anew each time.

The hold belongs to what was refused: configuration, keys, passwords and known hosts by their content, since systemd
makes its credentials anew for each start. Other content, `flush` or a login that succeeds ends it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iot.spooler.config.changes import look
from iot.spooler.config.settings import Settings
from iot.spooler.server.availability import Availability, ServerState
from iot.spooler.state.elapsed import Moment, elapsed_s, observe

__all__ = ["Held", "release"]

FILE = "hold.json"
FALLBACK_FILE = "hold-fallback.json"
ROUNDS = 100_000
"""Of PBKDF2: the digest covers passwords, and lies on the disk."""
SALT_BYTES = 16


@dataclass
class Held:
    """The record of one server, in a state directory. config: the file that the settings came from. file: its name.
    look: reads the clocks."""

    settings: Settings
    config: Path | None
    look: Callable[[], Moment] = observe
    file: str = FILE
    _recorded: int | None = None
    _may_be_there: bool = True

    def restore(self, server: Availability, now: float) -> float | None:
        """Hold the server for what is left of an earlier process's hold -> the seconds; None where there is none."""
        try:
            found = json.loads(self._path.read_bytes())
            left_s = float(found["hold_s"]) - elapsed_s(Moment(*found["moment"]), self.look())
            salt, holds, error = bytes.fromhex(found["salt"]), int(found["holds"]), str(found["error"])
            is_same = secrets.compare_digest(str(found["digest"]), self._digest(salt))
        except (OSError, ValueError, TypeError, KeyError, ArithmeticError):
            return None  # there is none; a broken one is written anew at the next refusal
        if not is_same:
            return None
        if left_s <= 0:
            server.holds, server.last_error = holds, error
            return None  # over, but not forgotten: the next one is longer
        server.remembered(error, holds, now + left_s, now)
        self._recorded = holds
        return left_s

    def follow(self, server: Availability, now: float) -> None:
        """Record a hold that is new, and forget one that is over. Raises: OSError."""
        if server.state is ServerState.CONNECTING:
            return  # what comes of this try is not known yet
        if server.state is not ServerState.HELD:
            if self._may_be_there and (self._recorded is not None or server.state is ServerState.CONNECTED):
                self._forget()
        elif server.holds != self._recorded:
            self._record(server, server.ready_at - now)
            self._recorded, self._may_be_there = server.holds, True

    @property
    def _path(self) -> Path:
        return self.settings.state_dir / self.file

    def _forget(self) -> None:
        self._recorded, self._may_be_there = None, False
        self._path.unlink(missing_ok=True)

    def _record(self, server: Availability, hold_s: float) -> None:
        salt = secrets.token_bytes(SALT_BYTES)
        content = {
            "holds": server.holds,
            "hold_s": hold_s,
            "error": server.last_error,
            "moment": list(self.look()),
            "salt": salt.hex(),
            "digest": self._digest(salt),
        }
        fresh = self._path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(content), encoding="ascii")
        fresh.rename(self._path)

    def _digest(self, salt: bytes) -> str:
        server = self.settings.server
        values = {name: _plain(getattr(server, name)) for name in sorted(type(server).model_fields)}
        files = [*([self.config] if self.config is not None else []), *server.login_files()]
        parts = [repr(values).encode("utf-8", "surrogatepass"), *map(_content, files)]
        digests = b"".join(hashlib.sha256(part).digest() for part in parts)
        return hashlib.pbkdf2_hmac("sha256", digests, salt, ROUNDS).hex()


def release(state_dir: Path) -> bool:
    """End the holds that an earlier process left -> whether there was one. Raises: OSError."""
    released = [_released(state_dir / file) for file in (FILE, FALLBACK_FILE)]
    return any(released)


def _released(path: Path) -> bool:
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _plain(value: Any) -> str:
    return str(value.get_secret_value()) if hasattr(value, "get_secret_value") else repr(value)


def _content(file: Path) -> bytes:
    """Of a file; of a folder, which may be a destination, what could have been the reason of a refusal."""
    with suppress(OSError):
        mode = os.stat(file).st_mode
        if stat.S_ISREG(mode):
            return file.read_bytes()
        if stat.S_ISDIR(mode):
            return repr(look(file)).encode()
    return b""

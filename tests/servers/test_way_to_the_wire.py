"""How many of our modules a file goes through from its outbox to the wire: at most 25, and it shall not grow."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from servers.openssh import OpenSSH

import iot.transfer
from iot.spooler.config.load import load
from iot.spooler.process.service import Service
from iot.spooler.state.journal_location import JournalLocation

ROOT = str(Path(str(iot.transfer.__file__)).parents[1])
MOST = 25
SYSTEM = {"fcntl", "fstat", "open", "pread", "read", "scandir", "stat", "write", "execute", "executemany"}
"""What a file is found, judged, queued and read with."""


class Way:
    """The modules on the stack of every system call, from the moment at which a file is there until it is sent."""

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self._was_read = False

    def watch(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "c_call":
            return
        call = getattr(argument, "__name__", "")
        self._was_read = self._was_read or call == "pread"
        is_sent = call == "send" and hasattr(argument, "__self__") and type(argument.__self__).__name__ == "socket"
        if call in SYSTEM or is_sent:
            self.modules |= dict.fromkeys(reversed(list(modules_of(frame))))
        if self._was_read and is_sent:
            sys.setprofile(None)


def modules_of(frame: FrameType | None) -> list[str]:
    found = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            found.append(str(path.relative_to(ROOT)))
        frame = frame.f_back
    return found


class Watched(Service):
    """Delivers one file, so that everything is loaded and connected, and is watched with the second one."""

    def __init__(self, box: Path, way: Way) -> None:
        super().__init__(None, {})
        self._box = box
        self._way = way
        self._names = iter(("first", "second"))
        self._empty_for = 0

    def pause(self, seconds: float) -> None:
        self._empty_for = 0 if any(self._box.iterdir()) else self._empty_for + 1
        if self._empty_for == 2:  # it has been noticed, too, that the one before has gone
            self._empty_for = 0
            name = next(self._names, None)
            self._terminate = name is None
            if name is not None:
                (self._box / name).write_bytes(bytes(10_240))
            if name == "second":
                sys.setprofile(self._way.watch)
        super().pause(min(seconds, 0.05))

    def report(self, *_: object, **__: object) -> None:
        """The status is no part of the way."""


def test_a_file_goes_from_its_outbox_to_the_wire_through_few_modules(sshd: OpenSSH, tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\nscan_s = 0.05\n'
        f'[server]\nhost = "{sshd.host}"\nport = {sshd.port}\nuser = "{sshd.user}"\n'
        f'key_file = "{sshd.key_file}"\nknown_hosts = "{sshd.known_hosts}"\n'
        f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "{sshd.path("up")}"\nsettle_s = 0\n'
    )
    settings, way = load(config, {}), Way()
    location = JournalLocation(settings, time.monotonic)
    try:
        Watched(tmp_path / "box", way).run(settings, location)
    finally:
        sys.setprofile(None)
        location.close()
    assert sorted(path.name for path in (sshd.root / "up").iterdir()) == ["first", "second"]
    assert {"spooler/outbox/scan.py", "sftp/client/jobs/sending.py", "sftp/client/ssh/link.py"} <= set(way.modules)
    assert len(way.modules) <= MOST, list(way.modules)

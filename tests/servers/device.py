"""A device for tests of the agent: an outbox, a configuration, and the agent as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from servers.base import Server

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Device"]

DEADLINE_S = 120.0
OLD_S = 60


class Device:
    """settings: lines of TOML for the top of the configuration; outbox: lines for its one outbox."""

    def __init__(self, folder: Path, server: Server, *, settings: str = "", outbox: str = "") -> None:
        self.box = folder / "box"
        self.state = folder / "state"
        self.log = folder / "agent.log"
        self.box.mkdir(parents=True)
        self._configuration = folder / "spooler.toml"
        login = {"key_file": server.key_file, "password": server.password}
        self._configuration.write_text(
            f'state_dir = "{self.state}"\n{settings}\n'
            f'[server]\nhost = "{server.host}"\nport = {server.port}\nuser = "{server.user}"\n'
            f'host_key = "{server.host_key}"\n'
            + "".join(f'{key} = "{value}"\n' for key, value in login.items() if value is not None)
            + f'[[outbox]]\npath = "{self.box}"\ndestination = "{server.path("up")}"\n{outbox}\n'
        )
        self._agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()

    def put(self, name: str, content: bytes) -> Path:
        """A file that was finished a minute ago."""
        fresh = self.box.parent / "fresh"
        fresh.write_bytes(content)
        old_s = time.time() - OLD_S
        os.utime(fresh, (old_s, old_s))
        return fresh.rename(self.box / name)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "iot.spooler", "run", *arguments, "--config", str(self._configuration)]
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self._agent

    def drain(self) -> str:
        """Deliver all there is -> what the agent has logged in all its runs."""
        agent = self.start("--drain")
        agent.wait(DEADLINE_S)
        self._agent = None
        assert agent.returncode == 0, self.told()
        return self.told()

    def told(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, self.told()[-3000:]
            time.sleep(0.02)

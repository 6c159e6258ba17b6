"""An agent with an inbox on a fake clock. Its server is a real folder, through the product's own client."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from unit.agent_rig import Loop

from iot.spooler.agent.agent import Agent
from iot.spooler.agent.draining import End
from iot.spooler.config.settings import Settings
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.spooler.status.status import snapshot
from iot.transfer import Journal

__all__ = ["InboxLab"]

OLD_S = 3600


class Reporting(Loop):
    """last: the status at the end."""

    last: dict[str, Any]

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        if final:
            self.last = snapshot(agent, self.wall(), self.now)


class InboxLab:
    """server: the remote folder. here: the local one. inbox: settings that a test adds."""

    def __init__(self, base: Path, **inbox: Any) -> None:
        self.base = base
        self.server, self.here, self.box = base / "server" / "cfg", base / "here", base / "box"
        for folder in (self.server, self.here, self.box):
            folder.mkdir(parents=True)
        self.inbox = {"path": str(self.here), "source": "/cfg", "settle_s": 0, **inbox}
        self.more: dict[str, Any] = {}
        self.loop = Reporting()
        self.agent: Agent | None = None

    def put(self, name: str, content: bytes, *, age_s: float = OLD_S) -> Path:
        """A file on the server."""
        path = self.server / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        then = int(time.time() - age_s)
        os.utime(path, (then, then))
        return path

    def run(self, *, drain: bool = True, wrap: Any = lambda remote: remote) -> End:
        """wrap: makes the remote misbehave."""
        settings = Settings.model_validate(self.settings())
        journal = Journal(settings.state_dir, QUEUE_SCHEMA)
        remote = settings.server.remote(journal, settings.device_id)
        self.agent = None
        try:
            clocks = Clocks(self.loop.clock, self.loop.wall)
            self.agent = Agent(settings, journal, wrap(remote), self.loop, clocks, lambda: 0.0, drain=drain)
            return self.agent.run()
        finally:
            for intake in self.agent.intakes if self.agent else ():
                intake.outbox.release()
            remote.close()
            journal.close()

    def settings(self) -> dict[str, Any]:
        return {
            "state_dir": str(self.base / "state"),
            "server": {"kind": "folder", "path": str(self.base / "server")},
            "outbox": [{"path": str(self.box), "destination": "/up", "settle_s": 0}],
            "inbox": [self.inbox],
            **self.more,
        }

    def published(self) -> dict[str, bytes]:
        """What a consumer sees."""
        files = (path for path in self.here.rglob("*") if path.is_file() and ".iot-inbox" not in path.parts)
        return {str(path.relative_to(self.here)): path.read_bytes() for path in files}

    def hidden(self) -> list[str]:
        folder = self.here / ".iot-inbox"
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def lose_journal(self) -> None:
        for path in (self.base / "state").glob("*.db*"):
            path.unlink()

    def rows(self) -> dict[str, tuple[str, str]]:
        """path -> state, reason"""
        [path] = (self.base / "state").glob("*.db")
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT path, state, reason FROM inbox_file")
            return {bytes(path).decode(): (state, reason) for path, state, reason in rows}

    def not_taken(self) -> dict[str, str]:
        """As the status says at the end of a run: path -> reason."""
        reasons: dict[str, str] = self.loop.last["inboxes"][0]["reasons"]
        return reasons

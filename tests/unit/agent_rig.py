"""An agent on a fake clock, with a folder for a server."""

from unit.folder_remote import FolderRemote

from iot.sftp.client import (
    Journal,
    configured,  # noqa: F401 - loaded when it is configured, and by an ordinary user it cannot be read then
)
from iot.spooler.agent.agent import Agent
from iot.spooler.config.settings import Settings
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA

__all__ = ["Loop", "Rig"]


class Loop:
    """Time passes only when the agent pauses, and a little with every look at the clock."""

    def __init__(self):
        self.now = 1000.0
        self.stop_at = 1e9
        self.stop = False
        self.asked = None

    def clock(self):
        self.now += 1e-5
        return self.now

    def wall(self):
        return self.now + 2e9

    def stopping(self):
        return self.stop or self.now > self.stop_at

    def alive(self):
        pass

    def pause(self, seconds):
        self.now += max(seconds, 0.001)

    def watch(self, descriptor, act):
        return lambda: None

    def woken(self):
        why, self.asked = self.asked, None
        return why

    def report(self, agent, *, changed, final=False):
        pass


class Rig:
    def __init__(self, tmp_path):
        self.base = tmp_path
        self.box = tmp_path / "box"
        self.box.mkdir()
        self.quarantine = tmp_path / "state" / "quarantine"
        self.remote = FolderRemote(tmp_path / "remote")
        self.loop = Loop()
        self.outbox = {"path": str(self.box), "destination": "/up", "settle_s": 0}
        self.retry = {}
        self.agent = None

    def run(self, *, drain=True):
        settings = Settings.model_validate(self.settings())
        journal = Journal(settings.state_dir, QUEUE_SCHEMA)
        try:
            clocks = Clocks(self.loop.clock, self.loop.wall)
            self.agent = Agent(settings, journal, self.remote, self.loop, clocks, lambda: 0.0, drain=drain)
            return self.agent.run()
        finally:
            for intake in self.agent.intakes if self.agent else ():  # as the kernel does when a process has died
                intake.outbox.release()
            journal.close()

    def settings(self):
        return {
            "state_dir": str(self.base / "state"),
            "server": {"host": "h"},
            "outbox": [self.outbox],
            "retry": self.retry,
            "small_file_bytes": 1000,
        }

    def put(self, name, content=b"x"):
        path = self.box / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def left(self):
        return sorted(str(path.relative_to(self.box)) for path in self.box.rglob("*") if path.is_file())

    def arrived(self):
        root = self.base / "remote" / "up"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

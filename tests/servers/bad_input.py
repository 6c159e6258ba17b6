"""A device beside a server: an outbox, a configuration, and the three ways in - the client, iot-sftp, iot-spooler.

site = Site(sshd, tmp_path)
site.put("a", b"1")
done = site.drain(password="wrong")        # settings of [server], for this call
site.client(host_key=None)                 # the same for the client
site.iot_sftp("exists", "/x", port=1)      # and the command line
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conditions import missing, require
from servers.base import Server
from servers.guard import Guard

from iot.sftp.client import IoTSFTPClient
from iot.spooler.state.running import find

__all__ = ["Done", "Site", "mounted", "until", "without_root_rights"]

Done = subprocess.CompletedProcess
QUICK: dict[str, Any] = {"connect_timeout_s": 2, "link_deadline_s": 2}
QUICK_RETRY = {"base_s": 0.05, "cap_s": 0.2, "drain_attempts": 2, "max_attempts": 3}
TRACEBACK = "Traceback"
CLIENT_NAMES = {"host": "sftp_host", "port": "sftp_port", "user": "sftp_user", "password": "sftp_pass"}


class Site:
    """folder: what is the device's. Settings of [server] may be changed for each call; None takes one away."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.box = folder / "box"
        self.box.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.outbox: dict[str, Any] = {"path": str(self.box), "destination": server.path("up"), "settle_s": 0}
        self.retry: dict[str, Any] = dict(QUICK_RETRY)
        self.top: dict[str, Any] = {"device_id": "gw", "scan_s": 0.1}
        self.prefix: Sequence[str] = ()
        self.login: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password,
            "key_file": server.key_file,
            "known_hosts": server.known_hosts,
            **QUICK,
        }

    # -- the outbox, and what arrived

    def put(self, name: str | bytes, content: bytes = b"content") -> Path:
        path = self.box / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def left(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.box)) for path in self.box.rglob("*") if path.is_symlink() or not path.is_dir()
        )

    def arrived(self) -> list[str]:
        return sorted(name.removeprefix("up/") for name in self.server.names())

    def content(self, name: str) -> bytes | None:
        return self.server.content(f"up/{name}")

    # -- the three ways in

    def client(self, **changes: Any) -> IoTSFTPClient:
        options = {"backoff_s": 0.05, "attempts": 1, "state_dir": self.state, **self.settings(changes)}
        return IoTSFTPClient(**{CLIENT_NAMES.get(name, name): value for name, value in options.items()})

    def iot_sftp(self, *words: str | bytes, **changes: Any) -> Done[str]:
        settings = {"attempts": 1, "state_dir": self.state, **self.settings(changes)}
        given = {
            f"SFTP_{'KEY' if name == 'key_file' else name.upper()}": str(value) for name, value in settings.items()
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SFTP_")} | given
        return self.run([sys.executable, "-m", "iot.sftp.client.cli.main", *words], environment)

    def drain(self, **changes: Any) -> Done[str]:
        return self.spooler("run", "--drain", **changes)

    def spooler(self, *words: str, **changes: Any) -> Done[str]:
        return self.run(self.spooler_command(*words, **changes))

    def spooler_command(self, *words: str, **changes: Any) -> list[str]:
        config = self.folder / "spooler.toml"
        config.write_text(self.toml(changes), encoding="utf-8")
        return [*self.prefix, sys.executable, "-m", "iot.spooler", *words, "--config", str(config)]

    def run(self, command: Sequence[str | bytes], environment: dict[str, str] | None = None) -> Done[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment or clean_environment(),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=90,
            check=False,
        )
        assert TRACEBACK not in done.stderr, done.stderr
        return done

    @contextlib.contextmanager
    def running(self, *words: str, **changes: Any) -> Iterator[subprocess.Popen[str]]:
        """The agent as a service (or with other words), its log in `log`; it is ended with the block."""
        command = self.spooler_command(*(words or ("run",)), **changes)
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=clean_environment(), stderr=log, text=True)
        guard = Guard(process.pid)
        try:
            yield process
        finally:
            guard.dismiss()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert TRACEBACK not in self.log, self.log

    @property
    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    def status(self) -> dict[str, Any]:
        running = find(self.folder / "spooler.toml", clean_environment())
        path = Path(running.status) if running else self.state / "status.json"
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    # -- settings

    def settings(self, changes: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**self.login, **changes}.items() if value is not None}

    def toml(self, changes: dict[str, Any]) -> str:
        parts = [
            toml_of({"state_dir": str(self.state), **self.top}),
            "[server]\n" + toml_of(self.settings(changes)),
            "[retry]\n" + toml_of(self.retry),
            "[[outbox]]\n" + toml_of(self.outbox),
        ]
        return "\n".join(parts)


def clean_environment() -> dict[str, str]:
    """The spooler as a service has it: nothing of ours but the way to the package under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SFTP_", "IOT_SPOOLER_"))}
    return kept | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}


def toml_of(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in values.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml_value(each)}" for name, each in value.items()) + "}"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def until(condition: Callable[[], bool], limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def without_root_rights() -> list[str]:
    """What to put before a command of root, so that the rights of files count for it."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        missing("setpriv is missing: apt-get install util-linux")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


@contextlib.contextmanager
def mounted(folder: Path, kind: str, options: str, source: str = "none") -> Iterator[Path]:
    """A file system for the time of a block."""
    require("mounts")
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ["--bind"] if kind == "bind" else ["-t", kind]
    subprocess.run(["mount", *kinds, "-o", options, source, str(folder)], check=True, timeout=30)
    if kind == "bind":
        subprocess.run(["mount", "-o", f"remount,bind,{options}", str(folder)], check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, timeout=30)

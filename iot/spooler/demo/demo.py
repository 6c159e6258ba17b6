"""`iot-spooler demo`: delivers 201 files over a bad link; needs neither a server nor settings.

It runs an embedded SFTP server on loopback, an agent in its own process, and a relay between them that is cut twice;
the agent is killed once (SIGKILL) and restarted. At the end every file is compared by SHA-256. Everything happens in a
temporary folder that is removed afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from iot.sftp.server import EmbeddedServer
from iot.spooler.demo.link import Relay
from iot.spooler.demo.screen import ProgressLine, percent, print_table
from iot.spooler.demo.server import Writes, watched_server

__all__ = ["main", "run_demo"]

MIB = 1024 * 1024
SMALL_FILES = 200
SMALL_MAX_BYTES = 20 * 1024
LARGE_NAME = "large.bin"
LARGE_BYTES = 64 * MIB
RATE = 10 * MIB
STALL_S = 60.0
STOP_S = 6.0
TICK_S = 0.02
UPLOADS = "upload"


@dataclass(slots=True)
class Stage:
    """The parts of the demo: folders, server, link, agents, and what must arrive (name -> SHA-256)."""

    folder: Path
    server: EmbeddedServer
    writes: Writes
    relay: Relay
    expected: dict[str, str] = field(default_factory=dict)
    payload_bytes: int = 0
    mishaps: list[str] = field(default_factory=list)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def remote(self) -> Path:
        return self.folder / "server" / UPLOADS

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something that goes wrong once the link has carried so many bytes."""

    at_bytes: int
    text: str
    happen: Callable[[Stage], None]


def main() -> int:
    """The command `iot-spooler demo`. Exit codes as run_demo, 130 on Ctrl-C."""
    try:
        return run_demo()
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind", file=sys.stderr)
        return 130


def run_demo() -> int:
    """Run the demo -> its exit code: 0 if every byte arrived, 1 if anything differs or nothing moved."""
    began_s = time.monotonic()
    with _stage() as stage:
        small = drop_files(stage)
        start_agent(stage)
        complete = watch(stage, small)
        stop_agent(stage)
        wrong = differences(stage)
        print_table(rows(stage, wrong, time.monotonic() - began_s), wrong)
        if not complete or wrong:
            print(_last_lines(stage.log))
            return 1
    return 0


def drop_files(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """Drop the large file and half of the small ones -> the others, to be dropped while that is under way."""
    chance = random.Random()  # noqa: S311 (sizes, not secrets)
    sizes = [0, 1, *(chance.randrange(SMALL_MAX_BYTES) for _ in range(SMALL_FILES - 2))]
    small = ((f"small-{number:03d}.dat", os.urandom(size)) for number, size in enumerate(sizes))
    for _ in range(SMALL_FILES // 2):
        drop(stage, *next(small))
    drop(stage, LARGE_NAME, os.urandom(LARGE_BYTES))
    print(f"{SMALL_FILES // 2} small files and one of {LARGE_BYTES // MIB} MiB are in the outbox, more will come")
    return small


def drop(stage: Stage, name: str, content: bytes) -> None:
    """Put a file into the outbox as a producer should: write it elsewhere, then rename it into place."""
    stage.expected[name] = hashlib.sha256(content).hexdigest()
    stage.payload_bytes += len(content)
    fresh = stage.folder / "fresh"
    fresh.write_bytes(content)
    fresh.rename(stage.outbox / name)


def start_agent(stage: Stage) -> None:
    """A real agent in its own process, with its settings in a file and the password in its environment."""
    server = stage.server
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("IOT_SPOOLER_", "SFTP_"))}
    environment.pop("NOTIFY_SOCKET", None)  # a demo inside a service is not the service
    environment |= {
        "IOT_SPOOLER_SERVER__PASSWORD": server.password or "",
        "RUNTIME_DIRECTORY": str(stage.folder / "runtime"),
    }
    configuration = stage.folder / "demo.toml"
    configuration.write_text(_configuration(stage))
    command = [sys.executable, "-m", "iot.spooler", "run", "--config", str(configuration)]
    with stage.log.open("ab") as log:
        stage.agents.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))


def stop_agent(stage: Stage) -> None:
    """Stop the agent as systemd would; kill it if it does not react."""
    for agent in stage.agents:
        if agent.poll() is None:
            agent.terminate()
            try:
                agent.wait(STOP_S)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()


def watch(stage: Stage, small: Iterator[tuple[str, bytes]]) -> bool:
    """Drop the rest, cause the mishaps, show progress. True: everything has left the outbox.

    False: nothing was sent for STALL_S, which allows for slow devices.
    """
    mishaps = _mishaps()
    draw = ProgressLine()
    sent_bytes, moved_at = 0, time.monotonic()
    while time.monotonic() < moved_at + STALL_S:
        if stage.relay.up_bytes != sent_bytes:
            sent_bytes, moved_at = stage.relay.up_bytes, time.monotonic()
        for name, content in small:
            drop(stage, name, content)
            break
        if mishaps and stage.relay.up_bytes >= mishaps[0].at_bytes:
            mishap = mishaps.pop(0)
            draw.event(mishap.text)
            stage.mishaps.append(mishap.text)
            mishap.happen(stage)
        elif stage.agents[-1].poll() is not None:
            draw.event(f"the agent ended by itself, exit code {stage.agents[-1].returncode}")
            return False
        _show(stage, draw)
        if len(stage.expected) == SMALL_FILES + 1 and not any(stage.outbox.glob("[!.]*")):
            _show(stage, draw, last=True)
            return not mishaps
        time.sleep(TICK_S)
    draw.event(f"nothing was sent for {STALL_S:.0f} s")
    return False


def differences(stage: Stage) -> list[str]:
    """Every file that is not on the server exactly as it was dropped, and every unexpected name there."""
    found = {path.name: path for path in stage.remote.rglob("*") if path.is_file()} if stage.remote.is_dir() else {}
    wrong = [f"{name}: missing" for name in stage.expected if name not in found]
    wrong += [f"{name}: left over" for name in found if name not in stage.expected]
    for name in stage.expected.keys() & found.keys():
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != stage.expected[name]:
            wrong.append(f"{name}: differs")
    return sorted(wrong)


def rows(stage: Stage, wrong: Sequence[str], seconds: float) -> list[tuple[str, str]]:
    """What was sent, the overhead, and whether everything arrived."""
    resumed = ", ".join(f"{offset:,}" for offset in stage.writes.resumed(f"{UPLOADS}/{LARGE_NAME}")) or "none"
    twice = max(0, stage.writes.payload_bytes - stage.payload_bytes)
    above = stage.relay.up_bytes - stage.payload_bytes
    return [
        ("files", f"{len(stage.expected):,}"),
        ("bytes", f"{stage.payload_bytes:,}"),
        ("interruptions", "; ".join(stage.mishaps) or "none"),
        ("connections", str(stage.relay.connections)),
        (f"{LARGE_NAME} resumed at", resumed),
        ("bytes sent twice", f"{twice:,} ({percent(twice, stage.payload_bytes)}), counted at the server"),
        (
            "bytes at the socket",
            f"{stage.relay.up_bytes:,} ({percent(above, stage.payload_bytes)} above: twice, headers, logins)",
        ),
        ("SHA-256", f"{len(stage.expected)} files compared, {len(wrong) or 'none'} wrong"),
        ("seconds", f"{seconds:.1f}"),
    ]


def _show(stage: Stage, draw: ProgressLine, *, last: bool = False) -> None:
    if draw.due() or last:
        files, count = _arrived(stage.remote)
        draw.show(files, SMALL_FILES + 1, count, stage.payload_bytes, last=last)


def _arrived(remote: Path) -> tuple[int, int]:
    """Published files, and bytes on the server, parts included."""
    files = count = 0
    for path in remote.glob("*"):
        try:
            count += path.stat().st_size
        except FileNotFoundError:
            continue  # it was published between the two looks
        files += path.suffix != ".part"
    return files, count


def _mishaps() -> list[Mishap]:
    quarter = LARGE_BYTES // 4
    return [
        Mishap(quarter, "the link is cut", lambda stage: stage.relay.cut()),
        Mishap(2 * quarter, "the agent is killed (SIGKILL) and started again", _kill_and_restart),
        Mishap(3 * quarter, "the link is cut again", lambda stage: stage.relay.cut()),
    ]


def _kill_and_restart(stage: Stage) -> None:
    stage.agents[-1].kill()
    stage.agents[-1].wait()
    start_agent(stage)


def _configuration(stage: Stage) -> str:
    quoted = json.dumps  # a JSON string is a TOML string
    return f"""
state_dir = {quoted(str(stage.folder / "state"))}
device_id = "demo"
scan_s = 0.2
[server]
host = "{stage.relay.host}"
port = {stage.relay.port}
user = {quoted(stage.server.user)}
host_key = "{stage.server.host_key}"
[retry]
base_s = 0.2
[[outbox]]
path = {quoted(str(stage.outbox))}
destination = "/{UPLOADS}"
settle_s = 0
"""


@contextmanager
def _stage() -> Iterator[Stage]:
    """Set everything up, and remove it afterwards in any case, also on Ctrl-C and SIGTERM."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="iot-spooler-demo-") as name:
            folder = Path(name).resolve()
            for part in ("outbox", "server", "runtime"):
                (folder / part).mkdir()
            server, writes = watched_server(folder / "server")
            with server, Relay(server.port, rate=RATE) as relay:
                stage = Stage(folder, server, writes, relay)
                try:
                    yield stage
                finally:
                    stop_agent(stage)
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="backslashreplace").splitlines() if log.exists() else []
    return "\n".join(["the agent's last lines:", *lines[-20:]])

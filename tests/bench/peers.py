"""Who is measured, each as its user would run it: a peer makes the command for a task, or None where it has none.

All check the host key and log in by the same Ed25519 key. On a link that is cut, a
command that failed is given again until it ends well (trial.py); with a pause only where it failed at once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.site import Site
from bench.works import Work

__all__ = ["PEERS", "Peer", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """One run: `local` is the file or folder on the client's side, `far` on the server's, `scratch` the run's own."""

    work: Work
    site: Site
    local: Path
    far: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """durable: it asks the server to sync what it has sent, so it stands beside the others that do."""

    name: str
    command: Callable[[Task], list[str] | None]
    programs: tuple[str, ...] = ()
    durable: bool = False
    ours: bool = False


def _ssh_options(task: Task) -> list[str]:
    site = task.site
    options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null"]
    options.append(f"UserKnownHostsFile={site.known_hosts}")
    if task.work.kind == "resume":  # else a silent link would hold it for minutes
        options += ["ConnectTimeout=5", "ServerAliveInterval=2", "ServerAliveCountMax=2"]
    return ["-F", "/dev/null", "-i", str(site.key_file), *(word for option in options for word in ("-o", option))]


def _ssh_command(task: Task) -> str:
    return " ".join(["ssh", "-a", "-x", "-p", str(task.site.port), *_ssh_options(task)])


def _sftp(task: Task, *, sync: bool) -> list[str] | None:
    flag = " -f" if sync else ""
    lines = {
        "put": f"put{flag} {task.local} {task.far}",
        "get": f"get {task.far} {task.local}",
        "folder": f"put{flag} -r {task.local} {task.far.parent}",
        "resume": f"reput{flag} {task.local} {task.far}",
    }
    if task.work.kind not in lines:
        return None
    if task.work.kind == "resume":
        task.far.touch()  # reput wants something to go on from
    batch = task.scratch / "batch"
    batch.write_text(lines[task.work.kind] + "\n")
    login = f"{task.site.user}@{task.site.host}"
    return ["sftp", "-q", "-b", str(batch), "-P", str(task.site.port), *_ssh_options(task), login]


def _rsync(task: Task, *, sync: bool) -> list[str]:
    far = f"{task.site.user}@{task.site.host}:{task.far}"
    command = ["rsync", "-e", _ssh_command(task), *(["--fsync"] if sync else [])]
    match task.work.kind:
        case "put":
            return [*command, "-t", str(task.local), far]
        case "get":
            return [*command, "-t", far, str(task.local)]
        case "resume":
            return [*command, "-t", "--inplace", "--append-verify", "--timeout=10", str(task.local), far]
        case _:
            return [*command, "-a", f"{task.local}/", f"{far}/"]


def _lftp(task: Task) -> list[str]:
    lines = {
        "put": f"put {task.local} -o {task.far}",
        "get": f"get {task.far} -o {task.local}",
        "resume": f"put -c {task.local} -o {task.far}",
        "folder": f"mirror -R --parallel=8 --no-perms {task.local} {task.far}",
        "sync": f"mirror -R --parallel=8 --no-perms {task.local} {task.far}",
    }
    settings = [f'set sftp:connect-program "{_ssh_command(task)}"', "set cmd:fail-exit yes"]
    if task.work.kind == "resume":
        settings += ["set net:timeout 5", "set net:max-retries 0", "set net:reconnect-interval-base 1"]
        settings += ["set net:reconnect-interval-max 1"]
    login = f"open -u {task.site.user},none sftp://{task.site.host}:{task.site.port}"
    return ["lftp", "--norc", "-c", "; ".join([*settings, login, lines[task.work.kind]])]


def _rclone(task: Task) -> list[str]:
    site = task.site
    options = ["--sftp-host", site.host, "--sftp-port", str(site.port), "--sftp-user", site.user]
    options += ["--sftp-key-file", str(site.key_file), "--sftp-known-hosts-file", str(site.known_hosts)]
    options += ["--config", "/dev/null", "--transfers", "32", "--checkers", "32"]
    if task.work.kind == "resume":
        options += ["--retries", "1000", "--low-level-retries", "100", "--timeout", "5s", "--contimeout", "5s"]
    match task.work.kind:
        case "get":
            return ["rclone", "copyto", *options, f":sftp:{task.far}", str(task.local)]
        case "put" | "resume":
            return ["rclone", "copyto", *options, str(task.local), f":sftp:{task.far}"]
        case _:
            return ["rclone", "copy", *options, str(task.local), f":sftp:{task.far}"]


def _library(task: Task, name: str) -> list[str] | None:
    if task.work.kind in ("resume", "sync"):
        return None  # it has neither
    site = task.site
    login = [site.host, str(site.port), site.user, str(site.key_file), str(site.known_hosts)]
    program = Path(__file__).with_name("pypeer.py")
    return [sys.executable, str(program), name, task.work.kind, *login, str(task.local), str(task.far)]


def _ours(task: Task, durability: str) -> list[str]:
    if task.work.kind in ("put", "get"):
        paths = [task.local, f"{task.far.parent}/"] if task.work.kind == "put" else [task.far, task.local]
        options = ["--host", task.site.host, "--port", str(task.site.port), "--user", task.site.user]
        options += ["--key", str(task.site.key_file), "--known-hosts", str(task.site.known_hosts)]
        options += ["--server-durability", durability, "--state-dir", str(task.scratch / "state")]
        return [_program("iot-sftp"), task.work.kind, *options, *map(str, paths)]
    config = task.scratch / "spooler.toml"
    config.write_text(spooler_config(task, durability))
    return [_program("iot-spooler"), "run", "--drain", "--config", str(config)]


def _program(name: str) -> str:
    return shutil.which(name) or name


def spooler_config(task: Task, durability: str) -> str:
    """A user's configuration: only what must be said."""
    outbox = task.local if task.local.is_dir() else task.local.parent
    far = task.far if task.local.is_dir() else task.far.parent
    return f"""\
state_dir = "{task.scratch / "state"}"
[server]
host = "{task.site.host}"
port = {task.site.port}
user = "{task.site.user}"
key_file = "{task.site.key_file}"
known_hosts = "{task.site.known_hosts}"
server_durability = "{durability}"
[[outbox]]
path = "{outbox}"
destination = "{far}"
after_upload = "{"keep" if task.work.kind == "sync" else "delete"}"
"""


PEERS = (
    Peer("ours", lambda task: _ours(task, "trust"), ("iot-sftp", "iot-spooler"), ours=True),
    Peer("rsync", lambda task: _rsync(task, sync=False), ("rsync",)),
    Peer("sftp", lambda task: _sftp(task, sync=False), ("sftp",)),
    Peer("lftp", _lftp, ("lftp",)),
    Peer("rclone", _rclone, ("rclone",)),
    Peer("asyncssh", lambda task: _library(task, "asyncssh")),
    Peer("paramiko", lambda task: _library(task, "paramiko")),
    Peer("ours fsync", lambda task: _ours(task, "fsync"), ("iot-sftp", "iot-spooler"), durable=True, ours=True),
    Peer("rsync --fsync", lambda task: _rsync(task, sync=True), ("rsync",), durable=True),
    Peer("sftp -f", lambda task: _sftp(task, sync=True), ("sftp",), durable=True),
)

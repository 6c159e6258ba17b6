"""The Dockerfile of deploy/HOWTO.md without Docker: its lines are carried out on a copy of this machine's root, in
memory, and the agent runs there as the image would start it.

    python -m servers.as_container WHEEL        inside the namespaces of first_hour.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from servers.bad_input import until
from servers.base import client_key
from servers.first_hour import DOCUMENT, NAMESPACES, TOP
from servers.openssh import OpenSSH

__all__ = ["as_container"]

HOST = "sftp.example.com"
LIMIT_S = 90
STOP_S = 10
"""What `docker stop` gives it."""


def as_container(wheel: Path) -> None:
    """Raises: CalledProcessError where a line of the document does not do what it says."""
    command = [*NAMESPACES, sys.executable, "-m", "servers.as_container", str(wheel)]
    subprocess.run(command, cwd=TOP / "tests", check=True, timeout=600)


def block(language: str) -> str:
    """The first block of code of that language in the document."""
    found = re.search(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, language
    return found[1]


def instructions() -> dict[str, list[str]]:
    """The Dockerfile: what is said of each word."""
    found: dict[str, list[str]] = {}
    for line in block("dockerfile").replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest.strip())
    return found


class Container:
    """The image, made, and what runs in it."""

    def __init__(self, wheel: Path, environment: dict[str, str]) -> None:
        said = instructions()
        subprocess.run(["/usr/bin/python3", "-m", "venv", "/opt/image"], check=True)
        self.environment = {**environment, "PATH": "/opt/image/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for line in said["RUN"]:
            command = line.replace("iot-sftp-client", f"--disable-pip-version-check -q {wheel}")
            subprocess.run(["sh", "-c", command], env={**os.environ, **self.environment}, check=True)
        (self.user,) = said["USER"]
        self.entry: list[str] = json.loads(said["ENTRYPOINT"][0])
        self.words: list[str] = json.loads(said["CMD"][0])
        self.health: list[str] = json.loads(said["HEALTHCHECK"][0].removeprefix("CMD "))
        assert all(Path(folder).is_dir() for folder in json.loads(said["VOLUME"][0]))

    def command(self, words: Sequence[str]) -> list[str]:
        rights = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *rights, *words]

    def run(self, words: Sequence[str]) -> None:
        subprocess.run(self.command(words), env=self.environment, check=True, timeout=LIMIT_S)


def enter_copy() -> None:
    """Into this machine's root with memory over it."""
    base = Path("/mnt")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(base)], check=True)
    for name in ("root", "changes", "work"):
        (base / name).mkdir()
    layers = f"lowerdir=/,upperdir={base}/changes,workdir={base}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", f"{base}/root"], check=True)
    for name in ("proc", "dev"):
        subprocess.run(["mount", "--rbind", f"/{name}", f"{base}/root/{name}"], check=True)
    for name in ("run", "tmp", "srv"):
        mode = "mode=1777" if name == "tmp" else "mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", mode, "none", f"{base}/root/{name}"], check=True)
    os.chroot(base / "root")
    os.chdir("/")


def main(wheel: Path) -> None:
    brought = wheel.read_bytes()
    enter_copy()
    wheel = Path("/srv") / wheel.name
    wheel.write_bytes(brought)
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"\n127.0.0.1 {HOST}\n")
    subprocess.run(["useradd", "--no-create-home", "--password", "*", "device"], check=True)
    with OpenSSH(Path("/srv/sftp"), more=["ChrootDirectory /srv/sftp"]) as server:
        (server.root / "upload").mkdir()
        shutil.chown(server.root / "upload", "device")
        deliver(Container(wheel, settings(server)), server)


def settings(server: OpenSSH) -> dict[str, str]:
    """spooler.env, for a server that has another key and no port 22."""
    lines = dict(line.split("=", 1) for line in block("sh").splitlines())
    lines["IOT_SPOOLER_SERVER__HOST_KEY"] = server.host_key
    return {**lines, "IOT_SPOOLER_SERVER__PORT": str(server.port)}


def deliver(container: Container, server: OpenSSH) -> None:
    key = Path(container.environment["IOT_SPOOLER_SERVER__KEY_FILE"])
    key.parent.mkdir()
    key.write_bytes(client_key().read_bytes())
    key.chmod(0o600)
    shutil.chown(key, container.user)
    container.run([*container.entry, "check", "--connect"])
    with subprocess.Popen(container.command([*container.entry, *container.words]), env=container.environment) as agent:
        Path("/srv/f").write_bytes(b"content")
        shutil.move("/srv/f", "/outbox/.f")
        Path("/outbox/.f").rename("/outbox/f")
        until(lambda: server.content("upload/gw-0042/f") == b"content")
        container.run(container.health)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(STOP_S) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

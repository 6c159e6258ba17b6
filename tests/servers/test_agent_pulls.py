"""The whole agent with an inbox, against every kind of server: killed at random moments, lied to, and kept busy."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.base import Server
from servers.folder import Folder
from servers.ftp_base import FTPServer
from servers.quirks import Misbehaving
from servers.test_hostile_names import HOSTILE, HostileNames
from servers.zoo import start

COMMAND = [sys.executable, "-m", "iot.spooler"]
KINDS = ["openssh", "embedded", "folder", "pyftpdlib", "vsftpd", "proftpd", "pure-ftpd"]
DEADLINE_S = 100.0
OLD_S = 3600


def login(server: Server, secrets: Path) -> str:
    """[server] of the configuration."""
    if isinstance(server, Folder):
        return f'[server]\nkind = "folder"\npath = "{server.root}"\n'
    lines = f'[server]\nhost = "{server.host}"\nport = {server.port}\nuser = "{server.user}"\n'
    if server.password is not None:
        password = secrets / "password"
        password.touch(mode=0o600)
        password.write_text(f"{server.password}\n")
        lines += f'password_file = "{password}"\n'
    if isinstance(server, FTPServer):
        return lines + f'kind = "ftp"\nca_file = "{server.certificate}"\npublish_grace_s = 0.1\n'
    if server.key_file is not None:
        lines += f'key_file = "{server.key_file}"\n'
    return lines + f'host_key = "{server.host_key}"\n'


class Device:
    """inbox: lines of TOML for the one inbox. outbox: of the one outbox."""

    def __init__(self, base: Path, server: Server, inbox: str = "", outbox: str = "") -> None:
        self.here, self.box, self.log = base / "here", base / "box", base / "agent.log"
        self.here.mkdir()
        self.box.mkdir()
        self.config = base / "spooler.toml"
        self.config.write_text(
            f'state_dir = "{base}/state"\n{login(server, base)}'
            f'[[outbox]]\npath = "{self.box}"\ndestination = "{server.path("up")}"\nsettle_s = 0\n{outbox}\n'
            f'[[inbox]]\npath = "{self.here}"\nsource = "{server.path("cfg")}"\nsettle_s = 0\n{inbox}\n'
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self.log.open("ab") as log:
            command = [*COMMAND, "run", *words, "--config", str(self.config)]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def drain(self) -> None:
        process = self.start("--drain")
        try:
            assert process.wait(DEADLINE_S) == 0, self.told()[-3000:]
        finally:
            process.kill()
            process.wait()

    def told(self) -> str:
        return self.log.read_text(errors="replace")

    def published(self) -> dict[str, str]:
        files = (path for path in self.here.rglob("*") if path.is_file() and ".iot-inbox" not in path.parts)
        return {str(path.relative_to(self.here)): sha256(path) for path in files}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(folder: Path, files: dict[str, int]) -> dict[str, str]:
    """Old files of random content -> their digests."""
    then = time.time() - OLD_S
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, (then, then))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    return {name: sha256(folder / name) for name in files}


AFTER = ("keep", "delete", "move")
EACH_IN_TURN = [(kind, AFTER[number % 3]) for number, kind in enumerate(KINDS)]
ALL = [(kind, after) for kind in KINDS for after in AFTER]


@pytest.mark.parametrize(("kind", "after"), EACH_IN_TURN if os.environ.get("IOT_SFTP_TESTS") == "short" else ALL)
def test_an_agent_killed_at_random_moments_gets_all_whole_and_removes_only_what_it_has(kind, after, tmp_path):
    moments = random.Random(f"{kind} {after}")
    with start(kind, tmp_path / "root") as server:
        remote = server.root / "cfg"
        hashes = fill(remote, {"fw.bin": 30 << 20, **{f"d{number % 3}/f{number}": 10_000 for number in range(40)}})
        device = Device(
            tmp_path,
            server,
            f'recursive = true\nafter_download = "{after}"\n' + MOVE.get(after, "").format(server.path("done")),
        )
        for _ in range(4):
            process = device.start("--drain")
            time.sleep(0.5 + moments.random())
            process.send_signal(signal.SIGKILL)
            process.wait()
            published = device.published()
            assert published.items() <= hashes.items()
            assert all((remote / name).exists() or name in published for name in hashes)
        device.drain()
        assert device.published() == hashes
        left = {str(path.relative_to(remote)) for path in remote.rglob("*") if path.is_file()}
        assert left == (set(hashes) if after == "keep" else set())
        if after == "move":
            assert {name: sha256(server.root / "done" / name) for name in hashes} == hashes
        assert os.listdir(device.here / ".iot-inbox") == []
        fetched = device.told().count("published inbox")
        device.drain()
        assert device.told().count("published inbox") == fetched  # nothing is fetched twice


MOVE = {"move": 'move_to = "{}"\n'}


def test_a_large_file_goes_on_at_its_offset_after_a_kill(tmp_path):
    with start("openssh", tmp_path / "root") as server:
        hashes = fill(server.root / "cfg", {"fw.bin": 200 << 20})
        device = Device(tmp_path, server)
        process = device.start("--drain")
        end = time.monotonic() + DEADLINE_S
        while not any(part.stat().st_size > 20 << 20 for part in (device.here / ".iot-inbox").glob("*.part")):
            assert time.monotonic() < end, device.told()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        device.drain()
        assert device.published() == hashes
        assert "resumed_at=0 " not in device.told().split("fetched inbox")[1]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_name_that_leads_out_is_refused_and_named_and_the_others_are_fetched(name, tmp_path):
    quirk = type("Quirk", (HostileNames,), {"names": [b"good", name]})
    with Misbehaving(tmp_path / "root", quirk) as server:
        (server.root / "cfg").mkdir()
        fill(server.root / "cfg", {"good": 1000})
        os.utime(server.root / "cfg/good", (0, int(os.stat(__file__).st_mtime)))
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        device = Device(tmp_path, server)
        device.drain()
        fresh = {path for path in tmp_path.rglob("*") if path.is_file()} - before
        assert device.here / "good" in fresh
        assert {path for path in fresh if path.is_relative_to(device.here)} == {device.here / "good"}
        assert "lead out of the folder" in device.told()


def test_an_upload_that_becomes_ready_does_not_wait_for_a_download(tmp_path):
    """The download is suspended, and goes on at its offset after the upload."""
    with start("openssh", tmp_path / "root") as server:
        hashes = fill(server.root / "cfg", {"fw.bin": 40 << 20})
        device = Device(tmp_path, server)
        text = device.config.read_text()
        device.config.write_text("scan_s = 0.1\n" + text.replace("[server]\n", '[server]\nmax_rate = "40 Mbit/s"\n'))
        process = device.start()
        try:
            waits = []
            end = time.monotonic() + DEADLINE_S
            while len(waits) < 3:
                while not any(part.stat().st_size for part in (device.here / ".iot-inbox").glob("*.part")):
                    assert time.monotonic() < end, device.told()
                    time.sleep(0.01)
                time.sleep(0.7)
                name = f"u{len(waits)}"
                (device.box / name).write_bytes(b"x" * 1024)
                began = time.monotonic()
                while not (server.root / "up" / name).exists():
                    assert time.monotonic() < end, device.told()
                    time.sleep(0.005)
                waits.append(time.monotonic() - began)
            assert "fw.bin" not in device.published()
            while "fw.bin" not in device.published():
                assert time.monotonic() < end, device.told()
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait(20)
        assert device.published() == hashes
        assert max(waits) < 2.5, waits
        print("waits", waits)
        assert "resumed_at=0 " not in device.told().split("fetched inbox")[1]

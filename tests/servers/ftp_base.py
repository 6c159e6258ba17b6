"""What the FTP servers of the tests have in common."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import time
from abc import abstractmethod
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from conditions import missing
from faults.proxy import BadLink
from servers.base import HOST, START_S, ProcessServer, program

from iot.ftp import FTPClient

__all__ = ["FTPServer", "certificate", "let_in", "needs_capabilities", "needs_root", "unpacked"]

PASSIVE_PORTS = 16
UNPACKED = Path(__file__).parents[2] / ".test-servers"
"""Debian's FTP servers exclude each other: what is not installed is unpacked here by `sh tests/run`."""


def unpacked(name: str, package: str) -> str:
    """The path of a program that is installed, or unpacked by tests/run."""
    found = next((str(path) for path in UNPACKED.glob(f"usr/*bin/{name}")), None)
    return found or program(name, f"{package} (or `sh tests/run setup`, which unpacks it)")


@lru_cache(maxsize=8)
def certificate(name: str = "server", host: str = "IP:127.0.0.1,IP:127.0.0.2") -> Path:
    """A self-signed certificate with its key behind it, in one file."""
    folder = Path(mkdtemp(prefix="iot-ftp-certificate-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path, key = folder / f"{name}.pem", folder / "key.pem"
    command = [program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={host}", "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    path.write_text(path.read_text() + key.read_text())
    path.chmod(0o600)
    return path


def fingerprint_of(path: Path) -> str:
    pem = path.read_text().partition("-----BEGIN PRIVATE")[0]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def free_range(count: int) -> int:
    """The first of so many ports that are free now, below those the system hands out by itself."""
    while True:
        first = random.randrange(12000, 30000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                for host in (HOST, "127.0.0.2"):
                    probe = stack.enter_context(socket.socket())
                    probe.bind((host, port))
            return first


class FTPServer(ProcessServer):
    """tls: "explicit", "implicit" or "" for none. reuse: a data connection has to resume the session.

    hashes: it computes SHA-256. facts: it knows MLST. overwrites: a rename replaces.
    """

    user = "device"
    hashes = False
    facts = True

    def __init__(self, root: Path, tls: str = "explicit") -> None:
        super().__init__(root)
        self.tls = tls
        self.password = "secret-" + os.urandom(6).hex()
        self.passive = free_range(PASSIVE_PORTS)
        self.certificate = certificate()

    @property
    def passive_ports(self) -> tuple[int, int]:
        return self.passive, self.passive + PASSIVE_PORTS - 1

    @property
    def known_hosts(self) -> Path:
        raise NotImplementedError("an FTP server has no host keys")

    @property
    def host_key(self) -> str:
        raise NotImplementedError("an FTP server has no host keys")

    @property
    def pin(self) -> str:
        return fingerprint_of(self.certificate)

    def link(self, **given: Any) -> BadLink:
        """It has the server's ports at another address: a client that ignores PASV's address goes through it."""
        low, high = self.passive_ports
        return BadLink(self.host, self.port, host="127.0.0.2", also=range(low, high + 1), **given)

    def path(self, relative: str = "") -> str:
        return f"{self.home}/{relative}"

    def connect(self, tmp_path: Path, link: Any = None, **changes: Any) -> FTPClient:
        """link: what it goes through; it has the server's ports, at another address."""
        options: dict[str, Any] = {"state_dir": tmp_path / "state", "backoff_s": 0.05, "timeout_s": 20}
        options |= {"tls": self.tls or False} | ({"ca_file": self.certificate} if self.tls else {})
        options |= changes
        host, port = (link.host, link.port) if link is not None else (self.host, self.port)
        return FTPClient(host, port, options.pop("user", self.user), options.pop("password", self.password), **options)

    def _wait_for_banner(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as probe:
                probe.settimeout(START_S)
                if self.tls == "implicit" or probe.recv(3) == b"220":
                    return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self.name} did not start: {self.log.read_text(errors='replace')[-2000:]}")

    @abstractmethod
    def command(self) -> list[str]: ...


def needs_root(name: str) -> None:
    if os.geteuid() != 0:
        missing(f"{name} needs root, to become the user of a login")


def needs_capabilities(name: str, *numbers: int) -> None:
    """Containers keep some of root's capabilities back; numbers as in linux/capability.h."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = int(next(line for line in status.splitlines() if line.startswith("CapPrm:")).split()[1], 16)
    lacking = [number for number in numbers if not held >> number & 1]
    if lacking:
        missing(f"{name} does not start without the capabilities {lacking}, which this root does not have")


def let_in(folder: Path) -> None:
    """Everybody may pass through the folders above, which pytest keeps to itself."""
    for above in (folder, *folder.parents):
        with contextlib.suppress(PermissionError):
            if not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)

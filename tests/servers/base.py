"""What every server of the tests offers, so that one test can be run against each of them."""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, cast

from conditions import missing
from servers.guard import Guard

from iot.sftp.client import IoTSFTPClient

if TYPE_CHECKING:
    from faults.proxy import BadLink
    from typing_extensions import Self

    from iot.transfer.client import Client

__all__ = ["ProcessServer", "Server", "client_key", "free_port", "host_keys", "program"]

HOST = "127.0.0.1"
START_S = 60.0
STOP_S = 5.0
KEY_TYPES = ("ed25519", "rsa", "ecdsa")


def program(name: str, package: str) -> str:
    """The path of a server's program. Missing: the test fails under CI, and is skipped on a developer's machine."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/openssh", "/usr/local/sbin"])
    found = shutil.which(name, path=search)
    if not found:
        missing(f"{name} is missing: apt-get install {package}")
    return found


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


@lru_cache(maxsize=1)
def _key_folder() -> Path:
    folder = mkdtemp(prefix="iot-sftp-keys-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@lru_cache(maxsize=16)
def _make_key(name: str, kind: str, passphrase: str = "") -> Path:
    path = _key_folder() / f"{name}_{kind}"
    if path.exists():  # it has left the cache
        return path
    command = [program("ssh-keygen", "openssh-client"), "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return path


def client_key(kind: str = "ed25519", passphrase: str = "") -> Path:
    """A private key for logins; the public one is beside it, with ".pub"."""
    name = f"client-locked-{zlib.crc32(passphrase.encode()):08x}" if passphrase else "client"  # a file for each
    return _make_key(name, kind, passphrase)


def host_keys(name: str = "host") -> tuple[Path, ...]:
    """Private host keys, one of each type; the same name gives the same keys."""
    return tuple(_make_key(name, kind) for kind in KEY_TYPES)


def fingerprint(private_key: Path) -> str:
    blob = base64.b64decode(Path(f"{private_key}.pub").read_text().split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class Server(ABC):
    """A running server on loopback; an SFTP server unless it says otherwise.

    has_link: there is a connection that can be slow or cut. root: the local folder that it serves. `path("a")` is what
    a client calls root/a; `content` and `names` look at what really is there.
    """

    name = "server"
    has_link = True
    host = HOST
    port = 0
    user = ""
    password: str | None = None
    key_file: Path | None = None
    home = ""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"{self.name} at {self.host}:{self.port}"

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None:
        """End it in an orderly way; harmless when it does not run."""

    @abstractmethod
    def kill(self) -> None:
        """End it and its sessions as a crash would."""

    @abstractmethod
    def drop_connections(self) -> None:
        """Cut the live sessions; new ones are welcome."""

    @property
    @abstractmethod
    def known_hosts(self) -> Path:
        """A known_hosts file with this server's keys."""

    @property
    @abstractmethod
    def host_key(self) -> str:
        """The fingerprint of its first host key, "SHA256:..."."""

    def restart(self) -> None:
        """Start it again on the same port with the same keys."""
        self.stop()
        self.start()

    def login(self) -> dict[str, Any]:
        """What IoTSFTPClient needs to log in, as keyword arguments."""
        given = {
            "sftp_host": self.host,
            "sftp_port": self.port,
            "sftp_user": self.user,
            "sftp_pass": self.password,
            "key_file": self.key_file,
        }
        return {name: value for name, value in given.items() if value is not None} | {"known_hosts": self.known_hosts}

    def connect(self, tmp_path: Path, link: BadLink | None = None, **changes: Any) -> Client:
        """A client of this server with its journal below tmp_path. link: what it goes through."""
        login = {**self.login(), "state_dir": tmp_path / "state", "backoff_s": 0.05}
        if link is not None:
            login |= {"sftp_port": link.port, "known_hosts": None, "host_key": self.host_key}
        return cast("Client", IoTSFTPClient(**{**login, **changes}))

    def link(self, **given: Any) -> BadLink:
        """A bad link to it; see faults.proxy for what may be given."""
        from faults.proxy import BadLink

        return BadLink(self.host, self.port, **given)

    def path(self, relative: str = "") -> str:
        return f"{self.home}/{relative}" if relative else self.home or "/"

    def content(self, relative: str) -> bytes | None:
        """The bytes of a file under root, None where there is no such file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (self.root / relative).read_bytes()
        return None

    def names(self) -> list[str]:
        """Every file under root, by its path below root."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())


class ProcessServer(Server):
    """A server that is a process of its own, with its files in `state`, outside the folder that it serves."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.state = Path(mkdtemp(prefix=f"iot-sftp-{self.name}-"))
        self.log = self.state / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def keys(self) -> tuple[Path, ...]:
        return host_keys()

    @property
    def known_hosts(self) -> Path:
        lines = (" ".join(Path(f"{key}.pub").read_text().split()[:2]) for key in self.keys())
        path = self.state / "known_hosts"
        path.write_text("".join(f"[{self.host}]:{self.port} {line}\n" for line in lines))
        return path

    @property
    def host_key(self) -> str:
        return fingerprint(self.keys()[0])

    def start(self) -> None:
        self.state.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
        self._guard = Guard(self.process.pid)
        self._wait_for_banner()

    def _wait_for_banner(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as probe:
                probe.settimeout(START_S)
                if probe.recv(4) == b"SSH-":
                    return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self.name} did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        shutil.rmtree(self.state, ignore_errors=True)

    def restart(self) -> None:
        self._end(signal.SIGTERM)
        self.start()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if self._guard is not None:
            self._guard.dismiss()
        sessions = descendants(process.pid)
        process.send_signal(sign)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_processes(sessions)

    def drop_connections(self) -> None:
        if self.process:
            end_processes(descendants(self.process.pid))


def end_processes(pids: list[int]) -> None:
    """SIGKILL them and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + STOP_S
    while time.monotonic() < end and any(alive(pid) for pid in pids):
        time.sleep(0.005)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def descendants(pid: int) -> list[int]:
    """Every process below this one, by /proc."""
    pairs, found = list(parents()), [pid]
    for above in found:
        found += [child for child, parent in pairs if parent == above]
    return found[1:]

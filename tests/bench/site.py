"""Where a work is done: a link, a real sshd at its far end, and what crossed the link.

With root the link is of IP level between two namespaces (faults.tunlink); without root a proxy on loopback
(faults.proxy), which hides TCP: the report says which it was.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.works import Work
from conditions import why_not
from faults.proxy import BadLink
from faults.tunlink import Side, TunLink
from servers.base import fingerprint, host_keys
from servers.openssh import OpenSSH

__all__ = ["Site", "open_site"]

GOOD_S = 5.0
SILENT_S = 2.0
HOME = ("SetEnv HOME=/nonexistent",)  # the start-up files of this machine's shell would slow rsync and rclone


class _Sshd(OpenSSH):
    """The tests' sshd, listening inside a namespace."""

    def __init__(self, root: Path, host: str, inside: Callable[[Sequence[str]], list[str]]) -> None:
        super().__init__(root, more=HOME)
        self.host = host
        self._inside = inside

    def command(self) -> list[str]:
        return self._inside(super().command())

    def _wait_for_banner(self) -> None:
        end = time.monotonic() + 10
        while "Server listening" not in self.log.read_text(errors="replace"):
            if time.monotonic() > end or self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"sshd did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)


class Site(ABC):
    """host, port, user, key_file, known_hosts: what a client needs; root: the folder that the server serves."""

    note = ""

    def __init__(self, server: OpenSSH, host: str, port: int, known_hosts: Path) -> None:
        self.server = server
        self.root = server.root
        self.host, self.port = host, port
        self.user, self.key_file = server.user, server.key_file
        public = (Path(f"{key}.pub").read_text().split()[:2] for key in host_keys())
        known_hosts.write_text("".join(f"[{host}]:{port} {kind} {blob}\n" for kind, blob in public))
        self.known_hosts = known_hosts
        self.host_key = fingerprint(host_keys()[0])

    @abstractmethod
    def command(self, command: Sequence[str]) -> list[str]:
        """The command as it is started on the client's side."""

    @abstractmethod
    def wire_bytes(self) -> int:
        """Bytes that have crossed the link so far, both directions."""

    @abstractmethod
    def set_silent(self, silent: bool) -> None: ...

    @contextlib.contextmanager
    def gaps(self) -> Iterator[None]:
        """After every 5 s of good link 2 s of silence; the server's sessions are killed at its beginning."""
        over = threading.Event()
        thread = threading.Thread(target=self._make_gaps, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _make_gaps(self, over: threading.Event) -> None:
        while not over.wait(GOOD_S):
            self.set_silent(True)
            self.server.drop_connections()
            over.wait(SILENT_S)
            self.set_silent(False)


class _Tunnel(Site):
    note = "link at IP level"

    def __init__(self, server: OpenSSH, link: TunLink, known_hosts: Path) -> None:
        super().__init__(server, link.server_address, server.port, known_hosts)
        self._link = link

    def command(self, command: Sequence[str]) -> list[str]:
        return self._link.command(command)

    def wire_bytes(self) -> int:
        counts = self._link.counts()
        return counts.up_bytes + counts.down_bytes

    def set_silent(self, silent: bool) -> None:
        if silent:
            self._link.silence()
        else:
            self._link.restore()


class _Loopback(Site):
    """Client and server on the loopback device of one namespace, whose counters tell what crossed it."""

    note = "loopback"

    def __init__(self, server: OpenSSH, link: TunLink, known_hosts: Path) -> None:
        super().__init__(server, "127.0.0.1", server.port, known_hosts)
        self._link = link

    def command(self, command: Sequence[str]) -> list[str]:
        return self._link.command(command, "server")

    def wire_bytes(self) -> int:
        table = self._link.run(["cat", "/proc/net/dev"], "server", check=True, capture_output=True, text=True).stdout
        line = next(line for line in table.splitlines() if line.strip().startswith("lo:"))
        return int(line.split()[1])

    def set_silent(self, silent: bool) -> None:
        raise NotImplementedError("no work is silent on loopback")


class _Proxy(Site):
    note = "proxy on loopback (no root): TCP itself, its handshake and loss are not emulated"

    def __init__(self, server: OpenSSH, link: BadLink, known_hosts: Path) -> None:
        super().__init__(server, "127.0.0.1", link.port, known_hosts)
        self._link = link

    def command(self, command: Sequence[str]) -> list[str]:
        return list(command)

    def wire_bytes(self) -> int:
        return self._link.up_bytes + self._link.down_bytes

    def set_silent(self, silent: bool) -> None:
        if silent:
            self._link.silence()
        else:
            self._link.restore()


@contextlib.contextmanager
def open_site(work: Work, folder: Path) -> Iterator[Site]:
    """A link of the work's kind with a server behind it; files live in `folder`."""
    root, known_hosts = folder / "server", folder / "known_hosts"
    if why_not("tun"):
        with OpenSSH(root, more=HOME) as server, _proxy(work, server.port) as link:
            yield _Proxy(server, link, known_hosts)
        return
    with TunLink(work.rate_bps or 1e9, work.rtt_s, work.loss) as tun:
        on_loopback = work.rate_bps is None
        side: Side = "server"
        host = "127.0.0.1" if on_loopback else tun.server_address
        with _Sshd(root, host, lambda command: tun.command(command, side)) as sshd:
            yield (_Loopback if on_loopback else _Tunnel)(sshd, tun, known_hosts)


def _proxy(work: Work, port: int) -> BadLink:
    return BadLink("127.0.0.1", port, rate_bps=work.rate_bps, delay_s=work.rtt_s / 2)

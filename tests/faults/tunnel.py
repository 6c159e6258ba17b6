"""An upload over a link at IP level: TCP itself has to bear loss and silence. Root on Linux."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import cast

from faults.proxy import BadLink
from faults.rig import MIB, Rig
from faults.table import Row
from faults.tunlink import TunLink
from servers.base import START_S
from servers.openssh import OpenSSH

__all__ = ["lossy_upload"]


class SshdInside(OpenSSH):
    """sshd in the server's namespace."""

    def __init__(self, root: Path, link: TunLink) -> None:
        super().__init__(root)
        self.host = link.server_address
        self._link = link

    def command(self) -> list[str]:
        return self._link.command(super().command(), "server")

    def _wait_for_banner(self) -> None:
        probe = (
            f"import socket; s = socket.create_connection(({self.host!r}, {self.port}), 1); assert s.recv(4) == b'SSH-'"
        )
        end = time.monotonic() + START_S
        while self._link.run([sys.executable, "-c", probe], "server", capture_output=True).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)


class _Counted:
    """What a Rig asks of its link."""

    def __init__(self, link: TunLink, port: int) -> None:
        self._link = link
        self.port = port

    @property
    def up_bytes(self) -> int:
        return self._link.counts().up_bytes

    @property
    def down_bytes(self) -> int:
        return self._link.counts().down_bytes

    def close(self) -> None:
        pass  # the TunLink is ended by the one who made it


def lossy_upload(
    folder: Path, *, size: int = 4 * MIB, loss: float = 0.02, silences: int = 1, silence_s: float = 4.0
) -> Row:
    """One upload over 20 Mbit/s and 60 ms with loss, and silences in which all packets are lost."""
    folder.mkdir(parents=True)
    with TunLink(20e6, rtt_s=0.06, loss=loss) as link, SshdInside(folder / "server", link) as server:
        counted = cast(BadLink, _Counted(link, server.port))
        host, inside = server.host, link.command
        with Rig(folder / "device", server, link=counted, host=host, inside=inside) as rig:
            rig.put("large", size)
            rig.start()
            for number in range(silences):
                mark = (number + 0.5) * size / silences
                rig.wait(lambda at=mark: rig.link.up_bytes >= at)  # type: ignore[misc]
                link.silence()
                time.sleep(silence_s)
                link.restore()
            rig.wait(lambda: not rig.left())
            rig.drain()
            return rig.row(f"{loss:.0%} of the packets lost, and silence, at IP level", silences)

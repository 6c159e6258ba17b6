"""The link falls silent in a chosen phase of a client's work: how long until the client says so."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.proxy import BadLink
from faults.rig import MIB
from faults.steps import Call, Moment, Packet, Step, install
from servers.base import Server

from iot.sftp.client import IoTSFTPClient, LinkLost, Timeout
from iot.sftp.client.protocol.packets import Kind

__all__ = ["PHASES", "noticed_after_s"]

SSH = "iot.sftp.client.ssh"
RATE_BPS = 40e6
FILE_BYTES = 8 * MIB


def _packet(name: str, packet: Packet, nth: int = 1) -> Step:
    return Step(name, packet, Moment.SENT, nth=nth)


PHASES: dict[str, Step | None] = {
    "connect": None,
    "banner": Step("banner", Call("paramiko.transport:Transport._check_banner"), "before"),
    "key exchange": Step("key exchange", Call("paramiko.transport:Transport._send_kex_init"), "before"),
    "login": Step("login", Call(f"{SSH}.login:Login.run"), "before"),
    "channel": Step("channel", Call(f"{SSH}.connection:Connection.open_sftp_channel"), "before"),
    "open": _packet("open", Packet(Kind.OPEN)),
    "write": _packet("write", Packet(Kind.WRITE), 4),
    "read": _packet("read", Packet(Kind.READ), 4),
}


def noticed_after_s(phase: str, server: Server, folder: Path, deadline_s: float) -> float:
    """Seconds from the silence to the client's error. Raises: AssertionError when there was none, or no silence."""
    if phase == "connect":
        with deaf_port() as port:
            began = time.monotonic()
            return _until_error(_client(server, port, folder, deadline_s).connect, lambda: began)
    moments: list[float] = []
    with BadLink(server.host, server.port, rate_bps=RATE_BPS) as link, contextlib.ExitStack() as stack:

        def fall_silent() -> None:
            link.silence()
            moments.append(time.monotonic())

        step = PHASES[phase]
        assert step is not None
        stack.callback(install(step, fall_silent))
        client = _client(server, link.port, folder, deadline_s)
        took_s = _until_error(lambda: _work(client, server, folder, phase), lambda: moments[0])
        client.disconnect()
        return took_s


def _work(client: IoTSFTPClient, server: Server, folder: Path, phase: str) -> None:
    if phase == "read":
        (server.root / "source").write_bytes(os.urandom(FILE_BYTES))
        client.download(server.path("source"), folder / "copy")
    else:
        (folder / "source").write_bytes(os.urandom(FILE_BYTES))
        client.upload(str(folder / "source"), server.path("there"))


def _client(server: Server, port: int, folder: Path, deadline_s: float) -> IoTSFTPClient:
    login: dict[str, Any] = {**server.login(), "sftp_port": port, "host_key": server.host_key}
    login.pop("known_hosts")
    return IoTSFTPClient(**login, state_dir=folder / "state", attempts=1, link_deadline_s=deadline_s)


def _until_error(work: Callable[[], object], began: Callable[[], float]) -> float:
    try:
        work()
    except (LinkLost, Timeout):
        return time.monotonic() - began()
    raise AssertionError("no error")


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that answers no connection: its queue is full, so the system drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield int(listener.getsockname()[1])

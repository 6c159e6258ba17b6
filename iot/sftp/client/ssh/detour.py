"""Connections that are no TCP connection of ours: through a command, or through another host."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from iot.sftp.client.ssh.children import environment
from iot.sftp.client.ssh.link import Link
from iot.transfer.errors import LinkLost
from iot.transfer.stop import StopFlag

__all__ = ["DetourLink", "by_channel", "by_command"]

BLOCK_BYTES = 256 * 1024
ENDS_S = 2.0


class DetourLink(Link):
    """A link over one end of a pair of sockets. end: gives up what is behind the other end."""

    def __init__(self, sock: socket.socket, cancelled: StopFlag, end: Callable[[], None]) -> None:
        super().__init__(sock, cancelled)
        self._end = end

    def close(self) -> None:
        super().close()
        self._end()


def by_command(command: str, cancelled: StopFlag) -> Link:
    """A command, run by a shell as ssh does, whose input and output are the connection. Raises: LinkLost.

    In a session of its own: Ctrl-C is for us, who have a checkpoint to write.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            words, end = ["/bin/sh", "-c", f"exec {command}"], theirs.fileno()
            process = subprocess.Popen(words, stdin=end, stdout=end, start_new_session=True, env=environment())
    except OSError as error:
        ours.close()
        raise LinkLost(f"cannot run the ProxyCommand: {error.strerror}") from error
    return DetourLink(ours, cancelled, lambda: _end(process))


def by_channel(channel: Any, cancelled: StopFlag, end: Callable[[], None]) -> Link:
    """A channel of another connection; two threads carry the bytes, since a channel is nothing to wait on."""
    ours, theirs = socket.socketpair()
    for carry in (_to_channel, _from_channel):
        threading.Thread(target=carry, args=(theirs, channel), name="iot-sftp jump", daemon=True).start()
    return DetourLink(ours, cancelled, end)


def _to_channel(sock: socket.socket, channel: Any) -> None:
    with contextlib.suppress(Exception):  # whatever breaks the one side ends the other, which tells its reader
        while data := sock.recv(BLOCK_BYTES):
            channel.sendall(data)
    channel.close()


def _from_channel(sock: socket.socket, channel: Any) -> None:
    with contextlib.suppress(Exception):  # as above
        while data := channel.recv(BLOCK_BYTES):
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Connections that are no TCP connection of ours: through a command, or through another host."""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import IO, Any

from iot.sftp.client.ssh.boundary import printable
from iot.sftp.client.ssh.children import environment
from iot.sftp.client.ssh.link import Link
from iot.transfer.errors import LinkLost
from iot.transfer.stop import StopFlag

__all__ = ["CommandLink", "DetourLink", "by_channel", "by_command"]

BLOCK_BYTES = 256 * 1024
ENDS_S = 2.0
LINE_BYTES = 4096
SHOWN = 200


class DetourLink(Link):
    """A link over one end of a pair of sockets. end: gives up what is behind the other end."""

    def __init__(self, sock: socket.socket, cancelled: StopFlag, end: Callable[[], None]) -> None:
        super().__init__(sock, cancelled)
        self._end = end

    def close(self) -> None:
        super().close()
        self._end()


class CommandLink(DetourLink):
    """A link through a command that runs. words: what is shown of it, without its arguments, which may be secrets."""

    def __init__(self, sock: socket.socket, cancelled: StopFlag, process: subprocess.Popen[bytes], words: str) -> None:
        super().__init__(sock, cancelled, self._stop)
        self._process = process
        self._stopped = False
        self._words = words
        self._complaint = b""
        self._reader = threading.Thread(target=self._listen, args=(process.stderr,), name="iot-sftp proxy", daemon=True)
        self._reader.start()

    def failure(self) -> str:
        """Why no connection came of it, for a person: its exit code, and the last line of its standard error."""
        ended = "runs, but no SSH server answers through it"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(ENDS_S)
            self._reader.join(ENDS_S)  # what it started may keep its standard error open
            if code >= 0:
                ended = f"ended with exit code {code}"
            elif not self._stopped:
                ended = f"was ended by {signal.Signals(-code).name}"
        said = printable(self._complaint.decode("utf-8", "replace").strip(), SHOWN)
        return f"the ProxyCommand {self._words} {ended}{f': {said}' if said else ''}"

    def close(self) -> None:
        if self._has_hung_up():  # it is about to end, and how says more than that we have ended it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_S)
        super().close()

    def _has_hung_up(self) -> bool:
        try:
            return self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except ConnectionError:
            return True
        except OSError:  # nothing to read yet, or closed already
            return False

    def _stop(self) -> None:
        self._stopped = self._stopped or self._process.poll() is None
        _end(self._process)

    def _listen(self, stderr: IO[bytes]) -> None:
        """Keep its last line that is not blank; whatever the length of a line, only its beginning is held."""
        begins = True
        with contextlib.suppress(OSError, ValueError), stderr:  # ValueError: closed by whoever ended the command
            while line := stderr.readline(LINE_BYTES):
                self._complaint = line if begins and line.strip() else self._complaint
                begins = line.endswith(b"\n")


def by_command(command: str, cancelled: StopFlag) -> CommandLink:
    """A command, run by a shell as ssh does, whose input and output are the connection. Raises: LinkLost.

    In a session of its own: Ctrl-C is for us, who have a checkpoint to write.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            words, end = ["/bin/sh", "-c", f"exec {command}"], theirs.fileno()
            process = subprocess.Popen(
                words, stdin=end, stdout=end, stderr=subprocess.PIPE, start_new_session=True, env=environment()
            )
    except OSError as error:
        ours.close()
        raise LinkLost(f"cannot run the ProxyCommand: {error.strerror}") from error
    return CommandLink(ours, cancelled, process, _without_arguments(command))


def _without_arguments(command: str) -> str:
    """The program alone: what follows, and variables that are set in front of it, may be passwords."""
    try:
        words = shlex.split(command)
    except ValueError:  # quotes that do not match: the shell says so
        words = command.split()
    named = [word for word in words if "=" not in word]
    shown = printable(named[0], SHOWN) if named else ""
    return repr(f"{shown} ..." if len(words) > 1 else shown)


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

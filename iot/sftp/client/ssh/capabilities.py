"""What paramiko and this system have to offer, asked before anything is connected: so that a setting that can never
work is told as a wrong setting, not as a link that fails for ever."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import paramiko

from iot.sftp.client.ssh.packetizer import CHACHA20

SHOWN = 200
"""Characters of the unknown ones that are told."""
CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def check_ciphers(names: Iterable[str]) -> None:
    """Raises: ValueError naming every cipher that is unknown, and those that are known."""
    known = [*paramiko.Transport._cipher_info, CHACHA20]  # private, but what paramiko itself checks against
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {', '.join(map(repr, unknown))[:SHOWN]}: known are {', '.join(known)}")


def check_congestion(name: str) -> None:
    """Try a TCP congestion control on a socket that is not connected. Raises: ValueError naming those there are."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            set_congestion(sock, name)
        except OSError as error:
            raise ValueError(f"this system does not let us use it ({error.strerror}): {_available()}") from None


def set_congestion(sock: socket.socket, name: str) -> None:
    """Raises: OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CONGESTION", 13), name.encode())


def _available() -> str:
    try:
        return f"available are {', '.join(CONTROLS.read_text(encoding='ascii').split())}"
    except (OSError, UnicodeDecodeError):
        return "it tells of none"

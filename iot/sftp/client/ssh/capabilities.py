"""What paramiko and this system support, checked before connecting: so that a setting that can never work is reported
as an invalid setting, not as a link that keeps failing."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import paramiko

from iot.sftp.client.ssh.packetizer import CHACHA20

SHOWN = 200
"""Maximum number of characters of unknown names in a message."""
CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def check_ciphers(names: Iterable[str]) -> None:
    """Raises: ValueError, which names every unknown cipher and the known ones."""
    known = [*paramiko.Transport._cipher_info, CHACHA20]  # private, but what paramiko itself checks against
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {', '.join(map(repr, unknown))[:SHOWN]}: known are {', '.join(known)}")


def check_congestion(name: str) -> None:
    """Try a TCP congestion control on an unconnected socket. Raises: ValueError, which names the available ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            set_congestion(sock, name)
        except OSError as error:
            raise ValueError(f"not permitted on this system ({error.strerror}): {_available()}") from None


def set_congestion(sock: socket.socket, name: str) -> None:
    """Raises: OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CONGESTION", 13), name.encode())


def _available() -> str:
    try:
        return f"available are {', '.join(CONTROLS.read_text(encoding='ascii').split())}"
    except (OSError, UnicodeDecodeError):
        return "the available ones are not known"

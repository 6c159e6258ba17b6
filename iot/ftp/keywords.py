"""The options of a client as keywords: written by `python tests/settings_reference.py`, not by hand."""

from __future__ import annotations

import os
from typing import Literal

from iot.ftp.settings import TLS
from iot.transfer.keywords import TransferKeywords

__all__ = ["FTPKeywords"]


class FTPKeywords(TransferKeywords, total=False):
    """See FTPOptions, which checks the values."""

    tls: TLS | Literal["explicit", "implicit"] | bool
    """explicit, implicit, or false: plain FTP, which sends the password and all files in clear text (default:
    'explicit')"""

    ca_file: str | os.PathLike[str] | None
    """PEM file of authorities to check the server's certificate against; default: the system's"""

    certificate: str
    """SHA-256 of the only certificate that is accepted: 64 hex digits, colons allowed"""

    active: bool
    """active mode: the server connects to this device for each transfer (default: False)"""

    connect_timeout_s: float
    """seconds until a connection stands (default: 30.0)"""

    timeout_s: float
    """seconds without a byte from the server until the link is dead (default: 60.0)"""

    connections: int
    """files that are sent at the same time (default: 2)"""

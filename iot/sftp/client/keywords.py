"""The options of a client as keywords: written by `python tests/settings_reference.py`, not by hand."""

from __future__ import annotations

import os
from collections.abc import Callable

from pydantic import SecretStr

from iot.transfer.keywords import TransferKeywords

__all__ = ["ClientKeywords"]


class ClientKeywords(TransferKeywords, total=False):
    """See ClientOptions, which checks the values."""

    key_file: str | os.PathLike[str] | None
    """private key of any type (RSA, ECDSA, Ed25519, with certificate)"""

    key_passphrase: str | SecretStr | None
    """passphrase of key_file"""

    agent: bool
    """offer the keys of a running ssh-agent (default: False)"""

    prompt_file: str | os.PathLike[str] | None
    """file with answers to prompts other than the password, one per line, in order"""

    prompt_command: str | list[str] | tuple[str, ...]
    """command whose first line of output answers prompts other than the password, e.g. a TOTP code"""

    ssh_config: str | None
    """OpenSSH configuration to follow: a file, default (the user's, the system's) or none"""

    proxy: str | None
    """socks5://[user@]host[:port] or http://..., which connects for us"""

    proxy_password: str | SecretStr | None
    """password of the proxy's user"""

    bind_address: str | None
    """address of this device to connect from"""

    bind_interface: str | None
    """network interface of this device to connect through, e.g. wwan0 (Linux)"""

    known_hosts: str | os.PathLike[str] | None
    """known_hosts file; default: ~/.ssh/known_hosts"""

    host_key: str | None
    """pinned fingerprint of the host key, "SHA256:..."; known_hosts is not read"""

    connect_timeout_s: float
    """seconds for TCP to connect, per address (default: 20.0)"""

    link_deadline_s: float
    """seconds without a byte from the server until the link counts as dead (default: 60.0)"""

    server_reply_s: float
    """seconds that the server may take for one answer while the link is alive (default: 600.0)"""

    keepalive_s: float
    """seconds between keepalives on an idle connection; 0: none (default: 30.0)"""

    chunk_size: int | None
    """bytes per request; default: from the server's limits and the rate"""

    slots: int
    """files whose content is in flight at most; half as many once they hold 1 MiB together (default: 1024)"""

    max_in_flight_bytes: int
    """maximum bytes sent or requested but not yet answered (default: 8388608)"""

    direct_write: bool
    """if the server refuses rename, write to the final name (not atomic, no resume) (default: False)"""

    ciphers: str | list[str] | tuple[str, ...]
    """ciphers in order of preference; default: AES-GCM first if the CPU supports AES"""

    compression: bool
    """SSH zlib compression (default: False)"""

    congestion: str | None
    """TCP congestion control for this socket, e.g. bbr"""

    prompts: Callable[[str, bool], str] | None
    """function that answers prompts other than the password: (prompt, echo) -> answer"""

"""FTPClient: the facade over an FTP server."""

from __future__ import annotations

import logging
from typing import Any

from iot.ftp.connection import Address
from iot.ftp.settings import TLS, FTPOptions
from iot.ftp.store import FTPStore
from iot.ftp.tls import Trust
from iot.transfer.client import Client
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.journal import Journal
from iot.transfer.parallel import ParallelRemote
from iot.transfer.settings import checked

__all__ = ["FTPClient"]

log = logging.getLogger(__name__)

PORT, IMPLICIT_PORT = 21, 990
_warned: set[tuple[str, int]] = set()


class FTPClient(Client):
    """Sends files to an FTP server and fetches them from it, over TLS unless `tls=False`.

    Like IoTSFTPClient: resumable, journaled, atomic. No FTP server confirms that a file is on its disk, so a result is
    never `durable`, and what the server may have lost is read back before an upload resumes.

    Args:
        port: default 21, or 990 with implicit TLS. journal: may be shared with other users of the same state
            directory. options: see FTPOptions.

    Raises: ConfigurationError, which names every invalid option.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        user: str = "anonymous",
        password: str = "",
        *,
        journal: Journal | None = None,
        **options: Any,
    ) -> None:
        settings = checked(FTPOptions, options)
        for name, value in (("host", host), ("user", user), ("password", password)):
            if any(char in value for char in "\r\n\0") or (name != "password" and not value):
                raise ConfigurationError(f"{name}: must not be empty or contain a line break or NUL")
        implicit = settings.tls is TLS.IMPLICIT
        address = Address(
            host,
            port or (IMPLICIT_PORT if implicit else PORT),
            user,
            password,
            Trust(settings.ca_file, settings.certificate) if settings.tls else None,
            implicit=implicit,
            active=settings.active,
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.timeout_s,
        )
        self._address = address
        if address.trust is None:
            _warn_once(address)
        self._parallel = ParallelRemote(
            lambda: FTPStore(address, connections=settings.connections),
            f"ftp:{user}@{host}:{address.port}",
            settings,
            journal,
        )
        super().__init__(self._parallel)

    def __repr__(self) -> str:
        return f"FTPClient({self._address.user}@{self._address.host}:{self._address.port})"


def _warn_once(address: Address) -> None:
    if (address.host, address.port) not in _warned:
        _warned.add((address.host, address.port))
        log.warning("plain FTP: the password and all files are sent in clear text host=%s port=%d", *_where(address))


def _where(address: Address) -> tuple[str, int]:
    return address.host, address.port

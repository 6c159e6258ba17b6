"""FTPClient: the facade over an FTP server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from iot.ftp.connection import Address
from iot.ftp.settings import TLS, FTPOptions
from iot.ftp.store import FTPStore
from iot.ftp.tls import Trust
from iot.transfer.address import host_problems, port_problems, text_problems
from iot.transfer.client import Client
from iot.transfer.journal.journal import Journal
from iot.transfer.parallel import ParallelRemote
from iot.transfer.settings import checked, lists_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from iot.ftp.keywords import FTPKeywords

__all__ = ["FTPClient"]

log = logging.getLogger(__name__)

PORT, IMPLICIT_PORT = 21, 990
ARGUMENTS = {name: name for name in ("host", "port", "user", "password", "journal")}
_warned: set[tuple[str, int]] = set()


@lists_options(FTPOptions)
class FTPClient(Client):
    """Sends files to an FTP server and fetches them from it, over TLS unless `tls=False`.

    Like IoTSFTPClient: resumable, journaled, atomic. No FTP server confirms that a file is on its disk, so a result is
    never `durable`, and what the server may have lost is read back before an upload resumes.

    Arguments:
        host
            name or address
        port
            TCP port; default: 21, or 990 with implicit TLS
        user, password
            login; without them anonymous
        journal
            shared with other users of the same state directory; default: one of its own, in `state_dir`

    Raises: ConfigurationError, which names everything that is wrong with arguments and options.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        user: str = "anonymous",
        password: str = "",
        *,
        journal: Journal | None = None,
        **options: Unpack[FTPKeywords],
    ) -> None:
        settings = checked(FTPOptions, options, _login_problems(host, port, user, password), ARGUMENTS)
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


def _login_problems(host: object, port: object, user: object, password: object) -> Iterator[str]:
    yield from host_problems("host", host)
    yield from port_problems("port", port)
    yield from text_problems("user", user)
    yield from text_problems("password", password)
    if user == "":
        yield "user: must not be empty"


def _warn_once(address: Address) -> None:
    if (address.host, address.port) not in _warned:
        _warned.add((address.host, address.port))
        log.warning("plain FTP: the password and all files are sent in clear text host=%s port=%d", *_where(address))


def _where(address: Address) -> tuple[str, int]:
    return address.host, address.port

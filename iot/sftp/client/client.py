"""IoTSFTPClient: the facade over SFTP, with what only SFTP has."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from iot.sftp.client.runner import Account, Runner
from iot.sftp.client.settings import ClientOptions, options_from
from iot.sftp.client.ssh.openssh_config import SSH_PORT, Way, way_to
from iot.transfer.address import host_problems, port_problems, text_problems
from iot.transfer.client import Client
from iot.transfer.errors import ConfigurationError, NotFound
from iot.transfer.journal.journal import Journal
from iot.transfer.model import RemoteFile, RemotePath
from iot.transfer.names import remote_path
from iot.transfer.settings import lists_options
from iot.transfer.terminal import quoted

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from iot.sftp.client.keywords import ClientKeywords

__all__ = ["IoTSFTPClient"]


@lists_options(ClientOptions)
class IoTSFTPClient(Client):
    """A synchronous SFTP client for devices: resumable, journaled, pipelined.

        with IoTSFTPClient("sftp.example.com", sftp_user="device", key_file="/etc/device/id_ed25519") as client:
            result = client.upload("today.csv", "/upload/today.csv")

    Host keys are always checked, against `known_hosts` or `host_key`. A relative remote path begins in the login's
    folder.

    Arguments:
        sftp_host
            name or address; with `ssh_config`, a host of the OpenSSH configuration, which gives what is not given here
        sftp_port
            TCP port; default: 22
        sftp_user
            login name; default: the local user's
        sftp_pass
            password; without it give `key_file` or `agent=True`
        journal
            shared with other users of the same state directory; default: one of its own, in `state_dir`

    Raises: ConfigurationError, which names everything that is wrong with arguments and options.
    """

    def __init__(
        self,
        sftp_host: str,
        sftp_port: int | None = None,
        sftp_user: str | None = None,
        sftp_pass: str | None = None,
        *,
        journal: Journal | None = None,
        **options: Unpack[ClientKeywords],
    ) -> None:
        problems = _login_problems(sftp_host, sftp_port, sftp_user, sftp_pass)
        checked = options_from(options, problems)
        self._account = Account(_way(sftp_host, sftp_port, sftp_user, checked), sftp_pass)
        self._runner = Runner(self._account, checked, journal)
        super().__init__(self._runner)

    def __repr__(self) -> str:
        state = "connected" if self._runner.links.current else "not connected"
        return f"IoTSFTPClient({self._account}, {state})"

    def login_problems(self) -> list[tuple[str, str]]:
        """Problems that would make every login fail, as far as can be told without a connection: pairs of an option (""
        if something is missing altogether) and the problem. An empty list is no guarantee."""
        return self._runner.login_problems()

    def lstat(self, path: RemotePath) -> RemoteFile:
        """As `stat`, but of a link itself. Raises: NotFound, PermissionDenied, and the errors of every operation."""
        found = self._runner.lstat(remote_path(path))
        if found is None:
            raise NotFound(f"{quoted(remote_path(path))} is not on the server")
        return found

    @property
    def connection(self) -> Any:
        """The pysftp.Connection, for anything that this client does not wrap; its transfers are not journaled.

        Raises: TransientError, AuthenticationError, ConfigurationError, LocalStateError, Cancelled.
        """
        return self._runner.session().connection


def _login_problems(host: object, port: object, user: object, password: object) -> Iterator[str]:
    yield from host_problems("sftp_host", host)
    yield from port_problems("sftp_port", port)
    for key, text in (("sftp_user", user), ("sftp_pass", password)):
        if text is not None:
            yield from text_problems(key, text)


def _way(host: str, port: int | None, user: str | None, options: ClientOptions) -> Way:
    if options.ssh_config is not None:
        return way_to(host, port, user, options.ssh_config)
    return Way(host, SSH_PORT if port is None else port, user or _local_user())


def _local_user() -> str:
    """Raises: ConfigurationError if the user id of this process has no name."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):
        raise ConfigurationError("user: required, because the user id of this process has no name") from None

"""IoTSFTPClient: the facade over SFTP, with what only SFTP has."""

from __future__ import annotations

import getpass
from typing import Any

from iot.sftp.client.runner import Account, Runner
from iot.sftp.client.settings import ClientOptions, options_from
from iot.sftp.client.ssh.openssh_config import SSH_PORT, Way, way_to
from iot.transfer.client import Client
from iot.transfer.errors import ConfigurationError, NotFound
from iot.transfer.journal.journal import Journal
from iot.transfer.model import RemoteFile, RemotePath
from iot.transfer.names import remote_path
from iot.transfer.terminal import quoted

__all__ = ["IoTSFTPClient"]


class IoTSFTPClient(Client):
    """A synchronous SFTP client for devices: resumable, journaled, pipelined.

    Connects on first use and reconnects after a loss. Host keys are always checked. One operation runs at a time; calls
    from other threads wait for each other, but none waits for an `upload_many` or `download_many`: until that is
    exhausted or closed, other operations raise ConfigurationError. `cancel` may be called from any thread or signal
    handler.

    The methods that return a bool return False on an error and keep it in `last_error`; their twins raise it:
    upload_file/upload, download_file/download, move_file/move, delete_file/delete, make_dir/mkdir, delete_dir/rmdir,
    list_files/list, list_dirs/list_directories.

    Args:
        sftp_host: name or address. sftp_port: TCP port; without it 22. sftp_user: login name; without it the local
            user's. With `ssh_config`, a host of the user's OpenSSH configuration, which gives what is not given here.
        sftp_pass: password; without it give key_file or agent=True.
        journal: share one with other users of the same state directory, as the spooler does.
        options: see ClientOptions.

    Raises: ConfigurationError, which names every invalid option.
    """

    def __init__(
        self,
        sftp_host: str,
        sftp_port: int | None = None,
        sftp_user: str | None = None,
        sftp_pass: str | None = None,
        *,
        journal: Journal | None = None,
        **options: Any,
    ) -> None:
        checked = options_from(options)
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


def _way(host: str, port: int | None, user: str | None, options: ClientOptions) -> Way:
    host, number = _checked_address(host, SSH_PORT if port is None else port)
    if options.ssh_config is not None:
        return way_to(host, port, user, options.ssh_config)
    return Way(host, number, user or _local_user())


def _checked_address(host: object, port: object) -> tuple[str, int]:
    if not isinstance(host, str) or not host.strip():
        raise ConfigurationError(f"sftp_host: must be a name or an address (got {host!r})")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ConfigurationError(f"sftp_port: must be a whole number from 1 to 65535 (got {port!r})")
    return host, port


def _local_user() -> str:
    """Raises: ConfigurationError if the user id of this process has no name."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):
        raise ConfigurationError("user: required, because the user id of this process has no name") from None

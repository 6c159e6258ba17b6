"""One connection to one server: socket, key exchange, host key, login, SFTP channel.

`Connection` is a pysftp.Connection, so that everything in pysftp stays available, on a channel of its own: pysftp drops
answers that it does not know, so it never shares the pipeline's channel. Its hooks that dial, check host keys and log
in are replaced, because they have no deadline and check too little (see the hooks' docstrings).

pysftp 0.2.9 imports DSSKey, which paramiko 4.0 removed (paramiko issues 2535-2537). A stand-in is provided during the
import and then removed; DSA keys remain unsupported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import paramiko

from iot.sftp.client.ssh.boundary import translated
from iot.sftp.client.ssh.channel import SFTPChannel
from iot.sftp.client.ssh.detour import CommandLink, by_channel, by_command
from iot.sftp.client.ssh.dial import dial
from iot.sftp.client.ssh.hostkeys import fingerprint
from iot.sftp.client.ssh.link import Link
from iot.sftp.client.ssh.login import Login
from iot.sftp.client.ssh.proxy import connect_through
from iot.sftp.client.ssh.transport import Target, Transport
from iot.transfer.errors import LinkLost, TransientError
from iot.transfer.rate import Meter
from iot.transfer.stop import StopFlag

if hasattr(paramiko, "DSSKey"):
    import pysftp
else:
    setattr(paramiko, "DSSKey", type("DSSKey", (paramiko.PKey,), {}))  # noqa: B010 - the name is missing from its type stubs
    try:
        import pysftp
    finally:
        delattr(paramiko, "DSSKey")

__all__ = ["Connection", "Target"]

IDLE_WAKEUP_S = 5.0


class _CnOpts:
    """The attributes of CnOpts that pysftp's Connection reads; without host keys, because we check them."""

    def __init__(self, compression: bool) -> None:
        self.log = False
        self.ciphers = None
        self.hostkeys = None
        self.compression = compression


class Connection(pysftp.Connection):  # type: ignore[misc]
    """A logged-in connection. on_dialled: called when TCP is connected.

    Raises: LinkLost, Timeout, ServerBusy, AuthenticationError and its subclasses, ConfigurationError.
    """

    _sftp_live = False  # class-level: pysftp's __del__ reads them also after a failed connect
    _sftp: paramiko.SFTPClient | None = None
    _transport: Transport | None = None
    _hop: Connection | None = None
    _cnopts = _CnOpts(False)

    def __init__(
        self, target: Target, cancelled: StopFlag, meter: Meter, on_dialled: Callable[[], None] | None = None
    ) -> None:
        self.target = target
        self._meter = meter
        self.link: Link | None = None
        self._cancelled = cancelled
        self._on_dialled = on_dialled
        self._login = Login(target.credentials)  # an unusable key is reported before anything is sent
        try:
            super().__init__(
                target.host, username=target.credentials.user, port=target.port, cnopts=_CnOpts(target.compression)
            )
        except TransientError as error:
            failure = self._failure_of_command()
            self.close()
            if failure:
                raise LinkLost(f"{target.host}: {failure}") from error
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._login.close()

    def _start_transport(self, host: str, port: int) -> None:
        """pysftp's hook: ours dials with a deadline, every address of a name, and tunes the socket."""
        self.link = self._reach(host, port)
        if self._hop is None:  # else it is the hop's connection that goes over the wire
            self._meter.follow(self.link)
        if self._on_dialled is not None:
            self._on_dialled()
        with translated(host):
            self._transport = Transport(self.link, self.target, self._login)

    def _reach(self, host: str, port: int) -> Link:
        target = self.target
        if target.proxy_command is not None:
            return by_command(target.proxy_command, self._cancelled)
        if target.via is not None:
            self._hop = Connection(target.via, self._cancelled, self._meter)
            self._hop.login_over()
            return by_channel(self._hop.tcp_channel(host, port), self._cancelled, self._hop.close)
        if target.proxy is not None:
            link = self._dial(target.proxy.host, target.proxy.port)
            try:
                connect_through(link, target.proxy, host, port, target.login_deadline_s)
            except BaseException:
                link.close()
                raise
            return link
        return self._dial(host, port)

    def _failure_of_command(self) -> str:
        """Why there is no server behind a ProxyCommand; "" where one has told its version, or there is no command."""
        answered = self._transport is not None and self._transport.remote_version
        return self.link.failure() if isinstance(self.link, CommandLink) and not answered else ""

    def _dial(self, host: str, port: int) -> Link:
        target = self.target
        return dial(
            host,
            port,
            connect_timeout_s=min(target.connect_timeout_s, target.link_deadline_s),
            deadline_s=target.link_deadline_s,
            congestion=target.congestion,
            cancelled=self._cancelled,
            redial_s=target.redial_s,
            bind_address=target.bind_address,
            bind_interface=target.bind_interface,
        )

    def tcp_channel(self, host: str, port: int) -> paramiko.Channel:
        """A TCP connection that the server makes for us. Raises: LinkLost, Timeout."""
        assert self._transport is not None
        with translated(self.target.host):
            address = ("127.0.0.1", 0)
            return self._transport.open_channel(
                "direct-tcpip", (host, port), address, timeout=self.target.link_deadline_s
            )

    def _set_authentication(self, password: object, private_key: object, private_key_pass: object) -> None:
        """pysftp's hook: it only knows RSA and DSA; Transport.connect logs in instead."""

    def _sftp_connect(self) -> None:
        """pysftp's hook, on first use of a pysftp method: opens its own channel, with a deadline."""
        if not self._sftp_live:
            assert self._transport is not None
            with translated(self.target.host):
                self._sftp = paramiko.SFTPClient.from_transport(self._transport)
            self._sftp_live = True

    def close(self) -> None:
        """Close the connection, and also the socket where paramiko leaves it open."""
        if self._sftp is not None:
            with contextlib.suppress(Exception):  # a dead channel cannot be closed properly
                self._sftp.close()
        self._sftp, self._sftp_live = None, False
        if self._transport is not None:
            self._transport.close()
        if self.link is not None:
            self.link.close()
        if self._hop is not None:
            self._hop.close()

    def login_over(self) -> None:
        """Login is over: keep the connection alive, and wake up less often while it is idle."""
        assert self._transport is not None
        assert self.link is not None
        self.link.login_over(IDLE_WAKEUP_S)
        if self.target.keepalive_s:
            self._transport.set_keepalive(self.target.keepalive_s)

    @property
    def banner(self) -> str:
        assert self._transport is not None
        return str(self._transport.remote_version)

    @property
    def algorithms(self) -> tuple[str, str, str]:
        """Key exchange, type of the host key, cipher."""
        assert self._transport is not None
        return self._transport.key_exchange, str(self._transport.host_key_type), str(self._transport.local_cipher)

    @property
    def host_key(self) -> str:
        """SHA256: fingerprint of the host key that the server presented."""
        assert self._transport is not None
        return fingerprint(self._transport.host_key_blob)

    def open_sftp_channel(self, in_order: bool) -> SFTPChannel:
        """Open the pipeline's channel; in_order, see protocol.server. Raises: LinkLost, Timeout, ServerBusy."""
        assert self._transport is not None
        assert self.link is not None
        return SFTPChannel(self._transport, self.link, self.target, in_order)

"""One live connection, ready for jobs: session, channel, pipeline, and what is known about the server."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.learned import LearnedRefusals
from iot.sftp.client.pipeline.job import Job, Work, ask
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.pipeline import Pipeline
from iot.sftp.client.protocol import packets, parsing
from iot.sftp.client.protocol.server import SAFE_SLOTS, Server, handles_in_order, understood
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.ssh.boundary import printable
from iot.sftp.client.ssh.connection import Connection, Target
from iot.sftp.client.ssh.hostkeys import HostKeyPolicy, KnownHosts, Pinned
from iot.sftp.client.ssh.login import Credentials, Login
from iot.sftp.client.ssh.openssh_config import Way
from iot.sftp.client.ssh.prompts import Answerer, from_command, from_file
from iot.sftp.client.ssh.proxy import Proxy, proxy_from
from iot.transfer.errors import ConfigurationError, CredentialsInvalid
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.landing import Landing, publish_together
from iot.transfer.model import Checkpoint
from iot.transfer.rate import Meter, RateLimit
from iot.transfer.stop import StopFlag

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)
SPARE_HANDLES = 8
MAX_BLOCK = 255 * 1024
LEAST_DATA_BYTES = 1024  # a limit below this is taken to be a mistake
FILES_ON_WINDOWS = 512  # what its C library allows


@dataclass(frozen=True, slots=True)
class Beside:
    """redial_s: see ssh.link.dial. on_dialled: called when TCP is connected."""

    redial_s: float
    on_dialled: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Making:
    """How to connect.

    start_bytes: initial limit of bytes in flight, as found by the last connection. on_silence: see
        connector.Connector.fell_silent.
    limit, meter: of all connections together.
    stop: ends connecting, and later whatever runs. beside: set while another connection still exists.
    """

    start_bytes: int | None
    on_silence: Callable[[float], bool]
    stop: StopFlag
    limit: RateLimit
    meter: Meter
    beside: Beside | None = None


class Session:
    """Connects when constructed.

    making: what an earlier connection found, and whom to tell about silence.

    Raises: LinkLost, Timeout, ServerBusy, AuthenticationError, ConfigurationError, LocalStateError, Cancelled."""

    def __init__(
        self,
        target: Target,
        options: ClientOptions,
        owner: str,
        checkpoints: Checkpoints,
        refusals: LearnedRefusals,
        making: Making,
    ) -> None:
        self._options = options
        on_dialled = making.beside.on_dialled if making.beside else None
        self.connection = Connection(target, making.stop, making.meter, on_dialled)
        try:
            banner, host_key = self.connection.banner, self.connection.host_key
            channel = self.connection.open_sftp_channel(handles_in_order(banner))
            self.server = Server(banner, host_key, channel.extensions, refused=refusals.load(host_key, banner))
            self.server.on_refusal = lambda what: refusals.learn(host_key, banner, what)
            self.pace = Pace(options.max_in_flight_bytes, self.server.max_write, making.start_bytes, making.limit)
            self.pipeline = Pipeline(
                channel,
                self.pace,
                clock=time.monotonic,
                commit=partial(commit, checkpoints),
                reply_deadline_s=options.server_reply_s,
                cancelled=making.stop,
                wire_sent=lambda: self.connection.link.wire.sent if self.connection.link is not None else 0,
                on_silence=making.on_silence,
            )
            self.connection.login_over()
        except BaseException:
            self.connection.close()
            raise
        self.slots = min(options.slots, SAFE_SLOTS)
        self.context = Context(self.server, self.pace, checkpoints, options.plain(owner), time.monotonic)
        self._tell(target)
        self.pipeline.beside(Job(self._learn_limits()))  # costs no round trip: the first files are sent meanwhile

    def _learn_limits(self) -> Work[None]:
        yield from ask_limits(self.server)
        self.pace.allow_blocks(min(self.server.max_write, self.server.max_read, MAX_BLOCK))
        there = self.server.max_handles - SPARE_HANDLES
        self.slots = max(1, min(self._options.slots, there, _open_files_allowed() // 2))

    def _tell(self, target: Target) -> None:
        link, (key_exchange, key_type, cipher) = self.connection.link, self.connection.algorithms
        round_trip_s = link.round_trip_s if link is not None else None
        log.info(
            'connected host=%s port=%d software="%s" key_exchange=%s host_key=%s'
            " fingerprint=%s cipher=%s round_trip_ms=%s",
            target.host,
            target.port,
            printable(self.connection.banner),
            key_exchange,
            key_type,
            self.connection.host_key,
            cipher,
            "unknown" if round_trip_s is None else f"{round_trip_s * 1000:.1f}",
        )

    @property
    def delivered_bytes(self) -> int:
        return self.pace.delivered

    @property
    def sent_bytes(self) -> int:
        """All bytes that this connection has handed to the system for sending."""
        return self.connection.link.sent_bytes if self.connection.link is not None else 0

    def close(self) -> None:
        self.connection.close()


def commit(checkpoints: Checkpoints, records: Sequence[Checkpoint | Landing]) -> None:
    """Make durable what jobs wait for: their checkpoints, or the names of what they have fetched."""
    publish_together([record for record in records if isinstance(record, Landing)])
    noted = [record for record in records if isinstance(record, Checkpoint)]
    if noted:
        checkpoints.commit(noted)


def ask_limits(server: Server) -> Work[None]:
    """Ask for the limits if the server can report them (limits@openssh.com); otherwise keep safe defaults.

    OpenSSH is asked in the same flight as INIT, before it has announced its extensions; an old version just refuses.
    """
    if not server.in_order and b"limits@openssh.com" not in server.extensions:
        return
    found = understood((yield from ask(packets.limits())), parsing.parse_limits)
    if found is None:
        return
    _, read_bytes, write_bytes, handles = found
    if read_bytes >= LEAST_DATA_BYTES:
        server.max_read = read_bytes
    if write_bytes >= LEAST_DATA_BYTES:
        server.max_write = write_bytes
    server.max_handles = handles or server.max_handles


def _open_files_allowed() -> int:
    """How many files this process may have open, as far as the system tells."""
    if sys.platform == "win32":
        return FILES_ON_WINDOWS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31


def target_from(way: Way, password: str | None, options: ClientOptions) -> Target:
    """The plain values that a connection needs. Raises: ConfigurationError for an unreadable known_hosts."""
    return Target(
        host=way.host,
        port=way.port,
        credentials=_credentials(way, password, options),
        host_keys=_host_keys(way, options),
        connect_timeout_s=options.connect_timeout_s,
        login_deadline_s=options.link_deadline_s,
        link_deadline_s=options.link_deadline_s,
        keepalive_s=options.keepalive_s,
        ciphers=options.ciphers,
        compression=options.compression,
        congestion=options.congestion,
        bind_address=options.bind_address or way.bind_address,
        bind_interface=options.bind_interface or way.bind_interface,
        proxy_command=way.proxy_command if options.proxy is None else None,  # what is given wins
        proxy=_proxy(options),
        via=_target_of_hop(way.via, options) if way.via is not None else None,
    )


def _target_of_hop(way: Way, options: ClientOptions) -> Target:
    """On the way: what is secret, or pinned, is of the server at its end."""
    no_secrets = {"key_file": None, "key_passphrase": None, "host_key": None, "prompt_file": None, "prompt_command": ()}
    return target_from(way, None, options.model_copy(update={**no_secrets, "prompts": None, "compression": False}))


def _proxy(options: ClientOptions) -> Proxy | None:
    if options.proxy is None:
        return None
    password = options.proxy_password
    return proxy_from(options.proxy, password.get_secret_value() if password is not None else None)


def _credentials(way: Way, password: str | None, options: ClientOptions) -> Credentials:
    """With the configuration of OpenSSH, its identities; the agent, where no other key or password is given."""
    passphrase = options.key_passphrase
    given = options.key_file is not None or password is not None
    return Credentials(
        way.user,
        password,
        options.key_file,
        passphrase.get_secret_value() if passphrase else None,
        options.agent or (way.uses_agent and not given),
        _answers(options),
        identities=() if given else way.identities,
        certificate=way.certificate,
    )


def login_problems(way: Way, password: str | None, options: ClientOptions) -> list[tuple[str, str]]:
    """What makes every login fail, as far as can be seen without a connection: an option, and what is wrong with it.
    Option "": something is not given at all."""
    found = []
    try:
        host, port = way.host, way.port
        target = target_from(way, password, options)
        if not target.host_keys.key_types(host, port) and not options.host_key:
            found.append(("", f"no host_key is set, and known_hosts has no line for {host} port {port}"))
        Login(target.credentials).close()
    except ConfigurationError as error:
        found.append(("known_hosts", str(error)))
    except CredentialsInvalid as error:
        named = (name for name in ("key_file", "prompt_file") if str(error).startswith(name))
        found.append((next(named, ""), str(error)))
    if options.prompt_command and shutil.which(options.prompt_command[0]) is None:
        found.append(("prompt_command", f"{options.prompt_command[0]!r} is not an executable program"))
    return found


def _answers(options: ClientOptions) -> Callable[[], Answerer] | None:
    """The source of answers to prompts other than the password, created for each login."""
    callback, command, file = options.prompts, options.prompt_command, options.prompt_file
    if callback is not None:
        return lambda: callback
    if command:
        return lambda: from_command(command)
    return (lambda: from_file(file)) if file is not None else None


def _host_keys(way: Way, options: ClientOptions) -> HostKeyPolicy:
    if options.host_key:
        return Pinned(options.host_key)
    return KnownHosts(*known_hosts_of(options, way.known_hosts))


def known_hosts_of(options: ClientOptions, configured: Sequence[Path] = ()) -> list[Path]:
    """configured: what an OpenSSH configuration says."""
    files = [options.known_hosts] if options.known_hosts else configured or [Path("~/.ssh/known_hosts")]
    return [file.expanduser() for file in files]

"""What the spooler needs of a remote, whatever its protocol, and whether the server may be tried now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from iot.spooler.control.states import ConnectionEvent, ServerState, connection_after
from iot.spooler.queue.policy import Backoff, FailureKind
from iot.spooler.server.herd import HerdWindow
from iot.transfer import (
    AuthenticationError,
    Cancelled,
    DownloadJob,
    Elsewhere,
    Failure,
    LinkLost,
    LocalStateError,
    NoSpaceOnServer,
    PermanentError,
    RemoteEntry,
    RemoteFile,
    ServerBusy,
    SourceChanged,
    SourceUnreadable,
    Timeout,
    TransferError,
    TransferResult,
    UploadJob,
    Wire,
)

__all__ = ["TO_DO", "Availability", "Remote", "ServerState", "failure_kind"]

log = logging.getLogger(__name__)


class Remote(Protocol):
    """A client of the server. Each result carries the key of its job.

    `tick` is called at least every 0.25 s whatever the server does, also while connecting. The loop depends on it for
    its scans, the watchdog and the stop flag, because no jobs are requested while all slots are taken.
    """

    def upload_many(
        self, jobs: Iterable[UploadJob | None], *, hold_checkpoints: bool = False, tick: Callable[[], None] = ...
    ) -> Iterator[TransferResult | Failure]: ...

    def download_many(
        self, jobs: Iterable[DownloadJob | None], *, tick: Callable[[], None] = ...
    ) -> Iterator[TransferResult | Failure]: ...

    def scan(self, path: str, *, leave_out: Callable[[bytes, bytes], None] | None = None) -> list[RemoteEntry]: ...

    def stat(self, path: str) -> RemoteFile: ...

    def delete(self, path: str) -> None: ...

    def move(self, source: str, dest: str) -> None: ...

    def release_checkpoints(self, results: Iterable[TransferResult]) -> None:
        """These deliveries are durably recorded: the remote may drop what it kept to recognise them.

        Called once for each result, after the transaction that records it, never inside it. After a crash between the
        two the remote merely keeps its records longer.
        """

    def elsewhere(self) -> Elsewhere:
        """What was begun with other servers that share the journal. Raises: JournalUnavailable."""

    def give_up(self, uploads: Iterable[tuple[str, str]]) -> None:
        """These uploads (source, destination) will not be tried again: what they left on the server may be removed.

        The request is durable when this returns. It is made before the queue forgets the upload, and may be repeated.
        """

    def read_small(self, path: bytes, most_bytes: int, *, tick: Callable[[], None] = ...) -> bytes | None:
        """The first `most_bytes` + 1 bytes of a file; None if it cannot be opened. tick: as above, while connecting."""

    def disconnect(self) -> None:
        """The next call connects again."""

    def limit_rate(self, bytes_per_s: float | None) -> None:
        """From now on the wire carries at most so much, whatever is under way; None: no limit."""

    @property
    def connections(self) -> int:
        """How many were used so far, one after the other; 0 where several are used at once."""

    @property
    def wire(self) -> Wire:
        """What the wire has carried so far."""

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def failure_kind(error: TransferError) -> FailureKind:
    """What an error says about the entry. A full server is not the file's fault: no strike is counted."""
    if isinstance(error, SourceChanged):
        return FailureKind.CHANGED
    if isinstance(error, (LinkLost, Timeout)):
        return FailureKind.LINK
    if isinstance(error, SourceUnreadable):
        return FailureKind.TRANSIENT
    if isinstance(error, (Cancelled, AuthenticationError, LocalStateError)):
        return FailureKind.STOPPED
    if isinstance(error, PermanentError) and not isinstance(error, NoSpaceOnServer):
        return FailureKind.PERMANENT
    return FailureKind.TRANSIENT


TO_DO = (
    "see what `iot-spooler check --connect` says and fix it; a changed key, password, known_hosts or configuration"
    " file is noticed within 15 s, `iot-spooler flush` tries at once; credentials of a unit need its restart"
)
"""What the operator can do about a hold."""


class Availability:
    """When the server may be tried again. Times are seconds of the monotonic clock.

    After progress the first loss is retried at once, later ones after `backoff`. A server that answers that it is busy
    is there: the waits for it begin anew. A refused login or host key holds the whole server for `hold`: another
    attempt could put this address on the server's penalty list. `herd_window_s`: see herd.py; 0 for none.

    down_since: the first try in vain since the server has last answered, held_since: the first that it has refused.
    """

    def __init__(
        self, backoff: Backoff, hold: Backoff, random: Callable[[], float], *, herd_window_s: float = 0.0
    ) -> None:
        self.state = ServerState.DISCONNECTED
        self.failures = 0
        self.holds = 0
        self.ready_at = float("-inf")
        self.last_error: str | None = None
        self.down_since: float | None = None
        self.held_since: float | None = None
        self._backoff = backoff
        self._hold = hold
        self._random = random
        self._herd = HerdWindow(herd_window_s, random)
        self._is_busy = False
        self._has_progressed = False

    def tried(self) -> None:
        """The server is about to be asked for something."""
        self._take(ConnectionEvent.TRIED)

    def answered(self) -> None:
        """It has answered, if only that it refuses a file."""
        self._take(ConnectionEvent.ANSWERED)
        self.down_since = self.held_since = None

    def ended(self) -> None:
        """Nothing is asked of it any more."""
        self._take(ConnectionEvent.ENDED)

    def progressed(self) -> None:
        """The server has confirmed something."""
        self.answered()
        self._has_progressed = True
        self.failures = self.holds = 0
        self.last_error = None
        self._is_busy = False
        self._herd.answered()

    def lost(self, error: TransferError, now: float) -> None:
        """The connection broke, could not be made, or was refused."""
        self.last_error = f"{type(error).__name__}: {error}"
        first = self._has_progressed and self.failures == 0
        self._has_progressed = False
        if isinstance(error, AuthenticationError):
            self._take(ConnectionEvent.REFUSED)
            self._held(now)
            self.holds += 1
            self._herd.answered()
            self.ready_at = now + self._hold.delay_s(self.holds, self._random())
            return
        self._take(ConnectionEvent.LOST)
        self.down_since = now if self.down_since is None else self.down_since
        self.ready_at = now + (self._busy_s() if isinstance(error, ServerBusy) else self._away_s(now, first=first))

    def _held(self, now: float) -> None:
        """A server that refuses a login is not down."""
        self.down_since = None
        self.held_since = now if self.held_since is None else self.held_since

    def _busy_s(self) -> float:
        self._herd.answered()
        self.failures = self.failures + 1 if self._is_busy else 1
        self._is_busy = True
        return self._backoff.delay_s(self.failures, self._random())

    def _away_s(self, now: float, *, first: bool) -> float:
        self._is_busy = False
        scattered_s = self._herd.failed(now)
        if first:
            return 0.0
        self.failures += 1
        return self._backoff.delay_s(self.failures, self._random()) if scattered_s is None else scattered_s

    @property
    def confirms(self) -> bool:
        """Whether it has confirmed something since the last loss."""
        return self._has_progressed

    def asked_to_wait(self, now: float, wait_s: float) -> None:
        """The server has answered, and asks to be left alone for so long."""
        self.answered()
        self._take(ConnectionEvent.LOST)
        self.failures = self.holds = 0
        self.last_error = f"the server asks to come back in {wait_s:.0f} s"
        self._herd.answered()
        self.ready_at = now + wait_s

    def take_over(self, earlier: Availability) -> None:
        """Wait as an earlier agent of this process would have, for a server that nobody has mended meanwhile."""
        if earlier.state in (ServerState.CONNECTED, ServerState.CONNECTING):
            return
        self.state, self.ready_at, self.last_error = earlier.state, earlier.ready_at, earlier.last_error
        self.failures, self.holds = earlier.failures, earlier.holds
        self.down_since, self.held_since = earlier.down_since, earlier.held_since
        self._is_busy = earlier._is_busy
        self._herd.take_over(earlier._herd)

    def wake(self) -> bool:
        """Somebody asks for a try at once: the backoff is over, and so is a hold -> whether there was one.

        How often the server was held is not forgotten: when this try is refused, too, the hold is longer than the last.
        """
        was_held = self.state is ServerState.HELD
        if was_held:
            self._take(ConnectionEvent.RELEASED)
        self.ready_at = float("-inf")
        return was_held

    def network_up(self, now: float) -> bool:
        """The network is there again: as `wake`, but after a long outage not for all devices at once."""
        if not self._herd.is_long(now):
            return self.wake()
        self._not_before(now, self._herd.network_up())
        return False

    def power_up(self, now: float, away_s: float | None) -> bool:
        """The device starts after a power cut of `away_s`, None: of unknown length -> whether the first try waits."""
        delay_s = None if self.state is ServerState.HELD else self._herd.power_up(away_s)
        self._not_before(now, delay_s)
        return delay_s is not None

    def _not_before(self, now: float, delay_s: float | None) -> None:
        """A try that is due earlier anyway stays where it is."""
        if delay_s is not None:
            self.ready_at = min(now + delay_s, self.ready_at if self.ready_at > now else math.inf)

    def waits(self, now: float) -> bool:
        """Whether only a backoff keeps the server from being tried."""
        return self.state is ServerState.DISCONNECTED and now < self.ready_at

    def remembered(self, error: str, holds: int, ready_at: float, now: float) -> None:
        """An earlier process was held, until then."""
        self._take(ConnectionEvent.REMEMBERED)
        self._held(now)
        self.last_error, self.holds, self.ready_at = error, holds, ready_at

    def _take(self, event: ConnectionEvent) -> None:
        before, self.state = self.state, connection_after(self.state, event)
        if self.state is ServerState.CONNECTED and before is not ServerState.CONNECTED:
            log.info("link connected")
        elif self.state is ServerState.CONNECTING:
            log.debug("link connecting")

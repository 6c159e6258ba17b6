"""What a facade does with its connections: make and end them, limit their rate, and say what they carried."""

from __future__ import annotations

from iot.transfer.errors import ConfigurationError, TransferError
from iot.transfer.rate import Wire, parse_rate
from iot.transfer.remote import Remote

__all__ = ["ConnectionMethods"]


class ConnectionMethods:
    """The connections of a facade's remote, and the wire under them."""

    _remote: Remote
    last_error: TransferError | None

    def connect(self) -> None:
        """Connect now instead of on first use. Raises: TransientError, AuthenticationError, ConfigurationError."""
        self._remote.connect()

    def is_connected(self) -> bool:
        """Whether the server answers on the current connection: one real round trip, with a deadline.

        While upload_many or download_many is running, the connection is not probed.
        """
        try:
            return self._remote.is_connected()
        except TransferError as error:
            self.last_error = error
            return False

    def disconnect(self) -> None:
        """Close the connection; the next operation opens a new one. A running upload_many or download_many is ended."""
        self._remote.disconnect()

    def close(self) -> None:
        """Disconnect, and close the journal unless it was given to us."""
        self._remote.close()

    def cancel(self) -> None:
        """End the current operation, or else the next one, with Cancelled; parts are kept for a resume."""
        self._remote.cancel()

    def limit_rate(self, bytes_per_s: float | None) -> None:
        """From now on the wire carries at most so much, whatever is under way; None: no limit. From any thread.

        Raises: ConfigurationError.
        """
        try:
            self._remote.limit_rate(None if bytes_per_s is None else parse_rate(bytes_per_s))
        except ValueError as error:
            raise ConfigurationError(f"bytes_per_s: {error} (got {bytes_per_s!r})") from None

    @property
    def wire(self) -> Wire:
        """Bytes sent and received by all connections of this client so far: payload, what SSH or TLS adds, headers of
        packets and retransmissions, as the system counts them; an estimate where it does not."""
        return self._remote.wire

    @property
    def connections(self) -> int:
        """How many connections were used so far, one after the other; 0 where several are used at once."""
        return self._remote.connections

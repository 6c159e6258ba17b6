"""What every client says and is told of its wire: a limit, what was carried, and over how many connections."""

from __future__ import annotations

from iot.transfer.errors import ConfigurationError
from iot.transfer.rate import Wire, parse_rate
from iot.transfer.remote import Remote

__all__ = ["MeteredMethods"]


class MeteredMethods:
    """What a facade tells and says of the wire of its remote."""

    _remote: Remote

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

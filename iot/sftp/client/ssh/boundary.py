"""The boundary to paramiko: whatever it raises, for whatever bytes from a server, becomes one of our errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import paramiko

from iot.transfer.errors import Incompatible, LinkLost, ProtocolError, ServerBusy, SFTPError, Timeout
from iot.transfer.terminal import terminal_safe

__all__ = ["printable", "translated"]

SHOWN = 600
"""Maximum length of server text in an error; enough for the algorithm lists of both sides."""
NOT_NOW = re.compile(r"it begins with ['\"](Exceeded MaxStartups|Not allowed at this time)")
"""What sshd says in place of its version while too many others are logging in. From OpenSSH 9.8 on it is the second,
and the same to an address that it has shut out for a while, for failed logins (PerSourcePenalties)."""
WHY_NOT_NOW = {
    "Exceeded MaxStartups": "too many others are logging in",
    "Not allowed at this time": "too many others are logging in, or failed logins have shut this address out",
}


def printable(text: str, most: int = SHOWN) -> str:
    """Server text for a message: control characters escaped, and truncated."""
    escaped = terminal_safe(text[: most + 1])
    return escaped if len(escaped) <= most else f"{escaped[:most]}..."


@contextlib.contextmanager
def translated(host: str) -> Iterator[None]:
    """Wraps every call into paramiko: our own errors pass, all others are translated, with the cause kept.

    Raises: Incompatible, ServerBusy, Timeout, LinkLost, ProtocolError.
    """
    try:
        yield
    except SFTPError:
        raise
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise Incompatible(f"{host}: {printable(str(error))}") from error
    except paramiko.ChannelException as error:
        raise ServerBusy(f"{host} refuses to open another session: {printable(str(error))}") from error
    except TimeoutError as error:
        raise Timeout(f"{host} did not answer in time") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        if (said := NOT_NOW.search(str(error))) is not None:
            raise ServerBusy(f"{host}: {WHY_NOT_NOW[said[1]]} ({said[1]})") from error
        raise LinkLost(f"{host}: {_reason(error)}") from error
    except Exception as error:
        raise ProtocolError(f"{host} violated the SSH protocol: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the other side closed the connection"
    text = printable(str(error)) or type(error).__name__
    return f"{text}; is this an SSH server's port?" if "banner" in text else text

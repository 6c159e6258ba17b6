"""The errors of this package, grouped by what the caller can do about them.

TransferError
  TransientError          try again, with backoff
    LinkLost              the connection broke or could not be made
    Timeout               a deadline passed without an answer
    ServerBusy            the server refused for now (too many sessions or handles)
  PermanentError          concerns this file or path; trying again will not help by itself
    NotFound              no such file or directory
    AlreadyExists         the destination exists and may not be replaced
    PermissionDenied      the server or the local system denied access
    NoSpaceOnServer       the server's disk or quota is full
    NameRefused           the name is unsafe, too long or not accepted
    SourceChanged         the source changed during the transfer
    ProofFailed           the content on the server is not what was sent
    Unsupported           the server lacks a feature that the operation needs
    ServerRefused         any other refusal; the message is the server's
  AuthenticationError     stop using this server and tell the operator
    HostKeyUnknown        no known host key; the message says how to add it
    HostKeyMismatch       the host key differs from the known one, or is revoked
    LoginRefused          wrong user, password or key
    CredentialsInvalid    a key file or passphrase is missing or unusable, or a prompt has no configured answer
    Incompatible          no common algorithm; the message lists what both sides offer
    AccessRefused         a destination folder as a whole is read-only, or not open to this user
  LocalStateError         a problem on this device: tell the operator, keep the files
    JournalUnavailable    the journal cannot be opened, read or written
    DiskFull              no space left on a local disk
    SourceUnreadable      the local disk failed to return the source's bytes; other files are not affected
  ConfigurationError      a setting is invalid; the message names it
  Cancelled               the caller asked to stop; what was sent is kept for a resume
  ProtocolError           the server violated the protocol; the connection is dropped (a LinkLost)
"""

from __future__ import annotations

import errno

__all__ = [
    "AccessRefused",
    "AlreadyExists",
    "AuthenticationError",
    "Cancelled",
    "ConfigurationError",
    "CredentialsInvalid",
    "DiskFull",
    "HostKeyMismatch",
    "HostKeyUnknown",
    "Incompatible",
    "JournalUnavailable",
    "LinkLost",
    "LocalStateError",
    "LoginRefused",
    "NameRefused",
    "NoSpaceOnServer",
    "NotFound",
    "PermanentError",
    "PermissionDenied",
    "ProofFailed",
    "ProtocolError",
    "SFTPError",
    "ServerBusy",
    "ServerRefused",
    "SourceChanged",
    "SourceUnreadable",
    "Timeout",
    "TransferError",
    "TransientError",
    "Unsupported",
    "is_gone",
]


class TransferError(Exception):
    """The base class of every error that this package raises on purpose."""


SFTPError = TransferError
"""The older name, kept for programs that only know SFTP."""


class TransientError(TransferError):
    """Trying again may succeed."""


class LinkLost(TransientError):
    """The connection broke or could not be made."""


class ProtocolError(LinkLost):
    """The server sent something that the protocol does not allow; the connection is dropped."""


class Timeout(TransientError):
    """A deadline passed without an answer."""


class ServerBusy(TransientError):
    """The server refused for now: too many sessions, connections or open handles."""


class PermanentError(TransferError):
    """Trying the same thing again will not help by itself."""


class NotFound(PermanentError):
    """No such file or directory."""


class AlreadyExists(PermanentError):
    """The destination exists and may not be replaced."""


class PermissionDenied(PermanentError):
    """The server or the local system denied access."""


class NoSpaceOnServer(PermanentError):
    """The server's disk or quota is full."""


class NameRefused(PermanentError):
    """The name is unsafe, too long or not accepted."""


class SourceChanged(PermanentError):
    """The source changed during the transfer; nothing was published."""


class ProofFailed(PermanentError):
    """The content on the server is not what was sent; nothing was published."""


class Unsupported(PermanentError):
    """The server lacks a feature that the operation needs."""


class ServerRefused(PermanentError):
    """Any other refusal; the message is the server's."""


class AuthenticationError(TransferError):
    """The server's identity or ours could not be established."""


class HostKeyUnknown(AuthenticationError):
    """The server's host key is not known; the message says how to add it."""


class HostKeyMismatch(AuthenticationError):
    """The server's host key differs from the known one, or is revoked."""


class LoginRefused(AuthenticationError):
    """The server rejected the user name, password or key."""


class CredentialsInvalid(AuthenticationError):
    """A key file or passphrase is missing or unusable (nothing was sent), or a prompt has no configured answer."""


class Incompatible(AuthenticationError):
    """The server and this client have no algorithm in common; trying again will not help."""


class AccessRefused(AuthenticationError):
    """The destination folder as a whole is mounted read-only, or not open to this user; the message says which."""


class LocalStateError(TransferError):
    """A problem on this device; no file is lost."""


class JournalUnavailable(LocalStateError):
    """The journal cannot be opened, read or written."""


class DiskFull(LocalStateError):
    """No space left on a local disk."""


class SourceUnreadable(LocalStateError):
    """The local disk failed to return this file's bytes; other files may be fine."""


class ConfigurationError(TransferError):
    """A setting is invalid; the message names the key, the value and what is allowed."""


class Cancelled(TransferError):
    """The caller asked to stop; what was sent is kept for a resume."""


def is_gone(error: OSError) -> bool:
    """Whether a local error means that the file or folder does not exist.

    Any other error (permissions, no free descriptor, a stale mount, a failing disk) leaves that unknown, and unknown
    is never treated as gone.
    """
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

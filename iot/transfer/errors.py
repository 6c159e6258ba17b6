"""The errors of this package, grouped by what the caller can do about them.

TransferError
  TransientError          try again, with backoff
    LinkLost              the connection broke or could not be made
    Timeout               a deadline passed without an answer
    ServerBusy            the server refused for now (too many sessions or handles)
  PermanentError          this file, this path: trying again changes nothing by itself
    NotFound              no such file or directory
    AlreadyExists         the destination exists and may not be replaced
    PermissionDenied      the server or the local system said no
    NoSpaceOnServer       the server's disk or quota is full
    NameRefused           a name that is unsafe, too long or not accepted
    SourceChanged         the source changed while it was being sent or fetched
    ProofFailed           what stands on the server is not what was sent
    Unsupported           the server does not offer what the operation needs
    ServerRefused         any other refusal; the text is the server's
  AuthenticationError     hold the whole server and tell the operator
    HostKeyUnknown        no known key: fails closed, the message says how to add it
    HostKeyMismatch       the key is not the known one, or it is revoked
    LoginRefused          wrong user, password or key
    CredentialsInvalid    a key file, passphrase or answer to a prompt cannot be had or used
    Incompatible          no common algorithm; the message lists what both sides offer
  LocalStateError         this device: tell the operator, keep the files
    JournalUnavailable    the journal cannot be opened, read or written
    DiskFull              no space left on a local disk
    SourceUnreadable      the disk does not give the source's bytes; other files are not concerned
  ConfigurationError      a setting is wrong; the message names it
  Cancelled               the caller asked to stop; what was sent is kept for a resume
  ProtocolError           the server broke the protocol; the connection is given up (a LinkLost)
"""

from __future__ import annotations

import errno

__all__ = [
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
    """The root: catch this to catch everything this package raises on purpose."""


SFTPError = TransferError
"""Its name in programs that know SFTP only."""


class TransientError(TransferError):
    """It may work when tried again."""


class LinkLost(TransientError):
    """The connection broke or could not be made."""


class ProtocolError(LinkLost):
    """The server sent what the protocol does not allow; the connection is given up."""


class Timeout(TransientError):
    """A deadline passed without an answer."""


class ServerBusy(TransientError):
    """The server refused for now."""


class PermanentError(TransferError):
    """Trying the same again changes nothing by itself."""


class NotFound(PermanentError):
    """No such file or directory."""


class AlreadyExists(PermanentError):
    """The destination exists and may not be replaced."""


class PermissionDenied(PermanentError):
    """The server or the local system said no."""


class NoSpaceOnServer(PermanentError):
    """The server's disk or quota is full."""


class NameRefused(PermanentError):
    """A name that is unsafe, too long or not accepted."""


class SourceChanged(PermanentError):
    """The source changed while it was being sent or fetched; nothing was published."""


class ProofFailed(PermanentError):
    """What stands on the server is not what was sent; nothing was published."""


class Unsupported(PermanentError):
    """The server does not offer what the operation needs."""


class ServerRefused(PermanentError):
    """Any other refusal; the text is the server's."""


class AuthenticationError(TransferError):
    """Who we are, or who the server is, could not be established."""


class HostKeyUnknown(AuthenticationError):
    """The server's key is in no list; the message says how to add it."""


class HostKeyMismatch(AuthenticationError):
    """The server's key is not the known one, or it is revoked."""


class LoginRefused(AuthenticationError):
    """The server refused the user, the password or the key."""


class CredentialsInvalid(AuthenticationError):
    """A key file or passphrase cannot be used, and nothing was sent; or there is no answer to what the server asks."""


class Incompatible(AuthenticationError):
    """The server and this client have no algorithm in common; trying again changes nothing."""


class LocalStateError(TransferError):
    """Something on this device is in the way; no file is lost."""


class JournalUnavailable(LocalStateError):
    """The journal cannot be opened, read or written."""


class DiskFull(LocalStateError):
    """No space left on a local disk."""


class SourceUnreadable(LocalStateError):
    """The local disk does not give this file's bytes; others may be fine."""


class ConfigurationError(TransferError):
    """A setting is wrong; the message names the key, the value and what is allowed."""


class Cancelled(TransferError):
    """The caller asked to stop; what was sent is kept for a resume."""


def is_gone(error: OSError) -> bool:
    """Whether the local system says that there is no such file or folder.

    Any other error (no permission, no descriptor left, a stale mount, a bad disk) leaves that unknown, and what is
    unknown is never taken for gone.
    """
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

"""Resumable, journaled SFTP transfers for devices behind bad links."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from iot.transfer._version import __version__
from iot.transfer.errors import (
    AccessRefused,
    AlreadyExists,
    AuthenticationError,
    Cancelled,
    ConfigurationError,
    CredentialsInvalid,
    DiskFull,
    HostKeyMismatch,
    HostKeyUnknown,
    Incompatible,
    JournalUnavailable,
    LinkLost,
    LocalStateError,
    LoginRefused,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermanentError,
    PermissionDenied,
    ProofFailed,
    ProtocolError,
    ServerBusy,
    ServerRefused,
    SFTPError,
    SourceChanged,
    SourceUnreadable,
    Timeout,
    TransferError,
    TransientError,
    Unsupported,
    is_gone,
)
from iot.transfer.model import (
    DownloadJob,
    Evidence,
    Failure,
    Fingerprint,
    LocalPath,
    LocalSource,
    Progress,
    ProgressCallback,
    Proof,
    RemoteEntry,
    RemoteFile,
    RemotePath,
    TransferResult,
    UploadJob,
)
from iot.transfer.terminal import TerminalSafeFormatter, terminal_safe

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient
    from iot.sftp.client.environment import ClientSettings
    from iot.sftp.client.keywords import ClientKeywords
    from iot.sftp.client.settings import ClientOptions, Durability, Verify, describe_errors
    from iot.sftp.server.embedded import EmbeddedServer
    from iot.transfer.journal.journal import Journal, Schema, default_state_dir
    from iot.transfer.trees.model import Act, Step, StepResult, TreePlan, TreeResult

logging.getLogger("iot.sftp").addHandler(logging.NullHandler())  # a library logs nothing unless asked to

__all__ = [
    "AccessRefused",
    "Act",
    "AlreadyExists",
    "AuthenticationError",
    "Cancelled",
    "ClientKeywords",
    "ClientOptions",
    "ClientSettings",
    "ConfigurationError",
    "CredentialsInvalid",
    "DiskFull",
    "DownloadJob",
    "Durability",
    "EmbeddedServer",
    "Evidence",
    "Failure",
    "Fingerprint",
    "HostKeyMismatch",
    "HostKeyUnknown",
    "Incompatible",
    "IoTSFTPClient",
    "Journal",
    "JournalUnavailable",
    "LinkLost",
    "LocalPath",
    "LocalSource",
    "LocalStateError",
    "LoginRefused",
    "NameRefused",
    "NoSpaceOnServer",
    "NotFound",
    "PermanentError",
    "PermissionDenied",
    "Progress",
    "ProgressCallback",
    "Proof",
    "ProofFailed",
    "ProtocolError",
    "RemoteEntry",
    "RemoteFile",
    "RemotePath",
    "SFTPError",
    "Schema",
    "ServerBusy",
    "ServerRefused",
    "SourceChanged",
    "SourceUnreadable",
    "Step",
    "StepResult",
    "TerminalSafeFormatter",
    "Timeout",
    "TransferError",
    "TransferResult",
    "TransientError",
    "TreePlan",
    "TreeResult",
    "Unsupported",
    "UploadJob",
    "Verify",
    "__version__",
    "default_state_dir",
    "describe_errors",
    "is_gone",
    "terminal_safe",
]


ON_FIRST_USE = {
    "iot.sftp.client.client": ("IoTSFTPClient",),
    "iot.sftp.client.environment": ("ClientSettings",),
    "iot.sftp.client.keywords": ("ClientKeywords",),
    "iot.sftp.client.settings": ("ClientOptions", "Durability", "Verify", "describe_errors"),
    "iot.sftp.server": ("EmbeddedServer",),
    "iot.transfer": ("Journal", "Schema", "default_state_dir"),
    "iot.transfer.trees.model": ("Act", "Step", "StepResult", "TreePlan", "TreeResult"),
}
"""The modules of names that need paramiko, pydantic or SQLite: a program only pays for what it uses."""


def __getattr__(name: str) -> Any:
    for module, names in ON_FIRST_USE.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

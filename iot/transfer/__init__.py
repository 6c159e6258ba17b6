"""Neutral ground: what every remote and the spooler share. Names no protocol, imports none."""

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
    IfExists,
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
    check_partial_name,
)
from iot.transfer.names import may_be_part
from iot.transfer.rate import Wire, parse_rate
from iot.transfer.remote_commands import RemoteCommand, RemoteCommands, Verb
from iot.transfer.terminal import (
    TerminalSafeFormatter,
    brief,
    counted_files,
    did_you_mean,
    human_bytes,
    in_our_words,
    terminal_safe,
)

if TYPE_CHECKING:
    from iot.transfer.configured import ConfiguredRemote
    from iot.transfer.journal.elsewhere import Elsewhere
    from iot.transfer.journal.journal import Journal, Schema, default_state_dir
    from iot.transfer.trees.model import Act, Step, StepResult, TreePlan, TreeResult

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library logs nothing unless asked to

__all__ = [
    "AccessRefused",
    "Act",
    "AlreadyExists",
    "AuthenticationError",
    "Cancelled",
    "ConfigurationError",
    "ConfiguredRemote",
    "CredentialsInvalid",
    "DiskFull",
    "DownloadJob",
    "Elsewhere",
    "Evidence",
    "Failure",
    "Fingerprint",
    "HostKeyMismatch",
    "HostKeyUnknown",
    "IfExists",
    "Incompatible",
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
    "RemoteCommand",
    "RemoteCommands",
    "RemoteEntry",
    "RemoteFile",
    "RemotePath",
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
    "Verb",
    "Wire",
    "__version__",
    "brief",
    "check_partial_name",
    "counted_files",
    "default_state_dir",
    "did_you_mean",
    "human_bytes",
    "in_our_words",
    "is_gone",
    "may_be_part",
    "parse_rate",
    "terminal_safe",
]

LATER = {
    "Act": "trees.model",
    "ConfiguredRemote": "configured",
    "Elsewhere": "journal.elsewhere",
    "Journal": "journal.journal",
    "Schema": "journal.journal",
    "Step": "trees.model",
    "StepResult": "trees.model",
    "TreePlan": "trees.model",
    "TreeResult": "trees.model",
    "default_state_dir": "journal.journal",
}
"""Loaded on first use: pydantic and SQLite cost a command its start that only looks around."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{LATER[name]}"), name)
    return value

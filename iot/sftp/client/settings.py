"""Every setting of the client, checked once; below this room they are plain values.

`ClientOptions` takes keywords only. `environment.ClientSettings` reads the same fields, and host, port, user and
password, from SFTP_<NAME> variables and a .env file: for the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from iot.sftp.client.ssh.capabilities import check_ciphers, check_congestion
from iot.transfer.errors import ConfigurationError
from iot.transfer.model import Proof

__all__ = ["ClientOptions", "Durability", "Options", "Verify", "describe_errors", "options_from"]

KIB = 1024
MIB = 1024 * KIB
BRIEF = 200
"""Characters of a key or a value that an error shows."""
MESSAGE = 1000
"""Characters of what is wrong with it, which may name it again."""


class Verify(str, Enum):
    """What decides, before a resume, that the source is still the one the part was made from."""

    SIZE = "size"
    TIMESTAMP = "timestamp"
    TAIL = "tail"
    FULL = "full"


class Durability(str, Enum):
    """FSYNC: the server confirms that bytes and name are on its disk. TRUST: an answered write is enough."""

    FSYNC = "fsync"
    TRUST = "trust"


class Options(BaseModel):
    model_config = ConfigDict(defer_build=True)  # only what is derived from it is used
    # -- who we are
    key_file: Path | None = Field(None, description="private key of any type (RSA, ECDSA, Ed25519, with certificate)")
    key_passphrase: SecretStr | None = Field(None, description="passphrase of key_file")
    agent: bool = Field(False, description="offer the keys of a running ssh-agent")
    prompt_file: Path | None = Field(
        None, description="answers to what the server asks beside the password, one a line in its order"
    )
    prompt_command: tuple[str, ...] = Field(
        (), description="command whose first line answers what the server asks beside the password, e.g. a TOTP code"
    )
    # -- who the server is
    known_hosts: Path | None = Field(None, description="known_hosts file; without it ~/.ssh/known_hosts")
    host_key: str | None = Field(
        None, description='pinned fingerprint of the host key, "SHA256:..."; known_hosts is not read'
    )
    # -- deadlines
    connect_timeout_s: float = Field(20.0, gt=0, description="seconds for TCP to connect, per address")
    link_deadline_s: float = Field(
        60.0, gt=0, description="seconds without one byte from the server until the link is dead"
    )
    server_reply_s: float = Field(
        600.0, gt=0, description="seconds the server may take for one answer while the link lives"
    )
    keepalive_s: float = Field(30.0, ge=0, description="seconds between keepalives on an idle connection; 0: none")
    attempts: int = Field(3, ge=1, description="attempts of one operation over lost links; progress resets the count")
    backoff_s: float = Field(1.0, ge=0, description="first wait between attempts, doubled each time, with jitter")
    backoff_cap_s: float = Field(60.0, ge=0, description="longest wait between attempts")
    # -- transfer
    part_suffix: str = Field(".part", description="ending of the name under which a file is sent until it is whole")
    chunk_size: int | None = Field(
        None, ge=KIB, le=16 * MIB, description="bytes of one request; without it from the server's limits and the rate"
    )
    slots: int = Field(1024, ge=1, le=4096, description="files in flight at most; half of it from 1 MiB together on")
    max_in_flight_bytes: int = Field(
        8 * MIB, ge=64 * KIB, description="bytes sent or asked for and not answered, at most"
    )
    make_dirs: bool = Field(True, description="make missing destination folders")
    keep_times: bool = Field(False, description="give the destination the source's modification time, best effort")
    keep_mode: bool = Field(False, description="give the destination the source's permission bits, best effort")
    replace_by_remove: bool = Field(
        False, description="where the server cannot rename over a file: remove the old one first (not atomic)"
    )
    direct_write: bool = Field(
        False, description="where the server refuses rename: write to the final name (not atomic, no resume)"
    )
    # -- trust
    verify: Verify = Field(
        Verify.TIMESTAMP, description="what must match before a resume: size, timestamp, tail or full"
    )
    proof: Proof = Field(Proof.SIZE, description="what is proven before publishing: size, tail or full")
    tail_size: int = Field(MIB, ge=1, description="bytes of a tail for verify and proof")
    server_durability: Durability = Field(
        Durability.FSYNC,
        description="fsync: wait until the server has it on disk, where it can; trust: answered is enough",
    )
    publish_grace_s: float = Field(
        30.0, ge=0, description="seconds until one more look at a final that no fsync confirmed"
    )
    sidecar: bool = Field(
        False, description="upload: also write <dest>.sha256, as sha256sum does; download: must match <source>.sha256"
    )
    checkpoint_bytes: int = Field(4 * MIB, ge=64 * KIB, description="a checkpoint at the latest after so many bytes")
    checkpoint_s: float = Field(10.0, gt=0, description="a checkpoint at the latest after so many seconds")
    stale_part_s: float = Field(
        24 * 3600.0, gt=0, description="parts of ours whose transfer was given up are removed after so many seconds"
    )
    # -- this device
    state_dir: Path | None = Field(
        None, description="folder of the journal; without it $STATE_DIRECTORY or ~/.local/state/iot-sftp"
    )
    owner_tag: str = Field("", description="mixed into part names, e.g. the device's id")
    # -- transport
    ciphers: tuple[str, ...] = Field(
        (), description="ciphers in order of preference; without it AES-GCM first where the processor has AES"
    )
    compression: bool = Field(False, description="SSH zlib compression")
    congestion: str | None = Field(None, description="TCP congestion control for this socket, e.g. bbr")

    @field_validator("ciphers", mode="before")
    @classmethod
    def _ciphers_from_text(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("prompt_command", mode="before")
    @classmethod
    def _words_from_text(cls, value: object) -> object:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @field_validator("ciphers")
    @classmethod
    def _known_ciphers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_ciphers(value)
        return value

    @field_validator("congestion")
    @classmethod
    def _usable_congestion(cls, value: str | None) -> str | None:
        if value:
            check_congestion(value)
        return value

    @field_validator("host_key")
    @classmethod
    def _pin_is_sha256(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("SHA256:"):
            raise ValueError('must look like "SHA256:4pg3...", as ssh-keygen -lf prints it')
        return value

    @field_validator("part_suffix")
    @classmethod
    def _suffix_is_a_name(cls, value: str) -> str:
        if not value or "/" in value or "\0" in value or len(value) > 32:
            raise ValueError("must be 1 to 32 characters without a slash")
        return value


class ClientOptions(Options):
    """All options of IoTSFTPClient beside host, port, user and password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: Callable[[str, bool], str] | None = Field(
        None,
        exclude=True,
        description="answers what the server asks beside the password: (prompt, echo) -> answer",
    )

    @model_validator(mode="after")
    def _one_answer(self) -> ClientOptions:
        if sum(map(bool, (self.prompts, self.prompt_command, self.prompt_file))) > 1:
            raise ValueError("give one of prompts, prompt_command and prompt_file")
        return self


def options_from(values: Mapping[str, Any]) -> ClientOptions:
    """Check keyword options. Raises: ConfigurationError naming every wrong one."""
    try:
        return ClientOptions(**values)
    except ValidationError as error:
        raise ConfigurationError("; ".join(describe_errors(error))) from None


def describe_errors(error: ValidationError) -> list[str]:
    """One line for each wrong setting: its key, what is wrong, and its value unless that could be a secret.

    Whatever has no known name could be a mistyped password.
    """
    return [_describe(dict(detail)) for detail in error.errors(include_url=False, include_context=False)]


def _describe(detail: dict[str, Any]) -> str:
    key = _brief(".".join(str(part) for part in detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such setting (what it was set to is not shown)"
    if not key:
        return _brief(detail["msg"].removeprefix("Value error, "), MESSAGE)
    shown = f" (got {_brief(repr(detail['input']))})" if _may_be_shown(key, detail) else ""
    return f"{key}: {_brief(detail['msg'], MESSAGE)}{shown}"


def _may_be_shown(key: str, detail: dict[str, Any]) -> bool:
    """A mapping holds other settings, too, and a value that is missing shows its neighbours."""
    secret = any(word in key.lower() for word in ("pass", "secret", "prompt"))
    return not secret and detail["type"] != "missing" and not isinstance(detail["input"], Mapping)


def _brief(text: str, most: int = BRIEF) -> str:
    return text if len(text) <= most else f"{text[:most]}..."

"""The settings that hold for every remote, checked once; below this room they are plain values."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from iot.sftp.client.jobs.context import Options
from iot.sftp.client.settings import Durability, Verify
from iot.transfer.model import Proof

__all__ = ["TransferSettings"]

KIB = 1024
MIB = 1024 * KIB


class TransferSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    attempts: int = Field(3, ge=1, description="attempts of one operation over lost links; progress resets the count")
    backoff_s: float = Field(1.0, ge=0, description="first wait between attempts, doubled each time, with jitter")
    backoff_cap_s: float = Field(60.0, ge=0, description="longest wait between attempts")
    part_suffix: str = Field(".part", description="ending of the name under which a file is sent until it is whole")
    make_dirs: bool = Field(True, description="make missing destination folders")
    keep_times: bool = Field(False, description="give the destination the source's modification time, best effort")
    keep_mode: bool = Field(False, description="give the destination the source's permission bits, best effort")
    replace_by_remove: bool = Field(
        False, description="where the server cannot rename over a file: remove the old one first (not atomic)"
    )
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
    state_dir: Path | None = Field(
        None, description="folder of the journal; without it $STATE_DIRECTORY or ~/.local/state/iot-sftp"
    )
    owner_tag: str = Field("", description="mixed into part names, e.g. the device's id")

    @field_validator("part_suffix")
    @classmethod
    def _suffix_is_a_name(cls, value: str) -> str:
        if not value or "/" in value or "\0" in value or len(value) > 32:
            raise ValueError("must be 1 to 32 characters without a slash")
        return value

    def plain(self, owner: str) -> Options:
        """As plain values. owner: of the state directory."""
        return Options(
            verify=self.verify.value,
            proof=self.proof,
            tail_size=self.tail_size,
            trust=self.server_durability is Durability.TRUST,
            part_suffix=self.part_suffix,
            owner=owner + self.owner_tag,
            make_dirs=self.make_dirs,
            keep_times=self.keep_times,
            keep_mode=self.keep_mode,
            replace_by_remove=self.replace_by_remove,
            sidecar=self.sidecar,
            checkpoint_bytes=self.checkpoint_bytes,
            checkpoint_s=self.checkpoint_s,
            publish_grace_s=self.publish_grace_s,
        )

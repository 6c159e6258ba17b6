"""The settings of transfers as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from iot.transfer.model import Proof, UploadJob

__all__ = ["TransferOptions"]


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """For the meaning see settings.TransferSettings, and the settings of a remote for those that only it has."""

    verify: str = "timestamp"
    proof: Proof = Proof.SIZE
    tail_size: int = 1024 * 1024
    trust: bool = False
    chunk_size: int | None = None
    part_suffix: str = ".part"
    exact_part: bool = False
    owner: str = ""
    make_dirs: bool = True
    keep_times: bool = False
    keep_mode: bool = False
    replace_by_remove: bool = False
    direct_write: bool = False
    sidecar: bool = False
    sha256: bool = False
    resume: bool = True
    checkpoint_bytes: int = 4 * 1024 * 1024
    checkpoint_s: float = 10.0
    publish_grace_s: float = 30.0

    def exact_suffix(self, job: UploadJob) -> str | None:
        """What the part has behind the destination's name; None if its name says whose it is, as usual."""
        return job.part_suffix or (self.part_suffix if self.exact_part else None)

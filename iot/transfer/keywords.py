"""The options of a client as keywords: written by `python tests/settings_reference.py`, not by hand."""

from __future__ import annotations

import os
from typing import Literal, TypedDict

from iot.transfer.model import Proof
from iot.transfer.settings import Durability, PartName, Verify

__all__ = ["TransferKeywords"]


class TransferKeywords(TypedDict, total=False):
    """See TransferSettings, which checks the values."""

    attempts: int
    """attempts of one operation over lost links; progress resets the count (default: 3)"""

    backoff_s: float
    """seconds of the first wait between attempts, doubled each time, with jitter (default: 1.0)"""

    backoff_cap_s: float
    """seconds of the longest wait between attempts (default: 60.0)"""

    max_rate: float | str | None
    """bytes/s that the wire carries at most (or "2 Mbit/s"), headers and retransmissions included"""

    part_suffix: str
    """ending of the name under which a file is sent until it is whole; 1 to 32 characters, no slash (default:
    '.part')"""

    part_name: PartName | Literal["owned", "exact"]
    """owned: that name is <dest>.<8 hex digits><part_suffix>; exact: <dest><part_suffix>, if it is free (default:
    'owned')"""

    make_dirs: bool
    """upload: make missing destination folders (default: True)"""

    keep_times: bool
    """copy the source's modification time to the destination, best effort (default: False)"""

    keep_mode: bool
    """copy the source's permission bits to the destination, best effort (default: False)"""

    replace_by_remove: bool
    """if the server cannot rename over a file, remove the old one first (not atomic) (default: False)"""

    verify: Verify | Literal["size", "timestamp", "tail", "full"]
    """what must match before a resume: size, timestamp, tail or full (default: 'timestamp')"""

    proof: Proof | Literal["size", "tail", "full"]
    """what is verified before publishing: size, tail or full (default: 'size')"""

    tail_size: int
    """bytes of a tail for verify and proof (default: 1048576)"""

    server_durability: Durability | Literal["fsync", "trust"]
    """fsync: wait until data is on the server's disk, where it can tell; trust: answered is enough (default:
    'fsync')"""

    publish_grace_s: float
    """seconds before a published file that no fsync confirmed is checked once more (default: 30.0)"""

    sidecar: bool
    """upload: also write <dest>.sha256, as sha256sum does; download: must match <source>.sha256 (default: False)"""

    checkpoint_bytes: int
    """the most bytes between two checkpoints; of a fast download, four times that (default: 4194304)"""

    checkpoint_s: float
    """the most seconds between two checkpoints (default: 10.0)"""

    stale_part_s: float
    """remove our own parts of abandoned uploads after this many seconds (default: 86400.0)"""

    state_dir: str | os.PathLike[str] | None
    """journal directory; default: $STATE_DIRECTORY, else ~/.local/state/iot-sftp"""

    owner_tag: str
    """mixed into part names, e.g. the device's id"""

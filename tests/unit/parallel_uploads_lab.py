"""Uploads through workers to a faulty store: what their tests share."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.errors import LinkLost
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Direction, Failure, UploadJob
from iot.transfer.remote import Ack

__all__ = ["LARGE", "again", "content", "cut_short", "known", "make_files", "not_durable", "parts", "upload"]

LARGE = 9 * 1024 * 1024
"""Three writes of a folder."""


def upload(remote, source, dest="to/file", **job):
    outcome = remote.upload(UploadJob(source, dest, **job))
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def content(tmp_path: Path, name: str = "to/file") -> bytes | None:
    path = tmp_path / "far" / name
    return path.read_bytes() if path.exists() else None


def parts(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "far").rglob("*.part")]


def known(tmp_path: Path, source: Path, dest: bytes = b"to/file"):
    journal = Journal(tmp_path / "state", CHECKPOINTS)
    try:
        checkpoints = Checkpoints(journal, "far", every_bytes=1, every_s=1, clock=time.monotonic)
        return checkpoints.load(Direction.UPLOAD, dest, os.fsencode(source))
    finally:
        journal.close()


def cut_short(tmp_path, source, **settings):
    """An upload that was lost with one or two writes answered -> its part."""
    faults = Faults(before={("write", number): LinkLost("cut") for number in range(2, 9)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=1, **settings)
    with pytest.raises(LinkLost):
        upload(remote, source)
    remote.close()
    [part] = (tmp_path / "far").rglob("*.part")
    return part


def again(tmp_path, source, faults=None, **settings):
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, **settings)
    try:
        return upload(remote, source)
    finally:
        remote.close()


def not_durable() -> Faults:
    return Faults(answer={"write": lambda ack: Ack(ack.end), "publish": lambda _: False})


def make_files(tmp_path: Path, count: int) -> list[UploadJob]:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).write_bytes(b"%d" % number * (number % 50))
    return [UploadJob(folder / str(number), f"to/{number}", key=number) for number in range(count)]

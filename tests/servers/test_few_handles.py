"""A server that lets few files and folders be open at a time, and says so only by a plain FAILURE: all goes through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko import Message
from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import DownloadJob, Failure, IoTSFTPClient, UploadJob
from iot.sftp.server.protocol import FAILURE, Reply

HANDLES = 4
FILES = 40
FOLDERS = 120


class FewHandles(Quirk):
    def on_open(self, message: Message) -> Reply:
        self.check_few()
        return super().on_open(message)

    def on_opendir(self, message: Message) -> Reply:
        self.check_few()
        return super().on_opendir(message)

    def check_few(self) -> None:
        if len(self.handles) >= HANDLES:
            self.refuse(FAILURE, "Failure")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Misbehaving]:
    with Misbehaving(tmp_path / "root", FewHandles) as running:
        yield running


def client(server: Misbehaving, tmp_path: Path, **options: Any) -> IoTSFTPClient:
    return IoTSFTPClient(**{**server.login(), "state_dir": tmp_path / "state", **options})


HOW = pytest.mark.parametrize("options", [{}, {"proof": "full"}, {"proof": "tail"}, {"sidecar": True}], ids=str)


@HOW
def test_every_file_is_sent_and_proven(server: Misbehaving, tmp_path: Path, options: dict[str, Any]) -> None:
    jobs = []
    for number in range(FILES):
        (tmp_path / f"{number}").write_bytes(b"%d" % number * 10_000)
        jobs.append(UploadJob(tmp_path / f"{number}", server.path(f"up/{number}")))
    with client(server, tmp_path, **options) as uploads:
        outcomes = list(uploads.upload_many(jobs))
    assert [outcome for outcome in outcomes if isinstance(outcome, Failure) or not outcome.durable] == []
    assert server.hits
    for number in range(FILES):
        assert server.content(f"up/{number}") == b"%d" % number * 10_000


@HOW
def test_every_file_is_fetched_and_proven(server: Misbehaving, tmp_path: Path, options: dict[str, Any]) -> None:
    for number in range(FILES):
        content = b"%d" % number * 10_000
        (server.root / f"{number}").write_bytes(content)
        (server.root / f"{number}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {number}\n")
    jobs = [DownloadJob(server.path(f"{number}"), tmp_path / f"{number}") for number in range(FILES)]
    with client(server, tmp_path, **options) as downloads:
        failed = [outcome for outcome in downloads.download_many(jobs) if isinstance(outcome, Failure)]
    assert failed == []
    assert server.hits
    assert all((tmp_path / f"{number}").read_bytes() == b"%d" % number * 10_000 for number in range(FILES))


def test_every_folder_is_listed_with_ever_fewer_at_a_time(server: Misbehaving, tmp_path: Path) -> None:
    for number in range(FOLDERS):
        (server.root / "tree" / f"{number}").mkdir(parents=True)
        (server.root / "tree" / f"{number}" / "file").write_bytes(b"content")
    with client(server, tmp_path) as downloads:
        list(downloads.download_dir(server.path("tree"), tmp_path / "here"))
    assert 0 < server.hits < 8 * FOLDERS, "half as many after each flight of refusals"
    assert len(list((tmp_path / "here").rglob("file"))) == FOLDERS

"""Parts on the server whose transfer was given up: ours go after a day, others never."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults.proxy import BadLink, Fault
from servers.openssh import OpenSSH

from iot.sftp.client import IoTSFTPClient, LinkLost, stale

SIZE = 2 * 1024 * 1024
SMALL = 30_000
DAY_S = 86400
FOREIGN = "up/large.0badcafe.part"


class Interrupted:
    """An upload that lost its link halfway, beside a part of somebody else."""

    def __init__(self, server: OpenSSH, link: BadLink, folder: Path) -> None:
        self.server, self.link, self.folder = server, link, folder
        self.source = folder / "large"
        self.source.write_bytes(os.urandom(SIZE))
        (server.root / "up").mkdir()
        (server.root / FOREIGN).write_bytes(b"of another device")

    def client(self, **options: Any) -> IoTSFTPClient:
        login = {**self.server.login(), "sftp_port": self.link.port, "known_hosts": None}
        login["host_key"] = self.server.host_key
        return IoTSFTPClient(**{**login, "state_dir": self.folder / "state", "attempts": 1, **options})

    def interrupt(self, **options: Any) -> list[str]:
        """-> what is on the server then, but for the foreign part"""
        with self.client(**options) as client, pytest.raises(LinkLost):
            client.upload(self.source, self.server.path("up/large"))
        return self.names()

    def names(self) -> list[str]:
        names = self.server.names()
        assert FOREIGN in names
        return [name for name in names if name != FOREIGN]


@pytest.fixture
def upload(sshd: OpenSSH, tmp_path: Path) -> Iterator[Interrupted]:
    script = [Fault("cut", up_bytes=SIZE // 2)]
    with BadLink(sshd.host, sshd.port, rate_bps=50e6, script=script) as link:
        yield Interrupted(sshd, link, tmp_path)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(stale, "time", SimpleNamespace(time=lambda: time.time() + seconds))


def test_the_part_of_a_source_that_is_gone_is_removed_after_a_day_and_no_other(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    [part] = upload.interrupt()
    assert part.endswith(".part")
    upload.source.unlink()
    later(monkeypatch, DAY_S - 60)
    upload.client().connect()
    assert upload.names() == [part]
    later(monkeypatch, DAY_S + 60)
    upload.client().connect()
    assert upload.names() == []


def test_the_part_of_a_source_that_is_another_version_is_removed(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload.interrupt()
    upload.source.write_bytes(b"shorter")
    later(monkeypatch, DAY_S + 60)
    upload.client().connect()
    assert upload.names() == []


def test_the_part_of_a_small_file_that_was_withdrawn_is_removed_too(
    sshd: OpenSSH, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BadLink(sshd.host, sshd.port, script=[Fault("cut", up_bytes=SMALL // 2)]) as link:
        upload = Interrupted(sshd, link, tmp_path)
        upload.source.write_bytes(os.urandom(SMALL))
        [part] = upload.interrupt()
        upload.source.unlink()
        with upload.client() as client:
            client.give_up([(str(upload.source), upload.server.path("up/large"))])
            client.connect()
            assert upload.names() == [part]
        later(monkeypatch, DAY_S + 60)
        upload.client().connect()
        assert upload.names() == []


def test_a_part_that_can_still_be_gone_on_with_stays_however_old(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = upload.interrupt()
    later(monkeypatch, 400 * DAY_S)
    with upload.client() as client:
        client.connect()
        assert upload.names() == parts
        assert client.upload(upload.source, upload.server.path("up/large")).resumed_at > 0
    assert upload.names() == ["up/large"]


def test_a_final_that_was_written_directly_is_no_part_and_never_removed(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have put a whole file there since."""
    assert upload.interrupt(direct_write=True) == ["up/large"]
    (upload.server.root / "up/large").write_bytes(b"whole, of somebody else")
    upload.source.unlink()
    later(monkeypatch, DAY_S + 60)
    upload.client(direct_write=True).connect()
    assert upload.server.content("up/large") == b"whole, of somebody else"

"""Parts on the server whose transfer was given up: ours go after a day, others never."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults.proxy import BadLink, Fault
from servers.openssh import OpenSSH
from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import IoTSFTPClient, LinkLost, UploadJob, uploads
from iot.sftp.server.protocol import PERMISSION_DENIED, RequestRefused
from iot.transfer import abandoned_parts

SIZE = 2 * 1024 * 1024
SMALL = 30_000
DAY_S = 86400
FOREIGN = "up/large.0badcafe.part"
OTHER = "up/other"


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

    def send_another(self, **options: Any) -> None:
        """What is abandoned is removed beside an upload."""
        other = self.folder / "other"
        other.write_bytes(b"another")
        with self.client(**options) as client:
            client.upload(other, self.server.path(OTHER))

    def names(self) -> list[str]:
        names = self.server.names()
        assert FOREIGN in names
        return [name for name in names if name not in (FOREIGN, OTHER)]


@pytest.fixture
def upload(sshd: OpenSSH, tmp_path: Path) -> Iterator[Interrupted]:
    script = [Fault("cut", up_bytes=SIZE // 2)]
    with BadLink(sshd.host, sshd.port, rate_bps=50e6, script=script) as link:
        yield Interrupted(sshd, link, tmp_path)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(uploads, "time", SimpleNamespace(time=lambda: time.time() + seconds))


def test_the_part_of_a_source_that_is_gone_is_removed_after_a_day_and_no_other(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    [part] = upload.interrupt()
    assert part.endswith(".part")
    upload.source.unlink()
    later(monkeypatch, DAY_S - 60)
    upload.send_another()
    assert upload.names() == [part]
    later(monkeypatch, DAY_S + 60)
    upload.send_another()
    assert upload.names() == []


def test_the_part_of_a_source_that_is_another_version_is_removed(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload.interrupt()
    upload.source.write_bytes(b"shorter")
    later(monkeypatch, DAY_S + 60)
    upload.send_another()
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
            assert upload.names() == [part]
        later(monkeypatch, DAY_S + 60)
        upload.send_another()
        assert upload.names() == []


def test_a_part_that_can_still_be_gone_on_with_stays_however_old(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = upload.interrupt()
    later(monkeypatch, 400 * DAY_S)
    upload.send_another()
    assert upload.names() == parts
    with upload.client() as client:
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
    upload.send_another(direct_write=True)
    assert upload.server.content("up/large") == b"whole, of somebody else"


class Removals(Quirk):
    """Notes what is asked in which order, and may leave REMOVE unanswered for long or refuse it."""

    pause_s = 0.0
    refused = False

    def on_open(self, message: Any) -> Any:
        self.server.asked.append("open")
        return super().on_open(message)

    def on_remove(self, message: Any) -> Any:
        self.server.asked.append("remove")
        if self.pause_s:
            time.sleep(self.pause_s)
        if self.refused:
            raise RequestRefused(PERMISSION_DENIED, "not now")
        return super().on_remove(message)


class Site:
    """Many parts that were abandoned a day ago, on a server that notes what is asked."""

    PARTS = 40

    def __init__(self, server: Misbehaving, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.source = folder / "source"
        self.source.write_bytes(b"content")

    @property
    def asked(self) -> list[str]:
        return self.server.asked  # type: ignore[attr-defined,no-any-return]

    def client(self, **options: Any) -> IoTSFTPClient:
        login = {**self.server.login(), "host_key": self.server.host_key, "known_hosts": None}
        return IoTSFTPClient(**login, state_dir=self.folder / "state", attempts=1, **options)

    def abandon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with self.client() as client:
            client.give_up([(f"/gone/{number}", f"part{number}") for number in range(self.PARTS)])
        later(monkeypatch, DAY_S + 60)

    def left(self) -> int:
        """Records of parts that may still be there."""
        with self.client() as client:
            client._runner._books.open()
            assert client._runner._books.is_open
            return len(client._runner._books.checkpoints.abandoned_before(time.time() + DAY_S))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Misbehaving(tmp_path / "root", Removals) as server:
        server.asked = []  # type: ignore[attr-defined]
        yield Site(server, tmp_path)


def test_the_first_upload_does_not_wait_for_abandoned_parts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.abandon(monkeypatch)
    with site.client() as client:
        client.upload(site.source, "file")
    assert site.asked[0] == "open"
    assert "remove" in site.asked
    assert 0 < site.left() < site.PARTS, "a few at a time"


def test_all_abandoned_parts_are_removed_beside_uploads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.abandon(monkeypatch)
    with site.client() as client:
        for number in range(site.PARTS):
            client.upload(site.source, f"file{number}")
            if site.asked.count("remove") >= site.PARTS:
                break
    assert site.left() == 0
    assert site.asked.count("remove") == site.PARTS


def test_a_cancel_during_the_removal_keeps_the_records_of_what_may_still_be_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.abandon(monkeypatch)
    site.server.quirk.pause_s = 5.0
    with site.client() as client:

        def tick() -> None:
            if "remove" in site.asked:
                client.cancel()

        [*client.upload_many([UploadJob(site.source, "file")], tick=tick)]
    assert site.left() == site.PARTS
    site.server.quirk.pause_s = 0.0
    with site.client() as client:
        while site.left() and len(site.asked) < 20 * site.PARTS:
            client.upload(site.source, "file")
    assert site.left() == 0


def test_a_removal_that_is_refused_is_tried_again_on_a_later_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.abandon(monkeypatch)
    site.server.quirk.refused = True
    with site.client() as client:
        for number in range(5):
            client.upload(site.source, f"file{number}")
    assert site.left() == site.PARTS
    site.server.quirk.refused = False
    for number in range(5):
        with site.client() as client:
            client.upload(site.source, f"again{number}")
    assert site.left() == 0


def test_a_slow_removal_lets_the_callers_tick_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog hangs on it."""
    site.abandon(monkeypatch)
    site.server.quirk.pause_s = 0.1
    ticks: list[float] = []
    removing: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if "remove" in site.asked and not removing:
            removing.append(ticks[-1])

    with site.client() as client:
        [*client.upload_many([UploadJob(site.source, "file")], tick=tick)]
    assert site.asked.count("remove") > 5
    assert len([tick for tick in ticks if tick > removing[0]]) >= 4, "1.6 s of removals, a tick each 0.25 s"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_source_that_cannot_be_looked_at_is_not_taken_for_gone(
    number: int, upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = upload.interrupt()
    later(monkeypatch, DAY_S + 60)
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if os.fsencode(path) == os.fsencode(upload.source):
            raise OSError(number, os.strerror(number))
        return real(path, **options)

    monkeypatch.setattr(abandoned_parts.os, "stat", stat)
    upload.send_another()
    assert upload.names() == parts


def test_a_part_that_is_being_written_again_is_not_removed(
    upload: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version of a source goes to the same part as the abandoned one."""
    upload.interrupt()
    upload.source.write_bytes(os.urandom(SIZE))
    later(monkeypatch, DAY_S + 60)
    with upload.client() as client:
        client.upload(upload.source, upload.server.path("up/large"))
    assert upload.names() == ["up/large"]
    assert upload.server.content("up/large") == upload.source.read_bytes()

"""Whatever a server does wrong: what stands under the final name is whole, or nothing does and the error says why.

OUTCOMES has a row for each misbehaviour: a file that arrives, perhaps after another attempt, or the error that is told.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink, Fault
from servers.misbehaving import (
    MISBEHAVIOURS,
    FourHandles,
    GarbledExtras,
    LosesTail,
    MovesAway,
    WithoutExtension,
    WriteOnly,
    ZeroFills,
)
from servers.misbehaving_answers import DropsIdle, LateClose, LateExtensions, NewHostKey, StopsReading
from servers.quirks import Misbehaving

from iot.sftp.client import (
    AlreadyExists,
    HostKeyMismatch,
    IoTSFTPClient,
    LinkLost,
    NoSpaceOnServer,
    PermissionDenied,
    ServerRefused,
    SFTPError,
    Timeout,
    TransferResult,
    UploadJob,
)

ARRIVES = None
SIZE = 2 * 1024 * 1024
BLOCK = 32 * 1024

OUTCOMES: dict[str, type[SFTPError] | None] = {
    "refuses an open without truncation (status 8)": ARRIVES,
    "refuses an open without truncation (status 4)": ARRIVES,
    "refuses rename": PermissionDenied,
    "refuses rename over an existing file": ARRIVES,
    "has no posix-rename": ARRIVES,
    "has no fsync": ARRIVES,
    "has no extension at all": ARRIVES,
    "tells no size": ARRIVES,
    "fails CLOSE": ServerRefused,
    "fails the 40th WRITE": ServerRefused,
    "writes short when the disk is full": NoSpaceOnServer,
    "answers its extensions with garbage": ARRIVES,
    "answers out of order": ARRIVES,
    "answers late": ARRIVES,
    "answers twice": LinkLost,
    "answers an id never asked": ARRIVES,
    "sends garbage": ARRIVES,
    "sends an over-long packet": ARRIVES,
    "has four handles": ARRIVES,
    "drops idle connections": ARRIVES,
    "loses the tail in a crash": ARRIVES,
    "zero-fills a block in a crash": ARRIVES,
    "moves the file away when it is complete": ARRIVES,
    "answers CLOSE after three times the link's deadline": ARRIVES,
    "answers fsync, rename and hash late": ARRIVES,
    "stops reading while alive": ARRIVES,
    "refuses reads": ARRIVES,
    "presents another host key the second time": ARRIVES,
}
BRIEF: dict[type, dict[str, Any]] = {
    StopsReading: {"pause_s": 2.0, "after": 10},
    LateClose: {"delay_s": 3.0},
    LateExtensions: {"delay_s": 0.3},
}


def connect(server: Misbehaving, tmp_path: Path, **changes: Any) -> IoTSFTPClient:
    options = {**server.login(), "state_dir": tmp_path / "state", "backoff_s": 0.05, "chunk_size": BLOCK, "attempts": 2}
    return IoTSFTPClient(**{**options, **changes})


def make(tmp_path: Path, size: int = SIZE) -> bytes:
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    return content


def test_every_misbehaviour_has_its_row():
    assert set(OUTCOMES) == set(MISBEHAVIOURS)


@pytest.mark.parametrize("said", OUTCOMES)
def test_it_arrives_whole_or_the_error_says_why(said, tmp_path):
    quirk = MISBEHAVIOURS[said]
    content = make(tmp_path)
    with Misbehaving(tmp_path / "root", quirk, **BRIEF.get(quirk, {})) as server:
        with connect(server, tmp_path) as client:
            if OUTCOMES[said] is ARRIVES:
                client.upload(tmp_path / "source", server.path("file"))
                name = ".taken/file" if quirk is MovesAway else "file"
                assert server.content(name) == content
            else:
                with pytest.raises(OUTCOMES[said]):
                    client.upload(tmp_path / "source", server.path("file"))
                assert server.content("file") is None
        server.active = False
        if quirk is NewHostKey:
            return  # the key stays another one: see below
        with connect(server, tmp_path) as client:  # once it behaves, the file arrives: nothing is stuck
            client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == content
        assert [name for name in server.names() if ".part" in name] == []


@pytest.mark.parametrize("quirk", [LosesTail, ZeroFills])
def test_after_a_server_crash_only_what_it_lost_is_sent_again(quirk, tmp_path):
    content = make(tmp_path, 8 * 1024 * 1024)
    with Misbehaving(tmp_path / "root", quirk, after=4 * 1024 * 1024) as server, connect(server, tmp_path) as client:
        result = client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == content
        assert server.hits
    assert result.resumed_at > 0
    # and what was under way, which a busy server had not read; from the start it would be 4 MiB more
    assert result.sent_bytes < len(content) + 3.5 * 1024 * 1024


def test_a_part_that_may_not_be_resumed_is_started_over_and_remembered(tmp_path):
    content = make(tmp_path)
    quirk = MISBEHAVIOURS["refuses an open without truncation (status 8)"]
    with Misbehaving(tmp_path / "root", quirk) as server:
        script = [Fault("cut", up_bytes=SIZE // 2)]
        with BadLink(server.host, server.port, rate_bps=50e6, script=script) as link:
            changes = {"sftp_port": link.port, "known_hosts": None, "host_key": server.host_key}
            with connect(server, tmp_path, **changes) as client:
                result = client.upload(tmp_path / "source", server.path("file"))
                assert {what.value for what in client._runner.links.session().server.refused} == {"resume"}
        assert (result.resumed_at, server.content("file")) == (0, content)
        with connect(server, tmp_path) as client:
            client.connect()
            assert {what.value for what in client._runner.links.session().server.refused} == {"resume"}


class DropBox(WriteOnly, WithoutExtension):
    """What it had synced would need no reading back."""

    without = (b"fsync@openssh.com",)


def test_a_drop_box_gets_a_fresh_upload_instead_of_an_unproven_resume(tmp_path):
    content = make(tmp_path)
    with Misbehaving(tmp_path / "root", DropBox) as server:
        script = [Fault("cut", up_bytes=SIZE // 2)]
        with BadLink(server.host, server.port, rate_bps=50e6, script=script) as link:
            changes = {"sftp_port": link.port, "known_hosts": None, "host_key": server.host_key}
            with connect(server, tmp_path, **changes) as client:
                result = client.upload(tmp_path / "source", server.path("file"))
        assert (result.resumed_at, server.content("file")) == (0, content)


def test_a_server_that_cannot_replace_leaves_the_old_file_alone_unless_told(tmp_path):
    make(tmp_path)
    with Misbehaving(tmp_path / "root", MISBEHAVIOURS["has no posix-rename"]) as server:
        with connect(server, tmp_path) as client:
            client.upload(tmp_path / "source", server.path("file"))
            old = server.content("file")
            new = make(tmp_path)
            with pytest.raises(AlreadyExists, match="replace_by_remove"):
                client.upload(tmp_path / "source", server.path("file"))
            assert server.content("file") == old
        with connect(server, tmp_path, replace_by_remove=True) as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == new


def test_a_file_that_is_moved_onto_itself_is_never_removed_first(tmp_path):
    content = make(tmp_path)
    with (
        Misbehaving(tmp_path / "root", MISBEHAVIOURS["has no posix-rename"]) as server,
        connect(server, tmp_path, replace_by_remove=True) as client,
    ):
        client.upload(tmp_path / "source", server.path("d/file"))
        for same in ("d/file", "d/../d/file", "./d//file"):
            with pytest.raises(AlreadyExists, match="the same file"):
                client.move(server.path("d/file"), server.path(same))
            assert server.content("d/file") == content
        client.move(server.path("d/file"), server.path("d/FILE"))
        assert server.content("d/FILE") == content


def test_a_server_that_refuses_rename_can_be_written_to_directly(tmp_path):
    content = make(tmp_path)
    with Misbehaving(tmp_path / "root", MISBEHAVIOURS["refuses rename"]) as server:
        with connect(server, tmp_path, direct_write=True) as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == content


def test_a_server_with_four_handles_takes_many_files(tmp_path):
    with Misbehaving(tmp_path / "root", FourHandles) as server, connect(server, tmp_path) as client:
        jobs = []
        for number in range(40):
            (tmp_path / str(number)).write_bytes(os.urandom(100))
            jobs.append(UploadJob(tmp_path / str(number), server.path(str(number))))
        outcomes = list(client.upload_many(jobs))
        assert all(isinstance(outcome, TransferResult) for outcome in outcomes), outcomes
        assert len(server.names()) == 40


def test_an_idle_connection_that_was_dropped_is_made_again(tmp_path):
    with Misbehaving(tmp_path / "root", DropsIdle, idle_s=0.3) as server, connect(server, tmp_path) as client:
        assert client.exists(server.path("file")) is False
        time.sleep(0.8)
        assert client.exists(server.path("file")) is False
        assert server.hits


def test_another_host_key_the_second_time_stops_everything(tmp_path):
    with Misbehaving(tmp_path / "root", NewHostKey) as server, connect(server, tmp_path) as client:
        client.connect()
        client.disconnect()
        with pytest.raises(HostKeyMismatch):
            client.exists(server.path("file"))


@pytest.mark.parametrize(("quirk", "delay_s"), [(LateClose, 7.0), (LateExtensions, 4.0)])
def test_a_slow_answer_is_not_a_dead_link(quirk, delay_s, tmp_path):
    content = make(tmp_path, 1000)
    with Misbehaving(tmp_path / "root", quirk, delay_s=delay_s) as server:
        with connect(server, tmp_path, link_deadline_s=3.0, attempts=1, proof="full") as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == content


@pytest.mark.parametrize("quirk", [LateClose, LateExtensions])
def test_a_server_that_does_not_answer_is_given_up_at_its_own_deadline(quirk, tmp_path):
    make(tmp_path, 1000)
    with (
        Misbehaving(tmp_path / "root", quirk, delay_s=8.0) as server,
        connect(server, tmp_path, server_reply_s=1.0, attempts=1) as client,
    ):
        began = time.monotonic()
        with pytest.raises(Timeout, match="no answer for 1 s"):
            client.upload(tmp_path / "source", server.path("file"))
        assert 1.0 <= time.monotonic() - began < 7.0


def test_a_live_server_that_stops_reading_costs_no_attempt(tmp_path):
    content = make(tmp_path, 8 * 1024 * 1024)
    with Misbehaving(tmp_path / "root", StopsReading, pause_s=20.0) as server:
        with connect(server, tmp_path, attempts=1) as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert server.content("file") == content


def test_extensions_that_answer_garbage_count_as_not_offered(tmp_path):
    """limits, check-file, and statvfs after the third WRITE has failed: one connection, one attempt, a true error."""
    content = make(tmp_path, 3 * 1024 * 1024)
    with Misbehaving(tmp_path / "root", GarbledExtras, which=3) as server:
        with connect(server, tmp_path, attempts=1, proof="full") as client:
            with pytest.raises(ServerRefused, match="this block was not written"):
                client.upload(tmp_path / "source", server.path("file"))
            session = client._runner.links.session()
            assert not session.server.tells_free_space
            result = client.upload(tmp_path / "source", server.path("file"))
            assert client._runner.links.session() is session
        assert (result.proof.value, server.content("file")) == ("full", content)
        assert server.hits >= 4

"""How an upload over a store ends: digests, what is on record before the name is given, and sessions."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import SessionSide
from unit.store_upload_lab import CONTENT, NOT_DURABLE, StoreLab

from iot.transfer.errors import LinkLost
from iot.transfer.model import Phase
from iot.transfer.parallel.work import Barrier, Linger
from iot.transfer.source import Source

SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def lab(tmp_path: Path) -> StoreLab:
    return StoreLab(tmp_path)


# -- digests, and the end


@pytest.mark.parametrize(
    ("options", "job", "is_told"),
    [({}, {}, False), ({"sha256": True}, {}, True), ({"sidecar": True}, {}, True), ({}, {"digest": True}, True)],
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_digest_is_told_to_whom_asks_for_it_and_a_checksum_file_written_only_by_setting(
    lab, options, job, is_told, is_there
):
    if is_there:
        (lab.far / "file").write_bytes(CONTENT)
    lab.options, lab.job = options, {**job, "check_final": is_there}
    result = lab.run()
    assert (result.sha256, result.already_done) == (SHA256 if is_told else None, is_there)
    assert ("file.sha256" in lab.there()) is ("sidecar" in options)


def test_a_source_is_hashed_once_whatever_it_is_hashed_for(lab, monkeypatch):
    real, times = Source.sha256, []

    def sha256(self: Source) -> Any:
        times.append(1)
        return real(self)

    monkeypatch.setattr(Source, "sha256", sha256)
    lab.options, lab.job = {"sidecar": True, "sha256": True}, {"digest": True, "sent_before": "0" * 64}
    lab.run()
    assert times == [1]


def test_an_answer_to_the_publish_that_was_lost_costs_a_look_and_no_byte(lab):
    lab.again(after={("publish", 0): LinkLost("cut")})
    with pytest.raises(LinkLost):
        lab.run()
    known = lab.commands[-1].record
    assert known.phase is Phase.PUBLISHING
    lab.again()
    result = lab.run(known)
    assert (result.already_done, result.sent_bytes, result.durable) == (True, 0, True)
    assert lab.faults.counts["abandon"] == 0


def test_while_a_published_file_is_waited_for_its_source_is_not_open(lab):
    lab.faults.answer = NOT_DURABLE
    lab.job, lab.options = {"grace": True}, {"publish_grace_s": 7.0}

    def look(command: Any) -> None:
        if isinstance(command, Linger):
            seen.append((command.seconds, lab.upload.source._file.closed))

    seen: list[Any] = []
    lab.at_command = look
    lab.run()
    assert seen == [(7.0, True)]


def test_the_last_thing_on_record_before_the_name_is_given_is_all_of_it(lab):
    lab.run()
    last = lab.commands[-1]
    assert isinstance(last, Barrier)
    assert (last.record.acked_bytes, last.record.synced_bytes, last.record.suspect) == (len(CONTENT), len(CONTENT), ())
    assert last.record.local_path == os.fsencode(lab.path)


# -- sessions


def test_even_a_small_session_is_on_record_before_its_first_byte_so_that_it_can_be_ended(tmp_path: Path):
    side = SessionSide(multiple=1024)
    lab = StoreLab(tmp_path, make=side.store)
    lab.faults.capabilities = {}
    lab.write(CONTENT[:1000])
    lab.run()
    assert lab.commands[0].record.token == b"session-1"
    assert side.files == {b"file": CONTENT[:1000]}


def test_another_version_ends_the_session_of_the_one_before(tmp_path: Path):
    side = SessionSide(multiple=1024)
    lab = StoreLab(tmp_path, make=side.store)
    lab.faults.capabilities = {}
    lab.again(before={("write", 1): LinkLost("cut")})
    known = lab.fails(LinkLost)
    assert len(side.sessions) == 1
    lab.again()
    lab.write(CONTENT, mtime_s=5)
    lab.run(known)
    assert (side.sessions, side.files) == ({}, {b"file": CONTENT})

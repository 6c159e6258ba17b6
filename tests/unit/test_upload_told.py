"""What an upload keeps on record on its way, and what it tells: neither too little nor too much."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from unit.scripted import Event, drive
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, nth, of_final, refusing, whats

from iot.sftp.client.jobs import upload as module
from iot.sftp.client.jobs.upload import FIRST_GAIN_BYTES
from iot.sftp.client.protocol.packets import Code, Extended, Handle, Reply, Status
from iot.transfer.errors import Cancelled, NameRefused, NoSpaceOnServer, PermissionDenied, ProtocolError, ServerRefused
from iot.transfer.model import IfExists, Progress
from iot.transfer.remote_commands import RemoteCommand, RemoteCommands, Verb

KIB = 1024
MIB = 1024 * KIB
DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")
SIDECAR = DEST + b".sha256"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


@pytest.fixture
def large(lab: Lab) -> Lab:
    """A file that asks for room before it begins."""
    lab.path.write_bytes(bytes(3 * MIB))
    lab.block = 32 * KIB
    lab.extensions[b"statvfs@openssh.com"] = b"2"
    lab.files.refuse = lambda event: FAILURE if event.what == "statvfs@openssh.com" else None
    return lab


@pytest.fixture
def noted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """What was noted: bytes, and whether at once."""
    kept: list[tuple[int, bool]] = []
    note = lab.ledger.note

    def also(checkpoint: Any, *, now: bool = False) -> None:
        kept.append((checkpoint.acked_bytes, now))
        note(checkpoint, now=now)

    monkeypatch.setattr(lab.ledger, "note", also)
    return kept


# -- on record


def test_of_an_upload_whose_first_write_is_refused_there_is_nothing_to_note(lab: Lab, noted: list[Any]) -> None:
    lab.files.refuse = refusing(lambda event: event.what == "WRITE", DENIED)
    lab.fails(PermissionDenied)
    assert noted == []


def test_what_was_answered_before_a_refusal_is_noted(lab: Lab, noted: list[Any]) -> None:
    lab.path.write_bytes(CONTENT[:BLOCK])  # too small to be noted on its way
    lab.files.refuse = refusing(lambda event: event.what == "RENAME" or event.what == "FSYNC", DENIED)
    lab.fails(PermissionDenied)
    assert noted == [(BLOCK, False)]


def test_where_a_resume_began_is_noted_although_it_came_no_further(lab: Lab, noted: list[Any]) -> None:
    lab.loses_link(nth("WRITE", 15))
    stands = len(lab.files.content[lab.part])
    noted.clear()
    lab.files.refuse = refusing(lambda event: event.what == "WRITE", Status(Code.NO_SPACE_ON_FILESYSTEM, ""))
    lab.fails(NoSpaceOnServer)
    assert noted == [(stands, False)]


def test_a_suspended_upload_is_noted_at_once(lab: Lab, noted: list[Any]) -> None:
    lab.job = {"suspended": lambda: len(lab.files.did("WRITE")) >= 5}
    lab.fails(Cancelled)
    assert noted[-1][1]
    assert not any(now for _, now in noted[:-1])
    assert lab.known is not None


def test_of_a_suspended_upload_the_server_is_asked_nothing(lab: Lab) -> None:
    lab.job = {"suspended": lambda: True, "check_final": True}
    lab.fails(Cancelled)
    assert lab.files.events == []


@pytest.mark.parametrize(("size", "records"), [(BLOCK, 1), (BLOCK + 1, 2)])
def test_more_than_one_block_is_on_record_before_the_part_is_made(lab: Lab, size: int, records: int) -> None:
    lab.path.write_bytes(CONTENT[:size])
    lab.run()
    assert whats(lab.files).count("BARRIER") == records
    assert (whats(lab.files).index("BARRIER") < whats(lab.files).index("OPEN")) is (records == 2)


def test_what_is_resumed_is_on_record_as_it_stands_before_the_part_is_opened(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    stands = len(lab.files.content[lab.part])
    lab.files.events.clear()
    lab.run()
    assert whats(lab.files).index("BARRIER") < whats(lab.files).index("OPEN")
    assert lab.files.did("BARRIER")[0].record.acked_bytes == stands


def test_a_part_whose_name_does_not_say_whose_it_is_is_on_record_before_its_first_byte(lab: Lab) -> None:
    lab.path.write_bytes(CONTENT[:BLOCK])
    lab.job = {"part_suffix": ".tmp"}
    lab.run()
    order = whats(lab.files)
    assert order.index("OPEN") < order.index("BARRIER") < order.index("WRITE")
    assert lab.files.did("BARRIER")[0].record.token == b"/up/file.tmp"


def test_a_small_file_that_is_on_record_is_put_on_record_anew(lab: Lab) -> None:
    lab.path.write_bytes(CONTENT[:BLOCK])
    lab.loses_link(nth("RENAME"))
    lab.path.write_bytes(CONTENT[1 : BLOCK + 1])
    lab.files.events.clear()
    lab.run()
    assert whats(lab.files).index("BARRIER") < whats(lab.files).index("OPEN")


@pytest.mark.parametrize("options", [{"resume": False}, {"direct_write": True}])
def test_where_nothing_is_to_be_resumed_it_begins_anew(lab: Lab, options: dict[str, Any]) -> None:
    lab.options = {**options, "resume": True}
    lab.loses_link(nth("WRITE", 15))
    lab.options = options
    assert lab.run().resumed_at == 0
    assert lab.published == CONTENT


@pytest.mark.parametrize(("checkpoint_bytes", "at_once"), [(2 * FIRST_GAIN_BYTES, 1), (2 * FIRST_GAIN_BYTES + 1, 2)])
def test_after_a_resume_it_is_noted_at_once_until_that_is_done_anyway(
    lab: Lab, noted: list[tuple[int, bool]], checkpoint_bytes: int, at_once: int
) -> None:
    lab.path.write_bytes(bytes(3 * MIB))
    lab.block = 32 * KIB
    lab.options = {"checkpoint_bytes": checkpoint_bytes}

    def passes(event: Event) -> None:
        lab.clock.now += 0.3  # an fsync is due on the way

    lab.files.refuse = passes
    lab.loses_link(nth("WRITE", 10))
    assert not any(now for _, now in noted), "a fresh upload is not noted at once"
    noted.clear()
    lab.run()
    found = [acked_bytes for acked_bytes, now in noted if now]
    assert len(found) == at_once
    assert found[0] >= FIRST_GAIN_BYTES


# -- room


@pytest.mark.parametrize("refused", [None, "WRITE"])
def test_a_large_file_that_has_ended_needs_no_room_any_more(large: Lab, refused: str | None) -> None:
    answer = large.files.refuse
    large.files.refuse = lambda event: DENIED if event.what == refused else answer(event)
    upload = large.upload()
    try:
        drive(upload.run(), large.files)
    except PermissionDenied:
        assert refused
    assert upload.context.large == {}


def test_what_the_server_said_of_a_full_disk_is_the_cause(large: Lab) -> None:
    def full(event: Event) -> Reply | None:
        if event.what == "statvfs@openssh.com":
            enough = large.files.did("WRITE") == []
            return Extended(statvfs(9 * MIB if enough else 1000))
        return FAILURE if event.what == "WRITE" else None

    large.files.refuse = full
    assert isinstance(large.fails(NoSpaceOnServer).__cause__, ServerRefused)
    large.files.refuse = refusing(nth("WRITE"), Status(Code.NO_SPACE_ON_FILESYSTEM, ""))
    assert large.fails(NoSpaceOnServer).__cause__ is None


def statvfs(free_bytes: int) -> bytes:
    return b"".join(each.to_bytes(8, "big") for each in (1, 1, 2**20, 0, free_bytes, 100, 0, 100, 0, 0, 255))


def test_a_part_that_can_never_get_its_name_is_removed(large: Lab) -> None:
    large.files.folders.add(DEST)
    large.fails(NameRefused)
    assert large.files.content == {}


# -- the result


def test_what_was_not_sent_is_told_as_nothing_sent(lab: Lab) -> None:
    lab.files.content[DEST] = bytearray(CONTENT)
    lab.job = {"check_final": True}
    result = lab.run()
    assert result.already_done
    assert (result.sent_bytes, result.resumed_at, result.possible_repeat, result.skipped) == (0, 0, False, False)
    assert (result.sha256, lab.files.did("REMOVE")) == (None, [])


def test_where_the_final_stands_beside_its_part_the_part_goes(lab: Lab) -> None:
    """As after a link whose answer was lost, and with it the removal of the other name."""
    lab.job = {"if_exists": IfExists.FAIL}
    lab.loses_link(nth("PLAIN-RENAME"))
    lab.files.content[DEST] = bytearray(CONTENT)
    assert lab.run().already_done
    assert set(lab.files.content) == {DEST}


def test_a_skipped_file_leaves_no_part(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.files.content[DEST] = bytearray(b"theirs")
    lab.job = {"if_exists": IfExists.SKIP}
    assert lab.run().skipped
    assert lab.files.content == {DEST: b"theirs"}


@pytest.mark.parametrize(
    ("options", "job", "digest", "sidecar"),
    [
        ({}, {}, None, False),
        ({"sha256": True}, {}, DIGEST, False),
        ({}, {"digest": True}, DIGEST, False),
        ({"sidecar": True}, {}, DIGEST, True),
    ],
)
def test_the_digest_is_told_and_written_where_that_is_asked_for(
    lab: Lab, options: dict[str, Any], job: dict[str, Any], digest: str | None, sidecar: bool
) -> None:
    lab.options, lab.job = options, job
    assert lab.run().sha256 == digest
    assert (SIDECAR in lab.files.content) is sidecar


def test_the_final_is_not_kept_open_while_its_checksum_is_written(lab: Lab) -> None:
    lab.options = {"sidecar": True}
    lab.run()
    opened = [event.path for event in lab.files.did("OPEN")]
    assert opened.index(SIDECAR) < opened.index(DEST)


def test_the_source_is_closed_before_the_final_is_synced(lab: Lab) -> None:
    upload = lab.upload()
    closed: list[bool] = []

    def watch(event: Event) -> None:
        if of_final("FSYNC")(event):
            closed.append(upload.source._file.closed)

    lab.files.refuse = watch
    drive(upload.run(), lab.files)
    assert closed == [True]


def test_progress_is_told_a_few_times_a_second_and_at_the_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_EVERY_S", 0.25)
    told: list[tuple[float, Progress]] = []
    lab.options = {"trust": True}
    lab.job = {"progress": lambda progress: told.append((lab.clock.now, progress))}

    def passes(event: Event) -> None:
        lab.clock.now += 0.125 if event.what == "WRITE" else 0.0

    lab.files.refuse = passes
    lab.run()
    pauses_s = [later - earlier for (earlier, _), (later, _) in pairwise(told[:-1])]
    assert min(pauses_s) == 0.25
    done = [progress.done_bytes for _, progress in told]
    assert done == sorted(done)
    assert len(done) <= len(set(done)) + 1, "what has not got on is not told"
    last = told[-1][1]
    assert (last.done_bytes, last.total_bytes, last.resumed_at) == (len(CONTENT), len(CONTENT), 0)


@pytest.mark.parametrize("resume", [True, False])
def test_what_was_published_before_its_commands_is_sent_again_where_all_is_to_start_over(
    lab: Lab, resume: bool
) -> None:
    chmod = RemoteCommand(Verb.CHMOD, "{path}", mode=0o640)
    lab.job = {"commands": RemoteCommands(after_success=(chmod,), base="/up")}
    lab.run()
    lab.options = {"resume": resume}
    assert lab.run().already_done is resume


def test_an_answer_of_another_kind_to_times_and_mode_is_the_links_fault(lab: Lab) -> None:
    lab.options = {"keep_times": True}
    lab.files.refuse = refusing(lambda event: event.what == "FSETSTAT", Handle(b"h"))
    lab.fails(ProtocolError)
    lab.expect_unpublished()

"""Nothing guessed at an upload's edges: what counts as done, as durable, as room; how a part is opened."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, any_request, nth, refusing, whats

from iot.sftp.client.protocol.packets import Attributes, Code, Data, Extended, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import NoSpaceOnServer, ProofFailed, ServerRefused, SFTPError
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, Proof
from iot.transfer.window import PartState, Span

MIB = 1024 * 1024
DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")
UNSUPPORTED = Status(Code.OP_UNSUPPORTED, "Unsupported")
CREATE = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE | Flag.EXCLUSIVE
LARGE = random.Random(5).randbytes(3 * MIB)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


@pytest.fixture
def large(lab: Lab) -> Lab:
    lab.path.write_bytes(LARGE)
    lab.options = {"chunk_size": 32 * 1024}
    lab.block = 32 * 1024
    return lab


# -- done is only what was compared whole


@pytest.mark.parametrize("at", [0, MIB, len(LARGE) - 1])
@pytest.mark.parametrize("how", ["check_final", "lost answer"])
def test_a_final_of_which_one_byte_differs_is_never_already_done(large: Lab, how: str, at: int) -> None:
    if how == "check_final":
        large.job = {"check_final": True}
        large.files.content[DEST] = bytearray(LARGE)
    else:
        large.loses_link(nth("RENAME"), answered=True)
    large.files.content[DEST][at] ^= 1
    result = large.run()
    assert large.published == LARGE
    assert not result.already_done
    assert result.sent_bytes == len(LARGE)


def test_a_final_that_was_compared_whole_is_done_and_told_as_proven_in_full(large: Lab) -> None:
    large.job = {"check_final": True}
    large.files.content[DEST] = bytearray(LARGE)
    result = large.run()
    assert (result.already_done, result.proof, result.durable) == (True, Proof.FULL, True)
    assert large.files.did("WRITE") == []
    assert sum(event.length for event in large.files.did("READ")) == len(LARGE)


def test_a_comparison_ends_at_the_first_difference(large: Lab) -> None:
    large.job = {"check_final": True}
    large.files.content[DEST] = bytearray(LARGE)
    large.files.content[DEST][0] ^= 1
    large.run()
    assert sum(event.length for event in large.files.did("READ")) < len(LARGE) // 2


@pytest.mark.parametrize("refusal", [DENIED, UNSUPPORTED, FAILURE])
@pytest.mark.parametrize("refused", ["OPEN", "READ"])
def test_a_final_that_cannot_be_read_is_sent_again(lab: Lab, refused: str, refusal: Status) -> None:
    lab.job = {"check_final": True}
    lab.files.content[DEST] = bytearray(CONTENT)
    lab.files.refuse = lambda event: (
        refusal if event.what == refused and (refused == "READ" or event.flags == Flag.READ) else None
    )
    result = lab.run()
    assert not result.already_done
    assert result.sent_bytes == len(CONTENT)
    assert lab.published == CONTENT


@pytest.mark.parametrize(
    ("proof", "tail", "told"),
    [
        (Proof.SIZE, BLOCK, Proof.SIZE),
        (Proof.TAIL, BLOCK, Proof.TAIL),
        (Proof.TAIL, 99 * BLOCK, Proof.FULL),
        (Proof.FULL, BLOCK, Proof.FULL),
    ],
)
def test_the_result_states_what_was_really_proven(lab: Lab, proof: Proof, tail: int, told: Proof) -> None:
    lab.options = {"proof": proof, "tail_size": tail}
    result = lab.run()
    assert result.proof is told
    read = sum(event.length for event in lab.files.did("READ"))
    assert read == {Proof.SIZE: 0, Proof.TAIL: BLOCK, Proof.FULL: len(CONTENT)}[told]


def half_of_it(lab: Lab) -> Callable[[Event], Reply | None]:
    """READ answers with half of what was asked for, as servers with small buffers do."""

    def answer(event: Event) -> Reply | None:
        if event.what != "READ":
            return None
        data = bytes(lab.files.content[event.path][event.offset : event.offset + max(1, event.length // 2)])
        return Data(memoryview(data)) if data else Status(Code.EOF, "")

    return answer


def test_a_short_answer_to_a_read_is_asked_again_when_a_final_is_compared(lab: Lab) -> None:
    lab.job = {"check_final": True}
    lab.files.content[DEST] = bytearray(CONTENT)
    lab.files.refuse = half_of_it(lab)
    assert lab.run().already_done
    lab.files.content[DEST][-1] ^= 1
    assert not lab.run().already_done
    assert lab.published == CONTENT


def test_a_short_answer_to_a_read_is_asked_again_when_a_part_is_read_back(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    before = len(lab.files.content[lab.part])
    lab.files.content[lab.part][2 * BLOCK + BLOCK - 1] ^= 1
    lab.files.refuse = half_of_it(lab)
    lab.files.events.clear()
    result = lab.run()
    assert lab.published == CONTENT
    assert result.sent_bytes < len(CONTENT) - before + BLOCK
    mended = [event for event in lab.files.did("WRITE") if event.offset < before]
    assert [event.offset + len(event.data) for event in mended] == [3 * BLOCK]


@pytest.mark.parametrize("answer", [b"", bytes(2 * BLOCK)], ids=["empty", "too long"])
def test_an_answer_of_no_sense_to_a_read_proves_nothing(lab: Lab, answer: bytes) -> None:
    lab.job = {"check_final": True}
    lab.files.content[DEST] = bytearray(CONTENT)
    lab.files.refuse = lambda event: Data(memoryview(answer)) if event.what == "READ" else None
    assert not lab.run().already_done


def test_a_part_that_ends_early_when_it_is_read_back_has_failed_its_proof(lab: Lab) -> None:
    lab.options = {"proof": "full"}
    lab.files.refuse = refusing(nth("READ", 3), Status(Code.EOF, ""))
    assert "differ" in str(lab.fails(ProofFailed))
    lab.expect_unpublished()


def test_what_a_short_answer_left_out_is_still_suspect() -> None:
    state = PartState(1000, 1000, suspect=PartState(0).suspect)
    state.distrust()
    span = state.next_suspect(400)
    assert span is not None
    state.read_short(span, 100)
    assert (state.suspect[0].start, state.complete) == (100, False)
    again = state.next_suspect(400)
    assert (again, again and again.start) == ((100, 400), 100)


# -- durable is only what the server has confirmed


def of_final(what: str) -> Callable[[Event], bool]:
    return lambda event: event.what == what and event.path == DEST


@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_a_final_that_the_server_cannot_bring_to_its_disk_is_not_delivered(lab: Lab, banner: str) -> None:
    lab.banner = banner
    lab.files.refuse = refusing(of_final("FSYNC"))
    assert "to disk" in str(lab.fails(ServerRefused))
    assert len([event for event in lab.files.did("FSYNC") if event.path == DEST]) == 1
    assert lab.files.handles == {}
    lab.files.refuse = lambda event: None
    lab.files.events.clear()
    result = lab.run()
    assert (result.already_done, result.proof, result.durable) == (True, Proof.FULL, True)
    assert lab.files.did("WRITE") == lab.files.did("RENAME") == []
    assert lab.published == CONTENT


def test_a_server_that_offers_fsync_and_has_none_is_remembered(lab: Lab) -> None:
    lab.files.refuse = refusing(of_final("FSYNC"), UNSUPPORTED)
    assert not lab.run().durable
    assert lab.refused == {Refusal.FSYNC}


def test_a_server_that_syncs_only_what_is_open_for_writing_is_given_such_a_handle(lab: Lab) -> None:
    first = nth("FSYNC", 2)  # the one behind the rename: its handle was opened for reading
    lab.files.refuse = refusing(first, DENIED)
    assert lab.run().durable
    assert [event.flags for event in lab.files.did("OPEN")[1:]] == [Flag.READ, Flag.WRITE]
    assert lab.files.handles == {}


def test_a_final_that_was_taken_by_a_consumer_is_a_success(lab: Lab) -> None:
    lab.banner = "SSH-2.0-other"

    def take(event: Event) -> Reply | None:
        if event.what == "OPEN" and event.path == DEST:
            lab.files.content.pop(DEST, None)
        return None

    lab.files.refuse = take
    assert not lab.run().durable


def test_a_drop_box_that_opens_nothing_again_is_a_success_that_nobody_confirmed(lab: Lab) -> None:
    lab.files.refuse = refusing(of_final("OPEN"), DENIED)
    assert not lab.run().durable
    assert lab.published == CONTENT


# -- the look after the grace time


def graced(lab: Lab, at_look: Callable[[], Reply | None]) -> Lab:
    del lab.extensions[b"fsync@openssh.com"]
    lab.job = {"grace": True}
    lab.files.refuse = lambda event: at_look() if whats(lab.files)[-2:-1] == ["LINGER"] else None
    return lab


def test_a_final_whose_size_has_changed_after_the_grace_time_is_not_delivered(lab: Lab) -> None:
    def truncated() -> None:
        del lab.files.content[DEST][-1:]

    assert "now has 20556" in str(graced(lab, truncated).fails(ProofFailed))


@pytest.mark.parametrize("told", [Status(Code.NO_SUCH_FILE, ""), DENIED, Attributes()], ids=["taken", "denied", "?"])
def test_a_final_that_is_taken_or_may_not_be_looked_at_after_the_grace_time_is_delivered(lab: Lab, told: Reply) -> None:
    assert not graced(lab, lambda: told).run().durable


def test_a_look_that_fails_after_the_grace_time_is_an_error_and_no_yes(lab: Lab) -> None:
    graced(lab, lambda: FAILURE).fails(ServerRefused)


# -- what stands under the part's name


@pytest.mark.parametrize("size_told", [True, False])
@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_a_part_that_is_too_long_is_never_published(lab: Lab, banner: str, size_told: bool) -> None:
    lab.banner = banner

    def grow(event: Event) -> Reply | None:
        if event.what == "CLOSE" and event.path == lab.part and event is lab.files.did("CLOSE")[0]:
            lab.files.content[event.path] += b"somebody else's"
        if event.what == "STAT" and not size_told:
            return Attributes(mode=0o100644)
        return None

    lab.files.refuse = grow
    lab.fails(ProofFailed)
    lab.expect_unpublished()


@pytest.mark.parametrize("size", [0, 1, BLOCK + 1])
def test_a_server_that_tells_no_size_is_asked_for_the_last_byte_and_the_one_behind_it(lab: Lab, size: int) -> None:
    lab.path.write_bytes(CONTENT[:size])
    lab.files.refuse = lambda event: Attributes(mode=0o100644) if event.what == "STAT" else None
    lab.run()
    assert [(event.offset, event.length) for event in lab.files.did("READ")] == [
        (at, 1) for at in (size - 1, size) if at >= 0
    ]
    assert lab.files.handles == {}


def test_a_part_is_created_and_never_opened_over_an_old_one(lab: Lab) -> None:
    old = lab.files.content[lab.part] = bytearray(b"what a lost connection may still write to")
    lab.run()
    created = [event for event in lab.files.did("OPEN") if event.path == lab.part]
    assert {event.flags for event in created} == {CREATE}
    assert old == b"what a lost connection may still write to"
    assert lab.published == CONTENT


def test_a_record_that_speaks_of_another_part_is_not_gone_on_with(lab: Lab) -> None:
    other = b"/up/file.0badcafe.part"
    lab.files.content[other] = bytearray(b"x" * 10 * BLOCK)
    lab.files.content[lab.part] = bytearray(b"y" * 10 * BLOCK)
    version = Fingerprint.of(os.stat(lab.path))
    local = os.fsencode(lab.path)
    lab.ledger.commit(
        [Checkpoint(Direction.UPLOAD, DEST, local, other, version, 10 * BLOCK, 10 * BLOCK, (), Phase.SENDING)]
    )
    result = lab.run()
    assert (result.resumed_at, lab.published) == (0, CONTENT)
    assert lab.files.content[other] == b"x" * 10 * BLOCK
    assert not any(event.path == other for event in lab.files.events)


def test_what_a_direct_write_may_not_open_is_not_removed(lab: Lab) -> None:
    lab.options = {"direct_write": True}
    lab.files.content[DEST] = bytearray(b"old")
    lab.files.refuse = refusing(of_final("OPEN"))
    lab.fails(ServerRefused)
    assert lab.published == b"old"


# -- no handle stays open


@pytest.mark.parametrize("refusal", [FAILURE, DENIED, UNSUPPORTED], ids=["failure", "denied", "unsupported"])
@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
@pytest.mark.parametrize("resumed", [False, True])
def test_whatever_is_refused_no_handle_stays_open(lab: Lab, resumed: bool, banner: str, refusal: Status) -> None:
    number = 0
    while True:
        number += 1
        fresh = Lab(lab.path, banner=banner, options={"proof": Proof.FULL, "sidecar": True})
        if resumed:
            fresh.loses_link(nth("WRITE", 15))
            fresh.files.events.clear()
        fresh.files.refuse = refusing(any_request(number), refusal)
        try:
            fresh.run()
        except SFTPError:
            assert fresh.published in (None, CONTENT)
        else:
            assert fresh.published == CONTENT
        assert fresh.files.handles == {}, fresh.files.events[number - 1 :]
        if len([event for event in fresh.files.events if event.what != "BARRIER"]) < number:
            break
    assert number > 25


@pytest.mark.parametrize("answer", [DENIED, FAILURE, UNSUPPORTED])
def test_a_refused_rename_over_an_old_final_leaves_no_handle_of_it_open(lab: Lab, answer: Status) -> None:
    lab.files.content[DEST] = bytearray(b"old")
    lab.files.refuse = refusing(nth("RENAME"), answer)
    try:
        lab.run()
    except SFTPError:
        pass  # the new one is not there, and says so
    assert lab.files.did("RENAME")
    assert lab.files.handles == {}


def test_no_handle_stays_open_after_the_servers_own_hash(lab: Lab) -> None:
    lab.path.write_bytes(LARGE)
    lab.block = 256 * 1024
    lab.options["proof"] = Proof.FULL
    answers = iter([Extended(struct.pack(">I", 6) + b"sha256" + hashlib.sha256(LARGE).digest())])
    lab.files.refuse = lambda event: next(answers) if event.what == "check-file-handle" else None
    lab.extensions[b"check-file-handle"] = b"1"
    assert lab.run().proof is Proof.FULL
    assert next(answers, None) is None
    assert lab.files.did("READ") == []
    assert lab.files.handles == {}


@pytest.mark.needs("proc")
@pytest.mark.parametrize("refused", [None, "OPEN", "WRITE", "RENAME"])
def test_the_source_is_closed_however_an_upload_ends(lab: Lab, refused: str | None) -> None:
    if refused:
        lab.files.refuse = refusing(nth(refused))
    before = os.listdir("/proc/self/fd")
    uploads = []
    make = lab.upload
    lab.upload = lambda: uploads.append(make()) or uploads[-1]  # type: ignore[method-assign,func-returns-value]
    try:
        lab.run()
    except SFTPError:
        assert refused
    assert len(uploads) == 1
    assert len(os.listdir("/proc/self/fd")) == len(before)


# -- room on the server


def statvfs(free_bytes: int, inodes: tuple[int, int] = (100, 100), blocks: int = 2**20) -> Extended:
    return Extended(struct.pack(">11Q", 1, 1, blocks, 0, free_bytes, inodes[0], 0, inodes[1], 0, 0, 255))


def with_room(lab: Lab, free: Callable[[], Extended]) -> Lab:
    lab.extensions[b"statvfs@openssh.com"] = b"2"
    lab.files.refuse = lambda event: free() if event.what == "statvfs@openssh.com" else None
    return lab


@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_a_large_file_that_does_not_fit_is_held_before_a_byte_is_written(large: Lab, banner: str) -> None:
    large.banner = banner
    told = str(with_room(large, lambda: statvfs(2 * MIB)).fails(NoSpaceOnServer))
    assert "needs 3.0 MiB, 2.0 MiB free" in told
    assert large.files.did("WRITE") == []
    assert (large.files.content, large.files.handles) == ({}, {})
    with_room(large, lambda: statvfs(5 * MIB)).run()
    assert large.published == LARGE


def test_a_large_file_leaves_room_to_small_ones(large: Lab) -> None:
    with_room(large, lambda: statvfs(len(LARGE) + MIB - 1)).fails(NoSpaceOnServer)
    with_room(large, lambda: statvfs(len(LARGE) + MIB)).run()


def test_room_that_another_large_file_needs_is_not_free(large: Lab) -> None:
    upload = large.upload()
    upload.context.large[b"/up/other.part"] = PartState(4 * MIB, MIB)
    with_room(large, lambda: statvfs(6 * MIB))
    from unit.scripted import drive

    with pytest.raises(NoSpaceOnServer, match=r"3\.0 MiB free"):
        drive(upload.run(), large.files, at_barrier=lambda: None)
    assert list(upload.context.large) == [b"/up/other.part"]


def test_what_another_file_writes_while_the_answer_is_under_way_does_not_become_free(large: Lab) -> None:
    upload = large.upload()
    other = upload.context.large[b"/up/other.part"] = PartState(4 * MIB, MIB)

    def counted_before_it_wrote() -> Reply:
        other.answered(Span(MIB, 4 * MIB))
        return statvfs(6 * MIB)

    with_room(large, counted_before_it_wrote)
    from unit.scripted import drive

    with pytest.raises(NoSpaceOnServer, match=r"3\.0 MiB free"):
        drive(upload.run(), large.files, at_barrier=lambda: None)


def test_a_small_file_costs_no_question_for_room(lab: Lab) -> None:
    with_room(lab, lambda: statvfs(0)).run()
    assert lab.files.did("statvfs@openssh.com") == []


@pytest.mark.parametrize(
    "told",
    [statvfs(0, blocks=0), statvfs(9 * MIB, (0, 0)), Status(Code.FAILURE, ""), Extended(b"short"), UNSUPPORTED],
    ids=["a disk of nothing", "no inodes counted", "failure", "garbage", "unsupported"],
)
def test_a_server_that_does_not_know_its_room_is_not_full(large: Lab, told: Reply) -> None:
    large.extensions[b"statvfs@openssh.com"] = b"2"
    large.files.refuse = lambda event: told if event.what == "statvfs@openssh.com" else None
    large.run()
    assert large.published == LARGE


def test_when_room_runs_out_on_the_way_the_part_is_dropped(large: Lab) -> None:
    free = [statvfs(9 * MIB), statvfs(1000)]
    with_room(large, lambda: free.pop(0))
    answer, tenth = large.files.refuse, nth("WRITE", 10)
    large.files.refuse = lambda event: FAILURE if tenth(event) else answer(event)
    assert "needs 3.0 MiB" in str(large.fails(NoSpaceOnServer))
    assert (large.files.content, large.files.handles) == ({}, {})
    large.files.refuse = lambda event: None
    result = large.run()
    assert (large.published, result.resumed_at) == (LARGE, 0)


def test_a_resume_that_cannot_be_finished_gives_its_room_back(large: Lab) -> None:
    with_room(large, lambda: statvfs(9 * MIB)).loses_link(nth("WRITE", 60))
    told = str(with_room(large, lambda: statvfs(MIB // 2)).fails(NoSpaceOnServer))
    assert "needs 3.0 MiB, 2.3 MiB free" in told
    assert large.files.content == {}


def test_a_full_disk_at_the_first_write_after_a_resume_is_not_a_server_that_cannot_resume(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    with_room(lab, lambda: statvfs(100))
    answer, first = lab.files.refuse, nth("WRITE")
    lab.files.refuse = lambda event: FAILURE if first(event) else answer(event)
    lab.fails(NoSpaceOnServer)
    assert lab.refused == set()


@pytest.mark.parametrize("free", [statvfs(100), statvfs(9 * MIB, (100, 0))], ids=["bytes", "inodes"])
def test_a_part_that_cannot_be_created_on_a_full_disk_is_told_as_that(lab: Lab, free: Extended) -> None:
    with_room(lab, lambda: free)
    answer = lab.files.refuse
    lab.files.refuse = lambda event: FAILURE if event.what == "OPEN" else answer(event)
    lab.fails(NoSpaceOnServer)


# -- servers that know the classic modes alone


CLASSIC = {int(Flag.READ), int(Flag.READ | Flag.WRITE), int(CREATE), int(CREATE & ~Flag.EXCLUSIVE)}


def classic(event: Event) -> Reply | None:
    return FAILURE if event.what == "OPEN" and event.flags not in CLASSIC else None


def test_a_server_of_the_classic_modes_takes_and_resumes_uploads(lab: Lab) -> None:
    lab.files.refuse = classic
    lab.loses_link(nth("WRITE", 15))
    result = lab.run()
    assert lab.published == CONTENT
    assert result.resumed_at > 0
    assert lab.refused == {Refusal.WRITE_CREATE}


def test_the_classic_mode_is_learned_and_asked_for_at_once_then(lab: Lab) -> None:
    lab.refused = {Refusal.WRITE_CREATE}
    lab.files.refuse = classic
    lab.loses_link(nth("WRITE", 15))
    lab.files.events.clear()
    assert lab.run().resumed_at > 0
    assert [event.flags for event in lab.files.did("OPEN") if event.path == lab.part] == [3, 1]


def test_reading_and_writing_at_once_is_never_asked_of_a_server_that_takes_better(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.run()
    assert not any(event.flags & 3 == 3 for event in lab.files.did("OPEN"))


def test_a_server_is_learned_to_refuse_a_resume_only_when_it_takes_a_new_part(lab: Lab) -> None:
    """Before that the refusal may have had any reason."""
    lab.loses_link(nth("WRITE", 15))
    lab.files.refuse = lambda event: FAILURE if event.what == "OPEN" else None
    lab.fails(ServerRefused)
    assert lab.refused == set()
    lab.files.refuse = lambda event: FAILURE if event.what == "OPEN" and event.flags in (0x0A, 0x03) else None
    lab.run()

"""An upload is done only when it was compared whole, and durable only when the server has confirmed it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, nth, of_final, refusing, whats

from iot.sftp.client.protocol.packets import Attributes, Code, Data, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import ProofFailed, ServerBusy, ServerRefused
from iot.transfer.model import Proof
from iot.transfer.window import PartState

MIB = 1024 * 1024
DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")
UNSUPPORTED = Status(Code.OP_UNSUPPORTED, "Unsupported")
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


@pytest.mark.parametrize(
    "options", [{"proof": Proof.FULL}, {"proof": Proof.TAIL, "tail_size": BLOCK}, {"sidecar": True}], ids=str
)
def test_what_is_not_opened_while_others_are_open_is_a_busy_server_and_no_refusal(
    lab: Lab, options: dict[str, Any]
) -> None:
    """No handle may be left for a moment. Alone, it is a refusal."""
    lab.options = options
    lab.others = {b"another's"}
    lab.files.refuse = refusing(nth("OPEN", 2))
    lab.fails(ServerBusy)
    lab.run()
    assert lab.published == CONTENT


def test_where_no_handle_is_left_for_the_fsync_it_waits_for_others_to_close_theirs(lab: Lab) -> None:
    refused = iter([FAILURE] * 3)  # the one in the flight of the rename, then in either mode
    lab.others = {b"another's"}
    lab.files.refuse = lambda event: next(refused, None) if of_final("OPEN")(event) else None
    result = lab.run()
    assert (result.durable, len(lab.files.did("LINGER"))) == (True, 1)


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

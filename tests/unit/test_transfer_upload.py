"""An upload is published only when nothing speaks against it: scripted answers, no server, no network."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, any_request, nth, refusing, whats

from iot.sftp.client.protocol.packets import Attributes, Data, Handle, Reply
from iot.transfer import errors
from iot.transfer.errors import PermanentError, ProofFailed, ServerRefused, SourceChanged
from iot.transfer.model import Fingerprint, Phase, Proof


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


# -- the good day


@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
@pytest.mark.parametrize("size", [0, 1, BLOCK, len(CONTENT)])
def test_what_is_published_is_the_source_and_durable(lab: Lab, banner: str, size: int) -> None:
    lab.banner = banner
    lab.path.write_bytes(CONTENT[:size])
    result = lab.run()
    assert lab.published == CONTENT[:size]
    assert list(lab.files.content) == [DEST]
    assert (result.size, result.sent_bytes, result.resumed_at, result.durable) == (size, size, 0, True)
    assert lab.files.handles == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), banner=st.sampled_from(["OpenSSH", "other"]))
def test_the_order_of_events_is_safe_whatever_the_order_of_answers(
    tmp_path_factory: pytest.TempPathFactory, seed: int, banner: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "ordered"
    path.write_bytes(CONTENT)
    lab = Lab(path, banner=banner)
    result = lab.run(order=random.Random(seed))
    assert lab.published == CONTENT
    assert result.durable
    order = whats(lab.files)
    last_write = len(order) - 1 - order[::-1].index("WRITE")
    before = order[: order.index("RENAME")]
    assert before.index("CLOSE") > last_write
    assert last_write < len(before) - 1 - before[::-1].index("FSYNC") < before.index("CLOSE")
    assert before[-1] == "BARRIER"
    assert "FSYNC" in order[order.index("RENAME") :]
    assert lab.files.did("BARRIER")[-1].record.phase is Phase.PUBLISHING
    assert lab.files.handles == {}


# -- refusals: never renamed, never silent


@pytest.mark.parametrize("number", [1, 2, 10, 20, 21])
@pytest.mark.parametrize("seed", range(4))
def test_a_refused_write_is_a_failed_upload_however_late_it_is_told(lab: Lab, number: int, seed: int) -> None:
    lab.files.refuse = refusing(nth("WRITE", number))
    lab.fails(ServerRefused, order=random.Random(seed))
    lab.expect_unpublished()
    assert lab.files.handles == {}


@pytest.mark.parametrize("what", ["CLOSE", "FSYNC", "OPEN"])
@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_a_refusal_before_the_rename_is_a_failed_upload(lab: Lab, what: str, banner: str) -> None:
    lab.banner = banner
    lab.files.refuse = lambda event: FAILURE if event.what == what else None
    lab.fails(PermanentError)
    lab.expect_unpublished()


@pytest.mark.parametrize(("what", "durability"), [("CLOSE", {}), ("FSYNC", {}), ("CLOSE", {"trust": True})])
def test_after_a_failed_close_or_fsync_nothing_of_the_part_is_believed_unread(
    lab: Lab, what: str, durability: dict[str, Any]
) -> None:
    """The server said that it may have lost something: what it lost must be found at the next attempt."""
    lab.options = durability
    failing = nth("CLOSE") if what == "CLOSE" else lambda event: event.what == what and event.path == lab.part
    lab.files.refuse = refusing(failing)
    lab.fails(PermanentError)
    lab.files.handles.clear()
    lab.files.content[lab.part][5 * BLOCK : 6 * BLOCK] = bytes(BLOCK)
    lab.files.refuse = lambda event: None
    lab.run()
    assert lab.published == CONTENT


@pytest.mark.parametrize("proof", [Proof.SIZE, Proof.TAIL, Proof.FULL])
def test_a_part_that_failed_its_proof_is_mended_and_not_proven_again_and_again(lab: Lab, proof: Proof) -> None:
    lab.options = {"proof": proof, "tail_size": 2 * BLOCK}

    def spoil(event: Event) -> Reply | None:
        lab.clock.now += 0.3  # an fsync was due on the way, so that the spoiled bytes count as synced
        if event.what == "CLOSE" and event.path == lab.part:
            content = lab.files.content[event.path]
            if proof is Proof.SIZE:
                del content[-5:]
            elif proof is Proof.TAIL:
                content[-5:] = b"wrong"
            else:
                content[100:105] = b"wrong"
        return None

    lab.files.refuse = spoil
    lab.fails(ProofFailed)
    lab.expect_unpublished()
    lab.files.refuse = lambda event: None
    lab.run()
    assert lab.published == CONTENT


def test_a_refused_rename_leaves_the_part_for_the_next_attempt(lab: Lab) -> None:
    lab.files.refuse = lambda event: FAILURE if event.what == "RENAME" else None
    lab.fails(ServerRefused)
    assert list(lab.files.content) == [lab.part]
    lab.files.refuse = lambda event: None
    result = lab.run()
    assert lab.published == CONTENT
    assert result.sent_bytes == 0


WRONG_KINDS = {"data": Data(memoryview(b"x")), "attributes": Attributes(size=3), "handle": Handle(b"h")}


@pytest.mark.parametrize("kind", WRONG_KINDS)
@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_an_answer_of_the_wrong_kind_is_never_a_yes_whatever_was_asked(lab: Lab, banner: str, kind: str) -> None:
    """To every request of the flow in its turn: it ends as the server's breach of the protocol, never as a success."""
    reply, right = WRONG_KINDS[kind], {"OPEN": "handle", "STAT": "attributes"}
    lab.banner = banner
    lab.run()
    flow = [event for event in lab.files.events if event.what != "BARRIER"]
    checked = 0
    for number, asked in enumerate(flow, 1):
        if right.get(asked.what) == kind:
            continue
        fresh = Lab(lab.path, banner=banner)
        fresh.files.refuse = refusing(any_request(number), reply)
        fresh.fails(errors.ProtocolError)
        renamed = number > [event.what for event in flow].index("RENAME") + 1
        assert (fresh.published == CONTENT) is renamed
        checked += 1
    assert checked >= len(flow) - 2


@pytest.mark.parametrize("what", ["STAT", "READ"])
def test_an_answer_of_the_wrong_kind_to_a_look_is_the_links_fault(lab: Lab, what: str) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.files.refuse = lambda event: Handle(b"h") if event.what == what else None
    lab.fails(errors.ProtocolError)
    lab.expect_unpublished()


# -- a source that changes


@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
@pytest.mark.parametrize("change", ["append", "rewrite", "truncate", "replace"])
def test_a_source_that_changes_during_the_transfer_is_never_published(lab: Lab, banner: str, change: str) -> None:
    lab.banner = banner
    status = os.stat(lab.path)

    def act(event: Event) -> Reply | None:
        if changing(event):
            if change == "append":
                with open(lab.path, "ab") as file:
                    file.write(b"more")
            elif change == "rewrite":  # same size, time set back
                with open(lab.path, "r+b") as file:
                    file.write(b"X")
                os.utime(lab.path, ns=(status.st_atime_ns, status.st_mtime_ns))
            elif change == "truncate":
                os.truncate(lab.path, 5)
            else:
                fresh = lab.path.with_name("fresh")
                fresh.write_bytes(CONTENT[::-1])
                os.replace(fresh, lab.path)
        return None

    changing = nth("WRITE", 5)
    lab.files.refuse = act
    lab.fails(SourceChanged)
    lab.expect_unpublished()
    lab.files.refuse = lambda event: None
    lab.run()
    assert lab.published == lab.path.read_bytes()


def test_a_version_that_was_not_wanted_is_not_begun(lab: Lab) -> None:
    lab.job = {"fingerprint": Fingerprint(1, 2, 3, 4)}
    lab.fails(SourceChanged)
    assert lab.files.events == []


# -- a broken barrier, a full server, other parts


def test_without_the_intent_on_disk_there_is_no_rename(lab: Lab) -> None:
    def full_disk() -> None:
        raise errors.DiskFull("no space left for the journal")

    lab.fails(errors.DiskFull, at_barrier=full_disk)
    lab.expect_unpublished()


def test_a_full_server_is_named_as_such_although_it_only_says_failure(lab: Lab) -> None:
    import struct

    from iot.sftp.client.protocol.packets import Extended

    lab.extensions[b"statvfs@openssh.com"] = b"2"
    lab.extensions[b"fstatvfs@openssh.com"] = b"2"
    no_room = Extended(struct.pack(">11Q", 4096, 4096, 9, 0, 0, 9, 9, 9, 0, 0, 255))
    sixth = nth("WRITE", 6)

    def full(event: Event) -> Reply | None:
        if "statvfs" in event.what:
            return no_room
        return FAILURE if sixth(event) else None

    lab.files.refuse = full
    assert "needs 20.1 KiB" in str(lab.fails(errors.NoSpaceOnServer))
    lab.expect_unpublished()
    assert lab.files.content == {}


def test_the_parts_of_others_are_never_touched(lab: Lab) -> None:
    others = {b"/up/file.part": b"theirs", b"/up/file.00000000.part": b"theirs too"}
    lab.files.content.update({name: bytearray(data) for name, data in others.items()})
    lab.run()
    assert {name: bytes(data) for name, data in lab.files.content.items()} == {**others, DEST: CONTENT}
    assert not any(event.path in others for event in lab.files.events)


def test_a_missing_folder_is_made_with_those_above_it(lab: Lab) -> None:
    lab.files.folders.clear()
    lab.files.folders.add(b"/")
    lab.run()
    assert lab.published == CONTENT


def test_a_plain_rename_does_not_remove_the_old_final_unless_told(lab: Lab) -> None:
    del lab.extensions[b"posix-rename@openssh.com"]
    lab.files.content[DEST] = bytearray(b"old")
    assert "replace_by_remove" in str(lab.fails(errors.AlreadyExists))
    assert lab.published == b"old"
    lab.options = {"replace_by_remove": True}
    result = lab.run()
    assert lab.published == CONTENT
    assert result.sent_bytes == 0


def test_a_final_that_may_stand_is_proven_before_anything_is_sent(lab: Lab) -> None:
    lab.job = {"check_final": True}
    lab.files.content[DEST] = bytearray(CONTENT)
    assert lab.run().already_done
    assert lab.files.did("WRITE") == []
    lab.files.content[DEST][7] ^= 1
    assert not lab.run().already_done
    assert lab.published == CONTENT


def test_without_fsync_the_final_is_looked_at_again_after_a_while(lab: Lab) -> None:
    del lab.extensions[b"fsync@openssh.com"]
    lab.job = {"grace": True}
    result = lab.run()
    assert not result.durable
    assert whats(lab.files)[-2:] == ["LINGER", "STAT"]


def test_a_sidecar_lies_beside_the_final_also_under_a_long_name(lab: Lab) -> None:
    lab.options = {"sidecar": True}

    def too_long(event: Event) -> Reply | None:
        names = [event.path.rpartition(b"/")[2], event.dest.rpartition(b"/")[2]]
        return FAILURE if event.what in ("OPEN", "RENAME") and max(map(len, names)) > 255 else None

    lab.files.refuse = too_long
    for length in (10, 240, 248):
        lab.dest = b"/up/" + b"n" * length
        lab.run()
        assert lab.files.content[lab.dest + b".sha256"].endswith(b"  " + b"n" * length + b"\n")
    assert not any(name.endswith(b".part") or b".part." in name for name in lab.files.content)


def test_a_final_name_that_is_too_long_is_refused_before_the_server_is_asked_anything(lab: Lab) -> None:
    lab.dest = b"/up/" + b"n" * 256
    lab.fails(errors.NameRefused)
    assert lab.files.events == []

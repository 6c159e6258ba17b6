"""An upload is published only when nothing speaks against it: scripted answers, no server, no network."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.scripted import Event, drive
from unit.upload_lab import BLOCK, CONTENT, DEST, EXTENSIONS, FAILURE, Lab, any_request, nth, refusing, whats

from iot.sftp.client import errors
from iot.sftp.client.checkpoints import Checkpoints
from iot.sftp.client.errors import LinkLost, PermanentError, ProofFailed, ServerRefused, SourceChanged
from iot.sftp.client.model import Fingerprint, Phase, Proof
from iot.sftp.client.wire.job import FREE, Work
from iot.sftp.client.wire.packets import Attributes, Code, Data, Handle, Reply, Status
from iot.sftp.client.wire.server import Refusal


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


@pytest.mark.parametrize(
    ("options", "times"), [({"trust": True}, 1), ({"trust": False}, 0), ({"trust": True, "sidecar": True}, 0)]
)
def test_its_slot_is_free_only_when_nothing_is_open_any_more(lab: Lab, options: dict[str, Any], times: int) -> None:
    """Neither the part nor the source; with a final to open for its fsync, or a sidecar, the slot is kept."""
    lab.options = options
    upload = lab.upload()
    seen: list[bool] = []

    def watched(work: Work[Any]) -> Work[Any]:
        command = next(work)
        while True:
            if command is FREE:
                seen.append(upload.source._file.closed and not lab.files.handles)
            try:
                command = work.send((yield command))
            except StopIteration as stop:
                return stop.value

    drive(watched(upload.run()), lab.files, at_barrier=lambda: None, clock=lab.clock)
    assert seen == [True] * times
    assert lab.published == CONTENT


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
    lab.task = {"wanted": Fingerprint(1, 2, 3, 4)}
    lab.fails(SourceChanged)
    assert lab.files.events == []


# -- a lost link


@pytest.mark.parametrize("answered", [False, True], ids=["unseen", "handled"])
@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_a_link_lost_at_any_request_leads_to_the_whole_file_once(lab: Lab, banner: str, answered: bool) -> None:
    lab.banner = banner
    lab.run()
    requests = len([event for event in lab.files.events if event.what != "BARRIER"])
    assert requests > 25
    for number in range(1, requests + 1):
        fresh = Lab(lab.path, banner=banner)
        fresh.loses_link(any_request(number), answered=answered, order=random.Random(number))
        stood = DEST in fresh.files.content
        result = fresh.run()
        assert fresh.published == CONTENT
        assert list(fresh.files.content) == [DEST]
        assert not result.possible_repeat
        assert result.already_done == stood


def test_a_rename_whose_answer_was_lost_and_whose_final_was_taken_is_marked(lab: Lab) -> None:
    lab.loses_link(nth("RENAME"), answered=True)
    del lab.files.content[DEST]
    result = lab.run()
    assert lab.published == CONTENT
    assert result.possible_repeat


def test_another_file_of_the_same_size_is_not_taken_for_ours(lab: Lab) -> None:
    lab.loses_link(nth("RENAME"), answered=True)
    lab.files.content[DEST] = bytearray(len(CONTENT))
    result = lab.run()
    assert lab.published == CONTENT
    assert not result.already_done


def test_a_resume_sends_what_is_missing_and_no_more(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    before = sum(len(event.data) for event in lab.files.did("WRITE"))
    result = lab.run()
    sent = sum(len(event.data) for event in lab.files.did("WRITE"))
    assert lab.published == CONTENT
    assert sent == len(CONTENT)
    assert result.sent_bytes == len(CONTENT) - before
    assert result.resumed_at == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.tuples(st.integers(1, 45), st.booleans()), max_size=5),
    damage=st.lists(st.integers(0, len(CONTENT) - 1), max_size=5),
    banner=st.sampled_from(["OpenSSH", "other"]),
    fsync=st.booleans(),
)
def test_what_a_server_lost_at_a_cut_is_read_back_and_mended_before_the_rename(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    cuts: list[tuple[int, bool]],
    damage: list[int],
    banner: str,
    fsync: bool,
) -> None:
    """At every cut the server loses some bytes that no fsync covered: zeros, or the tail."""
    path = tmp_path_factory.getbasetemp() / "suspect"
    path.write_bytes(CONTENT)
    lab = Lab(path, banner=banner, extensions=dict(EXTENSIONS) if fsync else {b"posix-rename@openssh.com": b"1"})
    draw = random.Random(seed)
    durable: bytes = b""

    def watch(event: Event) -> Reply | None:
        nonlocal durable
        lab.clock.now += draw.random() / 3  # some fsyncs are due on the way
        if event.what == "FSYNC" and event.path == lab.part:
            durable = bytes(lab.files.content[lab.part])
        if event.what == "RENAME":
            assert lab.files.content[lab.part] == CONTENT
        return None

    lab.files.refuse = watch
    done = False
    for number, answered in cuts:
        count = 0

        def hit(event: Event, number: int = number) -> bool:
            nonlocal count
            count += 1
            return count == number

        try:
            lab.run(lose_at=hit, error=LinkLost("cut"), answered=answered, order=draw)
            done = True
            break
        except LinkLost:
            lab.files.handles.clear()
        lose(lab.files.content.get(lab.part, bytearray()), len(durable), damage, draw)
    if not done:
        lab.run(order=draw)
    assert lab.published == CONTENT


def lose(content: bytearray, durable: int, damage: list[int], draw: random.Random) -> None:
    """A server's power cut, as far as no fsync covered."""
    for at in damage:
        if durable <= at < len(content):
            content[at] = 0
    if draw.random() < 0.3:
        del content[max(durable, len(content) - BLOCK // 2) :]


def test_suspect_ranges_are_read_back_and_only_the_wrong_ones_sent_again(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.files.content[lab.part][3 * BLOCK + 5] ^= 1
    acked = len(lab.files.content[lab.part])
    lab.files.events.clear()
    result = lab.run()
    assert lab.published == CONTENT
    assert sum(event.length for event in lab.files.did("READ")) >= acked
    assert {event.offset for event in lab.files.did("WRITE") if event.offset < acked} == {3 * BLOCK}
    assert result.sent_bytes == len(CONTENT) - acked + BLOCK


def test_a_trusted_server_is_not_read_back(lab: Lab) -> None:
    lab.options = {"trust": True}
    lab.loses_link(nth("WRITE", 15))
    part = lab.part
    known = lab.known
    assert known is not None
    lab.files.content[part] = lab.files.content[part][: known.acked_bytes]
    lab.files.events.clear()
    result = lab.run()
    assert lab.published == CONTENT
    assert result.resumed_at == known.acked_bytes > 0
    assert lab.files.did("READ") == []
    assert not result.durable


@pytest.mark.parametrize("code", [Code.PERMISSION_DENIED, Code.OP_UNSUPPORTED, Code.FAILURE])
@pytest.mark.parametrize("refused", ["OPEN", "READ"])
def test_from_a_server_that_forbids_reading_only_what_is_synced_counts(lab: Lab, refused: str, code: Code) -> None:
    content = random.Random(4).randbytes(200 * BLOCK)
    lab.path.write_bytes(content)

    def passes(event: Event) -> None:
        lab.clock.now += 0.3  # an fsync is due on the way

    lab.files.refuse = passes
    lab.loses_link(nth("WRITE", 100))
    known = lab.known
    assert known is not None
    assert 0 < known.synced_bytes < len(lab.files.content[lab.part])
    lab.files.events.clear()
    lab.files.refuse = lambda event: (
        Status(code, "") if event.what == refused and (event.what == "READ" or event.flags & 1) else None
    )
    result = lab.run()
    assert lab.published == content
    assert result.sent_bytes == len(content) - known.synced_bytes
    assert min(event.offset for event in lab.files.did("WRITE")) == known.synced_bytes
    assert lab.refused == ({Refusal.READ_BACK} if code != Code.FAILURE else set())


def test_a_tail_that_cannot_be_read_is_a_fresh_upload(lab: Lab) -> None:
    lab.options = {"verify": "tail"}
    lab.loses_link(nth("WRITE", 15))
    denied = Status(Code.PERMISSION_DENIED, "")
    lab.files.refuse = lambda event: denied if event.what == "OPEN" and event.flags & 1 else None
    assert lab.run().resumed_at == 0
    assert lab.published == CONTENT
    assert lab.refused == {Refusal.READ_BACK}


@pytest.mark.parametrize("code", [Code.OP_UNSUPPORTED, Code.FAILURE])
def test_a_server_that_refuses_to_go_on_with_a_part_gets_a_fresh_upload(lab: Lab, code: Code) -> None:
    lab.loses_link(nth("WRITE", 15))
    no = Status(code, "")
    lab.files.refuse = lambda event: no if event.what == "OPEN" and event.flags in (0x0A, 0x03) else None
    result = lab.run()
    assert lab.published == CONTENT
    assert result.resumed_at == 0
    assert Refusal.RESUME in lab.refused


def test_a_server_that_writes_only_at_the_end_of_a_file_gets_a_fresh_upload(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    first = nth("WRITE")
    lab.files.refuse = lambda event: Status(Code.FAILURE, "Illegal seek") if first(event) else None
    lab.run()
    assert lab.published == CONTENT
    assert Refusal.RESUME in lab.refused


def test_a_changed_source_starts_over_and_no_byte_of_the_old_version_stays(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    newer = CONTENT[::-1]
    lab.path.write_bytes(newer)
    os.utime(lab.path, ns=(1, 1))
    lab.run()
    assert lab.published == newer


def test_an_edit_whose_time_was_set_back_is_found_by_content(lab: Lab) -> None:
    status = os.stat(lab.path)
    lab.options = {"trust": True}  # nothing else would read back
    lab.loses_link(nth("WRITE", 15))
    edited = b"EDIT" + CONTENT[4:]
    lab.path.write_bytes(edited)
    os.utime(lab.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    lab.run()
    assert lab.published == edited


def test_a_checkpoint_of_a_fresh_start_replaces_the_old_one_before_a_byte_is_sent(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.path.write_bytes(CONTENT[::-1] + b"longer")
    lab.files.events.clear()
    lab.run()
    order = whats(lab.files)
    assert order.index("BARRIER") < order.index("OPEN") < order.index("WRITE")
    assert lab.files.did("BARRIER")[0].record.acked_bytes == 0


# -- a broken barrier, a full server, other parts


def test_without_the_intent_on_disk_there_is_no_rename(lab: Lab) -> None:
    def full_disk() -> None:
        raise errors.DiskFull("no space left for the journal")

    lab.fails(errors.DiskFull, at_barrier=full_disk)
    lab.expect_unpublished()


def test_a_full_server_is_named_as_such_although_it_only_says_failure(lab: Lab) -> None:
    import struct

    from iot.sftp.client.wire.packets import Extended

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
    lab.task = {"check_final": True}
    lab.files.content[DEST] = bytearray(CONTENT)
    assert lab.run().already_done
    assert lab.files.did("WRITE") == []
    lab.files.content[DEST][7] ^= 1
    assert not lab.run().already_done
    assert lab.published == CONTENT


def test_without_fsync_the_final_is_looked_at_again_after_a_while(lab: Lab) -> None:
    del lab.extensions[b"fsync@openssh.com"]
    lab.task = {"grace": True}
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


def test_what_was_synced_before_the_rename_is_not_read_back_when_its_answer_is_lost(lab: Lab) -> None:
    lab.loses_link(nth("RENAME"))
    lab.files.events.clear()
    result = lab.run()
    assert lab.published == CONTENT
    assert (result.sent_bytes, lab.files.did("READ"), lab.files.did("WRITE")) == (0, [], [])


def test_a_device_that_dies_again_and_again_does_not_read_the_same_bytes_back_each_time(lab: Lab) -> None:
    """Every life ends before a checkpoint is due by bytes or time."""
    lab.path.write_bytes(random.Random(3).randbytes(4 * 2**20))

    def passes(event: Event) -> None:
        lab.clock.now += 0.002

    lab.files.refuse = passes
    read_bytes = 0
    for life in range(6):
        lab.ledger = Checkpoints(lab.journal, "s", every_bytes=4 * 2**20, every_s=1e9, clock=lab.clock)
        lab.files.events.clear()
        if life < 5:
            lab.loses_link(nth("WRITE", 700))
        else:
            lab.run()
        read_bytes += sum(event.length for event in lab.files.did("READ"))
    assert lab.published == lab.path.read_bytes()
    assert read_bytes <= 4 * 2**20

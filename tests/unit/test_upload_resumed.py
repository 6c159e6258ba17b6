"""An upload goes on after a lost link with what the server really has: scripted answers, no server, no network."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, EXTENSIONS, Lab, any_request, nth, whats

from iot.sftp.client.protocol.packets import Code, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import LinkLost
from iot.transfer.journal.checkpoints import Checkpoints


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


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


@pytest.mark.parametrize("classic", [False, True])
def test_a_refusal_that_may_only_mean_too_many_open_files_is_not_remembered(lab: Lab, classic: bool) -> None:
    """classic: what is asked next, in the other mode, finds a free handle."""
    lab.loses_link(nth("WRITE", 15))
    lab.others = {b"another's"}
    refused = (0x0A,) if classic else (0x0A, 0x03)
    no = Status(Code.FAILURE, "")
    lab.files.refuse = lambda event: no if event.what == "OPEN" and event.flags in refused else None
    result = lab.run()
    assert lab.published == CONTENT
    assert (result.resumed_at > 0) is classic
    assert lab.refused == set()


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

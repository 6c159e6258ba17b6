"""The steps of one upload over a store: what is asked of the far side, what counts as sent, and what is on record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import SessionSide
from unit.store_upload_lab import BLOCK, CONTENT, NOT_DURABLE, StoreLab

from iot.folder.store import FolderStore
from iot.transfer.errors import (
    AlreadyExists,
    Cancelled,
    LinkLost,
    NameRefused,
    NotFound,
    PermissionDenied,
    ServerRefused,
)
from iot.transfer.model import IfExists, Phase, Progress, Span
from iot.transfer.parallel.upload import SURE_AFTER_S
from iot.transfer.remote import Ack
from iot.transfer.source import Source

SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRITE = 4 * BLOCK


@pytest.fixture
def lab(tmp_path: Path) -> StoreLab:
    return StoreLab(tmp_path)


def cut(lab: StoreLab, write: int = 2, **faults: Any) -> Any:
    """An upload that was lost before this write -> what is on record."""
    lab.again(before={("write", write): LinkLost("cut")}, **faults)
    known = lab.fails(LinkLost)
    lab.again()
    return known


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Span, bytes]]:
    """The spans that a folder was given, and their content."""
    seen: list[tuple[Span, bytes]] = []
    real = FolderStore.write

    def write(self: FolderStore, token: bytes, span: Span, body: Any) -> Ack:
        blocks = list(body)
        seen.append((span, b"".join(blocks)))
        return real(self, token, span, iter(blocks))

    monkeypatch.setattr(FolderStore, "write", write)
    return seen


class Reads:
    """Of the source. then: called at each."""

    def __init__(self) -> None:
        self.count = 0
        self.then: Callable[[], object] = lambda: None


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    real, reads = Source.read, Reads()

    def read(self: Source, span: Span) -> bytes:
        reads.count += 1
        reads.then()
        return real(self, span)

    monkeypatch.setattr(Source, "read", read)
    return reads


# -- what is sent


def test_each_byte_is_sent_once_and_in_order_and_counts_once(lab, writes):
    result = lab.run()
    assert [span for span, _ in writes] == [Span(0, WRITE), Span(WRITE, 2 * WRITE), Span(2 * WRITE, len(CONTENT))]
    assert b"".join(content for _, content in writes) == CONTENT
    assert lab.delivered == [WRITE, WRITE, 2 * BLOCK]
    assert (result.sent_bytes, result.resumed_at, result.possible_repeat, result.durable) == (10_000, 0, False, True)
    assert lab.meter.wire.sent >= len(CONTENT)
    assert lab.meter.wire.received == 0
    assert lab.there() == {"file": CONTENT}


@pytest.mark.parametrize("publishes_by_name", [True, False])
def test_an_empty_file_is_one_write_of_nothing(lab, writes, publishes_by_name):
    lab.write(b"")
    if publishes_by_name:
        lab.run()
        assert writes == [(Span(0, 0), b"")]
        assert lab.there() == {"file": b""}
        return
    side = SessionSide()
    lab.make = side.store
    lab.faults.capabilities = {}
    lab.run()
    assert lab.faults.counts["write"] == 1
    assert side.files == {b"file": b""}


def test_where_a_write_has_no_limit_all_goes_in_one(lab, writes):
    lab.faults.capabilities["write_bytes"] = None
    lab.run()
    assert [span for span, _ in writes] == [Span(0, len(CONTENT))]


@pytest.mark.parametrize("number", [0, 1])
def test_a_far_side_that_takes_nothing_more_is_refused_where_it_stands(lab, number):
    acks = iter(range(99))
    lab.faults.answer["write"] = lambda ack: Ack(0) if next(acks) == number else ack
    with pytest.raises(ServerRefused, match=f"accepts no more data of .* at offset {number * WRITE}$"):
        lab.run()
    assert sum(lab.delivered) == number * WRITE


def test_an_answer_for_more_than_was_sent_counts_no_byte_that_was_not(lab):
    lab.faults.answer["write"] = lambda ack: Ack(ack.end + (500 if ack.end == WRITE else 0))
    lab.run()
    assert lab.there() == {"file": CONTENT}


def test_a_write_that_took_less_is_gone_on_with_from_there(lab, writes):
    short = iter([100])
    lab.faults.answer["write"] = lambda ack: Ack(ack.end - next(short, 0), durable=ack.durable)
    lab.run()
    assert [span.start for span, _ in writes[:2]] == [0, WRITE - 100]
    assert sum(lab.delivered) == len(CONTENT)
    assert lab.there() == {"file": CONTENT}


def test_a_suspended_upload_sends_no_further_block(lab, reads):
    lab.job = {"suspended": lambda: reads.count == 2}
    lab.fails(Cancelled)
    assert reads.count == 2


def test_a_cancelled_upload_sends_no_further_block(lab, reads):
    reads.then = lambda: reads.count == 3 and lab.stop.set()
    lab.fails(Cancelled)
    assert reads.count == 3


def test_what_is_suspended_before_it_begins_asks_nothing_of_the_far_side(lab):
    lab.job = {"suspended": lambda: True}
    lab.fails(Cancelled)
    assert lab.faults.calls == []


def test_progress_is_told_at_most_ten_times_a_second_and_at_the_end(lab, reads):
    told: list[Progress] = []

    def pass_time() -> None:
        lab.now += 0.06

    reads.then, lab.job = pass_time, {"progress": told.append}
    lab.run()
    assert told[-1] == Progress(str(lab.path), len(CONTENT), len(CONTENT), 0)
    assert [each.done_bytes // BLOCK for each in told] == [1, 3, 5, 7, 9, 10]


# -- names


def test_a_name_that_is_too_long_for_its_checksum_is_refused_before_anything_is_sent(lab):
    lab.options, lab.job = {"sidecar": True}, {"if_exists": IfExists.RENAME, "alternatives": ("n" * 250,)}
    lab.fails(NameRefused)
    assert lab.faults.calls == []


@pytest.mark.parametrize("policy", [IfExists.SKIP, IfExists.FAIL])
def test_where_nothing_would_come_of_it_nothing_is_sent(lab, policy):
    (lab.far / "file").write_bytes(b"theirs")
    lab.job = {"if_exists": policy}
    if policy is IfExists.SKIP:
        assert lab.run().skipped
    else:
        lab.fails(AlreadyExists)
    assert lab.faults.counts["begin"] == 0


def test_a_name_that_is_taken_at_the_last_moment_costs_the_part_and_the_file_is_skipped(lab):
    def taken(command: Any) -> None:
        if command.record.phase is Phase.PUBLISHING:
            (lab.far / "file").write_bytes(b"theirs")

    lab.job, lab.at_command = {"if_exists": IfExists.SKIP}, taken
    result = lab.run()
    assert (result.skipped, result.proof, result.sent_bytes) == (True, None, len(CONTENT))
    assert lab.there() == {"file": b"theirs"}


@pytest.mark.parametrize("stands", [True, False])
def test_an_exact_name_of_a_part_is_used_unless_something_else_has_it(lab, stands):
    lab.job = {"part_suffix": ".tmp"}
    if stands:
        (lab.far / "file.tmp").write_bytes(b"theirs")
    lab.run()
    assert (lab.commands[0].record.token == b"file.tmp") is not stands
    assert lab.there() == ({"file": CONTENT, "file.tmp": b"theirs"} if stands else {"file": CONTENT})


def test_an_exact_part_of_ours_is_begun_anew_under_its_name(lab):
    lab.job = {"part_suffix": ".tmp"}
    known = cut(lab)
    lab.write(CONTENT, mtime_s=5)
    result = lab.run(known)
    assert (result.resumed_at, lab.commands[0].record.token) == (0, b"file.tmp")
    assert lab.there() == {"file": CONTENT}


# -- how it goes on


def test_what_had_arrived_and_only_its_answer_was_lost_counts_as_progress_of_the_next_attempt(lab):
    lab.again(after={("write", 1): LinkLost("cut")})
    known = lab.fails(LinkLost)
    assert known.acked_bytes == WRITE
    lab.again()
    result = lab.run(known)
    assert (result.resumed_at, result.sent_bytes, result.possible_repeat) == (2 * WRITE, 2 * BLOCK, False)
    assert lab.delivered == [WRITE, 2 * BLOCK]


def test_what_was_read_back_is_not_yet_safe_from_a_power_cut(lab):
    known = cut(lab, answer=NOT_DURABLE)
    assert (known.acked_bytes, known.synced_bytes) == (2 * WRITE, 0)
    lab.again(before={("write", 0): LinkLost("cut")}, answer=NOT_DURABLE)
    known = lab.fails(LinkLost, known)
    assert (known.acked_bytes, known.synced_bytes) == (2 * WRITE, 0)
    known = cut(lab)
    lab.again(before={("write", 0): LinkLost("cut")})
    known = lab.fails(LinkLost, known)
    assert (known.acked_bytes, known.synced_bytes) == (2 * WRITE, 2 * WRITE)


def test_how_little_of_a_part_was_right_is_on_record_when_the_link_is_lost_again(lab):
    known = cut(lab, answer=NOT_DURABLE)
    [part] = lab.far.iterdir()
    with part.open("r+b") as file:
        file.seek(BLOCK)
        file.write(b"?")
    lab.again(before={("write", 0): LinkLost("cut")}, answer={"read_part": in_blocks})
    assert lab.fails(LinkLost, known).acked_bytes == BLOCK
    assert lab.delivered == [0]


def in_blocks(blocks: Any) -> Any:
    whole = b"".join(blocks)
    return iter([whole[at : at + BLOCK] for at in range(0, len(whole), BLOCK)])


def test_what_could_not_even_be_begun_is_not_on_record(lab):
    lab.again(before={("begin", 0): LinkLost("cut")})
    assert lab.fails(LinkLost) is None


@pytest.mark.parametrize("error", [PermissionDenied("read-only now"), NotFound("gone")])
def test_a_part_that_may_not_be_written_any_more_is_a_failure_and_one_that_is_gone_is_begun_anew(lab, error):
    known = cut(lab)
    lab.again(before={("write", 0): error})
    if isinstance(error, PermissionDenied):
        lab.fails(PermissionDenied, known)
        assert lab.faults.counts["write"] == 1
    else:
        assert lab.run(known).resumed_at == 0
        assert lab.there() == {"file": CONTENT}
        assert sum(lab.delivered) == len(CONTENT)


def test_a_part_of_which_no_byte_is_right_is_begun_anew(lab):
    known = cut(lab, answer=NOT_DURABLE)
    [part] = lab.far.iterdir()
    part.write_bytes(bytes(2 * WRITE))
    lab.run(known)
    assert (lab.faults.counts["begin"], lab.faults.counts["abandon"]) == (1, 0)
    assert lab.there() == {"file": CONTENT}


def test_an_empty_part_of_an_empty_file_is_complete(lab):
    lab.write(b"")
    lab.again(before={("publish", 0): LinkLost("cut")})
    with pytest.raises(LinkLost):
        lab.run()
    [record] = [command.record for command in lab.commands]
    lab.again()
    lab.run(record)
    assert lab.faults.counts["begin"] == 0
    assert lab.there() == {"file": b""}


def test_a_small_file_in_a_new_version_takes_back_what_is_on_record_first(lab):
    known = cut(lab)
    lab.write(b"small")
    lab.run(known)
    assert [(command.record.acked_bytes, command.record.phase) for command in lab.commands] == [
        (0, Phase.SENDING),
        (5, Phase.PUBLISHING),
    ]


@pytest.mark.parametrize("size", [BLOCK, BLOCK + 1])
def test_only_what_is_longer_than_a_block_is_on_record_before_its_first_byte(lab, size):
    lab.write(CONTENT[:size])
    lab.run()
    assert [command.record.phase for command in lab.commands] == [Phase.SENDING] * (size > BLOCK) + [Phase.PUBLISHING]


# -- what is taken for being on the disk there


@pytest.mark.parametrize(("later_s", "synced"), [(SURE_AFTER_S, 2 * WRITE), (SURE_AFTER_S - 1, 0)])
def test_bytes_that_were_read_back_a_minute_ago_on_the_same_connection_are_on_the_disk(lab, reads, later_s, synced):
    known, began = cut(lab, answer=NOT_DURABLE), lab.now
    lab.again(before={("write", 1): LinkLost("cut")}, answer=NOT_DURABLE)
    lab.faults.capabilities["write_bytes"] = BLOCK

    def pass_time() -> None:
        if lab.faults.counts["write"]:
            lab.now = began + later_s

    reads.then = pass_time
    assert lab.fails(LinkLost, known).synced_bytes == synced


@pytest.mark.parametrize(("block_s", "records"), [(9.9, 5), (10.0, 10), (3.0, 3)])
def test_a_slow_write_is_noted_every_ten_seconds(lab, reads, block_s, records):
    lab.faults.capabilities["write_bytes"] = None

    def pass_time() -> None:
        lab.now += block_s

    reads.then = pass_time
    lab.run()
    assert len(lab.notes) == records


def test_each_write_is_noted_when_it_is_done(lab):
    lab.run()
    assert [note.acked_bytes for note in lab.notes] == [WRITE, 2 * WRITE, len(CONTENT)]

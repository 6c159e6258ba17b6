"""The end of an upload over SFTP where a server does less than it says: what is waited for, and what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.scripted import Event, drive
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, nth, of_final, refusing, whats

from iot.sftp.client.jobs import sending
from iot.sftp.client.jobs.sending import READ_EARLY_BYTES, ReadBack
from iot.sftp.client.pipeline.job import Command, Room, Send, Work
from iot.sftp.client.protocol.packets import Code, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import Cancelled, ServerRefused, Unsupported
from iot.transfer.model import Proof

UNSUPPORTED = Status(Code.OP_UNSUPPORTED, "Unsupported")
DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")
SIDECAR = DEST + b".sha256"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


@pytest.fixture
def without_fsync(lab: Lab) -> Lab:
    del lab.extensions[b"fsync@openssh.com"]
    return lab


# -- the proof


@pytest.mark.parametrize("more", [0, 1, 5 * BLOCK])
def test_a_tail_that_is_longer_than_the_file_proves_all_of_it(lab: Lab, more: int) -> None:
    lab.options = {"proof": Proof.TAIL, "tail_size": len(CONTENT) + more}
    assert lab.run().proof is Proof.FULL
    assert sum(event.length for event in lab.files.did("READ")) == len(CONTENT)


@pytest.mark.parametrize(("proof", "word"), [(Proof.TAIL, "tail"), (Proof.FULL, "full")])
def test_a_proof_that_the_server_does_not_allow_is_named(lab: Lab, proof: Proof, word: str) -> None:
    lab.options = {"proof": proof, "tail_size": BLOCK}
    lab.files.refuse = refusing(lambda event: event.what == "READ", DENIED)
    assert f"proof={word} requires reading back, which is refused: " in str(lab.fails(Unsupported))
    lab.expect_unpublished()


@pytest.mark.parametrize("mtime_ns", [1, 10**9 - 1])
def test_the_first_second_of_all_times_is_kept_too(lab: Lab, mtime_ns: int) -> None:
    os.utime(lab.path, ns=(mtime_ns, mtime_ns))
    lab.options = {"keep_times": True}
    lab.run()
    assert len(lab.files.did("FSETSTAT")) == 1


# -- the checksum


def test_the_checksum_of_what_is_written_in_place_is_written_in_place(lab: Lab) -> None:
    lab.options = {"sidecar": True, "direct_write": True}
    lab.run()
    assert lab.files.content[SIDECAR].endswith(b"  file\n")
    assert (lab.files.did("RENAME"), lab.files.did("PLAIN-RENAME")) == ([], [])


# -- on the server's disk


@pytest.mark.parametrize(
    ("grace", "seconds", "waits"), [(True, 30.0, True), (True, 0.0, False), (False, 30.0, False), (False, 0.0, False)]
)
def test_the_final_is_looked_at_again_only_where_that_is_asked_for(
    without_fsync: Lab, grace: bool, seconds: float, waits: bool
) -> None:
    lab = without_fsync
    lab.options, lab.job = {"publish_grace_s": seconds}, {"grace": grace}
    began = lab.clock.now
    assert not lab.run().durable
    assert whats(lab.files).count("LINGER") == waits
    assert [event.what for event in lab.files.events if event.path == DEST] == ["STAT"] * waits
    assert lab.clock.now - began == (seconds if waits else 0.0)


@pytest.mark.parametrize(("trust", "fsync"), [(True, True), (False, False)])
def test_without_need_or_without_fsync_none_is_asked_for(lab: Lab, trust: bool, fsync: bool) -> None:
    if not fsync:
        del lab.extensions[b"fsync@openssh.com"]
    lab.options = {"trust": trust}
    assert not lab.run().durable
    assert lab.files.did("FSYNC") == []
    assert [event.path for event in lab.files.did("OPEN")] == [event.path for event in lab.files.did("CLOSE")]


def test_the_final_counts_as_open_while_it_is_synced(lab: Lab) -> None:
    """Meanwhile a refusal of another file may only mean that there are no more handles."""
    upload = lab.upload()
    others: list[set[bytes]] = []

    def watch(event: Event) -> None:
        if of_final("FSYNC")(event):
            others.append(set(upload.context.handles))

    lab.files.refuse = watch
    drive(upload.run(), lab.files)
    assert [len(handles) for handles in others] == [1]


def test_where_reading_is_busy_a_handle_for_writing_will_do(lab: Lab) -> None:
    lab.banner, lab.others = "SSH-2.0-other", {b"another's"}
    lab.files.refuse = refusing(lambda event: of_final("OPEN")(event) and event.flags == Flag.READ)
    assert lab.run().durable
    assert "LINGER" not in whats(lab.files)


def test_a_final_that_is_synced_at_the_second_look_is_durable(lab: Lab) -> None:
    lab.others = {b"another's"}
    busy = [True] * 3

    def refuse(event: Event) -> Reply | None:
        return FAILURE if of_final("OPEN")(event) and busy and busy.pop() else None

    lab.files.refuse = refuse
    began = lab.clock.now
    assert lab.run().durable
    assert whats(lab.files).count("LINGER") == 1
    assert lab.clock.now - began == 0.25


def test_where_the_final_is_never_opened_it_is_delivered_without_being_durable(lab: Lab) -> None:
    lab.others = {b"another's"}
    lab.files.refuse = refusing(of_final("OPEN"))
    began = lab.clock.now
    assert not lab.run().durable
    assert lab.clock.now - began == 20 * 0.25


# -- on the way


def ticking(lab: Lab, more: Callable[[Event], Reply | None] = lambda event: None) -> None:
    """An fsync is due with each write."""

    def answer(event: Event) -> Reply | None:
        lab.clock.now += 1.0 if event.what == "WRITE" else 0.0
        return more(event)

    lab.files.refuse = answer


def test_a_server_that_offers_fsync_and_has_none_on_the_way_is_remembered(lab: Lab) -> None:
    ticking(lab, refusing(lambda event: event.what == "FSYNC", UNSUPPORTED))
    assert not lab.run().durable
    assert (lab.published, lab.refused) == (CONTENT, {Refusal.FSYNC})
    assert not any(of_final("FSYNC")(event) for event in lab.files.events)


def test_a_part_that_cannot_be_synced_on_the_way_is_not_published(lab: Lab) -> None:
    ticking(lab, refusing(nth("FSYNC")))
    lab.fails(ServerRefused)
    lab.expect_unpublished()


def test_what_an_earlier_attempt_left_is_synced_first(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.files.events.clear()
    lab.run()
    part = [event.what for event in lab.files.events if event.path.endswith(b".part") and event.what != "READ"]
    assert part.index("FSYNC") < part.index("WRITE")


def test_a_write_that_is_refused_after_another_one_was_not_says_nothing_against_resuming(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    lab.banner = "SSH-2.0-other"
    lab.files.refuse = refusing(nth("WRITE", 6))
    lab.fails(ServerRefused)
    assert lab.refused == set()
    lab.files.refuse = lambda event: None
    assert lab.run().resumed_at > 14 * BLOCK


def commands(work: Work[Any], seen: list[tuple[Command, int]]) -> Work[Any]:
    """The job as it is; seen: what it asks for, and how many answers that brings."""
    answers: Any = None
    try:
        while True:
            command = work.send(answers)
            answers = yield command
            seen.append((command, sum(isinstance(token, ReadBack) for token, _ in answers)))
    except StopIteration as stop:
        return stop.value
    finally:
        work.close()


@pytest.mark.parametrize(("block", "asks"), [(READ_EARLY_BYTES, False), (READ_EARLY_BYTES + 1, True)])
def test_only_a_small_block_is_read_before_there_is_room_for_it(lab: Lab, block: int, asks: bool) -> None:
    lab.block = block
    seen: list[tuple[Command, int]] = []
    drive(commands(lab.upload().run(), seen), lab.files)
    rooms = [command.cost for command, _ in seen if isinstance(command, Room)]
    whole, rest = divmod(len(CONTENT), block)
    assert rooms == ([block] * whole + [rest] * (rest > READ_EARLY_BYTES) if asks else [])


def test_only_so_much_is_read_back_at_a_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.loses_link(nth("WRITE", 20))
    monkeypatch.setattr(sending, "READ_BACK_BYTES", 4 * BLOCK)
    seen: list[tuple[Command, int]] = []
    drive(commands(lab.upload().run(), seen), lab.files)
    outstanding = most = asked = 0
    for command, answered in seen:
        sent = isinstance(command, Send) and isinstance(command.token, ReadBack)
        asked += sent
        most = max(most, outstanding + sent)
        outstanding += sent - answered
    assert (asked, most, outstanding) == (19, 4, 0)


def test_the_part_is_synced_again_and_again(lab: Lab) -> None:
    lab.path.write_bytes(bytes(100 * BLOCK))
    ticking(lab)
    lab.run()
    part = [event.what for event in lab.files.events if event.path.endswith(b".part")]
    assert part.count("FSYNC") > 3


def test_a_last_block_that_waited_for_room_is_not_sent_after_a_suspension(lab: Lab) -> None:
    lab.block = len(CONTENT)
    seen: list[tuple[Command, int]] = []
    lab.job = {"suspended": lambda: any(isinstance(command, Room) for command, _ in seen)}
    with pytest.raises(Cancelled):
        drive(commands(lab.upload().run(), seen), lab.files)
    assert lab.files.did("WRITE") == []

"""A download gets its name only when it is whole, proven and on the disk: scripted answers, a real local folder."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.download_lab import BLOCK, CONTENT, SOURCE, Lab, answering, calls, nth
from unit.scripted import Event

from iot.sftp.client.protocol.packets import Code, Data, Status
from iot.transfer.errors import NotFound, PermanentError, ServerRefused, SFTPError, SourceChanged
from iot.transfer.model import Checkpoint, Proof

__all__ = ["calls"]  # a fixture

END_OF_FILE = Status(Code.EOF, "")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "here"
    folder.mkdir()
    return Lab(folder)


# -- read to the end


@pytest.mark.parametrize("size", [None, 0, 1, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1, 2 * len(CONTENT)])
@pytest.mark.parametrize("length", [0, 1, BLOCK, len(CONTENT)])
def test_a_file_is_read_to_its_end_whatever_size_the_server_reports(lab: Lab, size: int | None, length: int) -> None:
    lab.files.content[SOURCE] = bytearray(CONTENT[:length])
    lab.files.size = size
    result = lab.run()
    assert lab.dest.read_bytes() == CONTENT[:length]
    assert (result.size, result.sent_bytes) == (length, length)
    assert result.proven == ("size" if size == length else "none")
    assert lab.left == ["file"]
    assert lab.files.handles == {}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([None, 0, 100, 5 * BLOCK, len(CONTENT), 10**6]), st.integers(50, BLOCK))
def test_answers_short_and_in_any_order_give_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: int | None, longest: int
) -> None:
    draw = random.Random(seed)
    lab = Lab(tmp_path_factory.mktemp("here"), options={"checkpoint_bytes": 10**9})
    lab.files.size = size
    lab.files.longest = lambda: draw.randint(1, longest)
    lab.files.content[SOURCE] = bytearray(CONTENT[: 3 * BLOCK + 5])
    lab.run(order=draw)
    assert lab.dest.read_bytes() == CONTENT[: 3 * BLOCK + 5]


def test_a_short_read_is_asked_again_from_where_it_ended(lab: Lab) -> None:
    lab.files.longest = lambda: 1000
    lab.run()
    asked = {(read.offset, read.length) for read in lab.files.did("READ")}
    assert {(0, BLOCK), (1000, 24), (BLOCK, BLOCK), (BLOCK + 1000, 24)} <= asked
    assert lab.dest.read_bytes() == CONTENT


def test_one_read_goes_beyond_the_reported_end(lab: Lab) -> None:
    lab.run()
    beyond = [read.offset for read in lab.files.did("READ") if read.offset + read.length > len(CONTENT)]
    assert beyond == [len(CONTENT)]


@pytest.mark.parametrize("number", [1, 5, 21])
def test_an_end_of_file_that_was_none_leaves_no_hole(lab: Lab, number: int) -> None:
    lab.files.refuse = answering(nth("READ", number), END_OF_FILE)
    lab.run(order=random.Random(3))
    assert lab.dest.read_bytes() == CONTENT


def test_a_file_with_bytes_behind_its_own_end_is_never_published(lab: Lab) -> None:
    lab.files.refuse = answering(lambda event: event.what == "READ" and event.offset == 5 * BLOCK, END_OF_FILE)
    lab.fails(SourceChanged, "size")
    assert lab.left == []


@pytest.mark.parametrize("data", [b"", bytes(BLOCK + 1)])
def test_more_bytes_than_asked_for_or_none_are_refused(lab: Lab, data: bytes) -> None:
    lab.files.refuse = answering(nth("READ", 3), Data(memoryview(data)))
    lab.fails(ServerRefused, f"server sent {len(data)} bytes")
    assert not lab.dest.exists()
    assert lab.files.handles == {}


@pytest.mark.parametrize(
    ("mode", "kind"), [(0o040755, NotFound), (0o020666, PermanentError), (0o010600, PermanentError)]
)
def test_what_is_no_regular_file_is_refused_before_it_is_opened(lab: Lab, mode: int, kind: type[SFTPError]) -> None:
    lab.files.mode = mode
    lab.fails(kind, "is ")
    assert lab.files.did("OPEN") == []


# -- the remote file changes


@pytest.mark.parametrize("changed", [{"size": len(CONTENT) + 1}, {"mtime_s": 6}, {"size": None}])
def test_a_file_that_changes_while_it_is_fetched_is_never_published(lab: Lab, changed: dict[str, Any]) -> None:
    def change(event: Event) -> None:
        if event.what == "CLOSE":
            vars(lab.files).update(changed)

    lab.files.refuse = change
    lab.fails(SourceChanged, "changed on the server")
    assert lab.left == []
    assert lab.known is None


def test_a_file_that_goes_away_while_it_is_fetched_is_never_published(lab: Lab) -> None:
    lab.files.refuse = lambda event: lab.files.content.clear() if event.what == "CLOSE" else None
    lab.fails(NotFound)
    assert not lab.dest.exists()


# -- go on


@pytest.mark.parametrize("verify", ["size", "timestamp", "tail", "full"])
def test_a_lost_link_costs_only_what_was_not_on_the_disk(lab: Lab, verify: str) -> None:
    lab.options = {"verify": verify, "tail_size": 2 * BLOCK}
    lab.loses_link()
    assert lab.known is not None
    acked = lab.known.acked_bytes
    assert acked > 0
    result = lab.run()
    assert (result.resumed_at, result.sent_bytes) == (acked, len(CONTENT) - acked)
    assert lab.dest.read_bytes() == CONTENT
    compared = sum(min(read.length, acked - read.offset) for read in lab.files.did("READ") if read.offset < acked)
    assert compared == {"tail": 2 * BLOCK, "full": acked}.get(verify, 0)


@pytest.mark.parametrize("changed", [{"size": len(CONTENT) - 1}, {"mtime_s": 6}, {"mtime_s": None}, {"size": None}])
@pytest.mark.parametrize("verify", ["size", "timestamp", "tail", "full"])
def test_a_changed_or_unknown_version_is_fetched_from_the_start(lab: Lab, changed: dict[str, Any], verify: str) -> None:
    lab.options = {"verify": verify}
    lab.loses_link()
    vars(lab.files).update(changed)
    lab.files.content[SOURCE] = bytearray(new := CONTENT[:0:-1])
    if verify == "size" and "mtime_s" in changed:
        lab.files.content[SOURCE] = bytearray(new := CONTENT)
        assert lab.run().resumed_at > 0  # as asked for: the size alone decides
    else:
        assert lab.run().resumed_at == 0
    assert lab.dest.read_bytes() == new


@pytest.mark.parametrize("reported", [{"size": 0}, {"size": None}, {"mtime_s": None}])
def test_a_file_that_cannot_be_told_from_another_version_is_never_gone_on_with(
    lab: Lab, reported: dict[str, Any]
) -> None:
    vars(lab.files).update(reported)
    lab.loses_link()
    assert lab.known is not None
    assert lab.run().resumed_at == 0
    assert lab.dest.read_bytes() == CONTENT


@pytest.mark.parametrize(("verify", "at"), [("tail", -1), ("full", -1), ("full", 0)])
def test_a_part_that_holds_something_else_is_fetched_from_the_start(lab: Lab, verify: str, at: int) -> None:
    lab.options = {"verify": verify, "tail_size": BLOCK}
    lab.loses_link()
    content = bytearray(lab.part.read_bytes())
    content[at] ^= 1
    lab.part.write_bytes(content)
    assert lab.run().resumed_at == 0
    assert lab.dest.read_bytes() == CONTENT


def test_the_record_of_another_part_is_not_gone_on_with(lab: Lab) -> None:
    lab.loses_link()
    lab.options = {"owner": "other", "resume": False}
    lab.loses_link()
    parts = list(lab.folder.glob("*.part"))
    assert len(parts) == 2
    for part in parts:
        part.write_bytes(bytes(len(CONTENT)))
    lab.options = {"owner": "me"}
    assert lab.run().resumed_at == 0  # the record speaks of the other's
    assert lab.dest.read_bytes() == CONTENT


def test_a_part_that_lost_its_end_is_gone_on_with_where_it_ends(lab: Lab) -> None:
    lab.loses_link()
    os.truncate(lab.part, BLOCK + 10)
    assert lab.run().resumed_at == BLOCK + 10
    assert lab.dest.read_bytes() == CONTENT


def test_without_resume_it_starts_over(lab: Lab) -> None:
    lab.loses_link()
    lab.options = {"resume": False}
    assert lab.run().resumed_at == 0
    assert lab.dest.read_bytes() == CONTENT


# -- proof by a second reading


@pytest.mark.parametrize("proof", ["tail", "full"])
def test_a_second_reading_may_be_answered_short_and_in_any_order(lab: Lab, proof: str) -> None:
    draw = random.Random(5)
    lab.options = {"proof": Proof(proof), "tail_size": 5 * BLOCK}
    lab.files.longest = lambda: draw.randint(1, BLOCK)
    assert lab.run(order=draw).proven == proof
    assert lab.dest.read_bytes() == CONTENT


# -- on the disk


def test_a_download_is_on_the_disk_before_its_name_and_its_name_before_the_result(lab: Lab, calls: list[str]) -> None:
    lab.options = {"keep_mode": True, "keep_times": True, "checkpoint_bytes": 10**9}
    lab.run()
    last_write = len(calls) - calls[::-1].index("write")
    assert [call for call in calls[last_write:] if call != "fsync part"] == [
        "chmod 640 part",
        "utime part",
        "rename",
        "fsync here",
    ]
    assert calls[calls.index("rename") - 1] == "fsync part"


@pytest.mark.usefixtures("disk_at_once")
def test_no_checkpoint_speaks_of_bytes_that_are_not_on_the_disk(
    lab: Lab, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    note = lab.ledger.note

    def noted(checkpoint: Checkpoint, *, now: bool = False) -> None:
        calls.append(f"note {checkpoint.acked_bytes}")
        note(checkpoint, now=now)

    monkeypatch.setattr(lab.ledger, "note", noted)
    lab.run()
    notes = [number for number, call in enumerate(calls) if call.startswith("note")]
    assert len(notes) > 3
    assert {calls[number - 1] for number in notes} == {"fsync part"}


def test_times_and_mode_are_kept_when_asked(lab: Lab) -> None:
    lab.options = {"keep_mode": True, "keep_times": True}
    lab.files.mode = 0o106751  # set-user-id is not the server's to give
    lab.files.mtime_s = 1_234_567_890
    seen: list[int] = []
    lab.files.refuse = lambda event: seen.extend(stat.S_IMODE(path.stat().st_mode) for path in lab.folder.iterdir())
    lab.run()
    status = lab.dest.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o751, 1_234_567_890)
    assert set(seen) == {0o600}  # nobody else reads it before it has its mode


def test_a_server_that_reports_no_mode_and_times_has_none_to_keep(lab: Lab) -> None:
    lab.options = {"keep_mode": True, "keep_times": True}
    lab.files.mode = lab.files.mtime_s = None
    lab.run()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(lab.dest.stat().st_mode) == 0o666 & ~umask


@pytest.mark.needs("proc")
@pytest.mark.parametrize("refused", [None, "OPEN", "READ", "CLOSE"])
def test_the_part_is_closed_however_a_download_ends(lab: Lab, refused: str | None) -> None:
    if refused:
        lab.files.refuse = answering(nth(refused), Status(Code.FAILURE, "Failure"))
    before = os.listdir("/proc/self/fd")
    try:
        lab.run()
    except SFTPError:
        assert refused
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_result_names_source_and_destination(lab: Lab) -> None:
    result = lab.run()
    assert (result.source, result.dest) == ("/up/file", str(lab.dest))
    lab.files.content.clear()
    lab.fails(NotFound, match="^/up/file is not on the server")

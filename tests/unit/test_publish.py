"""From a complete part to the published file over SFTP: times and mode, size, name and checksum, answer by answer."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.remote_commands import command
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, nth, refusing, whats

from iot.sftp.client.jobs import sending
from iot.sftp.client.jobs.upload import Upload
from iot.sftp.client.protocol.packets import Attributes, Code, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import AlreadyExists, NameRefused, NotFound, PermissionDenied, ProofFailed, ServerRefused
from iot.transfer.model import Proof
from iot.transfer.remote_commands import RemoteCommands

UNSUPPORTED = Status(Code.OP_UNSUPPORTED, "Unsupported")
DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")
MISSING = Status(Code.NO_SUCH_FILE, "No such file")
SIDECAR = DEST + b".sha256"
LINE = f"{hashlib.sha256(CONTENT).hexdigest()}  file\n".encode()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


def of_part(what: str) -> Callable[[Event], bool]:
    return lambda event: event.what == what and event.path.endswith(b".part")


# -- closing the part


def test_a_server_that_offers_fsync_and_has_none_for_the_part_is_remembered(lab):
    lab.files.refuse = refusing(of_part("FSYNC"), UNSUPPORTED)
    assert not lab.run().durable
    assert lab.refused == {Refusal.FSYNC}
    assert lab.published == CONTENT
    assert len(lab.files.did("FSYNC")) == 1  # it is not asked for the final then


@pytest.mark.parametrize("what", ["FSYNC", "CLOSE"])
def test_a_part_that_the_server_could_not_bring_to_its_disk_or_close_is_not_published(lab, what):
    lab.files.refuse = refusing(of_part(what))
    lab.fails(ServerRefused)
    lab.expect_unpublished()


def test_with_trust_nothing_is_synced(lab):
    lab.options = {"trust": True}
    assert not lab.run().durable
    assert lab.files.did("FSYNC") == []


@pytest.mark.parametrize(
    ("options", "job", "closed"),
    [
        ({"trust": True}, {}, 1),
        ({}, {}, 0),
        ({"trust": True, "sidecar": True}, {}, 0),
        ({"trust": True}, {"commands": RemoteCommands(after_success=(command("touch", "{path}.ok"),), base="/up")}, 0),
        ({"trust": True}, {"ignores_case": True}, 0),
    ],
    ids=["trust", "durable", "a sidecar to write", "a command that makes a file", "a folder to list"],
)
def test_an_upload_that_will_open_no_more_files_on_the_server_says_so_once_its_part_is_closed(
    lab, options, job, closed
):
    lab.options, lab.job = options, job
    lab.run()
    done = whats(lab.files)
    assert done.count("CLOSED") == closed
    if closed:
        assert "CLOSE" in done[: done.index("CLOSED")]
        assert not {"OPEN", "CLOSE"} & set(done[done.index("CLOSED") :])


@pytest.mark.parametrize(
    ("options", "mtime_s", "flags", "values"),
    [
        ({}, 10**9, None, ()),
        ({"keep_times": True}, 10**9, 8, (10**9, 10**9)),
        ({"keep_mode": True}, 10**9, 4, (0o640,)),
        ({"keep_times": True, "keep_mode": True}, 2**32 - 1, 12, (0o640, 2**32 - 1, 2**32 - 1)),
        ({"keep_times": True}, 2**32, None, ()),  # what version 3 of the protocol cannot say
        ({"keep_times": True}, -1, None, ()),
        ({"keep_times": True}, 0, None, ()),
    ],
)
def test_the_part_gets_times_and_mode_as_asked_and_as_the_protocol_can_say(lab, options, mtime_s, flags, values):
    lab.path.chmod(0o640)
    os.utime(lab.path, (mtime_s, mtime_s))
    lab.options = options
    sent: list[bytes] = []
    answer = lab.files.answer

    def noted(request: Any) -> Reply:
        if request.kind == 10:
            length = struct.unpack_from(">I", request.head)[0]
            sent.append(bytes(request.head)[4 + length :])
        return answer(request)

    lab.files.answer = noted
    lab.run()
    expected = [struct.pack(f">I{len(values)}I", flags, *values)] if flags is not None else []
    assert [body if len(body) == 4 * (len(values) + 1) else body[: 4 * (len(values) + 1)] for body in sent] == expected


def test_times_and_mode_that_are_refused_are_let_pass(lab):
    lab.options = {"keep_times": True, "keep_mode": True}
    lab.files.refuse = refusing(of_part("FSETSTAT"), DENIED)
    lab.run()
    assert lab.published == CONTENT


# -- its size


@pytest.mark.parametrize("told", [MISSING, Status(Code.FAILURE, "?")])
def test_a_part_that_is_gone_after_close_is_told_as_that_and_another_refusal_is_no_size(lab, told):
    lab.files.refuse = refusing(of_part("STAT"), told)
    if told is MISSING:
        assert "is gone after CLOSE" in str(lab.fails(NotFound))
    else:
        lab.run()  # proven by reading its end
        assert [event.offset for event in lab.files.did("READ")] == [len(CONTENT) - 1, len(CONTENT)]


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_another_size_is_never_published(lab, size):
    lab.files.refuse = refusing(of_part("STAT"), Attributes(size, 0o100644, 5))
    assert f"has {size} bytes on the server" in str(lab.fails(ProofFailed))
    lab.expect_unpublished()


@pytest.mark.parametrize("damage", ["none", "shorter", "longer"])
def test_where_no_size_is_told_the_last_byte_is_read_and_none_behind_it(lab, damage):
    def unknown(event: Event) -> Reply | None:
        if not of_part("STAT")(event):
            return None
        if damage == "shorter":
            del lab.files.content[event.path][-1:]
        if damage == "longer":
            lab.files.content[event.path] += b"?"
        return Attributes(None, 0o100644, 5)

    lab.files.refuse = unknown
    if damage == "none":
        lab.run()
        assert lab.published == CONTENT
        assert lab.files.handles == {}
        return
    assert "does not have the" in str(lab.fails(ProofFailed))
    lab.expect_unpublished()


def test_an_empty_file_whose_size_is_not_told_has_no_byte(lab):
    lab.path.write_bytes(b"")
    lab.files.refuse = refusing(of_part("STAT"), Attributes(None, 0o100644, 5))
    lab.run()
    assert lab.published == b""
    assert [event.offset for event in lab.files.did("READ")] == [0]


@pytest.mark.parametrize("refused", ["OPEN", "READ"])
def test_where_nothing_can_be_read_back_either_the_answers_are_believed(lab, refused):
    def drop_box(event: Event) -> Reply | None:
        if of_part("STAT")(event):
            return FAILURE
        reading = event.what == "OPEN" and event.flags == Flag.READ and event.path.endswith(b".part")
        return DENIED if (reading if refused == "OPEN" else of_part("READ")(event)) else None

    lab.files.refuse = drop_box
    lab.run()
    assert lab.published == CONTENT


@pytest.mark.parametrize(("proof", "reads"), [(Proof.SIZE, 0), (Proof.TAIL, 3 * BLOCK), (Proof.FULL, len(CONTENT))])
def test_as_much_is_read_back_as_the_proof_asks_for(lab, proof, reads):
    lab.options = {"proof": proof, "tail_size": 3 * BLOCK}
    assert lab.run().proof is proof
    assert sum(event.length for event in lab.files.did("READ")) == reads


def test_a_tail_that_is_all_of_the_file_proves_all_of_it(lab):
    lab.options = {"proof": Proof.TAIL, "tail_size": len(CONTENT)}
    assert lab.run().proof is Proof.FULL


@pytest.mark.parametrize(("proof", "at"), [(Proof.TAIL, -1), (Proof.FULL, 0)])
def test_a_part_that_holds_something_else_is_never_published(lab, proof, at):
    lab.options = {"proof": proof, "tail_size": 2 * BLOCK}

    def damaged(event: Event) -> None:
        if of_part("STAT")(event):
            lab.files.content[event.path][at] ^= 1

    lab.files.refuse = damaged
    assert "differ from" in str(lab.fails(ProofFailed))
    lab.expect_unpublished()


# -- its name


def test_the_old_file_is_replaced_in_one_step_where_the_server_can(lab):
    lab.files.content[DEST] = bytearray(b"old")
    lab.run()
    assert lab.published == CONTENT
    assert (len(lab.files.did("RENAME")), lab.files.did("REMOVE")) == (1, [])


def test_a_server_that_offers_posix_rename_and_has_none_is_remembered(lab):
    lab.files.refuse = refusing(lambda event: event.what == "RENAME", UNSUPPORTED)
    lab.run()
    assert lab.published == CONTENT
    assert lab.refused == {Refusal.POSIX_RENAME}


def test_a_refused_rename_that_can_replace_is_not_tried_another_way(lab):
    lab.files.content[DEST] = bytearray(b"old")
    lab.options = {"replace_by_remove": True}
    lab.files.refuse = refusing(lambda event: event.what == "RENAME", DENIED)
    lab.fails(PermissionDenied)
    assert (lab.files.did("PLAIN-RENAME"), lab.files.did("REMOVE")) == ([], [])
    assert lab.published == b"old"
    assert lab.files.handles == {}  # that of the old final, opened in the same flight, too


@pytest.mark.parametrize("allowed", [False, True])
def test_where_nothing_can_be_replaced_the_old_file_goes_only_by_setting(lab, allowed):
    del lab.extensions[b"posix-rename@openssh.com"]
    lab.files.content[DEST] = bytearray(b"old")
    lab.options = {"replace_by_remove": allowed}
    if allowed:
        lab.run()
        assert lab.published == CONTENT
        return
    assert "Set replace_by_remove" in str(lab.fails(AlreadyExists))
    assert lab.published == b"old"


@pytest.mark.parametrize("refused", ["REMOVE", "second rename"])
def test_a_replacement_that_stops_half_way_is_told(lab, refused):
    del lab.extensions[b"posix-rename@openssh.com"]
    lab.files.content[DEST] = bytearray(b"old")
    lab.options = {"replace_by_remove": True}
    lab.files.refuse = refusing(nth("REMOVE") if refused == "REMOVE" else nth("PLAIN-RENAME", 2), DENIED)
    words = "cannot remove the old" if refused == "REMOVE" else "cannot publish"
    assert words in str(lab.fails(PermissionDenied))


def test_a_plain_rename_that_is_refused_where_nothing_stands_is_told_as_refused(lab):
    del lab.extensions[b"posix-rename@openssh.com"]
    lab.options = {"replace_by_remove": True}
    lab.files.refuse = refusing(lambda event: event.what == "PLAIN-RENAME", DENIED)
    lab.fails(PermissionDenied)
    assert lab.files.did("REMOVE") == []


def test_a_folder_in_its_place_is_told_and_the_part_is_removed(lab):
    lab.files.folders.add(DEST)
    lab.files.refuse = refusing(lambda event: event.what == "RENAME")
    lab.fails(NameRefused)
    assert lab.files.content == {}


def test_any_other_refusal_keeps_the_part(lab):
    lab.files.refuse = refusing(lambda event: event.what == "RENAME", DENIED)
    lab.fails(PermissionDenied)
    assert [bytes(content) for content in lab.files.content.values()] == [CONTENT]


# -- its checksum


@pytest.mark.parametrize("there", [None, b"0" * 64 + b"  file\n"])
def test_a_checksum_is_written_under_a_part_and_renamed(lab, there):
    lab.options = {"sidecar": True}
    if there is not None:
        lab.files.content[SIDECAR] = bytearray(there)
    lab.run()
    assert lab.files.content[SIDECAR] == LINE
    opened = [event.path for event in lab.files.did("OPEN") if event.flags == Flag.WRITE | Flag.CREATE | Flag.TRUNCATE]
    assert SIDECAR not in opened
    assert [event.dest for event in lab.files.did("RENAME")].count(SIDECAR) == 1
    assert set(lab.files.content) == {DEST, SIDECAR}


def test_a_checksum_that_is_right_already_is_left_alone(lab):
    lab.options = {"sidecar": True}
    lab.files.content[SIDECAR] = bytearray(LINE)
    lab.run()
    assert [event.dest for event in lab.files.did("RENAME")] == [DEST]


@pytest.mark.parametrize("there", [b"of a producer", LINE * 2, LINE.replace(b"file", b"other")])
def test_what_else_has_the_name_of_the_checksum_stays(lab, there, caplog):
    lab.options = {"sidecar": True}
    lab.files.content[SIDECAR] = bytearray(there)
    lab.run()
    assert lab.files.content[SIDECAR] == there
    assert "no sidecar written" in caplog.text


@pytest.mark.parametrize("what", ["OPEN", "WRITE", "CLOSE"])
def test_a_checksum_that_cannot_be_written_is_told(lab, what):
    lab.options = {"sidecar": True}

    def refuse(event: Event) -> Reply | None:
        beside = b".part" in event.path and DEST in lab.files.content
        return FAILURE if beside and event.what == what else None

    lab.files.refuse = refuse
    lab.fails(ServerRefused)
    assert SIDECAR not in lab.files.content
    assert "RENAME" in whats(lab.files)


# -- syncs on the way


def synced_at(lab: Lab, pauses_s: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Before which writes the part is synced, when the clock goes on by so much at some of them."""
    monkeypatch.setattr(sending, "SYNC_EVERY_BYTES", 5 * BLOCK)

    def tick(event: Event) -> None:
        if event.what == "WRITE":
            lab.clock.now += pauses_s.get(len(lab.files.did("WRITE")), 0.0)

    lab.files.refuse = tick
    lab.run()
    told = [event.what for event in lab.files.events if event.what == "WRITE" or of_part("FSYNC")(event)]
    return [told[:at].count("WRITE") for at, what in enumerate(told) if what == "FSYNC"][:-1]


def test_a_little_waits_for_a_second_and_much_for_a_quarter_of_one(lab, monkeypatch):
    (first, *_) = synced_at(lab, {1: 0.9}, monkeypatch)
    assert first >= 6


def test_a_second_is_long_enough_for_a_little(lab, monkeypatch):
    (first, *_) = synced_at(lab, {3: 1.0}, monkeypatch)
    assert 3 <= first <= 6


@pytest.mark.parametrize(("pause_s", "synced"), [(0.0, False), (0.2, False), (0.25, True)])
def test_much_is_synced_but_not_without_a_pause(lab, monkeypatch, pause_s, synced):
    found = synced_at(lab, {14: pause_s}, monkeypatch)
    assert bool(found) is synced


@pytest.mark.parametrize("large", [False, True])
def test_on_the_way_only_a_large_file_is_on_record_and_only_where_it_has_got_on(lab, monkeypatch, large):
    noted: list[int] = []
    monkeypatch.setattr(lab.ledger, "note", lambda checkpoint, **_: noted.append(checkpoint.acked_bytes))
    monkeypatch.setattr(Upload, "_is_large", property(lambda _: large))
    lab.run()
    assert noted == sorted(set(noted))
    assert bool(noted) is large

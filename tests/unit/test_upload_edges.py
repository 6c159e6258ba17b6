"""Nothing guessed at an upload's edges: how a part is opened, that no handle stays open, what old servers know."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from pathlib import Path

import pytest
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, FAILURE, Lab, any_request, nth, of_final, refusing

from iot.sftp.client.protocol.packets import Attributes, Code, Extended, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import ProofFailed, ServerRefused, SFTPError
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, Proof

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

"""Room on the server to the byte, and what becomes of a part where there is none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from unit.scripted import Event, drive
from unit.upload_lab import BLOCK, CONTENT, FAILURE, Lab, nth, refusing

from iot.sftp.client.jobs.free_space import LARGE_BYTES, SLACK_BYTES, SPARE_BYTES
from iot.sftp.client.protocol.packets import Code, Extended, Flag, Reply, Status
from iot.transfer.errors import NoSpaceOnServer, ServerBusy, ServerRefused
from iot.transfer.window import PartState

KIB = 1024
MIB = 1024 * KIB
STATVFS = "statvfs@openssh.com"


def statvfs(free_bytes: int, inodes: tuple[int, int] = (100, 100)) -> Extended:
    return Extended(struct.pack(">11Q", 1, 1, 2**40, 0, free_bytes, inodes[0], 0, inodes[1], 0, 0, 255))


def telling(lab: Lab, *answers: Reply) -> Lab:
    """Its room at each question; the last answer stays."""
    left = list(answers)
    lab.extensions[STATVFS.encode()] = b"2"
    lab.files.refuse = lambda event: (left.pop(0) if len(left) > 1 else left[0]) if event.what == STATVFS else None
    return lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return Lab(path)


@pytest.fixture
def large(lab: Lab) -> Lab:
    lab.path.write_bytes(bytes(2 * MIB))
    lab.block = 32 * KIB
    return lab


# -- before a large file


@pytest.mark.parametrize(("size", "asks"), [(LARGE_BYTES, False), (LARGE_BYTES + 1, True)])
def test_only_a_large_file_asks_for_its_room(lab: Lab, size: int, asks: bool) -> None:
    lab.path.write_bytes(bytes(size))
    lab.block = 256 * KIB
    telling(lab, statvfs(9 * MIB)).run()
    assert bool(lab.files.did(STATVFS)) is asks
    before = [event.what for event in lab.files.events][: 4 if asks else 3]
    assert ("STAT" in before) is asks


def test_a_server_that_does_not_tell_its_room_takes_a_large_file(large: Lab) -> None:
    large.run()
    assert large.files.did(STATVFS) == []
    assert large.published == bytes(2 * MIB)


def test_where_others_need_more_than_there_is_nothing_is_free(large: Lab) -> None:
    upload = telling(large, statvfs(3 * MIB)).upload()
    upload.context.large[b"/up/other.part"] = PartState(9 * MIB)
    with pytest.raises(NoSpaceOnServer, match=r"needs 2\.0 MiB, 0 (B|bytes) free"):
        drive(upload.run(), large.files)


@pytest.mark.parametrize("enough", [True, False])
def test_what_is_gone_on_with_needs_room_for_its_rest_alone(large: Lab, enough: bool) -> None:
    telling(large, statvfs(2 * MIB + SPARE_BYTES)).loses_link(nth("WRITE", 30))
    rest = 2 * MIB - len(large.files.content[large.part])
    telling(large, statvfs(rest if enough else rest - 1))
    if enough:
        assert large.run().resumed_at == 2 * MIB - rest
    else:
        large.fails(NoSpaceOnServer)
        assert large.files.content == {}


# -- after a refusal


@pytest.mark.parametrize(("spare", "kind"), [(0, ServerRefused), (-1, NoSpaceOnServer)])
def test_a_refusal_is_a_full_disk_where_less_is_free_than_is_needed(
    lab: Lab, spare: int, kind: type[Exception]
) -> None:
    telling(lab, statvfs(len(CONTENT) + SLACK_BYTES + spare))
    answer = lab.files.refuse
    lab.files.refuse = lambda event: FAILURE if event.what == "WRITE" else answer(event)
    assert type(lab.fails(kind)) is kind  # type: ignore[arg-type]


def test_what_is_written_already_is_not_needed_again(lab: Lab) -> None:
    telling(lab, statvfs(len(CONTENT) - 10 * BLOCK + SLACK_BYTES))
    answer, late = lab.files.refuse, nth("WRITE", 15)
    lab.files.refuse = lambda event: FAILURE if late(event) else answer(event)
    lab.fails(ServerRefused)
    assert len(lab.files.content[lab.part]) >= 14 * BLOCK


@pytest.mark.parametrize(("written", "kind"), [(False, NoSpaceOnServer), (True, ServerRefused)])
def test_without_a_free_inode_nothing_is_made_but_what_is_there_is_written(
    lab: Lab, written: bool, kind: type[Exception]
) -> None:
    telling(lab, statvfs(9 * MIB, (100, 0)))
    answer, late = lab.files.refuse, nth("WRITE", 15 if written else 1)
    lab.files.refuse = lambda event: FAILURE if late(event) else answer(event)
    told = lab.fails(kind)  # type: ignore[arg-type]
    assert type(told) is kind
    assert ("no free inode" in str(told)) is not written


@pytest.mark.parametrize(("dest", "folder"), [(b"/up/file", b"/up"), (b"file", b".")])
def test_the_folder_of_the_part_is_asked_for_its_room(lab: Lab, dest: bytes, folder: bytes) -> None:
    lab.dest = dest
    lab.files.folders.add(b"")
    telling(lab, statvfs(0))
    answer = lab.files.refuse
    lab.files.refuse = lambda event: FAILURE if event.what == "WRITE" else answer(event)
    lab.fails(NoSpaceOnServer)
    assert [event.path for event in lab.files.did(STATVFS)] == [folder]


def test_a_server_that_does_not_tell_its_room_is_not_asked_after_a_refusal(lab: Lab) -> None:
    lab.files.refuse = refusing(lambda event: event.what == "WRITE")
    lab.fails(ServerRefused)
    assert lab.files.did(STATVFS) == []


# -- the part


@pytest.mark.parametrize(
    ("code", "others", "kind"),
    [
        (Code.FAILURE, True, ServerBusy),
        (Code.FAILURE, False, ServerRefused),
        (Code.BAD_MESSAGE, True, ServerRefused),
    ],
)
def test_a_part_that_is_not_made_while_others_are_open_is_tried_again_later(
    lab: Lab, code: Code, others: bool, kind: type[Exception]
) -> None:
    lab.others = {b"another's"} if others else set()
    lab.files.refuse = refusing(lambda event: event.what == "OPEN", Status(code, ""))
    with pytest.raises(kind) as told:
        drive(lab.upload().run(), lab.files)
    assert type(told.value) is kind
    assert "cannot create '/up/file." in str(told.value)


@pytest.mark.parametrize(
    ("code", "removed"),
    [
        (Code.FAILURE, True),
        (Code.FILE_ALREADY_EXISTS, True),
        (Code.NO_SUCH_FILE, False),
        (Code.PERMISSION_DENIED, False),
    ],
)
def test_only_where_something_may_have_the_name_of_a_part_it_is_removed(lab: Lab, code: Code, removed: bool) -> None:
    lab.files.refuse = refusing(lambda event: event.what == "OPEN", Status(code, ""))
    lab.fails(Exception)  # type: ignore[arg-type]
    assert bool(lab.files.did("REMOVE")) is removed


@pytest.mark.parametrize(("keep_mode", "mode"), [(True, 0o640), (False, None)])
def test_a_part_is_made_with_the_mode_of_its_source(lab: Lab, keep_mode: bool, mode: int | None) -> None:
    lab.path.chmod(0o640)
    lab.options = {"keep_mode": keep_mode}
    heads: list[bytes] = []
    answer = lab.files.answer

    def noted(request: object) -> Reply:
        if request.kind == 3:  # type: ignore[attr-defined]
            heads.append(bytes(request.head))  # type: ignore[attr-defined]
        return answer(request)  # type: ignore[arg-type]

    lab.files.answer = noted  # type: ignore[method-assign]
    lab.run()
    expected = struct.pack(">II", 4, mode) if mode is not None else struct.pack(">I", 0)
    assert heads[0].endswith(expected)


def test_what_is_written_in_place_replaces_what_is_there_and_is_never_removed(lab: Lab) -> None:
    lab.options = {"direct_write": True}
    lab.files.content[b"/up/file"] = bytearray(b"old")
    lab.run()
    assert lab.files.did("OPEN")[0].flags == Flag.WRITE | Flag.CREATE | Flag.TRUNCATE
    assert (lab.published, lab.files.did("REMOVE")) == (CONTENT, [])
    lab.files.refuse = refusing(lambda event: event.what == "WRITE", Status(Code.NO_SPACE_ON_FILESYSTEM, ""))
    lab.path.write_bytes(b"another")
    lab.fails(NoSpaceOnServer)
    assert lab.files.did("REMOVE") == []


def test_after_a_resume_the_part_is_read_only_where_something_is_suspect(lab: Lab) -> None:
    def synced(event: Event) -> None:
        lab.clock.now += 2.0 if event.what == "WRITE" else 0.0

    lab.files.refuse = synced
    lab.options = {"trust": False}
    lab.loses_link(nth("RENAME"))
    lab.files.events.clear()
    lab.run()
    assert Flag.READ not in [event.flags for event in lab.files.did("OPEN") if event.path.endswith(b".part")]

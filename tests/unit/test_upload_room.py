"""Room on the server is asked for before a large file is begun, and is never counted twice."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.scripted import drive
from unit.upload_lab import CONTENT, FAILURE, Lab, nth

from iot.sftp.client.protocol.packets import Code, Extended, Reply, Status
from iot.transfer.errors import NoSpaceOnServer
from iot.transfer.window import PartState, Span

MIB = 1024 * 1024
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


def statvfs(free_bytes: int, inodes: tuple[int, int] = (100, 100), blocks: int = 2**20) -> Extended:
    return Extended(struct.pack(">11Q", 1, 1, blocks, 0, free_bytes, inodes[0], 0, inodes[1], 0, 0, 255))


def with_room(lab: Lab, free: Callable[[], Extended]) -> Lab:
    lab.extensions[b"statvfs@openssh.com"] = b"2"
    lab.files.refuse = lambda event: free() if event.what == "statvfs@openssh.com" else None
    return lab


@pytest.mark.parametrize("banner", ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-other"])
def test_a_large_file_that_does_not_fit_is_held_before_a_byte_is_written(large: Lab, banner: str) -> None:
    large.banner = banner
    told = str(with_room(large, lambda: statvfs(2 * MIB)).fails(NoSpaceOnServer))
    assert "needs 3.0 MiB, 2.0 MiB free" in told
    assert large.files.did("WRITE") == []
    assert (large.files.content, large.files.handles) == ({}, {})
    with_room(large, lambda: statvfs(5 * MIB)).run()
    assert large.published == LARGE


def test_a_large_file_leaves_room_to_small_ones(large: Lab) -> None:
    with_room(large, lambda: statvfs(len(LARGE) + MIB - 1)).fails(NoSpaceOnServer)
    with_room(large, lambda: statvfs(len(LARGE) + MIB)).run()


def test_room_that_another_large_file_needs_is_not_free(large: Lab) -> None:
    upload = large.upload()
    upload.context.large[b"/up/other.part"] = PartState(4 * MIB, MIB)
    with_room(large, lambda: statvfs(6 * MIB))
    with pytest.raises(NoSpaceOnServer, match=r"3\.0 MiB free"):
        drive(upload.run(), large.files, at_barrier=lambda: None)
    assert list(upload.context.large) == [b"/up/other.part"]


def test_what_another_file_writes_while_the_answer_is_under_way_does_not_become_free(large: Lab) -> None:
    upload = large.upload()
    other = upload.context.large[b"/up/other.part"] = PartState(4 * MIB, MIB)

    def counted_before_it_wrote() -> Reply:
        other.answered(Span(MIB, 4 * MIB))
        return statvfs(6 * MIB)

    with_room(large, counted_before_it_wrote)
    with pytest.raises(NoSpaceOnServer, match=r"3\.0 MiB free"):
        drive(upload.run(), large.files, at_barrier=lambda: None)


def test_a_small_file_costs_no_question_for_room(lab: Lab) -> None:
    with_room(lab, lambda: statvfs(0)).run()
    assert lab.files.did("statvfs@openssh.com") == []


@pytest.mark.parametrize(
    "told",
    [statvfs(0, blocks=0), statvfs(9 * MIB, (0, 0)), Status(Code.FAILURE, ""), Extended(b"short"), UNSUPPORTED],
    ids=["a disk of nothing", "no inodes counted", "failure", "garbage", "unsupported"],
)
def test_a_server_that_does_not_know_its_room_is_not_full(large: Lab, told: Reply) -> None:
    large.extensions[b"statvfs@openssh.com"] = b"2"
    large.files.refuse = lambda event: told if event.what == "statvfs@openssh.com" else None
    large.run()
    assert large.published == LARGE


@pytest.mark.parametrize(
    ("told", "is_asked_again"),
    [
        (statvfs(9 * MIB), True),
        (Status(Code.FAILURE, ""), True),
        (UNSUPPORTED, False),
        (Extended(b"short"), False),
        (statvfs(0, blocks=0), False),
    ],
    ids=["enough", "failure", "unsupported", "garbage", "a disk of nothing"],
)
def test_a_server_that_cannot_tell_its_room_is_not_asked_again(large: Lab, told: Reply, is_asked_again: bool) -> None:
    large.extensions[b"statvfs@openssh.com"] = b"2"
    large.files.refuse = lambda event: told if event.what == "statvfs@openssh.com" else None
    upload = large.upload()
    drive(upload.run(), large.files)
    assert upload.context.server.tells_free_space is is_asked_again


def test_when_room_runs_out_on_the_way_the_part_is_dropped(large: Lab) -> None:
    free = [statvfs(9 * MIB), statvfs(1000)]
    with_room(large, lambda: free.pop(0))
    answer, tenth = large.files.refuse, nth("WRITE", 10)
    large.files.refuse = lambda event: FAILURE if tenth(event) else answer(event)
    assert "needs 3.0 MiB" in str(large.fails(NoSpaceOnServer))
    assert (large.files.content, large.files.handles) == ({}, {})
    large.files.refuse = lambda event: None
    result = large.run()
    assert (large.published, result.resumed_at) == (LARGE, 0)


def test_a_resume_that_cannot_be_finished_gives_its_room_back(large: Lab) -> None:
    with_room(large, lambda: statvfs(9 * MIB)).loses_link(nth("WRITE", 60))
    told = str(with_room(large, lambda: statvfs(MIB // 2)).fails(NoSpaceOnServer))
    assert "needs 3.0 MiB, 2.3 MiB free" in told
    assert large.files.content == {}


def test_a_full_disk_at_the_first_write_after_a_resume_is_not_a_server_that_cannot_resume(lab: Lab) -> None:
    lab.loses_link(nth("WRITE", 15))
    with_room(lab, lambda: statvfs(100))
    answer, first = lab.files.refuse, nth("WRITE")
    lab.files.refuse = lambda event: FAILURE if first(event) else answer(event)
    lab.fails(NoSpaceOnServer)
    assert lab.refused == set()


@pytest.mark.parametrize("free", [statvfs(100), statvfs(9 * MIB, (100, 0))], ids=["bytes", "inodes"])
def test_a_part_that_cannot_be_created_on_a_full_disk_is_told_as_that(lab: Lab, free: Extended) -> None:
    with_room(lab, lambda: free)
    answer = lab.files.refuse
    lab.files.refuse = lambda event: FAILURE if event.what == "OPEN" else answer(event)
    lab.fails(NoSpaceOnServer)

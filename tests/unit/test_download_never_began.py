"""A download to which the server gave nothing leaves nothing; one that has begun keeps its part."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.download_lab import Lab, answering, nth

from iot.sftp.client.protocol.packets import Code, Status
from iot.transfer.errors import LinkLost, PermissionDenied

DENIED = Status(Code.PERMISSION_DENIED, "")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "here"
    folder.mkdir()
    return Lab(folder)


@pytest.mark.parametrize("request_of", ["OPEN", "READ"])
def test_a_download_that_the_server_refuses_leaves_no_part(lab: Lab, request_of: str) -> None:
    lab.files.refuse = answering(nth(request_of), DENIED)
    lab.fails(PermissionDenied)
    assert lab.left == []


def test_a_link_lost_before_the_first_byte_leaves_no_part(lab: Lab) -> None:
    lab.fails(LinkLost, lose_at=nth("READ"), error=LinkLost("cut by the script"))
    assert lab.left == []


def test_a_part_that_holds_something_stays_when_the_next_attempt_is_refused(lab: Lab) -> None:
    lab.loses_link()
    part = lab.part.read_bytes()
    lab.files.refuse = answering(nth("OPEN"), DENIED)
    lab.fails(PermissionDenied)
    assert lab.part.read_bytes() == part
    lab.files.refuse = lambda event: None
    assert lab.run().resumed_at > 0


def test_a_file_that_was_there_stays_when_its_download_is_refused(lab: Lab) -> None:
    lab.dest.write_bytes(b"before")
    lab.files.refuse = answering(nth("OPEN"), DENIED)
    lab.fails(PermissionDenied)
    assert (lab.left, lab.dest.read_bytes()) == (["file"], b"before")

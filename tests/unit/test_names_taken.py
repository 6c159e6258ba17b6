"""Another file has the name that an upload is to get: what is told then, and what is ours after all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote
from unit.scripted import Event, drive
from unit.upload_lab import FAILURE, Lab

from iot.sftp.client.protocol.packets import Code, Reply, Status
from iot.transfer.errors import AlreadyExists, LinkLost, PermissionDenied, SFTPError, Unsupported
from iot.transfer.model import Failure, IfExists, Proof, TransferResult, UploadJob
from iot.transfer.remote_commands import RemoteCommand, RemoteCommands, Verb

Upload = Callable[..., TransferResult | SFTPError]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"mine")
    return path


def over_sftp(source: Path, **job: Any) -> TransferResult | SFTPError:
    """To a server that has /up/file already."""
    lab = Lab(source, job=job)
    lab.files.content |= {b"/up/file": bytearray(b"theirs"), b"/up/other": bytearray(b"theirs")}
    try:
        return lab.run()
    except SFTPError as error:
        return error


def to_a_folder(source: Path, **job: Any) -> TransferResult | SFTPError:
    up = source.parent / "far/up"
    up.mkdir(parents=True)
    for name in ("file", "other"):
        (up / name).write_bytes(b"theirs")
    with closing(folder_remote(up.parent, source.parent / "state")) as remote:
        outcome = remote.upload(UploadJob(source, "/up/file", **job))
    return outcome.error if isinstance(outcome, Failure) else outcome


ANY = pytest.mark.parametrize("upload", [over_sftp, to_a_folder])


@ANY
@pytest.mark.parametrize(
    ("policy", "others", "told"),
    [
        (IfExists.FAIL, (), "'/up/file' exists, and is not to be replaced"),
        (
            IfExists.RENAME,
            ("/up/other",),
            "'/up/file' exists (and so does each name to use instead), and is not to be replaced",
        ),
    ],
)
def test_the_error_names_the_file_and_says_whether_other_names_were_tried(
    upload: Upload, source: Path, policy: IfExists, others: tuple[str, ...], told: str
) -> None:
    error = upload(source, if_exists=policy, alternatives=others)
    assert isinstance(error, AlreadyExists)
    assert str(error) == told


@ANY
def test_a_skipped_file_is_neither_sent_nor_called_delivered(upload: Upload, source: Path) -> None:
    result = upload(source, if_exists=IfExists.SKIP)
    assert isinstance(result, TransferResult)
    assert (result.skipped, result.already_done, result.durable, result.sent_bytes) == (True, False, False, 0)
    assert result.proof is None


def test_a_part_and_a_final_that_are_two_names_of_one_file_are_a_publish_that_was_cut(source: Path) -> None:
    """As a folder without renameat2(2) does it: link(2), then unlink(2)."""
    far, state = source.parent / "far", source.parent / "state"
    job = UploadJob(source, "file", if_exists=IfExists.FAIL)
    with closing(folder_remote(far, state, Faults(before={("publish", 0): LinkLost("cut")}), attempts=1)) as remote:
        assert isinstance(remote.upload(job), Failure)
    [part] = far.iterdir()
    os.link(part, far / "file")
    with closing(folder_remote(far, state)) as remote:
        result = remote.upload(job)
    assert isinstance(result, TransferResult), result
    assert (result.already_done, result.proof) == (True, Proof.FULL)
    assert [(path.name, path.read_bytes()) for path in far.iterdir()] == [("file", b"mine")]


# -- how a name is taken that nobody else has, over SFTP


LINK = "hardlink@openssh.com"
DEST, OTHER = b"/up/file", b"/up/other"


@dataclass
class Claims:
    """A server with hard links. refused: what it answers to a link or a plain rename in place of doing it. comes: who
    takes a name just before it is asked for."""

    lab: Lab
    refused: dict[str, Status] = field(default_factory=dict)
    comes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.lab.extensions[LINK.encode()] = b"1"
        self.lab.files.refuse = self.answer

    def answer(self, event: Event) -> Reply | None:
        files = self.lab.files
        if event.what in self.comes:
            self.comes.remove(event.what)
            files.content[DEST] = bytearray(b"theirs")
        if event.what in self.refused:
            return self.refused[event.what]
        if event.what != LINK:
            return None
        if DEST in files.content:  # scripted.Events tell no destination of a link: it is always the first name here
            return FAILURE
        files.content[DEST] = files.content[event.path]
        return Status(0, "")

    def asked(self) -> list[str]:
        tail = [event.what for event in self.lab.files.events]
        return [what for what in tail if what in (LINK, "PLAIN-RENAME", "RENAME", "REMOVE")]


@pytest.fixture
def claims(source: Path) -> Claims:
    return Claims(Lab(source, job={"if_exists": IfExists.RENAME, "alternatives": (OTHER.decode(),)}))


def test_a_link_takes_the_name_and_the_part_goes(claims: Claims) -> None:
    assert claims.lab.run().published_as == ""
    assert claims.lab.files.content == {DEST: bytearray(b"mine")}
    assert claims.asked() == [LINK, "REMOVE"]


@pytest.mark.parametrize("answer", [FAILURE, Status(0, "")], ids=["refused", "in words only"])
def test_where_no_link_is_made_the_plain_rename_takes_the_name_and_no_link_is_asked_for_again(
    claims: Claims, answer: Status
) -> None:
    claims.refused = {LINK: answer}
    upload = claims.lab.upload()
    drive(upload.run(), claims.lab.files)
    assert claims.lab.files.content == {DEST: bytearray(b"mine")}
    assert claims.asked() == [LINK, "PLAIN-RENAME"]
    assert not upload.context.server.can_link


def test_a_link_that_another_device_was_quicker_with_says_nothing_against_links(claims: Claims) -> None:
    claims.comes = {LINK}
    claims.refused = {"PLAIN-RENAME": FAILURE}
    upload = claims.lab.upload()
    with pytest.raises(SFTPError, match="cannot publish '/up/other'"):
        drive(upload.run(), claims.lab.files)
    assert upload.context.server.can_link
    assert claims.lab.files.content[DEST] == b"theirs"


@pytest.mark.parametrize(("answer", "links"), [(FAILURE, 2), (Status(0, ""), 1)], ids=["refused", "in words only"])
def test_a_name_that_is_taken_between_the_look_and_the_rename_is_gone_round(
    claims: Claims, answer: Status, links: int
) -> None:
    claims.refused = {LINK: answer}
    claims.comes = {"PLAIN-RENAME"}
    assert claims.lab.run().published_as == OTHER.decode()
    assert claims.asked().count(LINK) == links, "whether it makes links is known only where it said so"
    assert claims.lab.files.content == {DEST: bytearray(b"theirs"), OTHER: bytearray(b"mine")}


def test_a_rename_that_is_refused_where_nothing_stands_is_an_error_and_no_taken_name(claims: Claims) -> None:
    claims.refused = {LINK: FAILURE, "PLAIN-RENAME": Status(Code.PERMISSION_DENIED, "Permission denied")}
    with pytest.raises(PermissionDenied, match="cannot publish '/up/file'"):
        claims.lab.run()
    assert len(claims.lab.files.did("PLAIN-RENAME")) == 1


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"if_exists": IfExists.FAIL}, "direct_write replaces what is there: if_exists=fail cannot be kept"),
        ({"commands": RemoteCommands(before_publish=(RemoteCommand(Verb.MKDIR, "d"),))}, "publishes nothing"),
        ({"commands": RemoteCommands(before=(RemoteCommand(Verb.MKDIR, "d"),))}, ""),
        ({}, ""),
    ],
)
def test_what_has_no_part_cannot_wait_for_anything(source: Path, job: dict[str, Any], told: str) -> None:
    lab = Lab(source, options={"direct_write": True}, job=job)
    if told:
        with pytest.raises(Unsupported, match=told):
            lab.run()
        assert lab.files.did("OPEN") == []
    else:
        lab.run()
        assert lab.published == b"mine"


# -- a part whose name does not say whose it is


@pytest.mark.parametrize("size", [0, 10])
def test_a_file_that_has_the_name_of_the_part_is_left_alone(source: Path, size: int) -> None:
    source.write_bytes(b"x" * size)
    lab = Lab(source, job={"part_suffix": ".tmp"})
    lab.files.content[b"/up/file.tmp"] = bytearray(b"theirs")
    lab.run()
    assert lab.files.content == {b"/up/file.tmp": bytearray(b"theirs"), DEST: bytearray(b"x" * size)}
    free = Lab(source, job={"part_suffix": ".tmp"})
    free.run()
    assert free.files.did("OPEN")[0].path == b"/up/file.tmp"
    assert free.files.content == {DEST: bytearray(b"x" * size)}

"""What another program has left of a file is gone on from if it is a beginning of it, and left alone otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote
from unit.scripted import Event
from unit.upload_lab import BLOCK, CONTENT, DEST, Lab, nth, refusing

from iot.sftp.client.protocol.packets import Attributes, Code, Reply, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import LinkLost, PermissionDenied
from iot.transfer.model import Failure, RemoteFile, TransferResult, UploadJob
from iot.transfer.remote import Resume

PARTIAL = b"/up/file.filepart"
HALF = CONTENT[: 10 * BLOCK]
WRONG = CONTENT[: 5 * BLOCK] + b"?" + CONTENT[5 * BLOCK + 1 : 10 * BLOCK]
DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")
LEFT = [
    (HALF, True),
    (CONTENT[:1], True),
    (CONTENT, True),
    (CONTENT + b"x", False),
    (WRONG, False),
    (CONTENT[: 10 * BLOCK - 1] + b"?", False),
    (b"", False),
    (None, False),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def lab(source: Path) -> Lab:
    lab = Lab(source, job={"adopt_partial": "{name}.filepart"})
    lab.files.content[PARTIAL] = bytearray(HALF)
    return lab


# -- over SFTP


@pytest.mark.parametrize(("left", "taken"), LEFT)
def test_over_sftp_only_a_beginning_of_the_source_is_taken_over(lab: Lab, left: bytes | None, taken: bool) -> None:
    del lab.files.content[PARTIAL]
    if left is not None:
        lab.files.content[PARTIAL] = bytearray(left)
    result = lab.run()
    resumed_at = len(left or b"") if taken else 0
    assert (result.resumed_at, result.sent_bytes) == (resumed_at, len(CONTENT) - resumed_at)
    assert lab.published == CONTENT
    assert lab.files.content.get(PARTIAL) == (None if taken or left is None else left)
    assert len(lab.files.content) == (2 if left is not None and not taken else 1)


def test_the_journal_knows_of_it_before_it_has_the_name_of_our_part(lab: Lab) -> None:
    lab.run()
    events = lab.files.events
    renamed = next(at for at, event in enumerate(events) if event.what == "PLAIN-RENAME")
    [noted] = [event.record for event in events[:renamed] if event.what == "BARRIER"]
    assert (noted.acked_bytes, noted.token) == (len(HALF), lab.part)
    assert (events[renamed].path, events[renamed].dest) == (PARTIAL, lab.part)


@pytest.mark.parametrize("number", [1, 2])
def test_a_link_that_is_lost_around_the_rename_costs_no_byte(lab: Lab, number: int) -> None:
    lab.loses_link(nth("PLAIN-RENAME"), answered=number == 2)
    assert lab.run().resumed_at == len(HALF)
    assert lab.files.content == {DEST: bytearray(CONTENT)}


@pytest.mark.parametrize("pattern", ["{name}", "{name}.filepart"])
def test_it_may_have_the_name_of_the_file_itself(lab: Lab, pattern: str) -> None:
    lab.job = {"adopt_partial": pattern}
    lab.files.content = {DEST if pattern == "{name}" else PARTIAL: bytearray(HALF)}
    assert lab.run().resumed_at == len(HALF)
    assert lab.files.content == {DEST: bytearray(CONTENT)}


@pytest.mark.parametrize(
    "refuse",
    [
        refusing(lambda event: event.what == "OPEN" and event.path == PARTIAL, DENIED),
        refusing(lambda event: event.what == "READ", DENIED),
        refusing(lambda event: event.what == "LSTAT", Attributes(len(HALF), 0o120777)),
        refusing(lambda event: event.what == "LSTAT", Attributes(len(HALF), 0o040755)),
        refusing(lambda event: event.what == "LSTAT", DENIED),
        refusing(lambda event: event.what == "PLAIN-RENAME", DENIED),
    ],
    ids=["open", "read", "link", "folder", "look", "rename"],
)
def test_what_cannot_be_read_or_renamed_or_is_no_file_is_left_alone(
    lab: Lab, refuse: Callable[[Event], Reply | None]
) -> None:
    lab.files.refuse = refuse
    result = lab.run()
    assert (result.resumed_at, lab.published) == (0, CONTENT)
    assert lab.files.content[PARTIAL] == HALF


def test_a_part_of_ours_that_has_the_name_gives_way(lab: Lab) -> None:
    lab.files.content[lab.part] = bytearray(b"old")
    assert lab.run().resumed_at == len(HALF)
    assert len(lab.files.did("PLAIN-RENAME")) == 2
    assert lab.files.content == {DEST: bytearray(CONTENT)}


@pytest.mark.parametrize(("size", "resumed"), [(None, True), (len(HALF), True), (len(HALF) + 1, False)])
def test_what_grew_while_it_was_taken_over_is_sent_anew(lab: Lab, size: int | None, resumed: bool) -> None:
    part, looks = lab.part, iter([Attributes(size, 0o100644)])
    lab.files.refuse = lambda event: (
        next(looks, None)
        if event.path == part and event.what in ("STAT", "LSTAT") and lab.files.did("PLAIN-RENAME")
        else None
    )
    assert lab.run().resumed_at == (len(HALF) if resumed else 0)
    assert lab.published == CONTENT


@pytest.mark.parametrize(("options", "refused"), [({"resume": False}, set()), ({}, {Refusal.RESUME})])
def test_where_nothing_can_be_resumed_it_is_not_looked_at(
    lab: Lab, options: dict[str, Any], refused: set[Refusal]
) -> None:
    lab.options, lab.refused = options, refused
    assert lab.run().resumed_at == 0
    assert lab.files.content[PARTIAL] == HALF
    assert not [event for event in lab.files.events if event.path == PARTIAL]


@pytest.mark.parametrize("suffix", [".tmp", ".filepart"])
def test_beside_exact_names_of_parts_it_gets_one_that_is_ours_or_stays_in_its_place(lab: Lab, suffix: str) -> None:
    lab.job["part_suffix"] = suffix
    lab.files.content[b"/up/file.tmp"] = bytearray(b"theirs")
    assert lab.run().resumed_at == len(HALF)
    assert lab.files.content == {DEST: bytearray(CONTENT), b"/up/file.tmp": bytearray(b"theirs")}
    assert len(lab.files.did("PLAIN-RENAME")) == (1 if suffix == ".tmp" else 0)


# -- to a folder


def upload(source: Path, faults: Faults | None = None, pattern: str = "{name}.filepart", **settings: Any) -> Any:
    far = source.parent / "far"
    with closing(folder_remote(far, source.parent / "state", faults, **settings)) as remote:
        return remote.upload(UploadJob(source, "file", adopt_partial=pattern))


@pytest.fixture
def partial(source: Path) -> Path:
    path = source.parent / "far/file.filepart"
    path.parent.mkdir()
    path.write_bytes(HALF)
    return path


def all_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(("left", "taken"), LEFT)
def test_to_a_folder_only_a_beginning_of_the_source_is_taken_over(
    source: Path, partial: Path, left: bytes | None, taken: bool
) -> None:
    partial.unlink()
    if left is not None:
        partial.write_bytes(left)
    result = upload(source)
    resumed_at = len(left or b"") if taken else 0
    assert (result.resumed_at, result.sent_bytes) == (resumed_at, len(CONTENT) - resumed_at)
    kept = {} if taken or left is None else {partial.name: left}
    assert all_of(partial.parent) == {"file": CONTENT, **kept}


def test_in_a_folder_too_it_may_have_the_name_of_the_file_itself(source: Path, partial: Path) -> None:
    partial.rename(partial.with_name("file"))
    assert upload(source, pattern="{name}").resumed_at == len(HALF)
    assert all_of(partial.parent) == {"file": CONTENT}


@pytest.mark.parametrize(
    ("faults", "settings"),
    [
        (Faults(before={("read", 0): PermissionDenied("no")}), {}),
        (Faults(before={("move", 0): PermissionDenied("no")}), {}),
        (Faults(answer={"stat": lambda found: found and RemoteFile(found.size, found.mtime_s, 0o040755)}), {}),
        (Faults(capabilities={"resume": Resume.NONE}), {}),
        (Faults(capabilities={"reads_back": False}), {}),
    ],
    ids=["read", "move", "a folder", "no resume", "no reading"],
)
def test_a_far_side_that_does_not_let_us_leaves_it_alone(
    source: Path, partial: Path, faults: Faults, settings: dict[str, Any]
) -> None:
    result = upload(source, faults, **settings)
    assert isinstance(result, TransferResult)
    assert result.resumed_at == 0
    assert all_of(partial.parent) == {"file": CONTENT, partial.name: HALF}


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_record_comes_first_so_that_a_lost_link_costs_no_byte(source: Path, partial: Path, when: str) -> None:
    lost = upload(source, Faults(**{when: {("move", 0): LinkLost("cut")}}), attempts=1)
    assert isinstance(lost, Failure)
    assert upload(source).resumed_at == len(HALF)
    assert all_of(partial.parent) == {"file": CONTENT}
    assert os.listdir(partial.parent) == ["file"]

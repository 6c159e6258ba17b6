"""Another file has the name that an upload is to get: what is told then, and what is ours after all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote
from unit.upload_lab import Lab

from iot.transfer.errors import AlreadyExists, LinkLost, SFTPError
from iot.transfer.model import Failure, IfExists, Proof, TransferResult, UploadJob

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

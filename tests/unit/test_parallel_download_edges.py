"""Downloads through workers where the far side answers in unusual ways: checksum files, hashes, second readings."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.checksum_file import MOST_BYTES
from iot.transfer.client import Client
from iot.transfer.errors import Cancelled, NotFound, ProofFailed, ServerRefused, SourceChanged, Unsupported
from iot.transfer.model import Evidence, Proof

CONTENT = bytes(number * 7 % 251 for number in range(3000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OLD_S = 10**9


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    folder.mkdir()
    return folder


def hashing(answer: dict) -> Faults:
    return Faults(capabilities={"hashes": frozenset({"sha256"})}, answer=answer)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fetch(far: Path, faults: Faults | None = None, *, sha256: bool | str = False, mtime_s: int = OLD_S, **settings):
    os.utime(far / "file", (mtime_s, mtime_s))
    remote = folder_remote(far, far.parent / "state", faults, **settings)
    try:
        return Client(remote).download("file", far.parent / "back", sha256=sha256)
    finally:
        remote.close()


@pytest.fixture
def file(far: Path) -> Path:
    (far / "file").write_bytes(CONTENT)
    return far / "file"


@pytest.mark.parametrize(
    ("listed", "error", "words"),
    [
        (None, NotFound, "file.sha256' is not on the server, but sidecar requires it"),
        (f"{SHA256}  other\n".encode(), ProofFailed, "file.sha256' has no SHA-256 for 'file'"),
        (bytes(MOST_BYTES + 1), ProofFailed, f"is longer than {MOST_BYTES} bytes"),
        (f"{'0' * 64}  file\n".encode(), ProofFailed, "has SHA-256"),
    ],
)
def test_without_the_checksum_that_was_asked_for_there_is_no_file(far, file, listed, error, words):
    if listed is not None:
        (far / "file.sha256").write_bytes(listed)
    with pytest.raises(error, match=words):
        fetch(far, sidecar=True)
    assert not [name for name in names(far.parent) if name.startswith("back")]


def test_a_checksum_file_of_the_greatest_size_is_read(far, file):
    line = f"{SHA256}  file\n".encode()
    (far / "file.sha256").write_bytes(line + b"\n" * (MOST_BYTES - len(line)))
    assert fetch(far, sidecar=True).evidence is Evidence.SHA256_FILE


def test_a_hash_of_the_far_side_proves_all_and_a_wrong_one_leaves_no_file(far, file):
    faults = hashing({"digest": lambda _: SHA256})
    result = fetch(far, faults, proof="full")
    assert (result.proof, result.evidence, result.sha256) == (Proof.FULL, Evidence.SERVER_HASH, SHA256)
    assert faults.counts["read"] == 1
    with pytest.raises(ProofFailed, match="the server's SHA-256 of file is not that of the downloaded content"):
        fetch(far, hashing({"digest": lambda _: "0" * 64}), proof="full")
    faults = hashing({"digest": lambda _: None})
    assert fetch(far, faults, proof="full").evidence is Evidence.SECOND_READING
    assert faults.counts["read"] == 2


@pytest.mark.parametrize("proof", ["tail", "full"])
def test_a_second_reading_that_differs_leaves_no_file(far, file, proof):
    numbers = iter(range(99))

    def differing(blocks):
        whole = b"".join(blocks)
        return iter([whole[:-1] + b"?" if next(numbers) % 2 else whole])

    with pytest.raises(ProofFailed, match="were different when read again"):
        fetch(far, Faults(answer={"read": differing}), proof=proof, tail_size=1024)
    assert not [name for name in names(far.parent) if name.startswith("back")]


def test_what_was_modified_just_now_is_read_twice_and_a_difference_is_a_change(far, file):
    faults = Faults()
    assert fetch(far, faults, mtime_s=int(time.time())).evidence is Evidence.SIZE
    assert faults.counts["read"] == 2
    numbers = iter(range(99))
    differing = Faults(answer={"read": lambda blocks: iter([b"".join(blocks)[:-1] + b"%d" % (next(numbers) % 2)])})
    with pytest.raises(SourceChanged, match="changed on the server during the download"):
        fetch(far, differing, mtime_s=int(time.time()))


def test_no_bytes_and_no_end_are_refused(far, file):
    with pytest.raises(ServerRefused, match="got neither data nor end of file"):
        fetch(far, Faults(answer={"read": lambda blocks: iter([*blocks, b""])}))


def test_a_far_side_that_cannot_read_at_all_is_not_asked_twice(far, file):
    faults = Faults(before={("read", number): Unsupported("no") for number in range(9)})
    with pytest.raises(Unsupported):
        fetch(far, faults)
    assert faults.counts["read"] == 1


def test_a_download_is_cancelled_between_two_blocks(far, file):
    given = []

    def cancelling(blocks):
        whole = b"".join(blocks)
        for at in range(0, len(whole), 10):
            given.append(at)
            if len(given) == 3:
                remote.cancel()
            yield whole[at : at + 10]

    os.utime(file, (OLD_S, OLD_S))
    remote = folder_remote(far, far.parent / "state", Faults(answer={"read": cancelling}))
    with pytest.raises(Cancelled):
        Client(remote).download("file", far.parent / "back")
    remote.close()
    assert len(given) == 3
    assert not (far.parent / "back").exists()

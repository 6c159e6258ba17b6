"""The steps of one download over a store: what is asked of the far side, what counts as received, what is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, FaultyStore

from iot.folder.place import Place
from iot.folder.store import FolderStore
from iot.transfer.errors import LinkLost, LocalStateError, NotFound, ProofFailed, SourceChanged, Unsupported
from iot.transfer.landing import DownloadTask, Landing
from iot.transfer.model import Checkpoint, Evidence, Proof, RemoteFile, TransferResult
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.download import Download
from iot.transfer.parallel.work import Desk
from iot.transfer.rate import Meter
from iot.transfer.stop import StopFlag

BLOCK = 1000
CONTENT = bytes(number * 7 % 251 for number in range(5 * BLOCK))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Lab:
    """reads: where each reading of the far side began. forgotten: checkpoints that were dropped."""

    folder: Path
    faults: Faults = field(default_factory=Faults)
    options: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    reads: list[int] = field(default_factory=list)
    notes: list[Checkpoint] = field(default_factory=list)
    forgotten: list[Checkpoint] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    damage: Callable[[int, bytes], bytes] = lambda number, block: block

    def __post_init__(self) -> None:
        self.far = self.folder / "far"
        self.far.mkdir()
        self.put(CONTENT)
        self.dest = self.folder / "dest"

    def put(self, content: bytes) -> None:
        (self.far / "file").write_bytes(content)
        os.utime(self.far / "file", (10**9, 10**9))

    def run(self, known: Checkpoint | None = None) -> TransferResult:
        options = TransferOptions(owner="me", **{"checkpoint_bytes": BLOCK, **self.options})
        task = DownloadTask(b"file", str(self.dest), **self.task)
        landing = Landing(task, options, self.notes.append, lambda _: None, lambda: 1000.0)
        desk = Desk(lambda call: call(), self.delivered.append, lambda: 1000.0, StopFlag(), meter=self.meter)
        download = Download(landing, known, options, desk, self.forgotten.append, lambda: None)
        download.store = FaultyStore(_InBlocks(self), self.faults)  # type: ignore[arg-type]
        self.landing, work = landing, download.run()
        try:
            next(work)
        except StopIteration as end:
            return end.value
        raise AssertionError("it waits")

    def left(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"far"}


class _InBlocks(FolderStore):
    """A folder that is read in short blocks, which the lab may damage."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(Place(str(lab.far)))
        self._lab = lab

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        self._lab.reads.append(offset)
        number = len(self._lab.reads)
        content = b"".join(super().read(path, offset))
        for start in range(0, len(content), BLOCK):
            yield self._lab.damage(number, content[start : start + BLOCK])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_each_byte_is_read_once_and_counts_once(lab):
    result = lab.run()
    assert (lab.reads, lab.delivered, lab.dest.read_bytes()) == ([0], [BLOCK] * 5, CONTENT)
    assert (result.sent_bytes, result.resumed_at, result.proof, result.sha256) == (5000, 0, Proof.SIZE, None)
    assert lab.meter.wire.received >= len(CONTENT)
    assert lab.meter.wire.sent == 0
    assert lab.faults.counts["digest"] == 0
    assert lab.left() == {"dest"}


@pytest.mark.parametrize("content", [b"", CONTENT])
def test_where_the_size_is_not_told_the_end_of_the_file_is_believed(lab, content):
    lab.put(content)
    lab.faults.answer["stat"] = lambda _: RemoteFile(None, 10**9)
    result = lab.run()
    assert (result.proof, result.evidence, lab.dest.read_bytes()) == (None, Evidence.END_OF_FILE, content)


def cut(lab: Lab, blocks: int = 3) -> Checkpoint:
    """A download that was lost after so many blocks -> what is on record."""

    def read(found: Iterator[bytes]) -> Iterator[bytes]:
        for _ in range(blocks):
            yield next(found)
        raise LinkLost("cut")

    lab.faults.answer["read"] = read
    with pytest.raises(LinkLost, match="cut"):
        lab.run()
    lab.faults.answer.clear()
    lab.reads.clear()
    lab.delivered.clear()
    return lab.notes[-1]


def test_after_a_lost_link_it_goes_on_behind_what_is_on_the_disk(lab):
    known = cut(lab)
    assert known.acked_bytes == 3 * BLOCK
    result = lab.run(known)
    assert (lab.reads, lab.delivered, result.resumed_at, result.sent_bytes) == ([3000], [BLOCK] * 2, 3000, 2000)
    assert lab.dest.read_bytes() == CONTENT


def test_a_far_side_that_reads_only_from_the_start_is_read_from_there(lab):
    known = cut(lab)
    lab.faults.before[("read", lab.faults.counts["read"])] = Unsupported("from the start only")
    assert lab.run(known).resumed_at == 0
    assert (lab.reads, lab.dest.read_bytes()) == ([0], CONTENT)


@pytest.mark.parametrize(("shorter", "error"), [(False, LinkLost), (True, SourceChanged)])
def test_an_end_that_comes_too_early_is_a_lost_link_unless_the_file_has_become_shorter(lab, shorter, error):
    def read(found: Iterator[bytes]) -> Iterator[bytes]:
        yield next(found)
        if shorter:
            lab.put(CONTENT[:BLOCK])

    lab.faults.answer["read"] = read
    with pytest.raises(error):
        lab.run()
    assert not lab.dest.exists()


# -- proof


@pytest.mark.parametrize(
    ("proof", "tail_size", "second"),
    [(Proof.FULL, 1, 0), (Proof.TAIL, 1500, 3500), (Proof.TAIL, 5000, 0), (Proof.TAIL, 9000, 0)],
)
@pytest.mark.parametrize("wrong_at", [None, 0, -1])
def test_a_second_reading_covers_the_first_and_the_last_byte_of_what_it_is_to_prove(
    lab, proof, tail_size, second, wrong_at
):
    lab.options = {"proof": proof, "tail_size": tail_size}

    def damage(number: int, block: bytes) -> bytes:
        if number == 1 or wrong_at is None or (wrong_at == -1) != block.endswith(CONTENT[-9:]):
            return block
        return bytes([block[0] ^ 1]) + block[1:] if wrong_at == 0 else block[:-1] + bytes([block[-1] ^ 1])

    lab.damage = damage
    if wrong_at is None:
        result = lab.run()
        assert (result.proof, result.evidence) == (proof, Evidence.SECOND_READING)
    else:
        with pytest.raises(ProofFailed, match=f"bytes {second} to 5000 of file were different when read again"):
            lab.run()
        assert lab.left() == set()
    assert lab.reads == [0, second]


@pytest.mark.parametrize("told", ["0" * 64, "f" * 64])
def test_another_hash_of_the_far_side_is_no_proof_and_nothing_stays_or_is_on_record(lab, told):
    lab.options = {"proof": Proof.FULL}
    lab.faults.capabilities["hashes"] = frozenset({"sha256"})
    lab.faults.answer["digest"] = lambda _: told
    with pytest.raises(ProofFailed, match="SHA-256"):
        lab.run()
    assert lab.left() == set()
    assert [each.remote_path for each in lab.forgotten] == [b"file"]


@pytest.mark.parametrize("tasks", [{"digest": True}, {"expected_sha256": SHA256}, {"sidecar": True}])
def test_what_it_must_hash_to_is_proof_enough_and_the_digest_is_told(lab, tasks):
    (lab.far / "file.sha256").write_text(f"{SHA256}  file\n")
    lab.task = tasks
    result = lab.run()
    assert result.sha256 == SHA256
    assert result.proof is (Proof.SIZE if "digest" in tasks else Proof.FULL)


def test_where_another_version_came_meanwhile_nothing_stays_and_nothing_is_on_record(lab):
    def read(found: Iterator[bytes]) -> Iterator[bytes]:
        yield from found
        os.utime(lab.far / "file", (5, 5))

    lab.faults.answer["read"] = read
    with pytest.raises(SourceChanged):
        lab.run()
    assert lab.left() == set()
    assert len(lab.forgotten) == 1


@pytest.mark.parametrize("error", [None, LinkLost("cut"), NotFound("gone")])
def test_at_its_end_the_part_is_closed_and_kept_only_if_there_is_something_to_go_on_from(lab, error):
    if error is not None:
        lab.faults.before[("read", 0)] = error
        with pytest.raises(type(error)):
            lab.run()
    else:
        cut(lab)
    assert len(lab.left()) == (1 if error is None else 0)
    with pytest.raises(LocalStateError, match="Bad file descriptor"):
        lab.landing.sink.write(0, memoryview(b"late"))

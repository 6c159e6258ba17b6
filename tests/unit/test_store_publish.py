"""From a complete part to its name on a store: how it is proven, what may be replaced, and what stands beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults
from unit.store_upload_lab import BLOCK, CONTENT, StoreLab

from iot.folder.store import FolderStore
from iot.transfer.checksum_file import MOST_BYTES
from iot.transfer.errors import AlreadyExists, LinkLost, ProofFailed
from iot.transfer.model import Evidence, IfExists, Proof, Span
from iot.transfer.remote import Ack, Offset, Resume

SHA256 = hashlib.sha256(CONTENT).hexdigest()
LINE = f"{SHA256}  file\n".encode()


@pytest.fixture
def lab(tmp_path: Path) -> StoreLab:
    return StoreLab(tmp_path)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """What was read back of a part."""
    seen: list[Span] = []
    real = FolderStore.read_part

    def read_part(self: FolderStore, token: bytes, span: Span) -> Iterator[bytes]:
        seen.append(span)
        for at in range(span.start, span.end, BLOCK):
            yield from real(self, token, Span(at, min(at + BLOCK, span.end)))

    monkeypatch.setattr(FolderStore, "read_part", read_part)
    return seen


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each publish might replace what has the name."""
    seen: list[bool] = []
    real = FolderStore.publish

    def publish(self: FolderStore, *place: Any, replace: bool) -> bool:
        seen.append(replace)
        return real(self, *place, replace=replace)

    monkeypatch.setattr(FolderStore, "publish", publish)
    return seen


# -- proof


def test_a_fresh_upload_asks_the_far_side_for_nothing_that_it_needs_not_know(lab):
    lab.run()
    assert lab.faults.calls == ["begin", "write", "write", "write", "where", "publish"]


@pytest.mark.parametrize(
    ("proof", "tail_size", "read_back"),
    [
        ("full", 1, Span(0, 10_000)),
        ("tail", 2500, Span(7500, 10_000)),
        ("tail", 9999, Span(1, 10_000)),
        ("tail", 10_000, Span(0, 10_000)),
        ("tail", 20_000, Span(0, 10_000)),
    ],
)
def test_as_much_is_read_back_as_the_proof_asks_for(lab, spans, proof, tail_size, read_back):
    lab.options = {"proof": Proof(proof), "tail_size": tail_size}
    assert lab.run().proof is (Proof.TAIL if read_back.start else Proof.FULL)
    assert spans == [read_back]
    assert lab.faults.counts["verify"] == 0


def test_a_difference_is_told_by_where_its_block_begins_in_the_file(lab, spans):
    def damaged(blocks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(blocks)
        yield from (b"?" + block[1:] for block in blocks)

    lab.options = {"proof": Proof.TAIL, "tail_size": 2500}
    lab.faults.answer["read_part"] = damaged
    with pytest.raises(ProofFailed, match=f"differs from it at offset {7500 + BLOCK}"):
        lab.run()


@pytest.mark.parametrize("hashes", [frozenset(), frozenset({"sha256"})])
def test_only_who_can_hash_is_asked_for_a_hash_and_only_of_the_whole(lab, spans, hashes):
    lab.faults.capabilities["hashes"] = hashes
    lab.faults.answer["verify"] = lambda _: Evidence.SERVER_HASH
    lab.options = {"proof": Proof.FULL}
    result = lab.run()
    assert (lab.faults.counts["verify"], len(spans)) == ((1, 0) if hashes else (0, 1))
    assert result.sha256 == (SHA256 if hashes else None)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_part_of_another_size_is_never_published(lab, difference):
    lab.faults.answer["where"] = lambda standing: Offset(standing.end + difference)
    with pytest.raises(ProofFailed, match=f"the far side has {10_000 + difference} bytes of .*, not 10000"):
        lab.run()
    assert lab.notes[-1].suspect == (Span(0, 10_000),)
    assert lab.faults.counts["publish"] == 0


# -- the name


def test_a_file_that_is_in_the_way_is_removed_for_it_and_one_that_comes_then_is_not_replaced(lab, replaced):
    (lab.far / "file").write_bytes(b"old")
    lab.options = {"replace_by_remove": True}
    lab.faults.before[("publish", 0)] = AlreadyExists("it replaces nothing")
    lab.run()
    assert replaced == [False]
    assert lab.there() == {"file": CONTENT}


@pytest.mark.parametrize(("policy", "may_replace"), [(IfExists.OVERWRITE, True), (IfExists.FAIL, False)])
def test_the_name_is_given_as_the_job_says(lab, replaced, policy, may_replace):
    lab.job = {"if_exists": policy}
    lab.run()
    assert replaced == [may_replace]


def test_the_first_name_that_is_free_is_taken(lab, replaced):
    for name in ("file", "second"):
        (lab.far / name).write_bytes(b"theirs")
    lab.job = {"if_exists": IfExists.RENAME, "alternatives": ("second", "third", "fourth")}
    result = lab.run()
    assert (result.published_as, replaced) == ("third", [False] * 3)
    assert lab.there() == {"file": b"theirs", "second": b"theirs", "third": CONTENT}


# -- the checksum beside it


def test_a_checksum_file_of_the_greatest_size_that_is_right_is_kept(lab, caplog):
    there = LINE + b"\n" * (MOST_BYTES - len(LINE))
    (lab.far / "file.sha256").write_bytes(there)
    lab.options = {"sidecar": True}
    lab.run()
    assert lab.there() == {"file": CONTENT, "file.sha256": there}
    assert lab.faults.counts["publish"] == 1
    assert "no sidecar written" not in caplog.text


def test_a_checksum_goes_over_a_part_of_its_own_and_replaces_that_of_an_older_version(lab, caplog):
    (lab.far / "file.sha256").write_bytes(b"0" * 64 + b"  file\n")
    lab.options = {"sidecar": True}
    lab.run()
    assert lab.there() == {"file": CONTENT, "file.sha256": LINE}
    assert "no sidecar written" not in caplog.text


def test_a_checksum_that_is_told_to_be_longer_than_it_is_was_taken_whole(lab):
    acks = iter(range(9))
    lab.faults.answer["write"] = lambda ack: Ack(ack.end + (next(acks) == 3), durable=ack.durable)
    lab.options = {"sidecar": True}
    lab.run()
    assert lab.there() == {"file": CONTENT, "file.sha256": LINE}


# -- what is gone on from


def test_where_nothing_can_be_gone_on_with_a_part_is_begun_anew(lab):
    lab.again(before={("write", 2): LinkLost("cut")})
    known = lab.fails(LinkLost)
    lab.again()
    lab.faults.capabilities["resume"] = Resume.NONE
    result = lab.run(known)
    assert (result.resumed_at, result.sent_bytes, lab.faults.counts["begin"]) == (0, len(CONTENT), 1)
    assert lab.there() == {"file": CONTENT}


def test_where_writes_are_trusted_all_that_stands_there_counts(lab):
    lab.options = {"trust": True}
    lab.faults = Faults(capabilities=lab.faults.capabilities, after={("write", 1): LinkLost("cut")})
    known = lab.fails(LinkLost)
    assert known.acked_bytes == 4 * BLOCK
    lab.again()
    assert lab.run(known).resumed_at == 8 * BLOCK
    assert lab.faults.counts["read_part"] == 0


def test_a_part_whose_name_others_may_have_too_is_read_back_from_its_start(lab, spans):
    lab.job = {"part_suffix": ".tmp"}
    lab.again(before={("write", 2): LinkLost("cut")})
    known = lab.fails(LinkLost)
    lab.again()
    assert lab.run(known).resumed_at == 8 * BLOCK
    assert spans == [Span(0, 8 * BLOCK)]

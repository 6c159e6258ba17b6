"""Downloads and comparisons at their edges: what is read, how much of it at once, and what a difference costs."""

from __future__ import annotations

import hashlib
import random
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.download_lab import BLOCK, CONTENT, SOURCE, Lab, Remote, nth
from unit.scripted import Event, Files, drive

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.download import ALIKE, FEW, SMALL_BYTES, TOGETHER_BYTES, Download
from iot.sftp.client.jobs.proof import HASH_FROM_BYTES, begins_alike, hash_of, same_content, same_file, same_hash
from iot.sftp.client.jobs.reading import Reading
from iot.sftp.client.pipeline.job import TURN, Work
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.packets import Code, Extended, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal, Server
from iot.transfer.errors import PermissionDenied, ProofFailed
from iot.transfer.landing import DownloadTask
from iot.transfer.model import Evidence, Proof, Span
from iot.transfer.options import TransferOptions
from iot.transfer.source import Source

CHECK = "check-file-handle"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def sha256_answer(content: bytes, algorithm: bytes = b"sha256", size: int = 32) -> Extended:
    digest = hashlib.sha256(content).digest().ljust(size, b"\0")[:size]
    return Extended(struct.pack(">I", len(algorithm)) + algorithm + digest)


def context(lab: Lab, **options: Any) -> Context:
    server = Server("SSH-2.0-OpenSSH_9.2", "key", {}, max_read=BLOCK)
    given = TransferOptions(**{"chunk_size": BLOCK, "owner": "me", **options})
    return Context(server, Pace(8 * 2**20, BLOCK), lab.ledger, given, lab.clock)


# -- the proof


@pytest.mark.parametrize("more", [0, 5 * BLOCK])
def test_a_tail_that_is_longer_than_the_file_is_all_of_it(lab: Lab, more: int) -> None:
    lab.options = {"proof": Proof.TAIL, "tail_size": len(CONTENT) + more}
    assert lab.run().proof is Proof.TAIL
    again = lab.files.did("READ")[len(CONTENT) // BLOCK + 2 :]
    assert (min(event.offset for event in again), sum(event.length for event in again)) == (0, len(CONTENT))


def test_what_differs_when_read_again_is_named_and_thrown_away(lab: Lab) -> None:
    lab.options = {"proof": Proof.TAIL, "tail_size": BLOCK}

    def damaged(event: Event) -> None:
        if event.what == "OPEN" and lab.files.did("CLOSE"):
            lab.files.content[SOURCE][-1] ^= 1

    lab.files.refuse = damaged
    lab.fails(ProofFailed, match=f"bytes {len(CONTENT) - BLOCK} to {len(CONTENT)} of '?/up/file'? were different")
    assert (lab.left, lab.known) == ([], None)


@pytest.mark.parametrize("same", [True, False])
def test_the_servers_own_hash_proves_all_of_it(lab: Lab, same: bool) -> None:
    lab.options = {"proof": Proof.FULL}
    answer = sha256_answer(CONTENT if same else b"other")
    lab.files.refuse = lambda event: answer if event.what == CHECK else None
    if not same:
        lab.fails(ProofFailed, match="server's SHA-256 of '?/up/file'? is not that of the downloaded content")
        assert (lab.left, lab.known) == ([], None)
        return
    result = lab.run()
    assert (result.proof, result.evidence) == (Proof.FULL, Evidence.SERVER_HASH)
    assert sum(event.what == "OPEN" for event in lab.files.events) == 2


@pytest.mark.parametrize("proof", [Proof.SIZE, Proof.FULL])
def test_a_digest_is_told_where_it_is_asked_for(lab: Lab, proof: Proof) -> None:
    made = context(lab, proof=proof)
    result = drive(Download(DownloadTask(SOURCE, str(lab.dest), digest=True), made).run(), lab.files)
    assert result.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert lab.run().sha256 is None


def test_what_failed_its_proof_is_not_on_record_any_more(lab: Lab) -> None:
    lab.loses_link()
    assert lab.known is not None
    made = context(lab)
    task = DownloadTask(SOURCE, str(lab.dest), expected_sha256="0" * 64)
    with pytest.raises(ProofFailed):
        drive(Download(task, made).run(), lab.files)
    assert (lab.left, lab.known) == ([], None)


# -- large ones, a few at a time


@pytest.mark.parametrize(
    ("size", "arriving", "has_room"),
    [
        (SMALL_BYTES, [TOGETHER_BYTES] * FEW, True),
        (SMALL_BYTES + 1, [16 * SMALL_BYTES] * FEW, False),
        (4 * SMALL_BYTES, [15 * SMALL_BYTES] * FEW, True),  # together they are just as much as may be
        (4 * SMALL_BYTES + 1, [15 * SMALL_BYTES] * FEW, False),
        (4 * SMALL_BYTES, [ALIKE * 4 * SMALL_BYTES] * FEW, False),
        (4 * SMALL_BYTES, [ALIKE * 4 * SMALL_BYTES + 1] * FEW, True),
        (ALIKE * 8 * SMALL_BYTES, [8 * SMALL_BYTES] * FEW, False),
        (ALIKE * 8 * SMALL_BYTES + 1, [8 * SMALL_BYTES] * FEW, True),
        (64 * SMALL_BYTES, [64 * SMALL_BYTES] * (FEW - 1), True),
    ],
)
def test_a_file_waits_for_those_of_about_its_size(lab: Lab, size: int, arriving: list[int], has_room: bool) -> None:
    lab.files.size = size
    made = context(lab)
    made.arriving.update(enumerate(arriving))
    work = Download(DownloadTask(SOURCE, str(lab.dest)), made).run()
    next(work)
    seen = type(work.send([(0, lab.files._stat(Event("STAT", SOURCE)))])).__name__
    counts = len(made.arriving) - len(arriving)
    work.close()
    assert seen == ("Send" if has_room else "Linger")
    assert counts == (has_room and size > SMALL_BYTES)
    assert len(made.arriving) == len(arriving)


# -- reading


def read(lab: Lab, size: int | None, start: int = 0) -> tuple[list[tuple[int, int]], Reading]:
    """-> what was asked for, and the reading at its end."""
    handle, got = b"handle-0", bytearray(len(CONTENT))
    lab.files.handles[handle] = (SOURCE, lab.files.content[SOURCE])

    def write(offset: int, data: memoryview) -> None:
        got[offset : offset + len(data)] = data

    told: list[int] = []
    reading = Reading(context(lab), "file", size, write, lambda: told.append(reading.received_bytes))
    drive(reading.run(handle, start), lab.files, hands_over=True)
    assert got[start:] == CONTENT[start:]
    ends = sum(event.offset >= len(CONTENT) for event in lab.files.did("READ"))
    assert len(told) <= len(set(told)) + ends, "progress is told where there is some"
    return [(event.offset, event.length) for event in lab.files.did("READ")], reading


def test_what_has_arrived_to_its_end_is_asked_for_one_byte_more(lab: Lab) -> None:
    asked, reading = read(lab, len(CONTENT), start=len(CONTENT))
    assert asked == [(len(CONTENT), 1)]
    assert (reading.end, reading.received_bytes) == (len(CONTENT), 0)


def test_in_a_file_of_unknown_size_as_much_again_is_asked_for_as_has_come(lab: Lab) -> None:
    asked, reading = read(lab, None)
    assert reading.received_bytes == len(CONTENT)
    assert asked[:2] == [(0, BLOCK), (BLOCK, BLOCK)]
    assert max(offset for offset, _ in asked) > len(CONTENT) + 5 * BLOCK
    assert len(asked) < 2 * len(CONTENT) // BLOCK + 2


def test_where_the_end_was_seen_nothing_behind_it_is_asked_for_again(lab: Lab) -> None:
    lab.files.longest = lambda: BLOCK // 2
    asked, _ = read(lab, len(CONTENT))
    assert max(offset for offset, _ in asked) == len(CONTENT)
    assert sum(offset == len(CONTENT) for offset, _ in asked) == 1


# -- comparing


def large(tmp_path: Path, size: int) -> tuple[Source, Files]:
    content = random.Random(1).randbytes(size)
    (tmp_path / "large").write_bytes(content)
    return Source(tmp_path / "large"), Remote({b"/up/large": bytearray(content)})


@pytest.mark.parametrize(("more", "hashed"), [(0, False), (1, True)])
@pytest.mark.parametrize("how", ["whole", "beginning"])
def test_only_a_large_file_is_worth_a_hash(tmp_path: Path, lab: Lab, how: str, more: int, hashed: bool) -> None:
    source, files = large(tmp_path, HASH_FROM_BYTES + more)
    files.refuse = lambda event: sha256_answer(bytes(files.content[b"/up/large"])) if event.what == CHECK else None
    made = context(lab, chunk_size=64 * 1024)
    made.server.max_read = 64 * 1024
    with closing(source):
        size = source.fingerprint.size
        compare = same_file(made, b"/up/large", source)
        if how == "beginning":
            compare = begins_alike(made, b"/up/large", source, size)
        assert drive(compare, files)
    assert (len(files.did(CHECK)), files.did("READ") == []) == (hashed, hashed)
    assert made.handles == set()


@pytest.mark.parametrize("length", [0, 5 * BLOCK])
def test_a_hash_is_asked_for_so_much_of_the_beginning(tmp_path: Path, lab: Lab, length: int) -> None:
    source, files = large(tmp_path, 9 * BLOCK)
    heads: list[bytes] = []
    answer = files.answer

    def noted(request: Any) -> Reply:
        if request.head.startswith(struct.pack(">I", len(CHECK)) + CHECK.encode()):
            heads.append(bytes(request.head))
        return answer(request)

    files.answer = noted  # type: ignore[method-assign]
    with closing(source):
        drive(same_hash(context(lab), b"/up/large", source, length=length), files)
    assert [head[-20:] for head in heads] == [struct.pack(">QQI", 0, length, 0)]


@pytest.mark.parametrize(("algorithm", "size"), [(b"sha256", 31), (b"sha256", 33), (b"md5", 32), (b"", 0)])
def test_a_hash_of_another_kind_is_none_and_is_not_asked_for_again(
    tmp_path: Path, lab: Lab, algorithm: bytes, size: int
) -> None:
    source, files = large(tmp_path, BLOCK)
    files.refuse = lambda event: sha256_answer(b"", algorithm, size) if event.what == CHECK else None
    made = context(lab)
    with closing(source):
        assert drive(same_hash(made, b"/up/large", source), files) is None
        assert made.server.refuses(Refusal.CHECK_FILE)
        assert drive(same_hash(made, b"/up/large", source), files) is None
    assert len(files.did(CHECK)) == 1


def test_a_long_hash_lets_the_others_have_their_turn(tmp_path: Path) -> None:
    source, _ = large(tmp_path, 2 * 2**20 + 1)
    with closing(source):
        steps, digest = steps_of(hash_of(source))
    assert (steps, digest) == ([TURN] * 3, hashlib.sha256((tmp_path / "large").read_bytes()).hexdigest())


def steps_of(work: Work[str]) -> tuple[list[Any], str]:
    steps: list[Any] = []
    try:
        while True:
            steps.append(next(work))
    except StopIteration as stop:
        return steps, stop.value


@pytest.mark.parametrize(("span", "wrong_at", "same"), [((3, 9), 2, True), ((3, 9), 9, True), ((3, 9), 3, False)])
def test_only_the_span_is_compared(tmp_path: Path, lab: Lab, span: tuple[int, int], wrong_at: int, same: bool) -> None:
    source, files = large(tmp_path, BLOCK)
    files.content[b"/up/large"][wrong_at] ^= 1
    with closing(source):
        assert drive(same_content(context(lab), b"/up/large", source, Span(*span)), files) is same
    assert [(event.offset, event.length) for event in files.did("READ")] == [(3, 6)]


def test_the_first_refusal_is_the_answer_and_what_was_asked_is_waited_for(tmp_path: Path, lab: Lab) -> None:
    source, files = large(tmp_path, 5 * BLOCK)
    second, third = nth("READ", 2), nth("READ", 3)

    def refuse(event: Event) -> Reply | None:
        if second(event):
            return Status(Code.PERMISSION_DENIED, "first")
        return Status(Code.FAILURE, "second") if third(event) else None

    files.refuse = refuse
    made = context(lab)

    def compared() -> Work[bool]:
        return same_content(made, b"/up/large", source, Span(0, 5 * BLOCK))

    with closing(source), pytest.raises(PermissionDenied, match="first"):
        drive(compared(), files)
    assert made.handles == set()
    assert [event.flags for event in files.did("OPEN")] == [Flag.READ]

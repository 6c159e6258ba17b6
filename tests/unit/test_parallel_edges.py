"""Transfers through workers where the far side answers in unusual ways: hashes, lists of parts, checksum files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.checksum_file import MOST_BYTES
from iot.transfer.errors import (
    AlreadyExists,
    Cancelled,
    LinkLost,
    NameRefused,
    PermissionDenied,
    ProofFailed,
    ServerRefused,
    SourceChanged,
    Timeout,
    Unsupported,
)
from iot.transfer.model import Evidence, Failure, Proof, RemoteFile, Span, UploadJob
from iot.transfer.parallel.publish import bytes_held
from iot.transfer.remote import Ack, Gone, Offset, Parts, Published

CONTENT = bytes(number * 7 % 251 for number in range(3000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BIG = CONTENT * 400


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    folder.mkdir()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def upload(far: Path, source: Path, faults: Faults | None = None, job: dict | None = None, **settings):
    remote = folder_remote(far, far.parent / "state", faults, **settings)
    try:
        outcome = remote.upload(UploadJob(source, "file", **(job or {})))
    finally:
        remote.close()
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- what the far side holds


@pytest.mark.parametrize(
    ("standing", "held"),
    [
        (Offset(7), RemoteFile(7)),
        (Parts((Span(0, 3), Span(3, 5), Span(6, 9))), RemoteFile(5)),
        (Parts((Span(1, 3),)), RemoteFile(0)),
        (Parts(()), RemoteFile(0)),
        (Gone(), None),
        (Published(), None),
    ],
)
def test_what_is_held_ends_where_the_first_byte_is_missing(standing, held):
    assert bytes_held(standing) == held


# -- a source that was delivered before


def test_a_source_with_the_content_that_was_delivered_is_not_sent_again(far, source):
    faults = Faults()
    result = upload(far, source, faults, {"sent_before": SHA256, "key": 5})
    assert (result.already_done, result.proof, result.sha256, result.sent_bytes) == (True, None, SHA256, 0)
    assert (result.size, result.key, result.dest, result.local_path) == (3000, 5, "file", os.fsencode(source))
    assert set(faults.calls) <= {"connect", "check"}
    assert upload(far, source, None, {"sent_before": "0" * 64}).sent_bytes == 3000
    assert (far / "file").read_bytes() == CONTENT


def test_a_source_that_changes_while_it_is_compared_is_not_taken_for_delivered(far, source, monkeypatch):
    from iot.transfer.source import Source

    real = Source.sha256

    def changing(self):
        yield from real(self)
        with source.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(Source, "sha256", lambda self: [*changing(self)])
    with pytest.raises(SourceChanged):
        upload(far, source, None, {"sent_before": SHA256})


# -- proof by a hash


def hashing(answer: dict) -> Faults:
    return Faults(capabilities={"hashes": frozenset({"sha256"})}, answer=answer)


def test_a_hash_that_the_far_side_confirms_needs_no_reading_back(far, source):
    faults = hashing({"verify": lambda _: Evidence.SERVER_HASH})
    result = upload(far, source, faults, proof="full")
    assert (result.proof, result.sha256) == (Proof.FULL, SHA256)
    assert "read_part" not in faults.calls


def test_where_no_hash_is_had_all_is_read_back_and_the_tail_is_always_read(far, source):
    faults = hashing({})
    assert upload(far, source, faults, proof="full").proof is Proof.FULL
    assert faults.counts["read_part"] == faults.counts["verify"] == 1
    faults = hashing({"verify": lambda _: Evidence.SERVER_HASH})
    assert upload(far, source, faults, proof="tail", tail_size=1024).proof is Proof.TAIL
    assert (faults.counts["read_part"], faults.counts["verify"]) == (1, 0)


def test_what_can_be_neither_hashed_nor_read_back_is_refused_not_believed(far, source):
    faults = Faults(capabilities={"reads_back": False})
    with pytest.raises(Unsupported, match="proof=full: the server does not allow reading back"):
        upload(far, source, faults, proof="full")
    assert not (far / "file").exists()


def test_a_part_that_reads_differently_is_never_published_and_sent_anew(far, source):
    def damaged(blocks):
        return iter([b"x" + b"".join(blocks)[1:]])

    with pytest.raises(ProofFailed, match="differs from it at offset 0"):
        upload(far, source, Faults(answer={"read_part": damaged}), proof="full")
    assert not (far / "file").exists()
    assert upload(far, source, proof="full").proof is Proof.FULL
    assert (far / "file").read_bytes() == CONTENT


def test_a_part_that_failed_its_proof_is_read_back_also_when_the_next_run_asks_for_less(far, source):
    def damaged(blocks):
        return iter([b"x" + b"".join(blocks)[1:]])

    with pytest.raises(ProofFailed):
        upload(far, source, Faults(answer={"read_part": damaged}), proof="full")
    [part] = far.iterdir()
    part.write_bytes(b"x" + CONTENT[1:])
    upload(far, source, proof="size")
    assert (far / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(("digest", "done"), [(hashlib.sha256(BIG).hexdigest(), True), ("0" * 64, False), (None, True)])
def test_a_large_final_is_the_same_by_its_hash_or_else_by_its_bytes(far, source, digest, done):
    source.write_bytes(BIG)
    (far / "file").write_bytes(BIG)
    faults = hashing({"digest": lambda _: digest})
    result = upload(far, source, faults, {"check_final": True})
    assert result.already_done is done
    assert ("read" in faults.calls) is (digest is None)
    assert (far / "file").read_bytes() == BIG


def test_a_small_final_is_read_and_one_that_cannot_be_is_not_the_same(far, source):
    (far / "file").write_bytes(CONTENT)
    faults = hashing({"digest": lambda _: SHA256})
    assert upload(far, source, faults, {"check_final": True}).already_done
    assert (faults.counts["digest"], faults.counts["read"]) == (0, 1)
    faults = Faults(before={("read", 0): PermissionDenied("no")})
    assert not upload(far, source, faults, {"check_final": True}).already_done
    (far / "file").write_bytes(CONTENT[:-1] + b"?")
    assert not upload(far, source, None, {"check_final": True}).already_done
    (far / "file").write_bytes(CONTENT[:-1])
    assert not upload(far, source, None, {"check_final": True}).already_done
    assert (far / "file").read_bytes() == CONTENT


# -- the name


def test_a_folder_in_the_place_of_the_file_is_told_and_the_part_is_removed(far, source):
    (far / "file").mkdir()
    with pytest.raises(NameRefused, match="folder"):
        upload(far, source)
    assert names(far) == ["file"]


def test_any_other_refusal_to_publish_leaves_the_part_for_a_resume(far, source):
    with pytest.raises(PermissionDenied):
        upload(far, source, Faults(before={("publish", 0): PermissionDenied("no")}))
    assert len(names(far)) == 1
    assert upload(far, source).resumed_at == 3000


def test_where_nothing_can_be_replaced_a_folder_is_not_removed_for_it(far, source):
    (far / "file").mkdir()
    faults = Faults(before={("publish", 0): AlreadyExists("there")})
    with pytest.raises(NameRefused):
        upload(far, source, faults, replace_by_remove=True)
    assert "delete" not in faults.calls


def test_the_far_side_that_takes_no_more_bytes_is_refused(far, source):
    faults = Faults(answer={"write": lambda ack: Ack(0, durable=True)})
    with pytest.raises(ServerRefused, match=r"accepts no more data of .*source at offset 0"):
        upload(far, source, faults)


def test_after_a_grace_a_file_of_another_size_is_told(far, source):
    faults = Faults(answer={"stat": lambda _: RemoteFile(2999)}, capabilities={"durable": False})
    faults.answer["publish"] = lambda _: False
    with pytest.raises(ProofFailed, match="had 3000 bytes when published, but now has 2999"):
        upload(far, source, faults, {"grace": True}, publish_grace_s=0.05)
    for found in (None, RemoteFile(None), RemoteFile(3000)):  # consumed, not told, and as it was
        faults.answer["stat"] = lambda _, found=found: found
        upload(far, source, faults, {"grace": True}, publish_grace_s=0.05)


@pytest.mark.parametrize(
    ("job", "settings", "durable"),
    [({}, {"publish_grace_s": 60}, False), ({"grace": True}, {"publish_grace_s": 0}, False),
     ({"grace": True}, {"publish_grace_s": 60, "server_durability": "trust"}, False),
     ({"grace": True}, {"publish_grace_s": 60}, True)],
)  # fmt: skip
def test_the_grace_is_waited_for_only_where_it_is_asked_for_and_needed(far, source, job, settings, durable):
    faults = Faults(answer={"publish": lambda _: durable})
    began = time.monotonic()
    assert upload(far, source, faults, job, **settings).durable is durable
    assert time.monotonic() - began < 30
    assert faults.calls[-1] == "publish"


def test_an_empty_file_is_written_and_published_too(far, source):
    source.write_bytes(b"")
    faults = Faults()
    result = upload(far, source, faults, proof="full", sidecar=True)
    assert (far / "file").read_bytes() == b""
    assert (result.size, result.sent_bytes) == (0, 0)
    assert result.sha256 == hashlib.sha256(b"").hexdigest()
    assert faults.counts["write"] == 2  # itself and its checksum file


def test_progress_is_told_in_bytes_of_the_file(far, source):
    told = []
    source.write_bytes(BIG)
    upload(far, source, None, {"progress": told.append})
    assert (told[-1].done_bytes, told[-1].total_bytes, told[-1].resumed_at) == (len(BIG), len(BIG), 0)
    assert told[-1].path == str(source)


# -- the checksum file


@pytest.mark.parametrize("there", [f"{SHA256}  file\n".encode(), None, f"{'0' * 64}  file\n".encode()])
def test_a_checksum_of_this_very_file_is_kept_or_replaced(far, source, there):
    faults = Faults()
    if there is not None:
        (far / "file.sha256").write_bytes(there)
    upload(far, source, faults, sidecar=True)
    assert (far / "file.sha256").read_text() == f"{SHA256}  file\n"
    assert faults.counts["publish"] == (1 if there == f"{SHA256}  file\n".encode() else 2)
    assert names(far) == ["file", "file.sha256"]


@pytest.mark.parametrize(
    "there",
    [b"something else", f"{SHA256}  other\n".encode(), f"{SHA256}  file\n{SHA256}  other\n".encode(),
     f"{SHA256}  file\n".encode() + b"\n" * MOST_BYTES],
)  # fmt: skip
def test_what_a_producer_has_sent_under_the_name_of_the_checksum_stays(far, source, there, caplog):
    (far / "file.sha256").write_bytes(there)
    upload(far, source, sidecar=True)
    assert (far / "file.sha256").read_bytes() == there
    assert (far / "file").read_bytes() == CONTENT
    assert "no sidecar written" in caplog.text


def test_a_checksum_that_cannot_be_read_is_written(far, source):
    upload(far, source, Faults(before={("read", 0): PermissionDenied("a drop box")}), sidecar=True)
    assert (far / "file.sha256").read_text() == f"{SHA256}  file\n"


def test_a_checksum_that_is_not_taken_whole_is_told(far, source):
    answers = iter([Ack(3000, durable=True), Ack(5, durable=True)])
    with pytest.raises(ServerRefused, match=r"did not accept all of .*file\.sha256"):
        upload(far, source, Faults(answer={"write": lambda _: next(answers)}), sidecar=True)


# -- the connection


def test_whether_it_is_connected_is_known_without_making_a_connection(far):
    faults = Faults()
    remote = folder_remote(far, far.parent / "state", faults)
    assert (remote.connected, remote.is_connected(), faults.counts["connect"]) == (False, False, 0)
    remote.connect()
    assert (remote.connected, remote.is_connected()) == (True, True)
    assert (faults.counts["connect"], faults.counts["check"]) == (1, 1)
    remote.drop()
    assert not remote.connected
    remote.close()


@pytest.mark.parametrize(("error", "there"), [(PermissionDenied("no"), True), (Timeout("silent"), None)])
def test_an_answer_to_the_question_is_an_answer_whatever_it_says(far, error, there):
    remote = folder_remote(far, far.parent / "state", Faults(before={("check", 0): error}))
    remote.connect()
    if there is None:
        with pytest.raises(Timeout):
            remote.is_connected()
        assert not remote.connected
    else:
        assert remote.is_connected() is there
    remote.close()


def test_an_error_that_is_none_of_ours_comes_out_of_the_worker_as_it_is(far, source):
    remote = folder_remote(far, far.parent / "state", Faults(before={("begin", 0): ZeroDivisionError()}))
    with pytest.raises(ZeroDivisionError):
        remote.upload(UploadJob(source, "file"))
    assert remote.upload(UploadJob(source, "file")).size == 3000  # over new connections
    remote.close()
    remote = folder_remote(far, far.parent / "state", Faults(before={("connect", 0): ZeroDivisionError()}))
    with pytest.raises(ZeroDivisionError):
        remote.connect()
    remote.close()


def test_a_lost_link_gives_back_what_was_taken_for_the_file(far, source):
    remote = folder_remote(far, far.parent / "state", Faults(before={("begin", 0): LinkLost("cut")}), attempts=1)
    with contextlib.closing(remote):
        assert isinstance(remote.upload(UploadJob(source, "file")).error, LinkLost)
        assert remote.upload(UploadJob(source, "file")).size == 3000


def test_a_callback_of_a_batch_may_end_the_connection_that_it_runs_on(far, source):
    remote = folder_remote(far, far.parent / "state")
    ended = []

    def tick() -> None:
        if not ended:
            ended.append(1)
            remote.disconnect()

    with contextlib.suppress(LinkLost, Cancelled):
        list(remote.upload_many([UploadJob(source, "file")], tick=tick))
    assert ended == [1]
    assert remote.upload(UploadJob(source, "file")).size == 3000
    remote.close()


def test_another_thread_may_end_a_batch_that_is_being_waited_for(far, source):
    faults = Faults(hang={("write", 0)})
    remote = folder_remote(far, far.parent / "state", faults)
    outcomes = remote.upload_many([UploadJob(source, "file")])
    thread = threading.Thread(target=lambda: list(outcomes))
    thread.start()
    assert faults.hanging.wait(10)
    remote.disconnect()
    thread.join(10)
    assert not thread.is_alive()
    assert not remote.connected
    remote.close()


def test_times_and_mode_of_the_source_are_kept_only_when_asked_for(far, source):
    source.chmod(0o640)
    os.utime(source, ns=(10**18, 10**18 + 5))
    upload(far, source)
    assert (far / "file").stat().st_mtime > 1.1e9
    upload(far, source, keep_times=True, keep_mode=True)
    status = (far / "file").stat()
    assert (status.st_mtime, status.st_mode & 0o7777) == (10**9, 0o640)

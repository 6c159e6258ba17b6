"""The local side of a download by itself: what is looked at again, gone on with, kept, told and refused."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.landing_lab import NOW, OLD, Lab, publish

from iot.transfer.errors import ConfigurationError, NotFound, PermanentError, ProofFailed, SourceChanged
from iot.transfer.landing import FRESH_LOOKS, READ_TWICE_BYTES, TICK_S, DownloadTask, download_task
from iot.transfer.model import Checkpoint, DownloadJob, Evidence, Fingerprint, Progress, Proof, RemoteFile, Span
from iot.transfer.settings import TransferSettings


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


# -- what stands on the far side


@pytest.mark.parametrize(
    ("remote", "error", "words"),
    [
        (None, NotFound, "is not on the server"),
        (RemoteFile(1, 1, stat.S_IFDIR | 0o755), NotFound, "is a folder"),
        (RemoteFile(1, 1, stat.S_IFLNK | 0o777), PermanentError, "is not a regular file"),
        (RemoteFile(1, 1, stat.S_IFIFO), PermanentError, "is not a regular file"),
    ],
)
def test_what_is_no_file_is_refused_at_the_first_look_and_at_the_last(lab, remote, error, words):
    with pytest.raises(error, match=words):
        lab.landing().found(remote)
    with pytest.raises(error, match=words):
        lab.begun().check_same(remote)


@pytest.mark.parametrize("mode", [None, 0, 0o640, stat.S_IFREG])
def test_a_server_that_tells_no_kind_is_believed(lab, mode):
    assert lab.landing().found(RemoteFile(1, 1, mode)) == 0


@pytest.mark.parametrize(
    ("mtime_s", "size", "wait_s", "read_twice"),
    [
        (NOW - 11, 1000, 0, False),
        (NOW - 10, READ_TWICE_BYTES, 0, True),
        (NOW - 10, READ_TWICE_BYTES + 1, TICK_S, False),
        (NOW + 1000, READ_TWICE_BYTES + 1, TICK_S, False),  # its clock may be wrong
        (None, READ_TWICE_BYTES + 1, 0, False),
        (0, 10**9, 0, False),
        (NOW, None, 0, True),
    ],
)
def test_a_file_that_was_modified_just_now_is_waited_for_or_read_twice(lab, mtime_s, size, wait_s, read_twice):
    landing = lab.landing()
    assert landing.found(RemoteFile(size, mtime_s)) == wait_s
    assert landing.read_twice is read_twice


def test_a_fresh_file_is_taken_once_two_looks_agree(lab):
    landing, size = lab.landing(), READ_TWICE_BYTES + 1
    assert landing.found(RemoteFile(size, NOW)) == TICK_S
    assert landing.found(RemoteFile(size + 1, NOW)) == TICK_S
    assert landing.found(RemoteFile(size + 1, NOW)) == 0
    assert landing.remote == RemoteFile(size + 1, NOW)


def test_a_file_that_changes_at_every_look_is_given_up(lab):
    landing, size = lab.landing(), READ_TWICE_BYTES + 1
    for look in range(FRESH_LOOKS):
        assert landing.found(RemoteFile(size + look, NOW)) == TICK_S
    with pytest.raises(SourceChanged, match="is being written on the server: it changed 3 times"):
        landing.found(RemoteFile(size + FRESH_LOOKS, NOW))


def test_an_open_file_that_cannot_be_read_is_waited_for_since_it_cannot_be_compared(lab):
    class WriteOnly(io.BytesIO):
        def readable(self) -> bool:
            return False

    landing = lab.landing(dest=WriteOnly())
    assert landing.found(RemoteFile(1, NOW)) == TICK_S


# -- going on


def known_of(lab: Lab, remote: RemoteFile = OLD, acked: int = 600) -> Checkpoint:
    landing = lab.landing()
    landing.found(remote)
    Path(os.fsdecode(landing.sink.part)).write_bytes(bytes(800))
    return pickle.loads(pickle.dumps(landing.checkpoint(acked)))  # as another process finds it


def test_it_goes_on_behind_what_is_on_record_and_in_the_part(lab):
    known = known_of(lab)
    landing = lab.begun(known=known)
    assert (landing.end, landing.resumed_at, landing.sink.size()) == (600, 600, 600)
    landing = lab.begun(known=replace(known, acked_bytes=900))
    assert landing.end == 600  # as much as there is


@pytest.mark.parametrize(
    ("verify", "tail_size", "span"),
    [("timestamp", 100, None), ("size", 100, None), ("tail", 100, Span(500, 600)), ("tail", 700, Span(0, 600)),
     ("full", 100, Span(0, 600))],
)  # fmt: skip
def test_what_is_gone_on_with_is_compared_first_as_the_settings_ask(lab, verify, tail_size, span):
    known = known_of(lab)
    lab.options = replace(lab.options, verify=verify, tail_size=tail_size)
    landing = lab.landing()
    landing.found(OLD)
    assert landing.begin(known) == span
    assert landing.begin(None) is None  # it differed: from the start
    assert (landing.end, landing.sink.size()) == (0, 0)


@pytest.mark.parametrize(
    ("verify", "remote", "usable"),
    [
        (str(b"size", "ascii"), replace(OLD, mtime_s=5), True),
        ("timestamp", replace(OLD, mtime_s=5), False),
        ("timestamp", replace(OLD, mtime_s=NOW - 10), False),
        ("timestamp", replace(OLD, mtime_s=None), False),
        ("size", replace(OLD, size=1001), False),
        ("size", replace(OLD, size=None), False),
        ("size", replace(OLD, size=0), False),
        ("full", replace(OLD, mtime_s=5), False),
    ],
)
def test_only_the_same_version_is_gone_on_with(lab, verify, remote, usable):
    known = known_of(lab)
    lab.options = replace(lab.options, verify=verify)
    assert lab.begun(remote, known).end == (600 if usable else 0)


def test_a_version_without_a_time_is_never_the_same_one(lab):
    bare = replace(OLD, mtime_s=None)
    assert lab.begun(bare, known_of(lab, bare)).end == 0


def test_the_record_of_another_part_or_a_refusal_to_resume_starts_over(lab):
    known = known_of(lab)
    assert lab.begun(known=replace(known, token=type(known.token)(b"/other.part"))).end == 0
    lab.options = replace(lab.options, resume=False)
    assert lab.begun(known=known).end == 0


@pytest.mark.parametrize(
    ("keep_mode", "mode", "private"), [(True, 0o100600, True), (True, None, False), (False, 0o100600, False)]
)
def test_a_file_that_keeps_its_mode_is_nobody_elses_before_it_has_it(lab, keep_mode, mode, private):
    lab.options = replace(lab.options, keep_mode=keep_mode)
    landing = lab.begun(replace(OLD, mode=mode))
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(landing.sink.part).st_mode) == (0o600 if private else 0o666 & ~umask)


# -- records


@pytest.mark.usefixtures("disk_at_once")
def test_a_checkpoint_is_kept_after_so_many_bytes_or_so_long(lab):
    lab.options = replace(lab.options, checkpoint_bytes=100, checkpoint_s=10.0)
    landing = lab.begun()
    landing.progressed(99)
    assert lab.noted == []
    landing.progressed(100)
    landing.progressed(199)
    lab.now += 9.9
    landing.progressed(199)
    assert [each.acked_bytes for each in lab.noted] == [100]
    lab.now = 60.0
    landing.progressed(199)
    assert [each.acked_bytes for each in lab.noted] == [100, 199]
    landing.save()
    landing.progressed(298)
    assert [each.acked_bytes for each in lab.noted] == [100, 199]
    landing.progressed(299)
    assert [(each.acked_bytes, each.synced_bytes) for each in lab.noted] == [(100, 100), (199, 199), (299, 299)]
    assert lab.noted[0].fingerprint == Fingerprint(1000, (NOW - 11) * 10**9)


def test_what_cannot_be_gone_on_with_is_not_on_record(lab):
    landing = lab.begun(RemoteFile(10, NOW))
    assert landing.read_twice
    landing.progressed(10)
    landing.save()
    stream = lab.begun(dest=io.BytesIO())
    stream.progressed(10)
    stream.save()
    assert lab.noted == []
    assert (landing.throw_away(), stream.throw_away()) == (True, False)


def test_what_is_thrown_away_is_gone(lab):
    landing = lab.begun()
    landing.sink.write(0, memoryview(b"abc"))
    assert landing.throw_away()
    assert os.listdir(lab.dest.parent) == []


# -- progress


def test_progress_is_told_now_and_then_and_at_the_end(lab):
    landing = lab.begun()
    landing.progressed(1)
    lab.now += 0.3
    landing.progressed(2)
    landing.progressed(3)
    lab.now += 0.3
    landing.progressed(1200)
    publish(landing, None, Evidence.END_OF_FILE, 1200)
    assert [(each.done_bytes, each.total_bytes) for each in lab.told] == [(2, 1000), (1200, 1200), (1200, 1200)]
    assert lab.told[0].path == "/far/file"


def test_nobody_has_to_listen(lab):
    landing = lab.begun(progress=None)
    lab.now += 100
    landing.progressed(1)
    publish(landing, None, Evidence.END_OF_FILE, 1)
    DownloadTask(b"x", "y").tell(Progress("x", 1, 1, 0))


# -- proof


@pytest.mark.parametrize("changed", [{"size": 999}, {"size": 1001}, {"size": None}, {"mtime_s": 1}, {"mtime_s": NOW}])
def test_another_size_or_time_at_the_end_is_another_version(lab, changed):
    landing = lab.begun()
    landing.check_same(OLD)
    landing.check_same(replace(OLD, mode=0o100600))  # a mode is no content
    with pytest.raises(SourceChanged, match="/far/file changed on the server"):
        landing.check_same(replace(OLD, **changed))


def test_every_hash_that_is_known_must_match(lab):
    landing = lab.begun()
    landing.digest = "aa"
    assert landing.matches([]) is None
    assert landing.matches([("aa", Evidence.SHA256_FILE)]) == (Proof.FULL, Evidence.SHA256_FILE)
    both = [("aa", Evidence.EXPECTED_HASH), ("bb", Evidence.SHA256_FILE)]
    assert landing.matches(both[:1]) == (Proof.FULL, Evidence.EXPECTED_HASH)
    with pytest.raises(ProofFailed, match=r"has SHA-256 aa, but the [a-z0-9 .]+ is bb"):
        landing.matches(both)
    landing.digest = "bb"
    with pytest.raises(ProofFailed, match=r"has SHA-256 bb, but the expected SHA-256 is aa"):
        landing.matches(both)


@pytest.mark.parametrize(
    ("end", "proven"),
    [
        (int("1000"), (Proof.SIZE, Evidence.SIZE)),
        (999, (None, Evidence.END_OF_FILE)),
        (1001, (None, Evidence.END_OF_FILE)),
    ],
)
def test_only_the_reported_size_proves_by_size(lab, end, proven):
    landing = lab.begun()
    landing.end = end
    assert landing.by_size() == proven
    assert landing.whole == Span(0, end)


def test_the_result_says_what_came_and_what_is_known(lab):
    landing = lab.begun()
    landing.sink.write(0, memoryview(b"abc"))
    landing.end, landing.digest = 3, hashlib.sha256(b"abc").hexdigest()
    lab.now += 2.5
    result = publish(landing, Proof.FULL, Evidence.SERVER_HASH, 5)
    assert lab.dest.read_bytes() == b"abc"
    assert (result.source, result.dest, result.local_path) == ("/far/file", str(lab.dest), os.fsencode(lab.dest))
    assert (result.size, result.sent_bytes, result.resumed_at, result.seconds) == (3, 5, 0, 2.5)
    assert (result.proof, result.evidence, result.durable) == (Proof.FULL, Evidence.SERVER_HASH, True)
    assert (result.sha256, result.fingerprint) == (landing.digest, Fingerprint(1000, (NOW - 11) * 10**9))
    assert not publish(lab.begun(dest=io.BytesIO()), None, Evidence.END_OF_FILE, 0).durable


@pytest.mark.parametrize("kept", [True, False])
def test_times_and_mode_are_taken_over_only_when_asked_for(lab, kept):
    lab.options = replace(lab.options, keep_mode=kept, keep_times=kept)
    publish(lab.begun(replace(OLD, mode=0o104751, mtime_s=10**9)), None, Evidence.SIZE, 0)
    status = lab.dest.stat()
    assert (status.st_mtime == 10**9) is kept
    assert (stat.S_IMODE(status.st_mode) == 0o751) is kept  # never a set-user-id bit


# -- what is asked for


def task(dest: Any, sha256: bool | str = False, **options: Any) -> DownloadTask:
    return download_task(DownloadJob("/far/file", dest, sha256=sha256), TransferSettings(**options))


def test_a_hash_is_64_hex_digits_of_either_case(tmp_path):
    assert task(tmp_path / "f", "AB" * 32).expected_hashes == [("ab" * 32, Evidence.EXPECTED_HASH)]
    assert task(tmp_path / "f", True).expected_hashes == []
    assert task(str(tmp_path)).dest == str(tmp_path)
    for wrong in ("ab" * 31, "ab" * 33, "xy" * 32, "", 5):
        with pytest.raises(ConfigurationError, match="sha256: must be True, False or 64 hex digits"):
            task(tmp_path / "f", wrong)


class Stream(io.BytesIO):
    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.kinds = kinds

    def readable(self) -> bool:
        return "r" in self.kinds

    def writable(self) -> bool:
        return "w" in self.kinds

    def seekable(self) -> bool:
        return "s" in self.kinds


@pytest.mark.parametrize(
    ("kinds", "options", "sha256", "words"),
    [
        ("rws", {"keep_times": True}, False, "keep_times: not possible for an open file"),
        ("rws", {"keep_mode": True}, False, "keep_mode: not possible for an open file"),
        ("rs", {}, False, "dest: an open file must be writable and seekable"),
        ("rw", {}, False, "dest: an open file must be writable and seekable"),
        ("ws", {}, True, "sha256: cannot verify an open file"),
        ("ws", {"sidecar": True}, False, "sidecar: cannot verify an open file"),
        ("ws", {"proof": "tail"}, False, "proof: cannot verify an open file"),
    ],
)
def test_what_an_open_file_cannot_take_or_prove_is_refused_by_name(kinds, options, sha256, words):
    with pytest.raises(ConfigurationError, match=words):
        task(Stream(*kinds), sha256, **options)


def test_an_open_file_that_is_not_readable_will_do_where_nothing_is_to_be_proven():
    stream = Stream("w", "s")
    assert task(stream).dest is stream
    assert task(Stream("r", "w", "s"), True, sidecar=True, proof="full").expected_sha256 is None


def test_a_download_that_asks_for_the_times_of_its_file_has_them(lab):
    publish(lab.begun(replace(OLD, mtime_s=10**9), keep_times=True), None, Evidence.SIZE, 0)
    assert lab.dest.stat().st_mtime == 10**9

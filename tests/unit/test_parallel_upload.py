"""Uploads through workers: what goes wrong on the far side at any call, and what is true afterwards."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from unit.faulty_store import CALLS, Faults, folder_remote
from unit.parallel_uploads_lab import LARGE, again, content, cut_short, known, make_files, parts, upload

from iot.transfer.errors import AlreadyExists, Cancelled, LinkLost, NoSpaceOnServer, ServerBusy, SourceChanged, Timeout
from iot.transfer.model import Failure, Fingerprint, TransferResult, UploadJob


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(LARGE))
    return path


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent")])
def test_a_connection_lost_at_any_call_costs_no_byte_that_counted(tmp_path, source, call, when, number, error):
    faults = Faults(**{when: {(call, number): error}})
    with_faults = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    result = upload(with_faults, source)
    with_faults.close()
    assert content(tmp_path) == source.read_bytes()
    assert not parts(tmp_path)
    assert known(tmp_path, source) is None
    if (call, when, number) == ("publish", "after", 0):
        assert result.already_done
    if call == "write" and faults.counts["write"] > number:
        assert result.resumed_at == number * 4 * 1024 * 1024 or when == "after"


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_never_returns_is_cancelled_within_a_second(tmp_path, source, call):
    faults = Faults(hang={(call, 0)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(remote.upload(UploadJob(source, "to/file"))))
    thread.start()
    assert faults.hanging.wait(10)
    began = time.monotonic()
    remote.cancel()
    thread.join(10)
    assert time.monotonic() - began < 1.0
    assert ended[0] is None or isinstance(ended[0].error, Cancelled)
    assert content(tmp_path) is None
    assert upload(remote, source).size == LARGE  # and the next call works
    assert content(tmp_path) == source.read_bytes()
    remote.close()


def test_a_call_that_does_not_even_end_when_aborted_holds_up_nobody(tmp_path, source):
    faults = Faults(deaf={("write", 0)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    thread = threading.Thread(target=lambda: remote.upload(UploadJob(source, "to/file")))
    thread.start()
    assert faults.hanging.wait(10)
    began = time.monotonic()
    remote.cancel()
    thread.join(10)
    assert time.monotonic() - began < 2.0
    other = tmp_path / "other"
    other.write_bytes(b"other")
    upload(remote, other, "to/other")
    assert content(tmp_path, "to/other") == b"other"
    remote.close()


def test_a_lost_link_ends_after_its_attempts_and_the_next_call_goes_on(tmp_path, source):
    faults = Faults(before={("write", number): LinkLost("cut") for number in (1, 2, 3, 4, 5)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=2)
    with pytest.raises(LinkLost):
        upload(remote, source)
    assert content(tmp_path) is None
    faults.before.clear()
    result = upload(remote, source)
    assert result.resumed_at == 4 * 1024 * 1024
    assert result.sent_bytes == LARGE - result.resumed_at
    assert content(tmp_path) == source.read_bytes()
    remote.close()


def test_the_resume_survives_the_process(tmp_path, source):
    faults = Faults(before={("write", number): LinkLost("cut") for number in range(2, 9)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=1)
    with pytest.raises(LinkLost):
        upload(remote, source)
    remote.close()
    again = folder_remote(tmp_path / "far", tmp_path / "state")
    assert upload(again, source).resumed_at == 8 * 1024 * 1024
    assert content(tmp_path) == source.read_bytes()
    again.close()


# -- refusals


def test_a_full_far_side_leaves_room_to_smaller_files(tmp_path, source):
    faults = Faults(before={("write", 1): NoSpaceOnServer("full")})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    with pytest.raises(NoSpaceOnServer):
        upload(remote, source)
    assert not parts(tmp_path)
    upload(remote, source)
    assert content(tmp_path) == source.read_bytes()
    remote.close()


def test_a_busy_far_side_gets_fewer_connections_and_loses_no_file(tmp_path):
    faults = Faults()
    refusals = iter(range(3))

    def refuse(token):
        if faults.counts["connect"] > 1 and next(refusals, None) is not None:
            raise ServerBusy("too many")
        return token

    faults.answer["begin"] = refuse
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    outcomes = list(remote.upload_many(make_files(tmp_path, 40)))
    remote.close()
    told = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert len(outcomes) == 40
    assert all(isinstance(failure.error, ServerBusy) for failure in told)
    assert len(told) < 3  # refused beside others it goes again, refused alone it is told


def test_further_connections_that_are_refused_are_done_without(tmp_path):
    faults = Faults(before={("connect", number): ServerBusy("no more") for number in range(1, 99)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    outcomes = list(remote.upload_many(make_files(tmp_path, 40)))
    remote.close()
    assert sum(isinstance(outcome, TransferResult) for outcome in outcomes) == 40


def test_where_nothing_can_be_replaced_the_old_file_is_removed_only_by_setting(tmp_path, source):
    (tmp_path / "far" / "to").mkdir(parents=True)
    (tmp_path / "far" / "to" / "file").write_bytes(b"old")
    faults = Faults(before={("publish", number): AlreadyExists("there") for number in (0, 1)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    with pytest.raises(AlreadyExists):
        upload(remote, source)
    remote.close()
    assert content(tmp_path) == b"old"
    again(tmp_path, source, faults, replace_by_remove=True)
    assert content(tmp_path) == source.read_bytes()


def test_one_bad_file_does_not_hold_up_its_neighbours(tmp_path):
    jobs = make_files(tmp_path, 20)
    jobs[3] = UploadJob(tmp_path / "missing", "missing", key="missing")
    jobs[7] = UploadJob(tmp_path / "in/7", "../escape", key="escape")
    remote = folder_remote(tmp_path / "far", tmp_path / "state")
    outcomes = {outcome.key: outcome for outcome in remote.upload_many(jobs)}
    remote.close()
    assert {key for key, outcome in outcomes.items() if isinstance(outcome, Failure)} == {"missing", "escape"}
    assert len(outcomes) == 20


# -- the source


def test_a_source_that_changes_while_it_is_sent_is_never_published(tmp_path, source):
    def rewrite(_):
        source.write_bytes(os.urandom(LARGE))

    remote = folder_remote(tmp_path / "far", tmp_path / "state", connections=1)
    slow = iter(range(100))
    faults = Faults(answer={"write": lambda ack: (next(slow), rewrite(None), ack)[2]})
    remote.close()
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    with pytest.raises(SourceChanged):
        upload(remote, source)
    remote.close()
    assert content(tmp_path) is None


def test_another_version_than_was_asked_for_is_not_sent(tmp_path, source):
    remote = folder_remote(tmp_path / "far", tmp_path / "state")
    with pytest.raises(SourceChanged):
        upload(remote, source, fingerprint=Fingerprint(1, 1))
    remote.close()
    assert content(tmp_path) is None


def test_another_version_starts_over(tmp_path, source):
    cut_short(tmp_path, source)
    source.write_bytes(os.urandom(LARGE))
    assert again(tmp_path, source).resumed_at == 0
    assert content(tmp_path) == source.read_bytes()

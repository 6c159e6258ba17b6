"""Uploads through workers: what is on the disk before a name is given, and many files at once."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote
from unit.parallel_uploads_lab import LARGE, again, content, cut_short, known, make_files, not_durable, parts, upload

from iot.transfer.errors import LinkLost
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.model import Phase, TransferResult, UploadJob


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(LARGE))
    return path


# -- publish


def test_intents_of_many_files_share_a_commit(tmp_path, monkeypatch):
    commits: list[int] = []
    commit = Checkpoints.commit

    def counted(self, checkpoints):
        commits.append(len(checkpoints))
        commit(self, checkpoints)

    monkeypatch.setattr(Checkpoints, "commit", counted)
    remote = folder_remote(tmp_path / "far", tmp_path / "state")
    outcomes = list(remote.upload_many(make_files(tmp_path, 400)))
    remote.close()
    assert len(outcomes) == sum(commits) == 400
    assert len(commits) < 100


def test_the_intent_is_on_the_disk_before_a_file_gets_its_name(tmp_path, source):
    phases = []

    def look(durable):
        phases.append(known(tmp_path, source).phase)
        return durable

    remote = folder_remote(tmp_path / "far", tmp_path / "state", Faults(answer={"publish": look}))
    upload(remote, source)
    remote.close()
    assert phases == [Phase.PUBLISHING]


def test_a_lost_answer_to_publish_is_believed_only_with_the_whole_content(tmp_path, source):
    faults = Faults(after={("publish", 0): LinkLost("cut")})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=1)
    with pytest.raises(LinkLost):
        upload(remote, source)
    remote.close()
    final = tmp_path / "far" / "to" / "file"
    with final.open("r+b") as file:  # the same size, another content
        file.write(b"changed")
    result = again(tmp_path, source)
    assert not result.already_done
    assert result.possible_repeat
    assert content(tmp_path) == source.read_bytes()


def test_without_confirmation_the_result_is_held_back_and_the_file_looked_at_again(tmp_path, source):
    faults = not_durable()
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, publish_grace_s=0.5)
    began = time.monotonic()
    result = upload(remote, source, grace=True)
    assert time.monotonic() - began >= 0.5
    assert result.durable is False
    assert faults.calls[-1] == "stat"
    remote.close()


def test_a_sidecar_and_a_proof_are_made_as_asked(tmp_path, source):
    result = again(tmp_path, source, proof="full", sidecar=True)
    assert result.proof.value == "full"
    assert content(tmp_path, "to/file.sha256") == f"{result.sha256}  file\n".encode()
    assert not parts(tmp_path)


# -- many


def test_thousands_of_small_files_arrive_whole(tmp_path):
    jobs = make_files(tmp_path, 3000)
    faults = Faults(before={("write", number): LinkLost("cut") for number in (500, 1500)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    outcomes = list(remote.upload_many(iter(jobs)))
    remote.close()
    assert sorted(outcome.key for outcome in outcomes) == list(range(3000))
    assert all(isinstance(outcome, TransferResult) for outcome in outcomes)
    for number in range(3000):
        assert content(tmp_path, f"to/{number}") == b"%d" % number * (number % 50)
    assert not parts(tmp_path)


def test_a_small_urgent_file_overtakes_large_ones(tmp_path, source):
    faults = Faults(answer={"write": lambda ack: (time.sleep(0.3 if ack.end > 100 else 0), ack)[1]})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, connections=2)
    small = tmp_path / "small"
    small.write_bytes(b"urgent")
    jobs = [UploadJob(source, f"large/{number}", key=number, priority=9) for number in range(3)]
    jobs.append(UploadJob(small, "small", key="small", priority=0))
    outcomes = remote.upload_many(jobs)
    assert next(outcomes).key == "small"
    outcomes.close()
    remote.close()


@pytest.mark.parametrize("kind", ["hang", "deaf"])
def test_tick_is_called_while_every_worker_is_busy_and_while_it_ends(tmp_path, source, kind):
    faults = Faults(**{kind: {("write", 0)}})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    ticks = [time.monotonic()]

    def tick():
        ticks.append(time.monotonic())
        if len(ticks) > 12:
            remote.cancel()

    list(remote.upload_many([UploadJob(source, "to/file")], tick=tick))
    ticks.append(time.monotonic())
    remote.close()
    assert max(later - earlier for earlier, later in itertools.pairwise(ticks)) < 0.25


def test_what_was_discarded_is_removed_beside_later_uploads(tmp_path, source):
    part = cut_short(tmp_path, source)
    remote = folder_remote(tmp_path / "far", tmp_path / "state", stale_part_s=0.01)
    source.unlink()
    remote.discard([(str(source), "to/file")])
    time.sleep(1.1)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    upload(remote, other, "to/other")
    remote.close()
    assert not part.exists()
    assert known(tmp_path, source) is None


def test_held_checkpoints_stay_until_they_are_settled(tmp_path, source):
    remote = folder_remote(tmp_path / "far", tmp_path / "state")
    [result] = remote.upload_many([UploadJob(source, "to/file")], hold_checkpoints=True)
    assert known(tmp_path, source).phase is Phase.PUBLISHING
    remote.release_checkpoints([result])
    remote.close()
    assert known(tmp_path, source) is None


def test_an_upload_is_not_begun_twice_at_once(tmp_path, source):
    faults = Faults(hang={("write", 0)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    jobs = [UploadJob(source, "to/file", key=1), UploadJob(source, "to/file", key=2)]
    outcomes = remote.upload_many(jobs)
    second = next(outcomes)
    assert "is running" in str(second.error)
    outcomes.close()
    remote.close()

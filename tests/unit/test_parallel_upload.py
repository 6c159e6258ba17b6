"""Uploads through workers: what goes wrong on the far side at any call, and what is true afterwards."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from unit.faulty_store import CALLS, Faults, SessionSide, folder_remote, remote_of

from iot.transfer.errors import (
    AlreadyExists,
    Cancelled,
    LinkLost,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ProofFailed,
    ServerBusy,
    SourceChanged,
    Timeout,
)
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Direction, Failure, Fingerprint, Phase, TransferResult, UploadJob
from iot.transfer.remote import Ack, Gone, Offset

LARGE = 9 * 1024 * 1024
"""Three writes of a folder."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(LARGE))
    return path


def upload(remote, source, dest="to/file", **job):
    outcome = remote.upload(UploadJob(source, dest, **job))
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def content(tmp_path: Path, name: str = "to/file") -> bytes | None:
    path = tmp_path / "far" / name
    return path.read_bytes() if path.exists() else None


def parts(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "far").rglob("*.part")]


def known(tmp_path: Path, source: Path, dest: bytes = b"to/file"):
    journal = Journal(tmp_path / "state", CHECKPOINTS)
    try:
        checkpoints = Checkpoints(journal, "far", every_bytes=1, every_s=1, clock=time.monotonic)
        return checkpoints.load(Direction.UPLOAD, dest, os.fsencode(source))
    finally:
        journal.close()


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


# -- what stands there is not believed


def cut_short(tmp_path, source, **settings):
    """An upload that was lost with one or two writes answered -> its part."""
    faults = Faults(before={("write", number): LinkLost("cut") for number in range(2, 9)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=1, **settings)
    with pytest.raises(LinkLost):
        upload(remote, source)
    remote.close()
    [part] = (tmp_path / "far").rglob("*.part")
    return part


def again(tmp_path, source, faults=None, **settings):
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, **settings)
    try:
        return upload(remote, source)
    finally:
        remote.close()


def test_what_is_suspect_is_read_back_and_mended(tmp_path, source):
    part = cut_short(tmp_path, source)
    faults = Faults(capabilities={"durable": False}, answer={"write": lambda ack: Ack(ack.end)})
    part.unlink()
    part = cut_short(tmp_path, source)
    with part.open("r+b") as file:  # behind what was synced: not in the journal's trust
        file.seek(8 * 1024 * 1024)
        file.write(b"garbage" * 1000)
    result = again(tmp_path, source, faults)
    assert result.resumed_at == 8 * 1024 * 1024
    assert content(tmp_path) == source.read_bytes()


def not_durable() -> Faults:
    return Faults(answer={"write": lambda ack: Ack(ack.end), "publish": lambda _: False})


def test_without_durable_answers_all_of_the_part_is_suspect(tmp_path, source):
    faults = not_durable()
    faults.before = {("write", number): LinkLost("cut") for number in range(2, 9)}
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=1)
    with pytest.raises(LinkLost):
        upload(remote, source)
    remote.close()
    [part] = (tmp_path / "far").rglob("*.part")
    with part.open("r+b") as file:  # a power cut there: the right length, zeros inside
        file.seek(2 * 1024 * 1024)
        file.write(bytes(1024 * 1024))
    faults.before.clear()
    result = again(tmp_path, source, faults)
    assert result.resumed_at == 2 * 1024 * 1024
    assert "read_part" in faults.calls
    assert content(tmp_path) == source.read_bytes()


@pytest.mark.parametrize(("sure_after_s", "sure_bytes"), [(0.0, 8 * 1024 * 1024), (60.0, 0)])
def test_what_was_seen_long_ago_on_a_connection_that_stood_is_not_read_back(
    tmp_path, source, monkeypatch, sure_after_s, sure_bytes
):
    monkeypatch.setattr("iot.transfer.parallel.upload.SURE_AFTER_S", sure_after_s)
    faults = not_durable()
    faults.before = {("write", number): LinkLost("cut") for number in range(2, 9)}
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, attempts=1)
    with pytest.raises(LinkLost):
        upload(remote, source)
    remote.close()
    assert known(tmp_path, source).synced_bytes == sure_bytes
    assert again(tmp_path, source).resumed_at == 8 * 1024 * 1024
    assert content(tmp_path) == source.read_bytes()


def test_trust_goes_on_without_reading_back(tmp_path, source):
    cut_short(tmp_path, source, server_durability="trust")
    faults = Faults()
    result = again(tmp_path, source, faults, server_durability="trust")
    assert result.resumed_at == 8 * 1024 * 1024
    assert "read_part" not in faults.calls
    assert content(tmp_path) == source.read_bytes()


def test_what_cannot_be_read_back_is_sent_again(tmp_path, source):
    cut_short(tmp_path, source)
    faults = not_durable()
    faults.before = {("read_part", number): PermissionDenied("drop box") for number in range(9)}
    remote = folder_remote(tmp_path / "far", tmp_path / "state", Faults(**vars(faults) | {"calls": []}))
    remote.close()
    with (tmp_path / "far" / "to").joinpath(parts(tmp_path)[0]).open("ab") as file:
        file.write(b"x" * 10)  # more than was acked: suspect
    result = again(tmp_path, source, faults)
    assert result.resumed_at == 8 * 1024 * 1024
    assert content(tmp_path) == source.read_bytes()


@pytest.mark.parametrize("damage", ["longer", "gone", "emptied", "a folder's place"])
def test_a_part_that_is_not_as_it_was_left_is_no_way_to_a_wrong_file(tmp_path, source, damage):
    part = cut_short(tmp_path, source)
    if damage == "longer":
        with part.open("ab") as file:
            file.write(os.urandom(LARGE))
    elif damage == "emptied":
        part.write_bytes(b"")
    elif damage == "gone":
        part.unlink()
    else:
        part.unlink()
        part.parent.rmdir()
    again(tmp_path, source)
    assert content(tmp_path) == source.read_bytes()
    assert not parts(tmp_path)


def test_a_token_that_vanishes_in_the_middle_is_a_fresh_start(tmp_path, source):
    faults = Faults()
    first = iter([True])

    def answer(standing):
        return Gone() if isinstance(standing, Offset) and next(first, False) else standing

    cut_short(tmp_path, source)
    faults.answer["where"] = answer
    result = again(tmp_path, source, faults)
    assert result.resumed_at == 0
    assert content(tmp_path) == source.read_bytes()


def test_a_part_that_something_removes_before_it_has_its_name_is_an_error_that_says_so(tmp_path, source):
    with pytest.raises(NotFound, match=r"the part of .*source is gone: does something there remove files by name"):
        again(tmp_path, source, Faults(answer={"where": lambda _: Gone()}))
    assert content(tmp_path) is None


def test_a_wrong_size_at_the_end_is_never_published(tmp_path, source):
    faults = Faults(answer={"where": lambda standing: Offset(standing.end - 1)})
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults)
    with pytest.raises(ProofFailed):
        upload(remote, source)
    remote.close()
    assert content(tmp_path) is None
    assert again(tmp_path, source).size == LARGE  # everything was read back
    assert content(tmp_path) == source.read_bytes()


def test_a_write_that_took_less_is_continued_where_it_ended(tmp_path, source):
    short = iter([1000])
    faults = Faults(answer={"write": lambda ack: Ack(ack.end - next(short, 0), durable=ack.durable)})
    assert again(tmp_path, source, faults).size == LARGE
    assert content(tmp_path) == source.read_bytes()


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


def make_files(tmp_path: Path, count: int) -> list[UploadJob]:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).write_bytes(b"%d" % number * (number % 50))
    return [UploadJob(folder / str(number), f"to/{number}", key=number) for number in range(count)]


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
    remote.settle([result])
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


# -- sessions: a token that cannot be found again, a last byte that publishes


@pytest.mark.parametrize("size", [0, 1, 1000, 40_000, 65_536])
@pytest.mark.parametrize("multiple", [1, 1024])
def test_the_byte_that_publishes_is_held_back_until_the_intent_is_durable(tmp_path, size, multiple):
    side = SessionSide(multiple=multiple)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    phases = []

    def look(ack):
        row = known(tmp_path, source, b"file")
        phases.append(row.phase if row is not None else None)
        return ack

    remote = remote_of(side.store, tmp_path / "state", Faults(answer={"write": look}))
    upload(remote, source, "file")
    remote.close()
    assert side.files == {b"file": source.read_bytes()}
    assert phases[-1] is Phase.PUBLISHING
    assert Phase.PUBLISHING not in phases[:-1]


def test_a_source_that_changed_does_not_get_its_last_byte(tmp_path, source):
    side = SessionSide(multiple=1024)
    changes = iter([1])

    def change(ack):
        if next(changes, None):
            source.write_bytes(os.urandom(LARGE))
        return ack

    remote = remote_of(side.store, tmp_path / "state", Faults(answer={"write": change}))
    with pytest.raises(SourceChanged):
        upload(remote, source, "file")
    remote.close()
    assert not side.files


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("call", ["begin", "write", "where", "publish"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_session_is_gone_on_with_after_a_restart(tmp_path, call, when, number):
    side = SessionSide(multiple=1024)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20_000))
    first = remote_of(side.store, tmp_path / "state", Faults(**{when: {(call, number): LinkLost("cut")}}), attempts=1)
    outcome = first.upload(UploadJob(source, "file"))
    first.close()
    remote = remote_of(side.store, tmp_path / "state")
    upload(remote, source, "file")
    remote.close()
    assert side.files == {b"file": source.read_bytes()}
    left = 1 if isinstance(outcome, Failure) and (call, when) == ("begin", "after") else 0
    assert len(side.sessions) == left  # only a session whose name never came back is left to its time limit


def test_a_session_that_expired_is_a_fresh_start(tmp_path, source):
    side = SessionSide(multiple=1024)
    first = remote_of(side.store, tmp_path / "state", Faults(before={("write", 3): LinkLost("cut")}), attempts=1)
    with pytest.raises(LinkLost):
        upload(first, source, "file")
    first.close()
    side.sessions.clear()
    remote = remote_of(side.store, tmp_path / "state")
    assert upload(remote, source, "file").resumed_at == 0
    remote.close()
    assert side.files == {b"file": source.read_bytes()}


def test_a_token_is_never_shown():
    from iot.transfer.remote import Token

    token = Token(b"https://example.org/secret")
    assert "secret" not in f"{token} {token!r} {[token]}"

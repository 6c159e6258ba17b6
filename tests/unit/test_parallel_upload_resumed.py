"""Uploads through workers go on with what is proven to stand there, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unit.faulty_store import Faults, SessionSide, folder_remote, remote_of
from unit.parallel_uploads_lab import LARGE, again, content, cut_short, known, not_durable, parts, upload

from iot.transfer.errors import LinkLost, NotFound, PermissionDenied, ProofFailed, SourceChanged
from iot.transfer.model import Failure, Phase, UploadJob
from iot.transfer.remote import Ack, Gone, Offset


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(LARGE))
    return path


# -- what stands there is not believed


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

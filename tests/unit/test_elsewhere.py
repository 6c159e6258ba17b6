"""What was begun with another server is never continued here; that it may stand there, too, is said of the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.test_checkpoints import checkpoint, make, stored

from iot.transfer.abandoned_parts import AbandonedParts
from iot.transfer.base import upload_key
from iot.transfer.journal.checkpoints import CHECKPOINTS
from iot.transfer.journal.elsewhere import GIVEN_UP, Elsewhere
from iot.transfer.journal.journal import Journal
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Fingerprint, Phase, Proof, TransferResult

HERE, THERE = "me@here:22", "me@there:22"
VERSION = Fingerprint(10**6, 1, 2, 3)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state", CHECKPOINTS)
    yield journal
    journal.close()


def delivered(name: str = "a", version: Fingerprint | None = VERSION) -> TransferResult:
    local = b"/l/" + name.encode()
    more = {"proof": Proof.SIZE, "fingerprint": version, "local_path": local}
    return TransferResult(local.decode(), f"/r/{name}", 10**6, 1, 0, 0.1, **more)  # type: ignore[arg-type]


def test_a_checkpoint_of_one_server_is_not_loaded_for_another(journal: Journal) -> None:
    make(journal, THERE).commit([checkpoint(acked=500)])
    assert stored(journal, server=HERE) is None
    assert stored(journal, server=THERE) == checkpoint(acked=500)


@pytest.mark.parametrize("version", [VERSION, None, VERSION._replace(inode=9)])
def test_a_publish_without_an_answer_there_makes_a_delivery_here_a_possible_repeat(
    journal: Journal, version: Fingerprint | None
) -> None:
    make(journal, THERE).commit([checkpoint(phase=Phase.PUBLISHING), checkpoint("b"), checkpoint("c")])
    elsewhere = Elsewhere(journal, HERE, upload_key)
    assert elsewhere.may_stand(delivered(version=version)) is (version is None or version.looks_like(VERSION))
    assert not elsewhere.may_stand(delivered("b"))
    assert not elsewhere.may_stand(delivered("d"))
    assert not Elsewhere(journal, THERE, upload_key).may_stand(delivered())


def test_each_of_several_other_servers_may_have_it_and_gives_it_up(journal: Journal) -> None:
    others = (THERE, "me@a-third:22")
    for other, phase in zip(others, (Phase.PUBLISHING, Phase.SENDING), strict=True):
        make(journal, other).commit([checkpoint(phase=phase)])
    elsewhere = Elsewhere(journal, HERE, upload_key)
    assert elsewhere.may_stand(delivered())
    elsewhere.overtaken([delivered()])
    for other in others:
        assert stored(journal, server=other) == checkpoint(fingerprint=GIVEN_UP, phase=Phase.SENDING)


def test_another_version_of_the_file_is_no_repeat(journal: Journal) -> None:
    make(journal, THERE).commit([checkpoint(phase=Phase.PUBLISHING)])
    assert not Elsewhere(journal, HERE, upload_key).may_stand(delivered(version=Fingerprint(10**6, 99, 2, 3)))


def test_what_is_delivered_here_is_given_up_there_with_its_age(journal: Journal, tmp_path: Path) -> None:
    """Also where the file stays in its outbox: its part there would else wait for ever to be continued."""
    source = tmp_path / "a"
    source.write_bytes(b"content")
    begun = replace(checkpoint(phase=Phase.PUBLISHING), local_path=bytes(source))
    begun = replace(begun, fingerprint=Fingerprint.of(source.stat()))
    make(journal, THERE).commit([begun, checkpoint("b")])
    elsewhere = Elsewhere(journal, HERE, upload_key)
    result = replace(delivered(), local_path=bytes(source), fingerprint=begun.fingerprint)
    assert elsewhere.may_stand(result)
    elsewhere.overtaken([result, delivered("nobody knows")])
    elsewhere.overtaken([result])
    assert not elsewhere.may_stand(result)
    kept = make(journal, THERE)
    given_up = kept.load(begun.direction, begun.remote_path, begun.local_path)
    assert given_up == replace(begun, fingerprint=GIVEN_UP, phase=Phase.SENDING)
    assert stored(journal, "b", THERE) == checkpoint("b")
    locks = TransferLocks(tmp_path)
    parts = AbandonedParts(kept, locks, kept.abandoned_before(time.time() + 10.0), lambda each: each.token)
    assert given_up in parts.next_bundle()  # as soon as that server is used again
    locks.close()


def test_nothing_is_written_where_nothing_was_begun_elsewhere(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(journal, HERE).commit([checkpoint(phase=Phase.PUBLISHING)])
    elsewhere = Elsewhere(journal, HERE, upload_key)
    monkeypatch.setattr(journal, "write", lambda _: pytest.fail("written"))
    elsewhere.overtaken([delivered()])
    assert not elsewhere.may_stand(delivered())

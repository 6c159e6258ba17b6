"""Parts of uploads that were given up: only those, a few at a time, locked, and never a final."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.protocol.packets import Code, Status
from iot.sftp.client.standby import Connecting
from iot.sftp.client.uploads import Uploads
from iot.transfer.abandoned_parts import BUNDLE_PARTS, AbandonedParts, abandoned
from iot.transfer.errors import Cancelled, PermissionDenied
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Token
from iot.transfer.names import part_name
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.ready import Finished
from iot.transfer.parallel.removal import LEAST_URGENT, next_removal
from iot.transfer.parallel.work import Desk
from iot.transfer.stop import StopFlag

DAY = 86400


class Lab:
    def __init__(self, tmp_path: Path, journal: Journal) -> None:
        self.folder = tmp_path
        self.checkpoints = Checkpoints(journal, "far", every_bytes=1, every_s=0, clock=time.monotonic)
        self.locks = TransferLocks(None)
        self.fresh()

    def fresh(self) -> None:
        self._parts: AbandonedParts | None = None

    @property
    def parts(self) -> AbandonedParts:
        """Those of one connection, from when they are first asked for."""
        if self._parts is None:
            old = self.checkpoints.abandoned_before(time.time() - DAY)
            self._parts = AbandonedParts(self.checkpoints, self.locks, old, lambda each: bytes(each.token))
        return self._parts

    def record(self, name: str, *, token: bytes | None = None, there: str = "gone") -> Checkpoint:
        """An upload on record for two days. there: what stands in the place of its source now."""
        path = self.folder / name
        version = Fingerprint(3, 10**18)
        if there != "gone":
            path.write_text("abc" if there == "same" else "other")
            os.utime(path, ns=(10**18, 10**18))
        part = Token(b"/up/%b.part" % name.encode() if token is None else token)
        checkpoint = Checkpoint(Direction.UPLOAD, b"/up/" + name.encode(), bytes(path), part, version, 1, 1)
        real = time.time
        time.time = lambda: real() - 2 * DAY
        try:
            self.checkpoints.note(checkpoint, now=True)
        finally:
            time.time = real
        return checkpoint

    def known(self, checkpoint: Checkpoint) -> bool:
        return self.checkpoints.load(checkpoint.direction, checkpoint.remote_path, checkpoint.local_path) is not None


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with closing(Journal(None, CHECKPOINTS)) as journal:
        yield Lab(tmp_path, journal)


def test_an_upload_is_given_up_when_its_source_is_gone_or_another_version(lab):
    gone, other = lab.record("a"), lab.record("b", there="other")
    lab.record("c", there="same")
    lab.checkpoints.note(abandoned(str(lab.folder / "d"), "/up/d", TransferOptions()), now=True)  # just now
    assert sorted(lab.parts.next_bundle(), key=lambda each: each.remote_path) == [gone, other]


def test_what_is_being_removed_is_locked_and_nothing_else_is_begun_meanwhile(lab):
    checkpoint = lab.record("a")
    bundle = lab.parts.next_bundle()
    assert bundle == [checkpoint]
    assert lab.parts.removing == {b"/up/a.part"}
    with pytest.raises(Busy):
        lab.locks.take(b"/up/a.part")
    lab.record("b")
    assert lab.parts.next_bundle() == []
    lab.parts.removed(checkpoint)
    lab.parts.over(bundle)
    assert lab.parts.removing == set()
    assert not lab.known(checkpoint)
    lab.locks.take(b"/up/a.part")


def test_one_that_could_not_be_removed_stays_on_record_for_the_next_connection(lab):
    checkpoint = lab.record("a")
    lab.parts.over(lab.parts.next_bundle())
    assert lab.known(checkpoint)
    assert lab.parts.next_bundle() == []
    lab.fresh()
    assert lab.parts.next_bundle() == [checkpoint]


def test_they_come_a_few_at_a_time(lab):
    for number in range(BUNDLE_PARTS + 3):
        lab.record(f"{number:02}")
    sizes = []
    while bundle := lab.parts.next_bundle():
        sizes.append(len(bundle))
        lab.parts.over(bundle)
    assert sizes == [BUNDLE_PARTS, 3]


def test_one_that_somebody_else_is_sending_or_has_begun_anew_is_left_alone(lab):
    busy = lab.record("a")
    lab.locks.take(bytes(busy.token))
    assert lab.parts.next_bundle() == []
    lab.locks.release(bytes(busy.token))
    anew = lab.record("b")
    lab.checkpoints.flush()
    lab.checkpoints._noted[("upload", anew.remote_path, anew.local_path)] = busy  # another one since
    lab.fresh()
    assert lab.parts.next_bundle() == [busy]
    lab.locks.take(bytes(anew.token))  # and its lock was given back


def test_a_final_is_never_removed_only_its_record(lab):
    direct = lab.record("a", token=b"/up/a")
    assert lab.parts.next_bundle() == []
    assert not lab.known(direct)


@pytest.mark.parametrize("direct", [False, True])
def test_the_record_of_an_upload_that_will_not_be_tried_again_names_its_part(tmp_path, direct):
    options = TransferOptions(owner="me", direct_write=direct)
    found = abandoned(str(tmp_path / "x" / ".." / "f"), "/up/f", options)
    part = b"/up/f" if direct else part_name(b"/up/f", bytes(tmp_path / "f"), "me", ".part")
    assert found == Checkpoint(Direction.UPLOAD, b"/up/f", bytes(tmp_path / "f"), Token(part), Fingerprint(0, 0))


# -- over workers


class Store:
    def __init__(self, refuses: bytes = b"") -> None:
        self.refuses, self.removed = refuses, []

    def abandon(self, token: Token) -> None:
        if token == self.refuses:
            raise PermissionDenied("no")
        self.removed.append(bytes(token))


def test_a_worker_removes_a_bundle_and_what_is_refused_stays_on_record(lab):
    kept, gone, nameless = lab.record("a"), lab.record("b"), lab.record("c", token=b"")
    posted: list[Any] = []
    desk = Desk(posted.append, lambda _: None, time.monotonic, StopFlag())
    running = next_removal(lab.parts, desk)
    assert running.urgency == LEAST_URGENT
    assert next_removal(lab.parts, desk) is None
    store = Store(bytes(kept.token))
    assert running.turn(store) == Finished(None)
    for call in posted:
        call()
    assert store.removed == [b"/up/b.part"]
    assert [lab.known(each) for each in (kept, gone, nameless)] == [True, False, False]
    assert lab.parts.removing == set()


def test_a_cancelled_removal_gives_everything_back(lab):
    lab.record("a")
    stop = StopFlag()
    running = next_removal(lab.parts, Desk(lambda _: None, lambda _: None, time.monotonic, stop))
    stop.set()
    store = Store()
    assert isinstance(running.turn(store).error, Cancelled)
    assert (store.removed, lab.parts.removing) == ([], set())


# -- over SFTP


def batch(lab: Lab) -> Uploads:
    made = Uploads.__new__(Uploads)
    made._abandoned = lab.parts
    return made


def test_over_sftp_a_bundle_is_asked_for_at_once_and_what_is_gone_already_is_removed_too(lab):
    records = [lab.record(name) for name in "abc"]
    job = batch(lab)._next_removal()
    assert batch(lab)._next_removal() is None
    answers = {b"/up/a.part": Code.OK, b"/up/b.part": Code.NO_SUCH_FILE, b"/up/c.part": Code.PERMISSION_DENIED}
    requests, command = [], next(job.work)
    try:
        while True:
            if hasattr(command, "request"):
                requests.append(command)
                command = job.work.send([])
                continue
            names = [bytes(each.request.head)[4:] for each in requests]
            command = job.work.send(
                [(each.token, Status(answers[name], "")) for each, name in zip(requests, names, strict=True)]
            )
    except StopIteration:
        pass
    assert [lab.known(each) for each in records] == [False, False, True]
    assert lab.parts.removing == set()


def test_over_sftp_a_lost_link_gives_everything_back(lab):
    record = lab.record("a")
    job = batch(lab)._next_removal()
    next(job.work)
    job.work.close()
    assert lab.known(record)
    assert lab.parts.removing == set()
    lab.locks.take(bytes(record.token))


# -- threads


def test_a_connection_that_hangs_does_not_hold_up_the_end_of_the_program():
    connecting = Connecting(lambda _: SimpleNamespace(close=lambda: None), StopFlag())
    assert connecting._thread.daemon
    assert connecting._thread.name == "iot-sftp connecting"

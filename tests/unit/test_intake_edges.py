"""What an intake queues and with what it is queued; what it does with files and folders that cannot be known."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.config.outboxes import Order, OutboxSettings
from iot.spooler.outbox import files
from iot.spooler.outbox.cadence import BUSY_SHARE
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.outbox.lease import Answer, Completeness, Writer
from iot.spooler.outbox.mounts import FAT, FileSystem
from iot.spooler.outbox.place import Found, SourceFailed
from iot.spooler.outbox.taking import TIGHT_BATCH
from iot.spooler.outbox.versions import URGENT
from iot.spooler.outbox.watches import Watches
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Known, NewEntry
from iot.transfer import DiskFull, Fingerprint

OLD = Fingerprint(10, 10**18, 5, 7)


class Outbox:
    """A folder in memory: what a walk finds, and what is answered for each path."""

    def __init__(self, *_: object, **__: object) -> None:
        self.batches: list[list[Found]] = []
        self.answers: dict[bytes, Answer | None] = {}
        self.looks: dict[bytes, Any] = {}
        self.forgotten: list[bytes] = []
        self.unread: dict[bytes, str] = {}
        self.completeness: Completeness | None = Completeness(known=True, reason="")
        self.system = FileSystem()
        self.leases = object()
        self.again: dict[bytes, bool] = {}
        self.doubted = False
        self.watches = Watches("box")
        self.walks: list[bool] = []
        self.closed = 0

    def walk(self, *, whole: bool) -> Iterator[list[Found]]:
        self.walks.append(whole)
        try:
            for batch in self.batches:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            self.closed += 1

    def ask(self, files: list[Found]) -> Iterator[tuple[Found, Answer | None]]:
        for found in files:
            yield found, self.answers.get(found.path, Answer(Writer.NONE, found.fingerprint))

    def open(self) -> int:
        raise SourceFailed("a folder in memory")

    def look(self, path: bytes) -> Any:
        found = self.looks.get(path, OLD)
        if isinstance(found, BaseException):
            raise found
        return found

    def is_home(self) -> bool:
        return True

    def forget(self, path: bytes, *, closed: bool = False) -> None:
        self.forgotten.append(path)

    def doubt(self, folder: bytes) -> None:
        self.doubted = True

    def removed(self, path: bytes) -> bool:
        return self.looks.get(path, OLD) is None


class Queue:
    def __init__(self) -> None:
        self.rows: dict[bytes, Known] = {}
        self.sent: dict[Known, str | None] = {}
        self.added: list[NewEntry] = []
        self.pages: list[Any] = []
        self.dropped: list[tuple[list[int], Event]] = []
        self.lost_rows, self.room, self.total, self.fresh = False, 10**6, 0, False

    def outbox(self, *_: object, **__: object) -> tuple[int, bool]:
        return 3, self.fresh

    def known(self, _: int, paths: list[bytes]) -> dict[bytes, Known]:
        return {path: self.rows[path] for path in paths if path in self.rows}

    def sent_before(self, known: Known) -> str | None:
        return self.sent.get(known)

    def add(self, entries: list[NewEntry]) -> None:
        if len(entries) > self.room:
            raise DiskFull("no room")
        self.added += entries

    def count(self, _: int) -> int:
        return self.total

    def page(self, _: int, after_id: int, __: int) -> list[Any]:
        return [each for each in self.pages if each.id > after_id]

    def drop(self, entries: list[Any], event: Event) -> None:
        self.dropped.append(([each.id for each in entries], event))


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr(files, "Outbox", Outbox)
        self.queue, self.now = Queue(), 1000.0
        self.journal_lost = settings.pop("journal_lost", False)
        self.queue.fresh = settings.pop("fresh", False)
        values = {"path": "/box", "destination": "/up", "settle_s": 0, **settings}
        self.settings = OutboxSettings.model_validate(values)
        clocks = Clocks(lambda: self.now, lambda: self.now + 2e9)
        self.intake = Intake(
            self.settings, self.queue, clocks, device_id="d", scan_s=2.0, small_file_bytes=100,
            journal_lost=self.journal_lost,
        )  # fmt: skip
        self.box: Outbox = self.intake.outbox

    def walk(self, *paths: bytes, version: Fingerprint = OLD, **versions: Fingerprint) -> list[bytes]:
        """One whole walk -> what was queued by it."""
        self.box.batches = [[Found(path, versions.get(path.decode("latin1"), version)) for path in paths]]
        self.queue.added.clear()
        self.intake.wake()
        while not self.intake.walking or self.box.walks[-1:] == []:
            self.intake.step(busy=False)
        while self.intake.walking:
            self.intake.step(busy=False)
        return [entry.path for entry in self.queue.added]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


# -- what is queued


def test_an_entry_says_all_that_is_known_of_its_file(monkeypatch):
    rig = Rig(monkeypatch, urgent=["*.alarm"], priority=6)
    assert rig.walk(b"a", b"x.alarm", b"big", big=OLD._replace(size=101)) == [b"a", b"x.alarm", b"big"]
    plain, urgent, large = rig.queue.added
    assert (plain.outbox, plain.fingerprint, plain.large, plain.priority) == (3, OLD, False, 6)
    assert plain.first_seen == 2e9 + 1000.0
    assert (plain.check_final, plain.sent_before) == (False, None)
    assert urgent.priority == URGENT
    assert large.large


@pytest.mark.parametrize(
    ("order", "rank"),
    [("oldest", 10**9), ("newest", -(10**9)), ("size", 10), ("name", b"f")],
)
def test_the_order_of_an_outbox_is_the_rank_of_its_files(monkeypatch, order, rank):
    rig = Rig(monkeypatch, order=order)
    rig.walk(b"f")
    assert rig.queue.added[0].rank == rank


def test_any_time_that_a_file_can_have_is_a_rank_of_64_bits_also_negated():
    far = Fingerprint(1, -(2**63) * 10**9)
    assert (Order.OLDEST.rank(b"f", far), Order.NEWEST.rank(b"f", far)) == (1 - 2**63, 2**63 - 1)


@pytest.mark.parametrize("state", [State.READY, State.SENDING, State.WAITING, State.DELIVERED, State.KEPT])
def test_a_version_that_is_known_is_not_queued_again(rig, state):
    rig.queue.rows[b"f"] = Known(1, state, OLD)
    assert rig.walk(b"f") == []
    changed = OLD._replace(size=11)
    assert rig.walk(b"f", version=changed) == ([] if state is State.SENDING else [b"f"])


def test_where_inodes_do_not_last_a_remount_sends_no_kept_file_again(rig):
    rig.box.system = FileSystem(inodes=False)
    rig.queue.rows[b"f"] = Known(1, State.KEPT, OLD)
    assert rig.walk(b"f", version=OLD._replace(inode=8)) == []
    assert rig.walk(b"f", version=OLD._replace(inode=8, ctime_ns=9)) == [b"f"]
    rig.box.system = FAT
    assert rig.walk(b"f", version=OLD._replace(inode=8, ctime_ns=9)) == []
    assert rig.walk(b"f", version=OLD._replace(size=11, inode=8)) == [b"f"]
    rig.queue.rows[b"f"] = Known(1, State.READY, OLD)
    assert rig.walk(b"f", version=OLD._replace(inode=8)) == [b"f"]


@pytest.mark.parametrize("name", [b"../x", b"a/../b", b"a\nb" * 2000])
def test_a_name_that_is_refused_is_told_and_holds_up_no_other(rig, caplog, name):
    found = rig.walk(name, b"good")
    assert b"good" in found
    if b".." in name:
        assert found == [b"good"]
        assert "refused path=" in caplog.text


# -- whether it may stand on the server already


def test_after_a_lost_journal_the_first_walk_has_every_file_compared(monkeypatch):
    rig = Rig(monkeypatch, journal_lost=True)
    rig.walk(b"f")
    assert rig.queue.added[0].check_final
    rig.walk(b"g")
    assert not rig.queue.added[0].check_final
    rig.queue.lost_rows = True
    rig.walk(b"h")
    assert rig.queue.added[0].check_final
    rig.queue.rows[b"i"] = Known(1, State.DELIVERED, OLD)
    rig.walk(b"i", version=OLD._replace(size=11))
    assert not rig.queue.added[0].check_final  # its row is not lost


@pytest.mark.parametrize(
    ("after_upload", "fresh", "first"), [("keep", True, True), ("keep", False, False), ("delete", True, False)]
)
def test_a_new_outbox_whose_files_stay_is_compared_at_first(monkeypatch, after_upload, fresh, first):
    assert Rig(monkeypatch, after_upload=after_upload, fresh=fresh).intake.check_first is first


@pytest.mark.parametrize(
    ("row", "version", "touched"),
    [
        (Known(1, State.KEPT, OLD), OLD._replace(ctime_ns=6), True),
        (Known(1, State.DELIVERED, OLD), OLD._replace(inode=8), True),
        (Known(1, State.WAITING, OLD), OLD._replace(inode=8), False),
        (Known(1, State.WAITING, OLD, check_final=True), OLD._replace(inode=8), True),
        (Known(1, State.WAITING, OLD, check_final=True), OLD._replace(mtime_ns=11), False),
        (Known(1, State.KEPT, OLD), OLD._replace(size=11), False),
        (Known(1, State.KEPT, OLD), OLD._replace(mtime_ns=11), False),
    ],
)
@pytest.mark.parametrize("sent", ["ab", None])
def test_a_delivered_file_that_was_only_touched_is_compared_with_what_was_sent(rig, row, version, touched, sent):
    rig.queue.rows[b"f"], rig.queue.sent[row] = row, sent
    assert rig.walk(b"f", version=version) == [b"f"]
    (entry,) = rig.queue.added
    assert (entry.check_final, entry.sent_before) == (touched, sent if touched else None)


# -- who writes to it


def test_only_what_nobody_writes_to_is_queued_in_the_version_that_was_asked_for(rig):
    newer = OLD._replace(size=11)
    rig.box.answers = {
        b"unknown": None,
        b"gone": Answer(Writer.UNKNOWN, None),
        b"open": Answer(Writer.SOME, OLD),
        b"newer": Answer(Writer.NONE, newer),
        b"guessed": Answer(Writer.UNKNOWN, OLD),
    }
    assert rig.walk(*rig.box.answers) == [b"newer", b"guessed"]
    assert rig.queue.added[0].fingerprint == newer
    assert rig.box.forgotten == [b"unknown"]
    assert rig.intake.readiness.open_files == 1


def test_a_version_that_is_newer_than_the_walk_found_has_to_be_quiet_itself(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    rig.box.answers = {b"f": Answer(Writer.NONE, OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9)))}
    assert rig.walk(b"f") == []
    assert len(rig.intake.readiness) == 1


def test_a_delivered_file_that_goes_on_growing_is_waited_for_longer_where_nobody_can_know(monkeypatch):
    fresh = OLD._replace(size=11, mtime_ns=int((2e9 + 1000.0 - 10) * 1e9))
    for completeness, state, inode, held in (
        (Completeness(known=False, reason=""), State.DELIVERED, 7, True),
        (None, State.DELIVERED, 7, True),
        (Completeness(known=True, reason=""), State.DELIVERED, 7, False),
        (Completeness(known=False, reason=""), State.KEPT, 7, False),
        (Completeness(known=False, reason=""), State.DELIVERED, 8, False),  # another file
    ):
        rig = Rig(monkeypatch, hold_s=60)
        rig.box.completeness = completeness
        rig.queue.rows[b"f"] = Known(1, state, OLD)
        assert rig.walk(b"f", version=fresh._replace(inode=inode)) == ([] if held else [b"f"])


@pytest.mark.parametrize(
    ("completeness", "after_upload", "touched"),
    [(None, "delete", True), (Completeness(known=False, reason=""), "delete", True),
     (Completeness(known=True, reason=""), "delete", False), (Completeness(known=True, reason=""), "keep", True)],
)  # fmt: skip
def test_where_files_stay_for_a_while_they_may_be_touched(monkeypatch, completeness, after_upload, touched):
    rig = Rig(monkeypatch, after_upload=after_upload)
    rig.box.completeness = completeness
    assert rig.intake.may_be_touched is touched


def test_watched_files_are_looked_at_by_themselves(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    young = OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9))
    assert rig.walk(b"stays", b"gone", b"unknown", version=young) == []
    rig.box.batches = []
    rig.box.looks = {b"stays": young, b"gone": None, b"unknown": SourceFailed("no")}
    rig.now += 5.0
    rig.intake.cadence._quick_at = rig.intake.cadence._whole_at = float("inf")
    rig.intake.step(busy=False)
    assert [entry.path for entry in rig.queue.added] == [b"stays"]
    assert len(rig.intake.readiness) == 1  # that which is not known


# -- what does not fit


def test_a_disk_that_is_full_takes_a_few_and_the_rest_is_found_again(rig, caplog):
    rig.queue.room = TIGHT_BATCH
    names = [b"%03d" % number for number in range(TIGHT_BATCH + 5)]
    assert rig.walk(*names) == names[:TIGHT_BATCH]
    assert rig.intake.next_step() == rig.now + 2.0  # the rest is found by the next walk
    assert "disk full: queueing a few files at a time" in caplog.text
    rig.queue.room = 0
    with pytest.raises(DiskFull):
        rig.walk(b"f")


def test_what_is_too_much_to_watch_is_found_by_the_next_walk(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    monkeypatch.setattr("iot.spooler.outbox.readiness.WATCHED_MAX", 1)
    young = OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9))
    rig.walk(b"a", b"b", version=young)
    assert rig.intake.next_step() == rig.now + 2.0
    assert not rig.intake.readiness.overflowed


# -- rows of files that went


def row(number: int, state: State, attempts: int = 0) -> Any:
    return SimpleNamespace(id=number, state=state, attempts=attempts, path=b"%d" % number)


def test_rows_whose_files_went_are_dropped_and_those_that_were_tried_are_withdrawn(rig):
    rig.queue.pages = [
        row(1, State.READY), row(2, State.WAITING, 1), row(3, State.KEPT, 1), row(4, State.SENDING),
        row(5, State.DELIVERED), row(6, State.READY), row(7, State.READY),
    ]  # fmt: skip
    rig.box.looks = {b"%d" % number: None for number in range(1, 6)} | {b"7": SourceFailed("not known")}
    rig.queue.total = 7
    rig.walk(b"f")
    assert [each.id for each in rig.intake.take_withdrawn()] == [2]
    assert rig.queue.dropped == [([1, 3], Event.VANISHED)]


def test_rows_are_gone_through_only_where_more_are_known_than_were_seen(rig):
    rig.queue.rows[b"f"] = Known(1, State.KEPT, OLD)
    rig.queue.pages = [row(9, State.READY)]
    rig.box.looks = {b"9": None}
    rig.queue.total = 2  # f, and g that is queued by this walk
    rig.walk(b"f", b"g")
    assert rig.queue.dropped == []
    rig.queue.total = 3
    rig.walk(b"f", b"g")
    assert rig.queue.dropped == [([9], Event.VANISHED)]


# -- the same again


def test_what_the_walk_before_has_found_and_the_queue_knew_is_not_looked_up_again(rig):
    asked = []
    real = rig.queue.known
    rig.queue.known = lambda number, paths: asked.append(list(paths)) or real(number, paths)
    rig.queue.rows = {b"f": Known(1, State.READY, OLD), b"g": Known(2, State.READY, OLD)}
    rig.queue.total = 2
    for _ in range(3):
        assert rig.walk(b"f", b"g") == []
    assert asked == [[b"f", b"g"]]
    newer = OLD._replace(mtime_ns=OLD.mtime_ns + 1)
    assert rig.walk(b"f", b"g", g=newer) == [b"g"]
    assert rig.walk(b"f", b"g") == []
    assert len(asked) == 3


@pytest.mark.parametrize("lost", ["a row is not there any more", "a damaged row was dropped"])
def test_where_rows_have_gone_everything_is_looked_up(rig, lost):
    rig.queue.rows = {b"f": Known(1, State.READY, OLD), b"g": Known(2, State.READY, OLD)}
    rig.queue.total = 2
    rig.walk(b"f", b"g")
    del rig.queue.rows[b"g"]
    rig.queue.lost_rows = lost.startswith("a damaged")
    rig.queue.total = 1
    if not rig.queue.lost_rows:
        rig.walk(b"f", b"g")  # it is seen by their number, and the next walk is soon
        assert rig.intake.cadence.next_s <= rig.now + 10.0
    assert rig.walk(b"f", b"g") == [b"g"]


# -- a source that fails


def test_a_source_that_fails_is_counted_and_walked_as_a_whole_when_it_is_back(rig, caplog):
    caplog.set_level("DEBUG")
    for times in (1, 2):
        rig.box.batches = [SourceFailed("outbox /box: no")]
        rig.intake.wake()
        rig.intake.step(busy=False)
        assert rig.intake.failed == "outbox /box: no"
        assert not rig.intake.walking
        assert rig.intake.next_step() == rig.now + 2.0
        assert rig.intake.failures == times
        assert f'source cannot be read outbox=box reason="outbox /box: no" times={times}' in caplog.text
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    rig.box.batches = [[]]
    rig.now += 2.0
    rig.intake.cadence._whole_at = float("inf")  # a quick walk would be due
    rig.intake.step(busy=False)
    assert rig.box.walks[-1] is True
    rig.intake.step(busy=False)
    assert rig.intake.failed is None
    assert rig.intake.failures == 0
    assert rig.intake.passes == 1


def test_a_folder_that_could_not_be_read_makes_the_source_failed_though_the_walk_ends(rig):
    rig.box.unread = {b"sub": "folder sub: Permission denied"}
    rig.walk(b"f")
    assert rig.intake.failed == "folder sub: Permission denied"
    assert rig.intake.passes == 1
    rig.box.unread = {}
    rig.walk(b"f")
    assert rig.intake.failed is None


def test_a_walk_that_is_given_up_is_closed(rig):
    rig.box.batches = [[], []]
    rig.intake.step(busy=False)
    assert rig.intake.walking
    rig.intake.close()
    assert (rig.intake.walking, rig.box.closed) == (False, 1)
    rig.intake.close()


def test_a_walk_takes_its_time_and_more_of_it_while_transfers_are_under_way(rig, monkeypatch):
    rig.box.batches = [[], [], []]
    rig.intake.step(busy=False)
    clock = iter([1000.0, 1000.5, 1000.5, 1000.5, 1000.5])
    rig.intake._clocks = Clocks(lambda: next(clock), lambda: 2e9)
    rig.intake.step(busy=True)
    assert rig.intake.next_step() == 1000.0 + 0.5 * BUSY_SHARE
    assert BUSY_SHARE > 1.0


def test_where_a_file_of_an_entry_lies_is_bytes_as_they_are(rig):
    assert rig.intake.source(SimpleNamespace(path=b"sub/\xff")) == "/box/sub/\udcff"


def test_a_file_has_rested_where_it_was_watched_for_so_long_or_its_times_say_so(monkeypatch):
    rig = Rig(monkeypatch, hold_s=60)
    rig.intake.readiness.clocks(0.0, 2e9)
    old, young = OLD, OLD._replace(mtime_ns=int((2e9 + 990.0) * 1e9))
    asked = rig.intake.departure(rested=False)
    assert (asked.rested(old), asked.rested(young), asked.system) == (True, False, FileSystem())
    assert rig.intake.departure(rested=True).rested(young)

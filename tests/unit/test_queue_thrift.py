"""The queue writes nothing while nothing happens, wastes no numbers, and says so when something may have changed."""

import pytest
from unit.queue_rows import begun, delivered, entry, heads

from iot.sftp.client import Journal
from iot.spooler.queue import rows
from iot.spooler.queue.policy import NEVER, Event, State, Verdict
from iot.spooler.queue.queue import Queue, Success


@pytest.fixture
def queue(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/up")
    return queue


@pytest.fixture
def writes(monkeypatch):
    """-> how many transactions there were since the last time"""
    begun, real = [], Journal.write

    def write(self, work):
        begun.append(work)
        return real(self, work)

    def counted():
        number = len(begun)
        begun.clear()
        return number

    monkeypatch.setattr(Journal, "write", write)
    return counted


def test_what_changes_nothing_is_not_written(queue, journal, writes):
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 30.0), None)], now=0.0))
    writes()
    made_ready = queue.made_ready
    queue.outbox(b"/out", "/up")
    queue.add([])
    queue.drop([], Event.VANISHED)
    queue.release([2])
    assert queue.wake(29.0) == 30.0
    assert writes() == 0
    assert queue.made_ready == made_ready
    assert not queue.lost_rows


def test_a_start_with_nothing_under_way_writes_nothing_and_loses_nothing(queue, journal, writes, caplog):
    delivered(queue, journal, *begun(queue, entry()))
    writes()
    for anew in (True, False):
        again = Queue(journal, "0000000a")
        again.restart(anew=anew)
        assert (writes(), again.lost_rows, caplog.text) == (0, False, "")


def test_whatever_may_have_become_ready_is_told(queue, journal):
    def changed(act):
        before = queue.made_ready
        act()
        return queue.made_ready != before

    assert changed(lambda: queue.add([entry()]))
    [row] = queue.begin(queue.heads(1, large=False, limit=1))
    failed = [(row, Verdict(Event.FAILED, 1, 1, 30.0), None)]
    assert changed(lambda: journal.write(lambda db: queue.fail(db, failed, now=0.0)))
    assert changed(lambda: queue.wake(30.0))
    assert changed(queue.restart)


# -- numbers


def test_numbers_follow_the_order_of_sending(queue):
    queue.add(
        [
            entry(b"large", large=True, rank=0, priority=0),
            entry(b"late", rank=2, priority=5),
            entry(b"early", rank=1, priority=5),
            entry(b"urgent", rank=9, priority=0),
            entry(b"other", outbox=2, rank=0, priority=0),
        ]
    )
    names = [row.path for row in (*queue.page(1, 0, 9), *queue.page(2, 0, 9))]
    assert names == [b"urgent", b"early", b"late", b"large", b"other"]


def test_reserved_numbers_are_used_up_before_others_are_reserved(queue, journal, monkeypatch):
    monkeypatch.setattr(rows, "NUMBERS", 3)
    for name in (b"a", b"b", b"c", b"d"):
        queue.add([entry(name)])
    assert [row.id for row in queue.page(1, 0, 9)] == [1, 2, 3, 4]
    assert journal.read("SELECT next FROM number")[0]["next"] == 7
    queue.add([entry(b"%d" % number) for number in range(5)])
    assert [row.id for row in queue.page(1, 4, 9)] == [7, 8, 9, 10, 11]


# -- several outboxes


def test_the_same_path_in_another_outbox_is_another_file(queue):
    queue.add([entry(b"x"), entry(b"y", outbox=2)])
    queue.add([entry(b"y"), entry(b"x", outbox=2)])
    assert [[row.path for row in queue.page(number, 0, 9)] for number in (1, 2)] == [[b"x", b"y"], [b"y", b"x"]]
    assert [queue.count(number) for number in (1, 2, 3)] == [2, 2, 0]


def test_a_rule_that_comes_back_is_in_force_again_for_its_outbox_alone(queue):
    for path, rule in ((b"/out", "/a"), (b"/out", "/c"), (b"/other", "/z"), (b"/out", "/b")):
        queue.outbox(path, rule)
    for rule in ("/b", "/a", "/c"):
        queue.outbox(b"/out", rule)
        queue.add([entry(rule.encode())])
        assert queue.known(1, [rule.encode()]) != {}
        assert {row.destination for row in queue.page(1, 0, 9)} == {
            f"{rule}/{row.path.decode()}" for row in pages(queue)
        }


def pages(queue):
    return queue.page(1, 0, 9)


def test_how_files_were_ever_compressed_is_known_also_beside_a_damaged_rule(queue, journal):
    for rule in ('{"compression": "gzip"}', "{}", "[1]", "no json", '{"compression": 5}', '{"compression": "xz"}'):
        queue.outbox(b"/out", rule, decided=True)
    queue.outbox(b"/other", '{"compression": "zstd"}', decided=True)
    assert queue.compressions(1) == {"gzip", "xz"}


def test_an_outbox_without_rows_has_no_backlog(queue):
    assert (queue.backlog(1), queue.waiting(1, 0), queue.newest(1), queue.count(1)) == ((0, 0), (0, 0), 0, 0)


# -- outcomes


def test_two_kinds_of_success_may_come_together_and_what_was_sent_is_known_by_its_hash(queue, journal):
    rows_ = begun(queue, entry(b"a"), entry(b"b"))
    digests = ("ab" * 32, None)
    events = (Event.SENT_TO_KEEP, Event.SENT)
    done = [Success(row, event, "size", 1.6, digest) for row, event, digest in zip(rows_, events, digests, strict=True)]
    moved = journal.write(lambda db: queue.deliver(db, done))
    assert {row.path: row.state for row in moved} == {b"a": State.KEPT, b"b": State.DELIVERED}
    known = queue.known(1, [b"a", b"b"])
    assert [queue.sent_before(known[path]) for path in (b"a", b"b")] == ["ab" * 32, None]
    assert [row["at"] for row in journal.read("SELECT at FROM delivered")] == [2, 2]


@pytest.mark.parametrize("length", [31, 33, 0])
def test_a_damaged_hash_is_none(queue, journal, length):
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.deliver(db, [Success(row, Event.SENT_TO_KEEP, "size", 1.0, "ab" * 32)]))
    journal.write(lambda db: db.execute("UPDATE delivered SET sha256 = zeroblob(?)", (length,)))
    assert queue.sent_before(queue.known(1, [b"f"])[b"f"]) is None


def test_a_row_that_is_damaged_while_it_is_sent_goes_and_is_missed_and_the_others_are_settled(queue, journal):
    found = begun(queue, entry(b"a"), entry(b"b"))
    journal.write(lambda db: db.execute("UPDATE entry SET state = 77 WHERE id = ?", (found[0].id,)))
    assert [row.path for row in delivered(queue, journal, *found)] == [b"b"]
    assert queue.lost_rows
    assert [journal.read(f"SELECT count(*) FROM {table}")[0][0] for table in ("entry", "file", "delivered")] == [
        1,
        1,
        1,
    ]


def test_a_settlement_of_very_many_is_one(queue, journal):
    found = begun(queue, *(entry(b"%d" % number) for number in range(300)))
    assert len(found) == 100  # at most so many heads are read
    found += queue.begin(queue.heads(1, large=False, limit=300))
    assert len(delivered(queue, journal, *found)) == 300
    assert heads(queue) == []


def test_what_a_wait_for_the_next_run_holds_is_not_due(queue, journal):
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, NEVER), None)], now=0.0))
    assert queue.wake(0.0) is None

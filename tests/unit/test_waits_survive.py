"""A wait for the next try outlives the process; a reboot waits it once more, whatever any clock says."""

import itertools
import sqlite3

import pytest
from unit.agent_rig import Rig as AgentRig

from iot.sftp.client import Fingerprint, Journal, ServerRefused
from iot.spooler.agent.agent import Wake
from iot.spooler.queue.policy import NEVER, Event, State, Verdict
from iot.spooler.queue.queue import QUEUE_SCHEMA, NewEntry, Queue
from iot.spooler.queue.starting import CRASHES

BOOT, NEXT, THIRD, UNKNOWN = "0000000a", "0000000b", "0000000c", "00000000"
WAIT_S = 600.0


class Life:
    """One journal, and the queues of one process after another."""

    def __init__(self, folder):
        self.journal = Journal(folder, QUEUE_SCHEMA)
        self.queue = None

    def start(self, boot, now, *, anew=False):
        self.queue = Queue(self.journal, boot)
        self.queue.restart(now, anew=anew)

    def fail(self, now, wait_s=WAIT_S, *, path=b"f", event=Event.FAILED):
        if not self.queue.known(1, [path]):
            self.queue.add([NewEntry(1, path, Fingerprint(1, 2, 3, 4), False, 5, 0, 100.0)])
        rows = [row for row in self.queue.heads(1, large=False, limit=9) if row.path == path]
        failed = [(row, Verdict(event, 7, 1, wait_s), "no") for row in self.queue.begin(rows)]
        self.journal.write(lambda db: self.queue.fail(db, failed, now))

    def due(self, now):
        """When the next wait ends; None: nothing waits any more."""
        return self.queue.wake(now)

    def ready(self):
        return self.queue.heads(1, large=False, limit=9)


@pytest.fixture
def life(tmp_path):
    life = Life(tmp_path / "state")
    life.start(BOOT, 50.0)
    yield life
    life.journal.close()


@pytest.mark.parametrize("event", [Event.FAILED, Event.SKIPPED, Event.POSTPONED])
def test_a_restart_in_the_middle_of_a_wait_keeps_the_rest_of_it_and_the_doubling(life, event):
    life.fail(100.0, event=event)
    for restart_at in (300.0, 400.0):
        life.start(BOOT, restart_at)
        assert life.due(restart_at) == 700.0
        assert life.ready() == []
    assert life.due(700.0) is None
    assert [row.failures for row in life.ready()] == [7]


def test_a_wait_that_ended_between_two_processes_is_over(life):
    life.fail(100.0)
    life.start(BOOT, 5000.0)
    assert life.due(5000.0) is None
    assert len(life.ready()) == 1


@pytest.mark.parametrize("clock", [0.0, 20.0, 3e7])
def test_a_reboot_waits_once_more_from_the_start_of_the_process_whatever_the_clock_said_before(life, clock):
    life.fail(100.0)
    life.start(NEXT, clock)
    assert life.due(clock) == clock + WAIT_S
    life.start(NEXT, clock + 100)
    assert life.due(clock + 100) == clock + WAIT_S  # a restart within that boot adds nothing
    assert life.due(clock + WAIT_S) is None
    assert [row.failures for row in life.ready()] == [7]


def test_a_device_that_never_runs_for_as_long_as_a_wait_tries_after_the_second_boot(life):
    life.fail(100.0)
    life.start(NEXT, 10.0)
    assert life.due(10.0) == 10.0 + WAIT_S
    life.start(THIRD, 10.0)
    assert life.due(10.0) is None
    assert len(life.ready()) == 1


def test_where_the_boot_is_not_known_a_wait_is_waited_at_most_once_more(life):
    life.start(UNKNOWN, 50.0)
    life.fail(100.0)
    life.start(UNKNOWN, 300.0)
    assert life.due(300.0) == 300.0 + WAIT_S
    life.start(UNKNOWN, 400.0)
    assert life.due(400.0) is None


def test_no_wait_is_longer_than_it_was_given_also_where_the_clock_of_a_boot_goes_back(life):
    """As in a container that is moved, or with a damaged row."""
    life.fail(1e8)
    life.start(BOOT, 300.0)
    assert life.due(300.0) == 300.0 + WAIT_S


def test_each_row_waits_its_own_time_after_a_reboot(life):
    life.fail(100.0)
    life.fail(100.0, 20.2, path=b"g")
    life.start(NEXT, 5.0)
    assert life.due(5.0) == 5.0 + 21
    assert life.due(26.0) == 5.0 + WAIT_S
    assert [row.path for row in life.ready()] == [b"g"]


def test_what_is_left_to_the_next_run_does_not_wait_in_it(life):
    life.fail(100.0, NEVER)
    life.start(BOOT, 200.0)
    assert [row.failures for row in life.ready()] == [0]


def test_a_drain_and_a_reload_try_at_once(life):
    life.fail(100.0)
    life.start(BOOT, 300.0, anew=True)
    assert [row.failures for row in life.ready()] == [0]


def test_release_ends_the_waits_of_one_outbox(life):
    life.fail(100.0)
    life.queue.release([2])
    assert life.due(200.0) == 700.0
    made_ready = life.queue.made_ready
    life.queue.release([1])
    assert life.due(200.0) is None
    assert len(life.ready()) == 1
    assert life.queue.made_ready != made_ready


def test_a_row_of_an_earlier_version_does_not_wait(life):
    life.fail(100.0)
    life.journal.write(lambda db: db.execute("UPDATE entry SET wait_s = NULL"))
    life.start(BOOT, 200.0)
    assert len(life.ready()) == 1


def test_the_boot_is_written_with_the_first_wait_and_not_again(life):
    pages = "PRAGMA data_version"
    other = sqlite3.connect(life.journal.state_dir / "journal.db")
    before = other.execute(pages).fetchone()
    life.start(BOOT, 60.0)
    assert other.execute(pages).fetchone() == before  # a start with nothing that waits writes nothing
    life.fail(100.0)
    life.start(BOOT, 200.0)
    changed = other.execute(pages).fetchone()
    life.start(BOOT, 300.0)
    life.start(BOOT, 400.0)
    assert other.execute("SELECT boot FROM boot").fetchall() == [(BOOT,)]
    assert other.execute("SELECT state FROM entry").fetchall() == [(int(State.WAITING),)]
    other.close()
    assert changed != before


# -- what was under way when the process died


def die_with(life, unanswered, anew):
    """The process dies while these are under way, each for so many times without an answer; the next one starts."""
    paths = [b"%03d" % number for number in range(len(unanswered))]
    life.queue.add([NewEntry(1, path, Fingerprint(1, 2, 3, 4), False, 5, 0, 100.0) for path in paths])
    life.queue.begin(life.queue.heads(1, large=False, limit=len(paths)))
    numbers = [(times, path) for times, path in zip(unanswered, paths, strict=True)]
    which = "UPDATE entry SET unanswered = ? WHERE id = (SELECT id FROM file WHERE path = ?)"
    life.journal.write(lambda db: db.executemany(which, numbers))
    life.start(BOOT, 1000.0, anew=anew)
    sql = "SELECT path, next_attempt FROM entry JOIN file USING (id) WHERE state = 2"
    return {int(row["path"]): row["next_attempt"] - 1000.0 for row in life.journal.read(sql)}


@pytest.mark.parametrize("anew", [False, True])
def test_what_was_under_way_at_each_of_three_deaths_waits_a_little_and_the_worst_suspect_longest(life, anew):
    assert die_with(life, [CRASHES - 1, CRASHES, CRASHES + 2, CRASHES], anew) == {1: 2.0, 3: 2.25, 2: 2.5}
    assert [row.path for row in life.ready()] == [b"000"]


def test_the_last_of_many_suspects_waits_no_longer_than_a_minute(life):
    assert max(die_with(life, [CRASHES] * 300, anew=False).values()) == 60.0


def test_a_flush_of_one_outbox_tries_nothing_that_is_left_to_the_next_run(life):
    life.fail(100.0, NEVER)
    life.queue.release([1])
    assert life.due(1e9) is None
    assert life.ready() == []


# -- with the whole agent


@pytest.fixture
def rig(tmp_path):
    rig = AgentRig(tmp_path)
    rig.retry = {"base_s": WAIT_S, "cap_s": WAIT_S}
    rig.put("f")
    rig.tries = []
    rig.remote.before = lambda job: rig.tries.append(rig.loop.now)
    rig.remote.refuse["/up/f"] = ServerRefused("no")
    return rig


def run(rig, seconds):
    rig.loop.stop_at = rig.loop.now + seconds
    rig.run(drain=False)


def test_an_agent_that_is_started_again_and_again_tries_no_more_often(rig):
    for _ in range(13):
        run(rig, 100)
    assert len(rig.tries) == 3
    assert all(WAIT_S <= later - earlier < WAIT_S + 150 for earlier, later in itertools.pairwise(rig.tries))


def test_flush_tries_at_once_in_the_process_after(rig):
    run(rig, 100)
    rig.loop.asked = Wake.FLUSH
    run(rig, 100)
    assert len(rig.tries) == 2
    rig.loop.asked = Wake.TRY  # a look at the outboxes is no reason to try a refused file again
    run(rig, 100)
    assert len(rig.tries) == 2


def test_a_drain_does_not_wait_for_what_a_service_before_it_waited_for(rig):
    run(rig, 100)
    rig.remote.refuse.clear()
    began = rig.loop.now
    rig.loop.stop_at = began + 100
    rig.run()
    assert rig.arrived() == ["f"]

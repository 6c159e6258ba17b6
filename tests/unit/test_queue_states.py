"""Every change of state goes through the one table: tried in any order on a real journal, and read off the source."""

import inspect
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from iot.sftp.client import Fingerprint, Journal
from iot.spooler.queue.policy import TRANSITIONS, Event, State, Verdict, after
from iot.spooler.queue.queue import QUEUE_SCHEMA, NewEntry, Queue, Success

PATHS = st.sampled_from([b"a", b"b", b"c"])
ENDINGS = [Event.INTERRUPTED, Event.RELEASED, Event.SKIPPED, Event.POSTPONED, Event.FAILED, Event.GIVEN_UP]
SPOOLER = next(folder for folder in Path(inspect.getfile(Queue)).parents if folder.name == "spooler")


class States(RuleBasedStateMachine):
    """Events fall on one row of the queue as it was last seen, also long after it has moved on.

    seen: the rows that a caller may still hold in its hands. model: the state of every row, by the table alone.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="iot-sftp-tests-"))
        self.journal = Journal(self.folder, QUEUE_SCHEMA)
        self.queue = Queue(self.journal)
        self.model = {}
        self.seen = []
        self.version = 0

    def teardown(self):
        self.journal.close()
        shutil.rmtree(self.folder)

    @rule(path=PATHS)
    def a_file_appears_or_has_a_new_version(self, path):
        known = self.queue.known(1, [path]).get(path)
        self.version += 1
        self.queue.add([NewEntry(1, path, Fingerprint(self.version, 2, 3, 4), False, 5, 0, 100.0)])
        if known and (known.state, Event.RENEWED) in TRANSITIONS:
            del self.model[known.id]
        self.see()
        if known is None or known.state is not State.SENDING:
            self.model[max(row.id for row in self.rows())] = State.READY

    @rule()
    def see(self):
        self.seen = (self.rows() + self.seen)[:12]

    @rule(data=st.data(), event=st.sampled_from(list(Event)))
    def an_event_reaches_a_row_as_it_was_seen(self, data, event):
        if self.seen and event not in (Event.RESTARTED, Event.DUE):  # these two fall on whatever is in that state
            row = data.draw(st.sampled_from(self.seen))
            possible = (row.state, event) in TRANSITIONS and self.model.get(row.id) is row.state
            if possible:
                self.apply(event, row)
                self.follow(row.id, event)
            else:
                with pytest.raises(ValueError, match=event.name):
                    self.apply(event, row)

    @rule()
    def the_waits_end(self):
        self.queue.wake(1e9)
        self.follow_all(Event.DUE, State.WAITING)

    @rule()
    def the_agent_starts_again(self):
        self.queue.restart()
        self.follow_all(Event.RESTARTED, State.SENDING)
        self.follow_all(Event.RESTARTED, State.WAITING)

    @invariant()
    def the_disk_holds_what_the_table_gives(self):
        assert {row.id: row.state for row in self.rows()} == self.model

    def rows(self):
        return self.queue.page(1, 0, 99)

    def apply(self, event, row):
        """By the method of the queue that this event has."""
        if event is Event.BEGUN:
            self.queue.begin([row])
        elif event in (Event.SENT, Event.SENT_TO_KEEP):
            self.journal.write(lambda db: self.queue.deliver(db, [Success(row, event, "size", 1.0)]))
        elif event in ENDINGS:
            self.journal.write(lambda db: self.queue.fail(db, [(row, Verdict(event, 1, 1, 5.0), "no")], 0.0))
        elif event is Event.LEFT:
            self.journal.write(lambda db: self.queue.forget(db, [row]))
        elif event is Event.RENEWED:
            self.journal.write(lambda db: self.queue._move(db, event, [row]))
        else:
            self.queue.drop([row], event)

    def follow(self, number, event):
        following = after(self.model.pop(number), event)
        if following is not State.GONE:
            self.model[number] = following

    def follow_all(self, event, state):
        for number in [number for number, each in self.model.items() if each is state]:
            self.follow(number, event)


States.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrderOfEventsFollowsTheTable = States.TestCase


def written(text):
    """The statements in a source that write rows of the table `entry`, or set a state."""
    found = re.findall(r"(?:UPDATE|DELETE FROM|INTO) entry\b[^\"]*|SET state\b[^\"]*", text)
    return [" ".join(statement.split()) for statement in found]


def test_only_the_one_transition_writes_a_state_in_sql():
    """Beside it: a new row begins as READY, the upgrade of the schema, and rows that are damaged go."""
    statements = {
        (path.name, statement) for path in sorted(SPOOLER.rglob("*.py")) for statement in written(path.read_text())
    }
    assert {name for name, _ in statements} == {"rows.py"}
    kinds = sorted(statement.split(" WHERE")[0].split(" (")[0] for _, statement in statements)
    assert kinds == [
        "DELETE FROM entry {where}",
        "INTO entry",
        "UPDATE entry SET state = {int(following)}{changes} {where}",
        "UPDATE entry SET unanswered = 1, rule =",
    ]


def test_rows_are_dropped_past_the_table_only_where_they_are_damaged():
    text = inspect.getsource(Queue)
    dropping = re.findall(r"def (\w+)\((?:(?!\n    def ).)*?\bforget\(db, \(\"entry\"", text, re.DOTALL)
    assert dropping == ["_without_damaged", "_drop_damaged"]


@pytest.mark.parametrize("bad", ["UPDATE entry SET state = 2 WHERE id = 1", "DELETE FROM entry", "INSERT INTO entry x"])
def test_a_statement_that_goes_past_the_table_would_be_found(bad):
    assert written(f'db.execute("{bad}")') != []

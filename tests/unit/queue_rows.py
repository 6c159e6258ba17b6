"""Rows of a queue on a real journal, brought as far as a test needs them."""

from iot.sftp.client import Fingerprint
from iot.spooler.queue.policy import Event
from iot.spooler.queue.queue import NewEntry, Success

__all__ = ["begun", "delivered", "entry", "heads"]


def entry(path=b"f", size=10, rank=0, priority=5, large=False, outbox=1):
    return NewEntry(outbox, path, Fingerprint(size, 2, 3, 2**64 - 5), large, priority, rank, 100.0)


def heads(queue, large=False):
    return [item.path for item in queue.heads(1, large=large, limit=100)]


def begun(queue, *entries):
    queue.add(entries)
    return queue.begin(queue.heads(1, large=False, limit=100))


def delivered(queue, journal, *rows):
    return journal.write(lambda db: queue.deliver(db, [Success(row, Event.SENT, "size", 1.0) for row in rows]))

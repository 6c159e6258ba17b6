"""What every remote does the same way: one operation at a time, batches, the end of one, and its results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.test_checkpoints import checkpoint

from iot.transfer import base
from iot.transfer.base import BaseRemote, delivered_before, upload_key, uploaded
from iot.transfer.books import Books
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.checkpoints import CHECKPOINTS
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Direction, DownloadJob, Proof, TransferResult, UploadJob
from iot.transfer.rate import Wire
from iot.transfer.settings import TransferSettings
from iot.transfer.source import Source

DONE = TransferResult("/l/a", "/r/a", 1, 1, 0, 0.1, None, local_path=b"/l/a")
UP, DOWN = UploadJob("a", "/b"), DownloadJob("/b", "a")


class Settings(TransferSettings):
    """As a remote has them."""


class Remote(BaseRemote):
    """work: what an outcome is made of. asked: the options of each batch. dropped: how often its connections ended."""

    def __init__(self, journal: Journal, **options: Any) -> None:
        super().__init__(Books("me@far:22", journal, Settings(**options)), Settings(**options))
        self.asked: list[dict[str, Any]] = []
        self.dropped = 0
        self.work: Callable[[], object] = lambda: None
        self.ended = False

    def _outcomes_of(self, jobs: Any, **options: Any) -> Iterator[Any]:
        self.asked.append(options)
        try:
            for job in jobs:
                self.work()
                yield job
        finally:
            self.ended = True

    def _uploads(self, jobs: Any, **options: Any) -> Iterator[Any]:
        return self._outcomes_of(jobs, **options)

    def _downloads(self, jobs: Any, **options: Any) -> Iterator[Any]:
        return self._outcomes_of(jobs, **options)

    def _drop(self) -> None:
        self.dropped += 1


@pytest.fixture
def remote() -> Iterator[Remote]:
    with closing(Journal(None)) as journal:
        yield Remote(journal)


def test_one_job_has_its_own_options_and_its_outcome(remote: Remote) -> None:
    assert remote.upload(UP) is UP  # type: ignore[comparison-overlap]
    assert remote.upload(UP, resume=False, sha256=True) is UP  # type: ignore[comparison-overlap]
    assert remote.download(DOWN) is DOWN  # type: ignore[comparison-overlap]
    assert remote.download(DOWN, resume=False) is DOWN  # type: ignore[comparison-overlap]
    on, off = {"resume": True}, {"resume": False}
    assert remote.asked == [{**on, "sha256": False}, {**off, "sha256": True}, on, off]


def test_many_jobs_go_on_and_give_their_checkpoints_up_unless_told_not_to(remote: Remote) -> None:
    assert list(remote.upload_many([UP, None])) == [UP, None]
    assert list(remote.upload_many([], resume=False, hold_checkpoints=True, tick=print)) == []
    assert list(remote.download_many([DOWN])) == [DOWN]
    assert list(remote.download_many([], resume=False, tick=print)) == []
    usual, held, down, anew = remote.asked
    assert usual["tick"]() is down["tick"]() is None
    assert {**usual, "tick": None} == {"resume": True, "hold": False, "tick": None}
    assert held == {"resume": False, "hold": True, "tick": print}
    assert ({**down, "tick": None}, anew) == ({"resume": True, "tick": None}, {"resume": False, "tick": print})


def test_a_job_that_is_never_done_has_no_outcome(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_outcomes_of", lambda jobs, **_: iter(()))
    assert remote.upload(UP) is None
    assert remote.download(DOWN) is None


def test_what_is_wrong_with_a_download_is_told_before_the_journal_is_opened(remote: Remote) -> None:
    with pytest.raises(ConfigurationError, match="sha256"):
        remote.download(replace(DOWN, sha256="short"))
    assert not remote._books.is_open
    remote.download(DOWN)
    assert remote._books.is_open


def test_a_batch_has_the_remote_to_itself_until_it_ends(remote: Remote) -> None:
    outcomes = remote.upload_many([UP, UP])
    remote.upload(UP)  # nothing was asked of it yet
    next(outcomes)
    with pytest.raises(ConfigurationError, match="upload_many or download_many is running"):
        remote.upload(UP)
    assert len(list(outcomes)) == 1
    remote.upload(UP)


@pytest.mark.parametrize("end", ["close", "disconnect"])
def test_the_end_of_the_connections_ends_a_batch_first(remote: Remote, end: str) -> None:
    outcomes = remote.download_many([DOWN, DOWN])
    next(outcomes)
    remote.ended = False
    getattr(remote, end)()
    assert remote.ended
    assert remote.dropped == 1
    assert list(outcomes) == []
    assert remote._books.is_open is (end == "disconnect")
    remote.upload(UP)


def test_a_batch_that_another_thread_waits_for_is_stopped_and_then_ended(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, paused, sleep = threading.Event(), [], time.sleep
    monkeypatch.setattr(base.time, "sleep", lambda seconds: paused.append(seconds) or sleep(seconds))

    def work() -> None:
        waits.set()
        while not remote._stop.wait(1.0):
            pass

    remote.work = work
    taking = threading.Thread(target=lambda: list(remote.upload_many([UP])), daemon=True)
    taking.start()
    assert waits.wait(10)
    remote.close()
    taking.join(10)
    assert (taking.is_alive(), remote.ended, remote.dropped) == (False, True, 1)
    assert not remote._stop.is_set()
    assert base.ENDING_POLL_S in paused  # meanwhile the processor is left to others


@pytest.mark.parametrize("end", ["close", "disconnect"])
def test_a_callback_of_a_batch_may_end_the_connections(remote: Remote, end: str) -> None:
    remote.work = getattr(remote, end)
    assert list(remote.upload_many([UP])) == [UP]
    assert remote.dropped == 1


def test_a_cancel_lasts_until_the_operation_ends(remote: Remote) -> None:
    seen: list[bool] = []
    remote.work = lambda: seen.append(remote._stop.is_set())
    remote.cancel()
    remote.upload(UP)
    remote.upload(UP)
    assert seen == [True, False]


def test_an_end_writes_what_was_to_be_dropped(remote: Remote) -> None:
    for end, rows in ((remote.disconnect, 0), (remote.close, 0)):
        remote._books.checkpoints.commit([checkpoint()])
        remote.release_checkpoints([DONE])
        assert remote._books.checkpoints.load(Direction.UPLOAD, b"/r/a", b"/l/a") is None
        journal = remote._books.journal
        end()
        assert journal.read("SELECT count(*) AS rows FROM checkpoint")[0]["rows"] == rows


def test_a_rate_may_be_changed_and_what_was_carried_is_told(remote: Remote) -> None:
    assert remote.limit.rate is None
    remote.limit_rate(5000.0)
    assert remote.limit.rate == 5000.0
    remote.meter.add(Wire(1, 2))
    assert (remote.wire, remote.connections) == (Wire(1, 2), 0)
    with closing(Journal(None)) as journal:
        assert Remote(journal, max_rate="2 Mbit/s").limit.rate == 250_000.0


def test_what_others_have_begun_is_told_by_the_keys_of_results(remote: Remote) -> None:
    remote._books.journal.register(CHECKPOINTS)
    assert not remote.elsewhere().may_stand(DONE)
    assert upload_key(DONE) == ("upload", b"/r/a", b"/l/a")


# -- results


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "f").write_bytes(b"abc")
    with closing(Source(tmp_path / "f")) as source:
        yield source


def test_a_result_tells_what_was_sent_and_under_which_name_it_stands(source: Source) -> None:
    job = UploadJob("f", b"/up/\xff", key=7)
    sent = {"sent_bytes": 2, "resumed_at": 1, "seconds": 0.5, "proof": Proof.FULL, "sha256": "ab"}
    plain = uploaded(job, source, b"/up/\xff", **sent)  # type: ignore[arg-type]
    assert (plain.source, plain.dest, plain.size) == (source.name, "/up/\udcff", 3)
    assert {name: getattr(plain, name) for name in sent} == sent
    assert (plain.key, plain.fingerprint, plain.local_path) == (7, source.fingerprint, source.path)
    assert (plain.published_as, plain.skipped, plain.durable) == ("", False, False)
    assert (plain.already_done, plain.possible_repeat) == (False, False)
    more = {"durable": True, "already_done": True, "possible_repeat": True}
    renamed = uploaded(job, source, b"/up/other", **sent, **more)  # type: ignore[arg-type]
    assert (renamed.published_as, renamed.dest) == ("/up/other", "/up/\udcff")
    assert {name: getattr(renamed, name) for name in more} == more
    skipped = uploaded(job, source, b"/up/\xff", skipped=True, **sent)  # type: ignore[arg-type]
    assert (skipped.skipped, skipped.proof) == (True, None)


def test_what_was_delivered_before_was_neither_sent_nor_proven(source: Source) -> None:
    result = delivered_before(UploadJob("f", "/up/f"), source, "ab")
    assert (result.sent_bytes, result.resumed_at, result.seconds, result.size) == (0, 0, 0.0, 3)
    assert (result.proof, result.already_done, result.sha256) == (None, True, "ab")
    assert (result.durable, result.skipped, result.published_as, result.possible_repeat) == (False, False, "", False)

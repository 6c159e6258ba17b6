"""An inbox by itself, on a clock of the test's own: when it looks, what a failure means, and when all is done."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_inbox_arrivals import TIME, WAIT_S, Lab, fails

from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.inbox.fetching import Fetching
from iot.spooler.inbox.inbox import CHANGED_S, LEAST_S, Inbox
from iot.spooler.inbox.records import FileState, Record
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import Backoff
from iot.transfer import (
    AuthenticationError,
    Cancelled,
    DiskFull,
    Failure,
    Fingerprint,
    LinkLost,
    NotFound,
    PermissionDenied,
    ProofFailed,
    RemoteEntry,
    RemoteFile,
    SourceChanged,
    TransferError,
)

POLL_S = 1000.0
WALL = 2e9


class Remote:
    """files: as the server lists them; error: instead."""

    def __init__(self) -> None:
        self.files: dict[str, RemoteFile] = {}
        self.error: TransferError | None = None

    def scan(self, path: str, *, leave_out: object = None) -> list[RemoteEntry]:
        if self.error is not None:
            raise self.error
        return [RemoteEntry(name, file) for name, file in self.files.items()]


class Rig:
    def __init__(self, lab: Lab, **settings: Any) -> None:
        self.lab, self.remote, self.ticks = lab, Remote(), 0
        values = {"path": str(lab.here), "source": "/cfg", "settle_s": 0, "poll_s": POLL_S, **settings}
        clocks = Clocks(lambda: lab.now, lambda: WALL)
        backoff = Backoff(WAIT_S, 4 * WAIT_S)
        self.box = Inbox(InboxSettings.model_validate(values), -1, "gw", lab.journal, clocks, backoff, {}, lambda: 0.0)
        self.began = lab.now

    def put(self, name: str = "a", size: int = 3, mtime_s: int = TIME) -> None:
        self.remote.files[name] = RemoteFile(size, mtime_s, 0o100644)

    def look(self) -> None:
        self.box.look(self.remote, self.tick)  # type: ignore[arg-type]

    def tick(self) -> None:
        self.ticks += 1

    def job(self) -> str | None:
        job = self.box.next_job(lambda: False)
        return None if job is None else job.key[1]  # type: ignore[index]

    def fails(self, error: TransferError, name: str = "a") -> None:
        """The next file is fetched, and that fails."""
        assert self.job() == name
        self.box.ended(name, Failure((-1, name), name, name, error))

    def due_in_s(self) -> float:
        return self.box._due_at - self.lab.now


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.journal.close()


@pytest.fixture
def rig(lab: Lab) -> Rig:
    return Rig(lab)


# -- when it looks


def test_polls_are_a_whole_number_of_periods_after_the_first_or_after_somebody_asked(rig: Rig, lab: Lab) -> None:
    assert rig.box.needs_server()
    rig.look()
    assert (rig.due_in_s(), rig.box.looks, rig.box.last_look_at, rig.ticks) == (POLL_S, 1, WALL, 1)
    assert not rig.box.needs_server()
    lab.now += POLL_S - 1
    rig.look()  # nothing is due
    assert (rig.box.looks, rig.box.needs_server()) == (1, False)
    lab.now += 251
    assert rig.box.needs_server()
    rig.look()
    assert rig.due_in_s() == POLL_S - 250
    rig.box.wake()
    assert rig.box.needs_server()
    rig.look()
    assert (rig.due_in_s(), rig.box.looks) == (POLL_S, 3)


def test_what_settles_soon_is_looked_at_then_and_never_sooner_than_a_moment_from_now(lab: Lab) -> None:
    rig = Rig(lab, settle_s=60)
    rig.put()
    rig.look()
    assert (rig.due_in_s(), rig.box.settles_at, rig.job()) == (60.0, lab.now + 60, None)
    rig.box._due_at = lab.now = lab.now + 59.98
    rig.look()
    assert rig.due_in_s() == pytest.approx(LEAST_S)
    assert (rig.job(), rig.box.is_idle()) == (None, False)
    lab.now += LEAST_S
    rig.look()
    assert (rig.due_in_s(), rig.box.settles_at) == (pytest.approx(POLL_S - 60.08), float("inf"))
    assert rig.job() == "a"


def test_nothing_is_done_at_the_server_while_all_files_wait_or_here_while_it_is_stopped(rig: Rig, lab: Lab) -> None:
    rig.put()
    rig.look()
    assert rig.box.needs_server()
    assert rig.box.next_at() == float("-inf")
    rig.fails(DiskFull("no space"))
    assert not rig.box.needs_server()
    assert rig.box.next_at() == rig.box.next_here() == float("-inf")  # what arrived is published all the same
    rig.box.step()
    assert rig.box.next_at() == lab.now + WAIT_S
    rig.box.stop()
    rig.box._arrivals.wake()
    assert (rig.box.next_here(), rig.box.step()) == (float("inf"), False)
    rig.box.start()
    assert (rig.box.needs_server(), rig.box.next_here()) == (True, float("-inf"))
    lab.now += 1
    rig.look()
    due_at = rig.box._due_at
    rig.box.start()  # it is not stopped
    assert rig.box._due_at == due_at


def test_a_folder_that_cannot_be_listed_is_an_error_of_the_inbox_until_it_can_be(rig: Rig, lab: Lab) -> None:
    rig.remote.error = PermissionDenied("no")
    rig.look()
    assert (rig.box.error, rig.box.fails_here) == ("/cfg: no", False)
    assert (rig.due_in_s(), rig.box.looks, rig.box.last_look_at) == (POLL_S, 1, None)
    assert rig.box.has_failed()
    assert rig.box.is_idle()  # a drain does not wait for that
    rig.box.wake()
    rig.remote.error = None
    lab.here.rename(lab.here.with_name("away"))
    rig.look()
    assert rig.box.fails_here
    assert "No such file or directory" in (rig.box.error or "")
    lab.here.with_name("away").rename(lab.here)
    rig.box.wake()
    rig.look()
    assert (rig.box.error, rig.box.fails_here, rig.box.has_failed()) == (None, False, False)


# -- what a failure means


@pytest.mark.parametrize("error", [Cancelled("no"), AuthenticationError("no"), LinkLost("no")])
def test_whatever_says_nothing_about_the_file_leaves_it_wanted(rig: Rig, error: TransferError) -> None:
    rig.put()
    rig.look()
    due_at = rig.box._due_at
    for _ in range(2):
        rig.fails(error)
    assert (rig.box.pending_files, rig.box.held, rig.box._due_at) == (1, {}, due_at)
    assert not rig.box.is_idle()


@pytest.mark.parametrize(("settle_s", "due_s"), [(0, CHANGED_S), (20, 20)])
def test_one_that_changed_while_it_was_fetched_has_to_settle_anew(lab: Lab, settle_s: float, due_s: float) -> None:
    rig = Rig(lab, settle_s=settle_s)
    rig.put()
    rig.look()
    lab.now += settle_s
    rig.look()
    rig.fails(SourceChanged("a"))
    assert (rig.box.pending_files, rig.due_in_s(), rig.box.held) == (0, due_s, {})
    lab.now += due_s
    rig.look()
    assert rig.job() == (None if settle_s else "a")


def test_one_whose_content_is_not_what_its_checksum_says_is_refused_in_this_version(rig: Rig, lab: Lab) -> None:
    rig.put()
    rig.look()
    rig.fails(ProofFailed("differs"))
    rig.box.step()
    known = rig.box._records.get(b"a")
    assert known is not None
    assert (known.state, known.size, known.mtime_s, known.reason) == (FileState.REFUSED, 3, TIME, "differs")
    assert (rig.box.held, rig.box.is_idle()) == ({"a": "differs"}, True)
    rig.box.wake()
    rig.look()
    assert rig.job() is None
    rig.put(size=4)
    rig.box.wake()
    rig.look()
    assert rig.job() == "a"


def test_one_that_is_gone_is_no_failure_and_one_that_may_not_be_read_is_tried_later(rig: Rig, lab: Lab) -> None:
    rig.put("a")
    rig.put("b")
    rig.look()
    due_at = rig.box._due_at
    rig.fails(NotFound("a"), "a")
    assert (rig.box.held, rig.box._due_at, rig.box.pending_files) == ({}, due_at, 1)
    rig.fails(PermissionDenied("not yours"), "b")
    assert (rig.box.held, rig.due_in_s(), rig.box.pending_files) == ({"b": "not yours"}, WAIT_S, 0)
    assert rig.box.has_failed()
    del rig.remote.files["a"]
    lab.now += WAIT_S
    rig.look()
    rig.fails(PermissionDenied("not yours"), "b")
    assert rig.due_in_s() == 2 * WAIT_S
    rig.box._due_at = lab.now
    rig.look()  # somebody else's file settles, for example
    assert (rig.job(), rig.due_in_s()) == (None, 2 * WAIT_S)


def test_while_the_disk_is_full_all_files_wait_longer_and_longer(rig: Rig, lab: Lab) -> None:
    rig.put()
    rig.look()
    due_at, looks = rig.box._due_at, rig.box.looks
    for wait_s in (WAIT_S, 2 * WAIT_S):
        rig.fails(DiskFull("no space"))
        assert (rig.box.error, rig.box.fails_here) == (f"{lab.here}: no space", True)
        assert (rig.box.pending_files, rig.box._due_at) == (1, due_at)
        lab.now += wait_s - 1
        assert (rig.job(), rig.box.needs_server()) == (None, False)
        lab.now += 1
        assert rig.box.needs_server()
    assert rig.box.looks == looks + 2
    assert rig.job() == "a"
    Path(rig.box._place.fetching_path(b"a")).write_bytes(b"one")
    result: Any = SimpleNamespace(
        size=3, sha256="ab" * 32, fingerprint=Fingerprint(3, TIME * 10**9 + 5), resumed_at=0, seconds=1.0
    )
    rig.box.ended("a", result)
    assert (rig.box.pending_files, rig.box._local_failures) == (0, 0)
    rig.box.step()
    known = rig.box._records.get(b"a")
    assert known is not None
    assert (known.mtime_s, known.sha256, known.taken_at) == (TIME, "ab" * 32, WALL)


def test_a_result_without_a_time_has_none(rig: Rig) -> None:
    rig.put()
    rig.look()
    assert rig.job() == "a"
    Path(rig.box._place.fetching_path(b"a")).write_bytes(b"one")
    result: Any = SimpleNamespace(size=3, sha256=None, fingerprint=None, resumed_at=0, seconds=1.0)
    rig.box.ended("a", result)
    [record] = rig.box._arrivals.under_way()
    assert (record.mtime_s, record.sha256, record.state) == (None, "", FileState.FETCHED)


# -- what is there already


@pytest.mark.parametrize(
    ("settings", "content", "mtime_s", "is_here"),
    [({}, b"one", TIME, True), ({}, b"four", TIME, False), ({}, b"one", TIME + 1, False),
     ({"after_download": "delete"}, b"one", TIME, False), ({"checksum": "wait"}, b"one", TIME, False)],
)  # fmt: skip
def test_after_a_lost_journal_size_and_time_say_what_was_fetched_unless_more_is_at_stake(
    lab: Lab, settings: dict[str, Any], content: bytes, mtime_s: int, is_here: bool
) -> None:
    rig = Rig(lab, **settings)
    (lab.here / "a").write_bytes(content)
    os.utime(lab.here / "a", (mtime_s, mtime_s))
    rig.put()
    rig.put("a.sha256", 80)
    rig.look()
    known = rig.box._records.get(b"a")
    assert (known is not None and known.state is FileState.TAKEN) is is_here
    assert ("a" in rig.box._fetching._pending) is not is_here


def test_where_it_cannot_be_looked_at_it_is_fetched(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.box._place, "here", fails(OSError(errno.EIO, "no answer")))
    rig.put()
    rig.look()
    assert rig.job() == "a"


def test_a_checksum_that_is_required_and_missing_is_an_error_and_one_that_is_waited_for_is_not(lab: Lab) -> None:
    for checksum, held in (("require", {"a": "error: .sha256 is missing"}), ("wait", {})):
        rig = Rig(lab, checksum=checksum)
        rig.put()
        rig.look()
        assert (rig.job(), rig.box.held) == (None, held)
        assert list(rig.box.waiting) == ["a"]


def test_where_names_that_differ_in_case_are_one_the_first_is_fetched(rig: Rig, lab: Lab, monkeypatch) -> None:
    for ignores in (False, True):
        monkeypatch.setattr(rig.box._place, "ignores_case", lambda ignores=ignores: ignores)
        rig.put("A")
        rig.put("a")
        rig.box.wake()
        rig.look()
        assert list(rig.box._fetching._pending) == (["A"] if ignores else ["A", "a"])
        assert rig.box.held == ({"a": "here it has the same name as A"} if ignores else {})


# -- when all is done


def test_a_drain_waits_for_all_that_has_not_failed(rig: Rig) -> None:
    assert not rig.box.is_idle()
    rig.look()
    assert rig.box.is_idle()
    states = {FileState.FETCHED: False, FileState.PUBLISHED: False, FileState.REFUSED: True, FileState.TAKEN: True}
    for state, idle in states.items():
        rig.box._records.write([Record(b"x", state, "v", "", 3, TIME, "ab")])
        assert rig.box.is_idle() is idle
        rig.box._retries.put_off(b"x", "no")
        assert rig.box.is_idle()
        rig.box._retries.forget(b"x")
    rig.put()
    rig.box.wake()
    rig.look()
    assert not rig.box.is_idle()


def test_what_is_fetched_at_the_moment_is_told_and_fetched_once_at_a_time(rig: Rig) -> None:
    rig.put("a", 200)
    rig.put("b", 0)
    rig.look()
    job = rig.box.next_job(lambda: True)
    assert job is not None
    assert (job.source, job.key, job.keep_times, job.sha256, job.sidecar) == ("/cfg/a", (-1, "a"), True, True, False)
    assert rig.job() == "b"
    assert rig.job() is None
    assert job.progress is not None
    job.progress(SimpleNamespace(done_bytes=51))  # type: ignore[arg-type]
    told = rig.box.figures_in_flight()
    assert told[0] == {"path": "a", "bytes": 200, "done_bytes": 51, "percent": 25}
    assert told[1] == {"path": "b", "bytes": 0, "done_bytes": 0, "percent": 0}
    rig.box.abandon()
    job.progress(SimpleNamespace(done_bytes=60))  # type: ignore[arg-type]
    assert (rig.box.figures_in_flight(), rig.job()) == ([], "a")


def test_what_is_not_wanted_any_more_is_not_fetched(rig: Rig) -> None:
    rig.put()
    rig.look()
    rig.remote.files.clear()
    rig.box.wake()
    rig.look()
    assert (rig.job(), rig.box.pending_files, len(Fetching(1, "/", rig.box._place))) == (None, 0, 0)


# -- what arrived


def test_where_nothing_can_be_kept_all_of_it_is_fetched_again_later(lab: Lab, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lab.place, "seal", fails(OSError(errno.EIO, "Input/output error")))
        for name in "ab":
            lab.fetch(name)
        assert lab.arrivals.step()
    assert lab.states() == {}
    assert lab.retries.reasons == dict.fromkeys("ab", "cannot be kept: Input/output error")
    assert [lab.retries.again_at(path) for path in (b"a", b"b")] == [lab.now + WAIT_S] * 2
    assert not lab.arrivals.step()


def test_where_nothing_can_be_published_all_of_it_waits(lab: Lab, monkeypatch) -> None:
    for name in "ab":
        lab.fetch(name)
    with monkeypatch.context() as patch:
        patch.setattr(lab.place, "publish", fails(OSError(errno.EROFS, "Read-only file system")))
        lab.arrivals.step()
    assert lab.states() == dict.fromkeys((b"a", b"b"), FileState.FETCHED)
    assert lab.retries.reasons == dict.fromkeys("ab", "cannot be published: Read-only file system")
    lab.now += WAIT_S
    lab.arrivals.step()
    assert (lab.read("a"), lab.read("b"), lab.retries.reasons) == (b"one", b"one", {})
    assert (lab.arrivals.published_files, lab.arrivals.next_at()) == (2, float("inf"))

"""The steps of a file of an inbox, one by one: each is recorded before the next, whatever fails in between."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.inbox.arrivals import LOOK_S, Arrivals
from iot.spooler.inbox.inbox import Inbox
from iot.spooler.inbox.judge import Judge as RealJudge
from iot.spooler.inbox.judge import Judged, Verdict
from iot.spooler.inbox.listing import Listing
from iot.spooler.inbox.place import Place
from iot.spooler.inbox.records import FileState, Record, Records
from iot.spooler.inbox.removal import Removals
from iot.spooler.inbox.retries import Retries
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import Backoff
from iot.transfer import DiskFull, Journal, NotFound, PermissionDenied, RemoteFile

WAIT_S = 100.0
TIME = 10**9


class Judge:
    """Says what a test wants it to."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.verdicts: list[Judged] = []

    def __contains__(self, path: bytes) -> bool:
        return False

    def ask(self, record: Record, local_path: str, remote_path: str) -> None:
        assert Path(local_path).exists()
        self.asked.append(record.path)

    def judged(self) -> list[Judged]:
        given, self.verdicts = self.verdicts, []
        return given

    def look_in_s(self) -> float:
        return float("inf")

    def close(self) -> None: ...


class Lab:
    def __init__(self, base: Path) -> None:
        self.here = base / "here"
        self.here.mkdir()
        self.now = 1000.0
        self.place = Place(self.here, judged=False)
        self.place.prepare()
        self.journal = Journal(base / "state")
        self.records = Records("in", self.journal)
        self.retries = Retries("in", Backoff(WAIT_S, WAIT_S), lambda: 0.0, lambda: self.now)
        self.judge = Judge()
        self.arrivals = self.with_(None)

    def with_(self, judge: Judge | None, *, keeps: bool = True) -> Arrivals:
        more = (judge, self.retries, lambda: self.now, str)
        self.arrivals = Arrivals("in", self.place, self.records, *more, keeps=keeps, replaces=True)  # type: ignore[arg-type]
        return self.arrivals

    def fetch(self, name: str = "a", content: bytes = b"one", *, is_there: bool = True, mtime_s: int = TIME) -> Record:
        """It is fetched, and handed over."""
        path = name.encode()
        if is_there:
            Path(self.place.fetching_path(path)).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        record = Record(path, FileState.FETCHED, f"{len(content)}@{mtime_s}", "", len(content), mtime_s, digest)
        self.arrivals.add(record)
        return record

    def states(self) -> dict[bytes, FileState]:
        """As the next process finds them."""
        return {path: each.state for path, each in Records("in", self.journal)._records.items()}

    def read(self, name: str = "a") -> bytes | None:
        return (self.here / name).read_bytes() if (self.here / name).exists() else None


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.journal.close()


def fails(error: Exception):
    def failing(*_: object, **__: object) -> None:
        raise error

    return failing


def test_what_could_not_be_kept_is_not_recorded_and_is_tried_again_later(lab: Lab) -> None:
    lab.fetch("a")
    lab.fetch("b", is_there=False)
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.TAKEN}
    assert lab.retries.again_at(b"b") == lab.now + WAIT_S
    assert "cannot be kept" in lab.retries.reasons["b"]


def test_what_was_fetched_before_the_end_is_on_record(lab: Lab) -> None:
    lab.with_(lab.judge)
    lab.fetch()
    lab.arrivals.close()
    assert lab.states() == {b"a": FileState.FETCHED}
    lab.with_(None).step()
    assert lab.read() == b"one"


def test_a_verdict_is_on_record_before_the_content_goes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut would have it fetched, and judged, again and again."""
    lab.with_(lab.judge)
    record = lab.fetch()
    lab.arrivals.step()
    assert lab.judge.asked == [b"a"]
    lab.judge.verdicts = [Judged(record, Verdict.BAD, "no")]
    with monkeypatch.context() as patch:
        patch.setattr(lab.records, "write", fails(DiskFull("full")))
        with pytest.raises(DiskFull):
            lab.arrivals.step()
    assert lab.place.is_waiting(record.content)
    lab.judge.verdicts = [Judged(record, Verdict.BAD, "no")]
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.REFUSED}
    assert not lab.place.is_waiting(record.content)


def test_a_publishing_that_could_not_be_recorded_is_found_done_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = lab.fetch()
    lab.arrivals._record()
    with monkeypatch.context() as patch:
        patch.setattr(lab.records, "write", fails(DiskFull("full")))
        with pytest.raises(DiskFull):
            lab.arrivals.step()
    assert lab.read() == b"one"
    assert lab.arrivals.next_at() < lab.now
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.TAKEN}
    assert lab.arrivals.published_files == 1
    assert not lab.place.is_waiting(record.content)


def test_of_the_same_size_is_not_yet_the_same_content(lab: Lab) -> None:
    (lab.here / "a").write_bytes(b"two")
    record = lab.fetch()
    lab.arrivals.step()
    assert lab.read() == b"one"
    assert not lab.place.is_waiting(record.content)


def test_what_has_its_name_already_does_not_wait_for_it(lab: Lab) -> None:
    (lab.here / "a").write_bytes(b"one")
    inode = (lab.here / "a").stat().st_ino
    record = lab.fetch()
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.TAKEN}
    assert (lab.here / "a").stat().st_ino == inode
    assert not lab.place.is_waiting(record.content)


def test_what_may_be_there_is_not_fetched_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    record = lab.fetch()
    lab.arrivals._record()
    gone = FileNotFoundError(errno.ENOENT, "gone")
    with monkeypatch.context() as patch:
        patch.setattr(lab.place, "publish", lambda contents, **_: {each.path: gone for each in contents})
        patch.setattr(lab.place, "is_waiting", fails(OSError(errno.EIO, "no answer")))
        lab.arrivals.step()
    assert lab.states() == {b"a": FileState.FETCHED}
    lab.now += 1
    lab.fetch("b")
    lab.arrivals.step()
    assert (lab.read("a"), lab.read("b")) == (None, b"one")  # it waits, and others do not
    lab.now += WAIT_S
    lab.arrivals.step()
    assert lab.read() == b"one"
    assert lab.retries.reasons == {}
    assert not lab.place.is_waiting(record.content)


def test_what_is_gone_from_the_hidden_folder_is_fetched_again(lab: Lab) -> None:
    lab.with_(lab.judge)
    record = lab.fetch()
    lab.arrivals._record()
    lab.place.discard(record.content)
    lab.arrivals.step()
    assert (lab.judge.asked, lab.states()) == ([], {})


def test_a_newer_version_is_judged_anew_though_the_older_one_had_passed(lab: Lab) -> None:
    lab.with_(lab.judge)
    first = lab.fetch(content=b"first")
    lab.arrivals.step()
    (lab.here / "a").mkdir()  # in the way of its name
    lab.judge.verdicts = [Judged(first, Verdict.GOOD, "")]
    lab.arrivals.step()
    lab.fetch(content=b"second")
    lab.fetch(content=b"first")  # the producer has put the first one back
    lab.now += WAIT_S
    lab.judge.asked.clear()
    lab.arrivals.step()
    assert lab.judge.asked == [b"a"]


def test_what_is_fetched_again_with_another_time_and_the_same_bytes_is_still_there_to_be_judged(lab: Lab) -> None:
    lab.with_(lab.judge)
    lab.fetch()
    lab.arrivals.step()
    again = lab.fetch(mtime_s=TIME + 1)
    lab.arrivals.step()
    lab.judge.verdicts = [Judged(again, Verdict.GOOD, "")]
    lab.arrivals.step()
    assert lab.read() == b"one"


def test_other_bytes_of_the_same_size_and_time_take_the_place_of_those_before(lab: Lab) -> None:
    lab.with_(lab.judge)
    first = lab.fetch(content=b"one")
    lab.arrivals.step()
    second = lab.fetch(content=b"two")
    assert first.version == second.version
    lab.arrivals.step()
    assert (lab.place.is_waiting(first.content), lab.place.is_waiting(second.content)) == (False, True)
    lab.judge.verdicts = [Judged(first, Verdict.GOOD, ""), Judged(second, Verdict.GOOD, "")]
    lab.arrivals.step()
    assert (lab.read(), lab.states()) == (b"two", {b"a": FileState.TAKEN})
    assert lab.arrivals._passed == set()  # an agent runs for months


def test_why_a_file_is_refused_is_logged_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.with_(lab.judge)
    record = lab.fetch()
    for _ in range(2):
        lab.arrivals.step()
        lab.judge.verdicts = [Judged(record, Verdict.BAD, "a virus")]
    assert [line for line in caplog.messages if "a virus" in line] == ['not taken inbox=in path=a reason="a virus"']


def test_a_name_that_another_file_has_is_looked_at_again_and_again_without_reading_it(lab: Lab, monkeypatch) -> None:
    monkeypatch.setattr(lab.place, "digest", lambda path: pytest.fail("read"))
    lab.arrivals._replaces = False
    (lab.here / "a").write_bytes(b"the consumer's")
    lab.fetch()
    for _ in range(4):
        lab.arrivals.step()
        assert lab.arrivals.next_at() == lab.now + LOOK_S
        lab.now += LOOK_S


# -- on the server


class Server:
    def __init__(self, **files: RemoteFile) -> None:
        self.files = {name.replace("_", "."): file for name, file in files.items()}
        self.lost_answers = False

    def stat(self, path: str) -> RemoteFile:
        if path not in self.files:
            raise NotFound(path)
        return self.files[path]

    def delete(self, path: str) -> None:
        del self.files[path]
        if self.lost_answers:
            raise NotFound(path)


def removals(lab: Lab, server: Server, *, mtime_s: int | None = TIME, checksum: str = "") -> Removals:
    removals = Removals("in", ".", "", lab.records, lab.retries)
    lab.records.write([Record(b"a", FileState.PUBLISHED, "v", checksum, 3, mtime_s, "")])
    ticks: list[None] = []
    removals.run(server, lab.now, lambda: ticks.append(None))  # type: ignore[arg-type]
    assert ticks == [None]  # the watchdog is fed after each file
    return removals


def file(size: int = 3, mtime_s: int | None = TIME) -> RemoteFile:
    return RemoteFile(size, mtime_s, 0o100644)


@pytest.mark.parametrize("changed", [file(4), file(mtime_s=TIME + 1)])
def test_what_has_changed_since_stays_there(lab: Lab, changed: RemoteFile) -> None:
    server = Server(a=changed)
    removals(lab, server)
    assert list(server.files) == ["a"]
    assert lab.states() == {b"a": FileState.TAKEN}


def test_where_nobody_tells_times_nothing_is_removed_and_it_is_said(lab: Lab) -> None:
    server = Server(a=file(mtime_s=None))
    assert not removals(lab, server, mtime_s=None).is_due(lab.now)
    assert list(server.files) == ["a"]
    assert "tells no times" in lab.retries.reasons["a"]


def test_a_checksum_of_another_version_stays_there(lab: Lab) -> None:
    server = Server(a=file(), a_sha256=file(80, TIME + 5))
    removals(lab, server, checksum=f"80@{TIME}")
    assert list(server.files) == ["a.sha256"]


def test_a_lost_answer_is_no_failure(lab: Lab) -> None:
    server = Server(a=file())
    server.lost_answers = True
    removals(lab, server)
    assert lab.states() == {b"a": FileState.TAKEN}
    assert lab.retries.reasons == {}


def test_what_has_failed_is_left_alone_until_its_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(a=file())
    with monkeypatch.context() as patch:
        patch.setattr(server, "delete", fails(PermissionDenied("no")))
        removal = removals(lab, server)
    assert removal.next_at() == lab.now + WAIT_S
    assert [removal.is_due(lab.now + after_s) for after_s in (WAIT_S - 1, WAIT_S, WAIT_S + 1)] == [False, True, True]
    removal.run(server, lab.now + WAIT_S - 1, lambda: None)  # type: ignore[arg-type]
    assert list(server.files) == ["a"]
    removal.run(server, lab.now + WAIT_S, lambda: None)  # type: ignore[arg-type]
    assert server.files == {}
    assert lab.retries.reasons == {}


# -- the record, and the inbox as a whole


def test_what_has_left_the_server_is_forgotten_unless_something_is_still_to_be_done(lab: Lab) -> None:
    states = list(FileState)
    lab.records.write([Record(state.value.encode(), state, "v", "", 3, TIME, "") for state in states])
    lab.records.keep_only(set())
    left = {b"fetched": FileState.FETCHED, b"published": FileState.PUBLISHED}
    assert lab.states() == left
    assert {path for path in left if lab.records.get(path)} == set(left)


def test_who_asks_for_a_try_has_what_is_put_off_here_tried_too(lab: Lab) -> None:
    settings = InboxSettings(path=lab.here, source="/cfg")
    clocks = Clocks(lambda: lab.now, lambda: 2e9)
    inbox = Inbox(settings, -1, "gw", lab.journal, clocks, Backoff(WAIT_S, WAIT_S), {}, lambda: 0.0)
    inbox.step()
    assert inbox.next_here() > lab.now
    inbox._retries.put_off(b"a", "no")
    inbox.wake()
    assert inbox.next_here() < lab.now
    assert inbox._retries.again_at(b"a") < lab.now


def test_of_what_is_done_only_the_version_is_kept_in_mind(lab: Lab) -> None:
    lab.fetch()
    lab.arrivals.step()
    assert lab.records.of(FileState.TAKEN) == []
    assert lab.records.get(b"a") is not None


def test_a_file_is_judged_once_at_a_time_and_nobody_is_left_running(lab: Lab) -> None:
    judge = RealJudge(["sleep", "1000"], 3600.0, {"PATH": os.environ["PATH"]}, lambda: lab.now)
    record = lab.fetch()
    for _ in range(2):
        judge.ask(record, str(lab.here), "/cfg/a")
        assert judge.judged() == []
    assert len(judge._calls) == 1
    [running] = judge._calls._running
    assert b"a" in judge
    judge.close()
    assert running.command.poll(lab.now) is not None
    assert b"a" not in judge


def test_only_a_look_that_has_seen_everything_makes_an_inbox_forget(lab: Lab) -> None:
    clocks = Clocks(lambda: lab.now, lambda: 2e9)
    settings = InboxSettings(path=lab.here, source="/cfg", recursive=True)
    inbox = Inbox(settings, -1, "gw", lab.journal, clocks, Backoff(WAIT_S, WAIT_S), {}, lambda: 0.0)
    inbox._place.prepare()
    inbox._records.write([Record(b"deep/b", FileState.TAKEN, "v", "", 3, TIME, "")])
    for complete in (False, True):
        inbox._take(Listing(complete=complete))
        assert (inbox._records.get(b"deep/b") is None) is complete

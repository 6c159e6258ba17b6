"""An inbox by itself: what is due at the server, what a look makes it fetch again, and what it says of names."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_inbox_arrivals import TIME, WAIT_S, Lab, fails
from unit.test_inbox_steps import Rig

from iot.spooler.inbox.judge import Judged, Verdict
from iot.spooler.inbox.records import FileState, Record
from iot.transfer import Fingerprint, ProofFailed, RemoteFile


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.journal.close()


def fetched(rig: Rig, name: str = "a") -> None:
    """The next file has come whole."""
    assert rig.job() == name
    Path(rig.box._place.fetching_path(name.encode())).write_bytes(b"one")
    result: Any = SimpleNamespace(
        size=3, sha256="ab" * 32, fingerprint=Fingerprint(3, TIME * 10**9), resumed_at=0, seconds=1.0
    )
    rig.box.ended(name, result)


def test_what_is_to_be_removed_at_the_server_is_due_at_its_time(lab: Lab) -> None:
    rig = Rig(lab, after_download="delete")
    rig.look()
    rig.box.step()
    assert (rig.box.needs_server(), rig.box.next_at()) == (False, rig.box._due_at)
    rig.box._records.write([Record(b"x", FileState.PUBLISHED, "v", "", 3, TIME, "ab")])
    assert (rig.box.needs_server(), rig.box.next_at()) == (True, float("-inf"))
    rig.box._retries.put_off(b"x", "no")
    assert (rig.box.needs_server(), rig.box.next_at()) == (False, lab.now + WAIT_S)
    lab.now += WAIT_S
    assert rig.box.needs_server()


@pytest.mark.parametrize("ends", ["stop", "close"])
def test_what_was_fetched_before_a_stop_is_on_record(lab: Lab, ends: str) -> None:
    rig = Rig(lab)
    rig.put()
    rig.look()
    fetched(rig)
    assert rig.box._records.get(b"a") is None
    getattr(rig.box, ends)()
    known = rig.box._records.get(b"a")
    assert known is not None
    assert known.state is FileState.FETCHED
    assert rig.box.published_files == 0


def test_after_a_fetch_the_file_is_published_and_counted(lab: Lab) -> None:
    rig = Rig(lab)
    rig.put()
    rig.look()
    fetched(rig)
    assert rig.box.step()
    assert (rig.box.published_files, rig.box.pending_files, rig.box.is_idle()) == (1, 0, True)
    assert (lab.here / "a").read_bytes() == b"one"
    rig.box.wake()
    rig.look()
    assert rig.job() is None


@pytest.mark.parametrize(("size", "checksum_size", "again"), [(3, 80, False), (4, 80, True), (3, 81, True)])
def test_a_new_version_or_a_new_checksum_is_fetched(lab: Lab, size: int, checksum_size: int, again: bool) -> None:
    rig = Rig(lab, checksum="wait")
    rig.box._records.write([Record(b"a", FileState.TAKEN, f"3@{TIME}", f"80@{TIME}", 3, TIME, "ab")])
    rig.put("a", size)
    rig.put("a.sha256", checksum_size)
    rig.look()
    assert (rig.job() is not None) is again


def test_a_name_that_is_not_taken_is_told_once_in_the_log(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(lab)
    rig.remote.files["pipe"] = RemoteFile(0, TIME, stat.S_IFIFO | 0o644)
    for _ in range(2):
        rig.box.wake()
        rig.look()
    assert [line.partition(" path=")[2] for line in caplog.messages] == ['pipe reason="not a regular file"']
    assert rig.box.held == {"pipe": "not a regular file"}


def test_one_that_fails_its_checksum_is_told_in_the_log(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(lab)
    rig.put()
    rig.look()
    rig.fails(ProofFailed("differs"))
    assert [line.partition(" path=")[2] for line in caplog.messages] == ["a reason=differs"]


def test_one_that_vanishes_while_it_settles_is_waited_for_no_more(lab: Lab) -> None:
    rig = Rig(lab, settle_s=60)
    rig.put()
    rig.look()
    assert not rig.box.is_idle()
    rig.remote.files.clear()
    rig.box.wake()
    rig.look()
    assert (rig.box.settles_at, rig.box.is_idle()) == (float("inf"), True)


def test_a_step_says_whether_anything_has_changed(lab: Lab) -> None:
    lab.with_(lab.judge)
    assert lab.arrivals.step()  # the first look at what is there
    assert not lab.arrivals.step()
    record = lab.fetch()
    assert lab.arrivals.step()
    assert not lab.arrivals.step()
    lab.judge.verdicts = [Judged(record, Verdict.UNKNOWN, "no answer")]
    assert lab.arrivals.step()
    assert lab.retries.reasons == {"a": "no answer"}
    assert lab.arrivals.next_at() == lab.now + WAIT_S


def test_one_that_was_refused_is_recorded_and_nothing_is_sealed_for_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.place, "seal", lambda contents: pytest.fail("nothing has come"))
    lab.arrivals.add(Record(b"a", FileState.REFUSED, "v", "", 3, TIME, "", "differs"))
    assert lab.arrivals.next_at() == float("-inf")
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.REFUSED}
    assert lab.arrivals.under_way() == []


def test_what_the_hook_is_asked_about_is_looked_at_when_the_hook_says(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.with_(lab.judge)
    lab.arrivals.step()
    assert lab.arrivals.next_at() == float("inf")
    monkeypatch.setattr(lab.judge, "look_in_s", lambda: 3.0)
    assert lab.arrivals.next_at() == lab.now + 3.0


# -- a disk that does not answer


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> Callable[..., None]:
    """These calls of the place fail."""

    def breaks(*names: str) -> None:
        for name in names:
            monkeypatch.setattr(lab.place, name, fails(OSError(errno.EIO, "Input/output error")))

    return breaks


def test_what_cannot_be_looked_at_is_tried_later_and_not_fetched_again(lab: Lab, broken: Callable[..., None]) -> None:
    lab.with_(lab.judge)
    lab.fetch()
    lab.arrivals._record()
    broken("is_waiting")
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.FETCHED}
    assert lab.retries.reasons == {"a": "cannot be looked at: Input/output error"}
    assert lab.arrivals.next_at() == lab.now + WAIT_S


def test_where_what_is_there_cannot_be_read_the_file_is_published(lab: Lab, broken: Callable[..., None]) -> None:
    (lab.here / "a").write_bytes(b"two")
    lab.fetch()
    broken("digest")
    lab.arrivals.step()
    assert (lab.read(), lab.states()) == (b"one", {b"a": FileState.TAKEN})


def test_what_cannot_be_discarded_stops_nothing(lab: Lab, broken: Callable[..., None]) -> None:
    lab.with_(lab.judge)
    record = lab.fetch()
    lab.arrivals.step()
    broken("discard")
    lab.judge.verdicts = [Judged(record, Verdict.BAD, "no")]
    lab.arrivals.step()
    assert lab.states() == {b"a": FileState.REFUSED}


def test_a_hidden_folder_that_cannot_be_cleaned_stops_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(lab)
    monkeypatch.setattr(rig.box._place, "clean", fails(OSError(errno.EIO, "Input/output error")))
    rig.put()
    rig.look()
    assert (rig.box.error, rig.job()) == (None, "a")

"""What is concluded from each outcome, in which order it is written down, and when the server may be tried again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.agent import outcomes as module
from iot.spooler.agent.outcomes import OutcomeRecorder
from iot.spooler.compression.packing import Packing
from iot.spooler.config.outboxes import AfterUpload
from iot.spooler.decisions import Decisions
from iot.spooler.hooks.before import HookRefusal
from iot.spooler.outbox.scan import SourceFailed
from iot.spooler.queue.policy import Backoff, Event, RetryRules, State, Verdict
from iot.spooler.queue.queue import Entry
from iot.transfer import (
    Cancelled,
    DiskFull,
    Failure,
    Fingerprint,
    LinkLost,
    LoginRefused,
    NoSpaceOnServer,
    PermissionDenied,
    Proof,
    SourceChanged,
    Timeout,
    TransferResult,
)

VERSION = Fingerprint(3, 7)


def entry(number: int = 1, **more: Any) -> Entry:
    plain = Entry(
        number, 1, b"f%d" % number, State.SENDING, VERSION, False, 5, f"/up/f{number}",
        None, None, 0, 1.0, False, None, 2, 0, 0, None,
    )  # fmt: skip
    return plain._replace(**more)


def result(number: int = 1, **more: Any) -> TransferResult:
    values = {"sent_bytes": 3, "resumed_at": 0, "seconds": 0.1, "proof": Proof.SIZE, "key": number, **more}
    return TransferResult(f"/box/f{number}", f"/up/f{number}", 3, **values)


class Rig:
    """The recorder with everything around it in memory; `done` is what was asked of whom, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after_upload: AfterUpload = AfterUpload.DELETE) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.found: Any = VERSION
        self.state = State.DELIVERED
        monkeypatch.setattr(module, "Deliveries", lambda *_: SimpleNamespace(add=self._noted("on record")))
        outbox = SimpleNamespace(look=self._look, forget=self._noted("forget"))
        self.intake = SimpleNamespace(
            number=1, outbox=outbox, source=lambda each: f"/box/{each.path.decode()}", take_withdrawn=list,
            settings=SimpleNamespace(after_upload=after_upload, label="box"),
            decisions=Decisions("box"),
        )  # fmt: skip
        self.queue = SimpleNamespace(
            deliver=self._deliver, fail=self._fail, lose=self._noted("lose"), drop=self._noted("drop")
        )
        self.owed = SimpleNamespace(
            forgotten=self._noted("forgotten"), leave=self._noted("leave"), forget_many=lambda _: ["gone"]
        )
        remote = SimpleNamespace(release_checkpoints=self._noted("release_checkpoints"), give_up=self._noted("give up"))
        self.now, self.told = 50.0, {}
        clocks = SimpleNamespace(monotonic=lambda: self.now, wall=lambda: 2e9, synchronised=lambda: True)
        rules = {1: RetryRules(Backoff(1.0, 60.0), max_attempts=2)}
        markers = SimpleNamespace(delivered=self._told("markers"), given_up=self._told("markers, given up"))
        after = SimpleNamespace(delivered=self._told("after"), failed=self._told("after, failed"))
        batches = SimpleNamespace(after=SimpleNamespace(delivered=self._told("after_batch")))
        hooks = SimpleNamespace(after=after, batches=batches)
        journal = SimpleNamespace(write=self._write)
        packing = Packing(Path("/state"), [self.intake], self.queue, 1, clocks.monotonic)
        self.recorder = OutcomeRecorder(
            journal, self.queue, remote, [self.intake], self.owed, hooks, markers, rules, clocks, lambda: 0.0, packing
        )

    def _noted(self, name: str) -> Any:
        return lambda *given: self.done.append((name, *given))

    def _told(self, whom: str) -> Any:
        """In the transaction."""
        return lambda db, what: self.told.update({whom: what if self.done[-1] != ("commit",) else "too late"})

    def _look(self, _: bytes) -> Any:
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found

    def _write(self, work: Any) -> Any:
        self.done.append(("begin",))
        answer = work("db")
        self.done.append(("commit",))
        return answer

    def _deliver(self, _: str, successes: list[Any]) -> list[Entry]:
        self.done.append(("deliver", list(successes)))
        return [each.entry._replace(state=self.state) for each in successes]

    def _fail(self, _: str, failures: list[Any], now: float) -> list[Entry]:
        self.done.append(("fail", list(failures), now))
        return [
            each._replace(state=State.QUARANTINED if verdict.event is Event.GIVEN_UP else State.WAITING)
            for each, verdict, _ in failures
        ]

    def failed(self, error: Any, number: int = 1, *, progressed: bool = False, **more: Any) -> None:
        self.recorder.failed(entry(number, **more), Failure(number, "", "", error), progressed=progressed)

    def steps(self) -> list[str]:
        return [step[0] for step in self.done]

    def step(self, name: str) -> tuple[Any, ...]:
        (found,) = [step[1:] for step in self.done if step[0] == name]
        return found


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_delivery_is_on_record_before_the_remote_forgets_it_and_the_file_leaves(rig):
    rig.recorder.succeeded(entry(), result())
    assert rig.recorder.unrecorded == 1
    rig.recorder.record()
    names = [name for name in rig.steps() if name != "lose"]
    assert names == ["begin", "deliver", "on record", "fail", "commit", "forgotten", "release_checkpoints", "leave"]
    assert rig.step("release_checkpoints") == ([result()],)
    assert rig.step("leave") == ([entry(state=State.DELIVERED)], [], {})
    assert rig.step("forgotten") == (["gone"],)
    assert rig.recorder.unrecorded == 0
    rig.done.clear()
    rig.recorder.record()
    assert rig.done == []


def test_what_could_not_be_written_is_written_by_the_next_call(rig, monkeypatch):
    rig.recorder.succeeded(entry(), result())
    rig.failed(PermissionDenied("no"), 2)

    def full(_: Any) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as patches:
        patches.setattr(rig.recorder._journal, "write", full)
        with pytest.raises(DiskFull):
            rig.recorder.record()
    assert rig.recorder.unrecorded == 2
    assert rig.done == [("forget", b"f2")]
    rig.recorder.record()
    assert rig.step("release_checkpoints") == ([result()],)


def test_markers_and_hooks_are_told_of_each_outcome_in_the_same_transaction(rig):
    skipped, known = result(2, skipped=True), result(3, proof=None, already_done=True)
    for number, each in enumerate((result(), skipped, known), start=1):
        rig.recorder.succeeded(entry(number), each)
    for number in range(2):
        rig.failed(PermissionDenied("no"), 4, failures=number, strikes=number)
    rig.recorder.record()
    sent = [entry(number, state=State.DELIVERED) for number in (1, 2, 3)]
    outcomes = list(zip(sent, (result(), skipped, known), strict=True))
    failed = [(Event.FAILED, "PermissionDenied: no"), (Event.GIVEN_UP, "PermissionDenied: no")]
    assert rig.told.pop("after, failed") == [
        (entry(4, failures=number, strikes=number), *each) for number, each in enumerate(failed)
    ]
    assert rig.told == {
        "markers": outcomes,
        "markers, given up": [4],
        "after": outcomes[:1],  # what was skipped, or known before, is not delivered now
        "after_batch": outcomes,
    }


@pytest.mark.parametrize("first", ["succeeded", "failed", "hindered"])
def test_outcomes_are_on_record_soon_after_the_first_or_once_they_are_many(rig, first):
    outcome = {
        "succeeded": lambda: rig.recorder.succeeded(entry(), result()),
        "failed": lambda: rig.failed(PermissionDenied("no")),
        "hindered": lambda: rig.recorder.hindered(entry(), HookRefusal("no", for_good=False)),
    }[first]
    for _ in range(2):
        begun = rig.now
        outcome()
        rig.now += module.RECORD_S / 2
        outcome()  # which does not put it off
        assert not rig.recorder.record_is_due(rig.now)
        assert rig.recorder.record_is_due(begun + module.RECORD_S)
        rig.recorder.record()
        rig.now += 100
        rig.done.clear()
    for _ in range(module.RECORD_FILES - 1):
        outcome()
    assert not rig.recorder.record_is_due(rig.now)
    outcome()
    assert rig.recorder.record_is_due(rig.now)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "size"),
        ({"durable": True}, "size durable"),
        ({"possible_repeat": True}, "size repeat"),
        ({"proof": Proof.FULL, "durable": True, "possible_repeat": True}, "full durable repeat"),
        ({"proof": None}, "none"),
    ],
)
def test_a_delivery_says_what_was_proven_when_and_with_which_hash(rig, more, words):
    rig.recorder.succeeded(entry(), result(sha256="ab", **more))
    rig.recorder.record()
    ((success,),) = rig.step("deliver")
    assert (success.event, success.proof, success.at, success.sha256) == (Event.SENT, words, 2e9, "ab")


def test_a_file_that_was_skipped_is_kept_and_its_content_does_not_count_as_delivered(rig):
    rig.recorder.succeeded(entry(), result(sha256="ab", proof=None, skipped=True))
    rig.recorder.record()
    ((success,),) = rig.step("deliver")
    assert (success.event, success.sha256) == (Event.SENT_TO_KEEP, None)


def test_a_file_that_is_kept_stays_and_one_that_was_only_touched_is_no_delivery(monkeypatch):
    rig = Rig(monkeypatch, AfterUpload.KEEP)
    rig.state = State.KEPT
    rig.recorder.succeeded(entry(), result())
    rig.recorder.succeeded(entry(2), result(2, proof=None, already_done=True))
    rig.recorder.record()
    ((first, second),) = rig.step("deliver")
    assert (first.event, second.event) == (Event.SENT_TO_KEEP, Event.SENT_TO_KEEP)
    _, at, _, sent = rig.step("on record")
    assert (at, [each.id for each, _ in sent]) == (2e9, [1])
    assert rig.step("leave") == ([], [], {})


def test_a_file_is_given_up_with_its_reason_and_others_only_wait(rig):
    rig.failed(PermissionDenied("no rights"), 1, strikes=1)
    rig.failed(PermissionDenied("no"), 2)
    rig.recorder.record()
    delivered, given_up, notes = rig.step("leave")
    assert (delivered, [each.id for each in given_up]) == ([], [1])
    assert notes[1] == "PermissionDenied: no rights"
    failures, now = rig.step("fail")
    assert [verdict.event for _, verdict, _ in failures] == [Event.GIVEN_UP, Event.FAILED]
    assert now == 50.0
    assert "release_checkpoints" not in rig.steps()


def test_what_the_server_refuses_is_told_until_something_arrives_there(rig):
    rig.failed(NoSpaceOnServer("full"))
    assert rig.recorder.last_error == "f1: NoSpaceOnServer: full"
    assert rig.recorder.destination_failed(1) == ""
    rig.failed(PermissionDenied("no"))
    assert rig.recorder.destination_failed(1) == "f1: PermissionDenied: no"
    rig.recorder.succeeded(entry(2), result(2))
    assert rig.recorder.destination_failed(1) == ""


def test_what_the_server_refuses_is_told_until_that_file_has_left(rig, caplog):
    rig.failed(PermissionDenied("no"), 1)
    rig.failed(PermissionDenied("no"), 2)
    rig.failed(PermissionDenied("no"), 1, strikes=1)
    assert rig.recorder.destination_failed(1) == "f2: PermissionDenied: no"
    rig.failed(PermissionDenied("no"), 2, strikes=1)
    assert rig.recorder.destination_failed(1) == ""
    assert all("outbox=box" in line for line in caplog.messages if line.startswith("failed"))


def test_what_the_server_refuses_is_told_until_that_file_is_gone(rig):
    rig.failed(PermissionDenied("no"))
    rig.found = None
    rig.failed(PermissionDenied("no"))
    assert rig.recorder.destination_failed(1) == ""


@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent"), Cancelled("stop"), LoginRefused("no")])
def test_what_is_the_links_or_ours_is_not_told_as_the_files(rig, error):
    rig.failed(error)
    assert rig.recorder.last_error is None
    rig.recorder.record()
    ((failed,), _) = rig.step("fail")
    assert failed[1].event is Event.INTERRUPTED


@pytest.mark.parametrize("error", [PermissionDenied("no"), SourceChanged("other")])
@pytest.mark.parametrize(("found", "event"), [(None, Event.VANISHED), (Fingerprint(4, 8), Event.CHANGED)])
def test_a_file_that_went_or_changed_is_told_from_one_that_is_refused(rig, error, found, event):
    rig.found = found
    rig.failed(error)
    assert rig.recorder.unrecorded == 1
    rig.recorder.record()
    lost = {step[3]: step[2] for step in rig.done if step[0] == "lose"}
    assert set(lost) == {Event.CHANGED, Event.VANISHED}
    assert ("give up" in rig.steps()) is (event is Event.VANISHED)
    if event is Event.VANISHED:  # before its row goes
        assert rig.steps().index("give up") < rig.steps().index("begin")
        assert rig.step("give up") == ([("/box/f1", "/up/f1")],)
    assert rig.step("fail")[0] == []
    assert rig.recorder.unrecorded == 0
    assert rig.recorder.last_error is None


def test_lost_entries_are_written_down_as_what_they_are(rig):
    written = {}
    rig.queue.lose = lambda _, entries, event: written.__setitem__(event, [each.id for each in entries])
    rig.found = None
    rig.failed(PermissionDenied("no"), 1)
    rig.found = Fingerprint(9, 9)
    rig.failed(PermissionDenied("no"), 2)
    rig.recorder.record()
    assert written == {Event.VANISHED: [1], Event.CHANGED: [2]}


@pytest.mark.parametrize(("found", "kind"), [(VERSION, Event.FAILED), (SourceFailed("unreadable"), Event.FAILED)])
def test_a_change_that_is_none_or_cannot_be_seen_is_no_strike(rig, found, kind):
    rig.found = found
    rig.failed(SourceChanged("changed"))
    if isinstance(found, SourceFailed):
        rig.failed(PermissionDenied("no"))
    rig.recorder.record()
    failures, _ = rig.step("fail")
    assert {(verdict.event, verdict.strikes) for _, verdict, _ in failures} == {(kind, 0)}


def test_files_of_an_outbox_that_is_gone_are_no_warnings_one_by_one(rig, caplog):
    rig.found = SourceFailed("outbox /box: No such file or directory")
    for number in range(3):
        rig.failed(PermissionDenied("no"), number)
    assert not [line for line in caplog.records if line.levelname == "WARNING"]
    rig.found = VERSION
    rig.failed(PermissionDenied("no"))
    assert [line.levelname for line in caplog.records if line.message.startswith("failed")] == ["WARNING"]


def test_losses_in_a_row_are_counted_for_each_file_until_it_gets_on(rig):
    for _ in range(3):
        rig.failed(LinkLost("cut"))
    rig.failed(LinkLost("cut"), 2)
    rig.failed(LinkLost("cut"), 1, progressed=True)
    rig.failed(LinkLost("cut"))
    rig.recorder.succeeded(entry(2), result(2))
    rig.failed(LinkLost("cut"), 2)
    rig.failed(LinkLost("cut"), 2)
    rig.recorder.record()
    events = [(each.id, verdict.event, verdict.losses) for each, verdict, _ in rig.step("fail")[0]]
    back, away = Event.INTERRUPTED, Event.POSTPONED
    assert events == [
        (1, back, 1), (1, back, 2), (1, away, 3), (2, back, 1), (1, back, 0), (1, back, 1), (2, back, 1), (2, back, 2),
    ]  # fmt: skip


def test_of_a_file_that_has_changed_no_losses_are_counted_on(rig):
    for _ in range(2):
        rig.failed(LinkLost("cut"))
    rig.found = Fingerprint(4, 8)
    rig.failed(SourceChanged("x"))
    rig.failed(LinkLost("cut"))
    rig.recorder.record()
    assert [verdict.losses for _, verdict, _ in rig.step("fail")[0]] == [1, 2, 1]


def test_what_comes_back_without_a_word_keeps_its_count(rig):
    rig.recorder.interrupted([entry(1, failures=3, strikes=1)])
    rig.recorder.released([entry(2, failures=4)])
    rig.recorder.record()
    failures, _ = rig.step("fail")
    assert [(each.id, verdict) for each, verdict, _ in failures] == [
        (1, Verdict(Event.INTERRUPTED, 3, 1)),
        (2, Verdict(Event.RELEASED, 4, 0)),
    ]
    assert rig.step("leave")[2] == {1: "", 2: ""}


def test_what_was_left_elsewhere_may_go_and_only_that(rig):
    rig.recorder.moved([entry(1, left_at="/old/f1"), entry(2)])
    assert rig.done == [("give up", [("/box/f1", "/old/f1")])]


def test_what_a_producer_takes_away_is_given_up_and_dropped_once(rig):
    withdrawn = [[entry()], []]
    rig.intake.take_withdrawn = lambda: withdrawn.pop(0)
    rig.recorder.drop_withdrawn()
    assert rig.done == [("give up", [("/box/f1", "/up/f1")]), ("drop", [entry()], Event.VANISHED)]
    rig.done.clear()
    rig.recorder.drop_withdrawn()
    assert rig.done == [("drop", [], Event.VANISHED)]

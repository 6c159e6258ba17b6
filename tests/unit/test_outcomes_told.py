"""What is told of each outcome, what a refusal counts, and what is known of deliveries to another server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_outcomes import VERSION, Rig, entry, result

from iot.spooler.agent.outcomes import RECORD_FILES
from iot.spooler.hooks.before import HookRefusal
from iot.spooler.outbox.scan import SourceFailed
from iot.spooler.queue.policy import NEVER, Backoff, Event, RetryRules, Verdict
from iot.transfer import Cancelled, LinkLost, NoSpaceOnServer, PermissionDenied, SourceChanged


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def verdicts(rig: Rig) -> list[Verdict]:
    return [verdict for _, verdict, _ in rig.recorder._failures]


# -- how many wait to be recorded


def test_all_kinds_of_outcomes_wait_to_be_recorded(rig: Rig) -> None:
    assert rig.recorder.unrecorded == 0
    rig.recorder.succeeded(entry(1), result(1))
    rig.failed(PermissionDenied("no"), 2)
    rig.found = None
    for number in (3, 4):
        rig.failed(SourceChanged("gone"), number)
    assert rig.recorder.unrecorded == 4


@pytest.mark.parametrize(("number", "due"), [(-1, False), (0, True), (1, True)])
def test_so_many_are_recorded_at_once_and_more_as_well(rig: Rig, number: int, due: bool) -> None:
    rig.recorder.succeeded(entry(), result())
    rig.recorder.interrupted([entry()] * (RECORD_FILES - 1 + number))
    assert rig.recorder.record_is_due(rig.now) is due


# -- what is logged of a delivery


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "delivered"),
        ({"already_done": True}, "delivered"),
        ({"proof": None}, "delivered"),
        ({"proof": None, "already_done": True}, "touched,"),
        ({"proof": None, "skipped": True}, "skipped"),
        ({"proof": None, "already_done": True, "skipped": True}, "skipped"),
    ],
)
def test_each_delivery_is_told_once_as_what_it_was(
    rig: Rig, caplog: pytest.LogCaptureFixture, more: dict[str, Any], words: str
) -> None:
    caplog.set_level("INFO", "iot.spooler.agent.outcomes")
    rig.recorder.succeeded(entry(), result(**more))
    assert [line.split()[0] for line in caplog.messages] == [words]


# -- what is told of a failure


@pytest.mark.parametrize(
    ("error", "failures", "told"),
    [
        (NoSpaceOnServer("full"), 0, ("f1 reason=", "next_s=1.0")),
        (LinkLost("cut"), 0, ("f1 reason=queued", "")),
        (Cancelled("stop"), 0, ("f1 reason=queued", "")),
    ],
)
def test_when_a_failed_file_is_tried_again_is_a_decision(
    rig: Rig, caplog: pytest.LogCaptureFixture, error: Exception, failures: int, told: tuple[str, str]
) -> None:
    caplog.set_level("DEBUG", "iot.spooler.decisions")
    rig.failed(error, failures=failures)
    (line,) = [line for line in caplog.messages if line.startswith("decision")]
    assert told[0] in line
    assert line.endswith(told[1])


@pytest.mark.parametrize(("delay_s", "words"), [(NEVER, "next_s=never"), (NEVER / 2, f"next_s={NEVER / 2:.1f}")])
def test_a_file_that_is_left_to_the_next_run_has_no_next_try_in_this_one(
    rig: Rig, caplog: pytest.LogCaptureFixture, delay_s: float, words: str
) -> None:
    caplog.set_level("DEBUG", "iot.spooler.decisions")
    rig.recorder._tell_decision(entry(), Verdict(Event.FAILED, 1, 0, delay_s))
    assert caplog.messages[0].endswith(words)


def test_a_file_of_an_outbox_that_cannot_be_examined_is_told_for_debugging_and_waits(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "iot.spooler.agent.outcomes")
    rig.found = SourceFailed("outbox /box: no")
    rig.failed(PermissionDenied("no"))
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert [(verdict.event, verdict.strikes) for verdict in verdicts(rig)] == [(Event.FAILED, 0)]
    assert rig.recorder.destination_failed(1) == ""
    rig.found = VERSION
    rig.failed(NoSpaceOnServer("full"))  # of which the file is not even asked
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]


@pytest.mark.parametrize("error", [NoSpaceOnServer("full"), LinkLost("cut"), Cancelled("stop")])
def test_only_where_it_may_be_the_files_fault_the_file_is_examined(rig: Rig, error: Exception) -> None:
    rig.failed(error)
    assert "forget" not in rig.steps()


def test_what_is_no_failure_of_the_file_is_not_logged_as_one(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "iot.spooler.agent.outcomes")
    rig.failed(LinkLost("cut"))
    assert caplog.messages == []
    rig.found = None
    rig.failed(SourceChanged("gone"))
    assert caplog.messages == ["vanished path=f1"]


def test_a_file_that_is_given_up_because_nothing_can_be_done_is_no_refusal_of_the_destination(rig: Rig) -> None:
    rig.failed(PermissionDenied("no"), 1)
    rig.failed(PermissionDenied("no"), 2, strikes=1)
    assert rig.recorder.destination_failed(1) == "f1: PermissionDenied: no"
    assert rig.recorder.destination_failed(2) == ""
    assert rig.recorder.last_error == "f2: PermissionDenied: no"


# -- what is refused without an attempt


def test_what_cannot_be_named_is_given_up_with_one_more_failure_and_strike(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.recorder.refused(entry(failures=3, strikes=1), "no rule")
    assert verdicts(rig) == [Verdict(Event.GIVEN_UP, 4, 2)]
    assert rig.recorder.last_error == "f1: no rule"
    assert caplog.messages == ['not sent path=f1 reason="no rule" outbox=box']


@pytest.mark.parametrize(
    ("for_good", "strikes", "event", "counted"),
    [(False, 0, Event.SKIPPED, 0), (True, 0, Event.SKIPPED, 1), (True, 1, Event.GIVEN_UP, 2)],
)
def test_what_a_hook_refuses_is_tried_again_until_it_has_refused_it_for_good_so_often(
    rig: Rig, caplog: pytest.LogCaptureFixture, for_good: bool, strikes: int, event: Event, counted: int
) -> None:
    caplog.set_level("DEBUG")
    rig.recorder.hindered(entry(strikes=strikes), HookRefusal("not yet", for_good=for_good))
    assert [(each.event, each.strikes) for each in verdicts(rig)] == [(event, counted)]
    assert rig.recorder.last_error == "f1: not yet"
    assert [line.split()[0] for line in caplog.messages] == ["decision", "failed"]


# -- the row and its file


@pytest.mark.parametrize(
    ("check_final", "same", "event"), [(True, True, None), (True, False, Event.CHANGED), (False, True, Event.CHANGED)]
)
def test_a_file_that_is_only_touched_before_it_is_compared_keeps_its_row(
    rig: Rig, check_final: bool, same: bool, event: Event | None
) -> None:
    rig.found = VERSION._replace(ctime_ns=9)
    rig.intake.outbox.system = SimpleNamespace(may_be_same=lambda found, meant: same and meant == VERSION)
    assert rig.recorder._gone_or_changed(entry(check_final=check_final)) is event
    assert rig.done == [("forget", b"f1")]


@pytest.mark.parametrize(
    ("more", "given_up"),
    [
        ({}, [("/box/f1", "/up/f1")]),
        ({"left_at": "/old/f1"}, [("/box/f1", "/old/f1")]),
        ({"destination": ""}, None),
    ],
)
def test_of_a_withdrawn_file_may_go_what_its_last_attempt_has_left(
    rig: Rig, more: dict[str, Any], given_up: list[tuple[str, str]] | None
) -> None:
    rig.recorder.withdraw([entry(**more)])
    assert rig.done == ([("give up", given_up)] if given_up else [])


def test_each_outbox_counts_by_its_own_rules(rig: Rig) -> None:
    rig.recorder._rules = {1: RetryRules(Backoff(1.0, 60.0), max_attempts=9), 2: None}
    rig.failed(PermissionDenied("no"), strikes=7)
    rig.failed(PermissionDenied("no"), strikes=8)
    assert [verdict.event for verdict in verdicts(rig)] == [Event.FAILED, Event.GIVEN_UP]


def test_after_a_record_nothing_of_it_is_recorded_again(rig: Rig) -> None:
    rig.recorder.succeeded(entry(1), result(1))
    rig.failed(PermissionDenied("no"), 2)
    rig.found = None
    rig.failed(SourceChanged("gone"), 3)
    rig.recorder.record()
    rig.done.clear()
    rig.recorder.succeeded(entry(4), result(4))
    rig.recorder.record()
    assert rig.step("deliver")[0][0].entry.id == 4
    assert rig.step("fail")[0] == []
    assert [step for step in rig.done if step[0] in ("give up", "lose")] == [
        ("lose", "db", [], Event.CHANGED),
        ("lose", "db", [], Event.VANISHED),
    ]


# -- another server


@pytest.mark.parametrize(
    ("stands", "skipped", "repeat"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_what_may_stand_on_another_server_too_is_a_possible_repeat(
    rig: Rig, stands: bool, skipped: bool, repeat: bool
) -> None:
    overtaken: list[Any] = []
    rig.recorder._elsewhere = SimpleNamespace(may_stand=lambda _: stands, overtaken=overtaken.extend)
    rig.recorder.succeeded(entry(), result(skipped=skipped))
    rig.recorder.record()
    assert [each.possible_repeat for each in overtaken] == [repeat]
    ((success,),) = rig.step("deliver")
    assert ("repeat" in success.proof) is repeat

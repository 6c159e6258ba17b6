"""Every case of the plan: the table is built from the rules of plan.py's drawing, written a second time as sets."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, RemoteFile, Span, Token, UploadJob
from iot.transfer.plan import Fresh, ProveFinal, ResumeAt, ResumeRules, Step, only_commands_left, plan
from iot.transfer.remote_commands import RemoteCommand, RemoteCommands, Verb

SIZE, ACKED, SYNCED, TAIL = 1000, 600, 400, 100
OLD_SUSPECT = Span(100, 150)
KNOWN = Fingerprint(SIZE, 5_000_000_000, 7_000_000_000, 42)

SOURCES = {
    "same": KNOWN,
    "other size": KNOWN._replace(size=SIZE + 1, mtime_ns=6_000_000_000),
    "other size, same mtime": KNOWN._replace(size=SIZE - 1),
    "other mtime": KNOWN._replace(mtime_ns=6_000_000_000),
    "other ctime": KNOWN._replace(ctime_ns=8_000_000_000),
    "other inode": KNOWN._replace(inode=43),
}
PARTS = {
    "missing": None,
    "empty": RemoteFile(0),
    "shorter than synced": RemoteFile(SYNCED - 100),
    "shorter than acked": RemoteFile(ACKED - 50),
    "as acked": RemoteFile(ACKED),
    "longer": RemoteFile(SIZE + 500),
    "no size told": RemoteFile(None),
}
FINALS = {
    "missing": None,
    "same size": "same",
    "other size": RemoteFile(7),
    "no size told": RemoteFile(None),
}
CHECKPOINTS = {"nothing": None, "sending": Phase.SENDING, "publishing": Phase.PUBLISHING}
VERIFY = json.loads('["size", "timestamp", "tail", "full"]')  # as a file of settings gives them
AFRESH = Fresh(possible_repeat=False)
RULES = ResumeRules("timestamp", trust=False, tail_size=TAIL, identified=True, beyond_bytes=0, readable=True)

CASES = list(itertools.product(CHECKPOINTS, SOURCES, PARTS, FINALS, VERIFY, (False, True), (True, False)))


def is_changed(source: str, verify: str) -> bool:
    return source.startswith("other size") or (source == "other mtime" and verify != "size")


def is_doubtful(source: str, verify: str) -> bool:
    return source in ("other ctime", "other inode") and verify != "size"


def may_be_wrong(offset: int, source: str, verify: str, trust: bool, identified: bool) -> set[int]:
    """Bytes below the offset that must be read back."""
    if verify == "full" or is_doubtful(source, verify) or not identified:
        return set(range(offset))
    wrong = set(range(OLD_SUSPECT.start, min(OLD_SUSPECT.end, offset)))
    return wrong if trust else wrong | set(range(SYNCED, offset))


def expect_resume(step: Step, offset: int, source: str, verify: str, trust: bool, identified: bool) -> None:
    assert isinstance(step, ResumeAt)
    assert step.offset == offset
    assert step.synced == min(SYNCED, offset)
    told = [at for span in step.suspect for at in range(span.start, span.end)]
    assert set(told) == may_be_wrong(offset, source, verify, trust, identified)
    assert len(told) == len(set(told))
    assert step.tail == (Span(offset - TAIL, offset) if verify == "tail" else None)


def test_the_table_of_all_cases() -> None:
    assert len(CASES) == 3 * 6 * 7 * 4 * 4 * 2 * 2
    for journal, source, part, final, verify, trust, identified in CASES:
        phase = CHECKPOINTS[journal]
        now = SOURCES[source]
        known = phase and Checkpoint(
            Direction.UPLOAD, b"/d", b"/s", Token(b"/d.part"), KNOWN, ACKED, SYNCED, (OLD_SUSPECT,), phase
        )
        there = PARTS[part]
        there_final = RemoteFile(now.size) if FINALS[final] == "same" else FINALS[final]
        assert not isinstance(there_final, str)
        step = plan(now, known or None, there, there_final, ResumeRules(verify, trust, TAIL, identified, 0, True))
        case = (journal, source, part, final, verify, trust, identified)
        try:
            if journal == "nothing":
                assert step == (ProveFinal(AFRESH) if final == "same size" else AFRESH)
            elif is_changed(source, verify):
                assert step == AFRESH
            elif part == "missing" and journal == "publishing":
                again = Fresh(possible_repeat=True)
                assert step == (ProveFinal(again) if final == "same size" else again)
            elif part in ("missing", "empty", "longer", "no size told"):
                assert step == AFRESH
            else:
                assert there is not None
                assert there.size is not None
                expect_resume(step, min(ACKED, there.size), source, verify, trust, identified)
        except AssertionError as error:
            raise AssertionError(f"{case} -> {step}") from error


@pytest.mark.parametrize(
    ("rules", "step"),
    [
        (replace(RULES, readable=False), ResumeAt(OLD_SUSPECT.start, (), OLD_SUSPECT.start)),
        (replace(RULES, trust=True, readable=False), ResumeAt(OLD_SUSPECT.start, (), OLD_SUSPECT.start)),
        (replace(RULES, verify="full", readable=False), Fresh()),
        (replace(RULES, verify="tail", readable=False), Fresh()),
    ],
)
def test_what_cannot_be_read_back_is_sent_again(rules: ResumeRules, step: Step) -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, ACKED, SYNCED, (OLD_SUSPECT,))
    assert plan(KNOWN, known, RemoteFile(ACKED), None, rules) == step


def test_nothing_suspect_needs_no_reading() -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, ACKED, ACKED)
    assert plan(KNOWN, known, RemoteFile(ACKED), None, replace(RULES, readable=False)) == ResumeAt(ACKED, (), ACKED)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("verify", "readable"), [pair for pair in itertools.product(VERIFY, (True, False)) if pair != ("tail", False)]
)
def test_an_empty_file_whose_part_is_there_goes_on_to_be_published(phase: Phase, verify: str, readable: bool) -> None:
    empty = Fingerprint(0, 1, 2, 3)
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", empty, phase=phase)
    step = plan(empty, known, RemoteFile(0), None, replace(RULES, verify=verify, readable=readable))
    assert isinstance(step, ResumeAt)
    assert (step.offset, step.suspect) == (0, ())


def test_what_was_in_flight_at_the_loss_is_read_back_instead_of_sent_again() -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, ACKED, ACKED)
    step = plan(KNOWN, known, RemoteFile(ACKED + 80), None, replace(RULES, trust=True, beyond_bytes=200))
    assert step == ResumeAt(ACKED + 80, (Span(ACKED, ACKED + 80),), ACKED)


def test_no_more_than_can_have_been_in_flight_is_taken_up() -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, ACKED, ACKED)
    step = plan(KNOWN, known, RemoteFile(SIZE), None, replace(RULES, beyond_bytes=50))
    assert step == ResumeAt(ACKED + 50, (Span(ACKED, ACKED + 50),), ACKED)


def test_a_part_that_holds_more_than_was_acked_is_never_believed_beyond_acked() -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, 10, 10)
    step = plan(KNOWN, known, RemoteFile(SIZE), None, RULES)
    assert isinstance(step, ResumeAt)
    assert step.offset == 10


def test_a_checkpoint_beyond_the_source_does_not_resume_behind_its_end() -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, SIZE * 9, SIZE * 9)
    step = plan(KNOWN, known, RemoteFile(SIZE), None, RULES)
    assert isinstance(step, ResumeAt)
    assert (step.offset, step.synced) == (SIZE, SIZE)


def test_of_one_byte_nothing_is_gone_on_with() -> None:
    one = KNOWN._replace(size=1)
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", one)
    assert plan(one, known, RemoteFile(0), None, RULES) == AFRESH


def test_a_tail_is_no_longer_than_what_there_is_to_compare() -> None:
    known = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, TAIL - 1, TAIL - 1)
    step = plan(KNOWN, known, RemoteFile(SIZE), None, replace(RULES, verify="tail"))
    assert isinstance(step, ResumeAt)
    assert step.tail == Span(0, TAIL - 1)


# -- a file that has its name already, and whose commands are to follow

TOUCH = RemoteCommands(after_success=(RemoteCommand(Verb.DELETE, "old"),))
PUBLISHED = Checkpoint(Direction.UPLOAD, b"/d", b"/s", b"/p", KNOWN, phase=Phase.PUBLISHING, published_as=7)


@pytest.mark.parametrize(
    ("commands", "known", "left"),
    [
        (TOUCH, PUBLISHED, 7),
        (RemoteCommands(), PUBLISHED, None),
        (TOUCH, None, None),
        (TOUCH, replace(PUBLISHED, published_as=None), None),
        (TOUCH, replace(PUBLISHED, fingerprint=KNOWN._replace(mtime_ns=1)), None),
        (TOUCH, replace(PUBLISHED, fingerprint=KNOWN._replace(mtime_ns=9_000_000_000)), None),
    ],
)
def test_only_commands_are_left_of_this_very_version_that_was_published(
    commands: RemoteCommands, known: Checkpoint | None, left: int | None
) -> None:
    assert only_commands_left(UploadJob("/s", "/d", commands=commands), known, KNOWN) == left

"""The states of an outbox and of the connection: one table each, and each transition is logged once."""

from __future__ import annotations

import itertools
import logging

import pytest

from iot.spooler.control.states import (
    CONNECTION,
    TRANSITIONS,
    Causes,
    ConnectionEvent,
    OutboxEvent,
    OutboxState,
    OutboxStates,
    ServerState,
    connection_after,
    events,
    outbox_after,
)

EVERY = [Causes(*causes) for causes in itertools.product(("", "why"), repeat=len(Causes._fields))]


@pytest.mark.parametrize("state", OutboxState)
def test_what_is_no_row_of_the_outbox_table_raises(state: OutboxState) -> None:
    for event in OutboxEvent:
        if (state, event) in TRANSITIONS:
            assert outbox_after(state, event) is TRANSITIONS[state, event]
        else:
            with pytest.raises(ValueError, match=state.value):
                outbox_after(state, event)


@pytest.mark.parametrize("state", ServerState)
def test_what_is_no_row_of_the_connection_table_raises(state: ServerState) -> None:
    for event in ConnectionEvent:
        if (state, event) in CONNECTION:
            assert connection_after(state, event) is CONNECTION[state, event]
        else:
            with pytest.raises(ValueError, match=state.value):
                connection_after(state, event)


@pytest.mark.parametrize("state", OutboxState)
@pytest.mark.parametrize("causes", EVERY, ids=lambda causes: "-".join(causes).replace("why", "x"))
def test_whatever_holds_after_a_state_the_table_leads_to_the_uppermost(state: OutboxState, causes: Causes) -> None:
    after = state
    for event in events(state, causes):
        after = outbox_after(after, event)
    names = [field.replace("_", " ") for field, cause in zip(Causes._fields, causes, strict=True) if cause]
    assert after.value == (names[0] if names else "started")


def test_every_row_is_used() -> None:
    used = {(state, events(state, causes)[0]) for state in OutboxState for causes in EVERY if events(state, causes)}
    assert set(TRANSITIONS) == used


def test_a_transition_is_logged_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    states = OutboxStates()
    for wall in (1.0, 2.0, 3.0):
        states.look("box", Causes(source_failed="no such folder", suspended="outside its window"), wall)
    states.look("box", Causes(suspended="outside its window"), 4.0)
    states.look("box", Causes(suspended="a command"), 5.0)
    states.look("box", Causes(), 6.0)
    assert [record.message for record in caplog.records] == [
        'outbox source failed outbox=box reason="no such folder"',
        'outbox suspended outbox=box reason="outside its window"',
        'outbox suspended outbox=box reason="a command"',
        "outbox started outbox=box was=suspended",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO", "INFO"]


def test_since_when_is_that_of_the_state_not_of_its_reason() -> None:
    states = OutboxStates()
    assert states.look("box", Causes(suspended="one"), 10.0)
    assert states.look("box", Causes(suspended="another"), 20.0)
    assert not states.look("box", Causes(suspended="another"), 30.0)
    assert (states.of("box").since, states.of("box").reason) == (10.0, "another")


def test_errors_of_single_files_are_no_transitions(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    states = OutboxStates()
    states.look("box", Causes(destination_failed="a: denied"), 1.0)
    states.look("box", Causes(destination_failed="b: denied"), 2.0)
    assert len(caplog.records) == 1
    assert states.of("box").reason == "b: denied"

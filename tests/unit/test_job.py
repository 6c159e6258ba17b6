"""The small phrases that jobs are written in: answers meet their requests, and no refusal passes for a yes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.sftp.client.pipeline import job
from iot.sftp.client.pipeline.job import WAIT, Send
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Data, Extended, Handle, Names, Reply, Request, Status
from iot.transfer.errors import NotFound, ProtocolError, ServerRefused

OK = Status(0, "")
REPLIES: list[Reply] = [OK, Handle(b"h"), Data(memoryview(b"d")), Names(()), Attributes(), Extended(b"e")]
REQUESTS = [packets.stat(b"%d" % number) for number in range(5)]


def test_ask_waits_for_its_answer_however_long() -> None:
    work = job.ask(REQUESTS[0])
    assert next(work) == Send(REQUESTS[0])
    assert work.send([]) is WAIT
    assert work.send([]) is WAIT
    with pytest.raises(StopIteration) as end:
        work.send([(None, OK)])
    assert end.value.value is OK


@given(st.permutations(range(5)), st.lists(st.integers(0, 5), max_size=10))
def test_requests_in_one_flight_get_their_own_answers_in_any_order(order: list[int], portions: list[int]) -> None:
    work = job.ask_all(REQUESTS, in_order=True)
    sent: list[Any] = []
    command: Any = next(work)
    while len(sent) < 5:
        assert isinstance(command, Send)
        sent.append(command)
        command = work.send([])
    assert [item.request for item in sent] == REQUESTS
    assert command is WAIT
    left, result = list(order), []
    while True:
        size = portions.pop() if portions else 1
        now, left = left[:size], left[size:]
        try:
            assert work.send([(sent[number].token, Status(number, "")) for number in now]) is WAIT
        except StopIteration as end:
            result = end.value
            break
    assert [reply.code for reply in result] == [0, 1, 2, 3, 4]


def test_where_the_server_keeps_no_order_each_waits_for_the_one_before() -> None:
    work = job.ask_all(REQUESTS[:2], in_order=False)
    assert next(work) == Send(REQUESTS[0])
    assert work.send([]) is WAIT
    assert work.send([(None, Status(Code.FAILURE, ""))]) == Send(REQUESTS[1])  # refusals included
    with pytest.raises(StopIteration) as end:
        work.send([(None, OK)])
    assert [reply.code for reply in end.value.value] == [4, 0]


EXPECTATIONS: list[tuple[Callable[[Reply, str], object], type]] = [
    (job.expect_handle, Handle),
    (job.expect_attributes, Attributes),
    (job.expect_names, Names),
    (job.expect_data, Data),
]


@pytest.mark.parametrize(("expect", "kind"), EXPECTATIONS)
def test_what_is_expected_passes_and_all_else_is_an_error(expect: Callable[[Reply, str], object], kind: type) -> None:
    for reply in REPLIES:
        if isinstance(reply, kind):
            expect(reply, "doing")
        else:  # a bare OK included: it holds nothing of what was asked for
            with pytest.raises(ProtocolError, match="doing"):
                expect(reply, "doing")
    with pytest.raises(NotFound, match="doing"):
        expect(Status(Code.NO_SUCH_FILE, ""), "doing")


def test_only_an_ok_is_a_yes() -> None:
    job.expect_ok(OK, "doing")
    with pytest.raises(ServerRefused, match="doing"):
        job.expect_ok(Status(Code.FAILURE, ""), "doing")
    for reply in REPLIES[1:]:
        with pytest.raises(ProtocolError, match="doing"):
            job.expect_ok(reply, "doing")


def test_requests_tell_what_they_keep_in_flight() -> None:
    costs: list[tuple[Request, int]] = [
        (packets.write(b"h", 0, b"12345"), 5),
        (packets.read(b"h", 0, 4096), 4096),
        (packets.close(b"h"), 0),
    ]
    assert [request.cost for request, _ in costs] == [cost for _, cost in costs]

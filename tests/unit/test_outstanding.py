"""Requests that are outstanding: each answer goes to the job that asked, and counts once."""

from __future__ import annotations

from typing import Any

import pytest

from iot.sftp.client.pipeline.job import Job, Send
from iot.sftp.client.pipeline.outstanding import Outstanding, Running
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Data, Status
from iot.transfer.errors import ProtocolError
from iot.transfer.rate import FULL_PACKETS, RateLimit

OK = Status(0, "")


def running() -> Running:
    work: Any = iter(())
    return Running(Job(work), started_at=1.0)


@pytest.fixture
def pace() -> Pace:
    return Pace(2**20, 2**15, limit=RateLimit(1000.0, lambda: 0.0))


def test_requests_are_numbered_from_one_and_the_oldest_is_known(pace: Pace) -> None:
    outstanding, job = Outstanding(pace), running()
    assert (len(outstanding), outstanding.oldest) == (0, None)
    first = outstanding.ask(job, Send(packets.stat(b"a"), "token"), 5.0)
    outstanding.ask(job, Send(packets.write(b"h", 0, b"12345")), 6.0)
    assert first == packets.stat(b"a").encode(1)
    oldest = outstanding.oldest
    assert oldest is not None
    assert (oldest.owner, oldest.token, oldest.kind, oldest.cost, oldest.mark.sent_at) == (job, "token", 17, 0, 5.0)
    assert (len(outstanding), pace.in_flight) == (2, 5)
    outstanding.answered(1, OK, 7.0)
    assert outstanding.oldest is not None
    assert (len(outstanding), outstanding.oldest.cost) == (1, 5)


def test_only_a_job_that_waits_is_to_go_on(pace: Pace) -> None:
    outstanding, job = Outstanding(pace), running()
    for _ in range(3):
        outstanding.ask(job, Send(packets.stat(b"a"), "token"), 5.0)
    assert outstanding.answered(1, OK, 6.0) is None
    job.waits = True
    assert outstanding.answered(2, OK, 6.0) is job
    assert outstanding.answered(3, OK, 6.0) is None, "it is to go on already"
    assert job.news() is None, "it has not begun"
    assert job.news() == [("token", OK)] * 3
    assert job.news() == []


def test_what_a_job_that_has_ended_had_asked_for_leaves_the_window_and_reaches_nobody(pace: Pace) -> None:
    outstanding, job = Outstanding(pace), running()
    outstanding.ask(job, Send(packets.read(b"h", 0, 100)), 5.0)
    job.waits = job.ended = True
    assert outstanding.answered(1, Data(memoryview(b"x")), 6.0) is None
    assert (pace.in_flight, job.inbox) == (0, [])
    with pytest.raises(ProtocolError, match="request 1, which was never sent or is already answered"):
        outstanding.answered(1, OK, 7.0)


def test_what_is_asked_for_comes_the_other_way_and_what_is_sent_does_not(pace: Pace) -> None:
    outstanding, job = Outstanding(pace), running()
    outstanding.ask(job, Send(packets.write(b"h", 0, bytes(1448))), 5.0)
    pace.carried(1500)
    assert pace.limit.wait_s() == pytest.approx(1.5)
    outstanding.ask(job, Send(packets.read(b"h", 0, 1448)), 5.0)
    pace.carried(1600)
    assert pace.limit.wait_s() == pytest.approx((1500 + 1448 * FULL_PACKETS + 100) / 1000)

"""A corrected destination counts for what is queued, and what was begun keeps its own."""

import pytest
from unit.agent_rig import Rig

from iot.sftp.client import (
    LinkLost,
    PermissionDenied,
    configured,  # noqa: F401 - loaded when it is configured, and by an ordinary user it cannot be read then
)
from iot.spooler.agent.draining import End
from iot.spooler.status.status import snapshot


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_a_corrected_destination_counts_for_all_that_is_queued(rig, caplog):
    for number in range(600):
        rig.put(f"f{number}")
    rig.outbox["destination"] = "/wrong"
    rig.remote.slots = 2

    def stop_in_the_middle(job):
        rig.loop.stop = len(rig.remote.deliveries) >= 5

    rig.remote.before = stop_in_the_middle
    assert rig.run(drain=False) is End.STOPPED
    old = set(rig.remote.deliveries)
    flying = 600 - len(rig.left()) - len(old)
    assert flying == 0
    rig.outbox["destination"] = "/up"
    rig.loop.stop = False
    rig.remote.before = lambda job: None
    assert rig.run() is End.DRAINED
    new = set(rig.remote.deliveries) - old
    assert all(dest.startswith("/up/") for dest in new)
    assert len(new) + len(old) == 600
    assert "earlier destination" not in caplog.text  # which nothing keeps


def test_what_was_begun_keeps_its_destination_and_is_reported(rig, caplog):
    for name in ("begun", "queued"):
        rig.put(name)
    rig.outbox |= {"destination": "/wrong", "order": "name"}
    rig.retry = {"drain_attempts": 2}
    rig.remote.slots = 1

    def lose_the_answer(job):
        raise LinkLost("nobody knows whether it was published")

    rig.remote.before = lose_the_answer
    assert rig.run() is End.REMAINS
    rig.remote.before = lambda job: None
    rig.outbox["destination"] = "/up"
    seen = []
    rig.loop.report = lambda agent, **_: seen.append(
        sum(outbox["earlier_destination"] for outbox in snapshot(agent, 0.0, 0.0)["outboxes"])
    )
    assert rig.run() is End.DRAINED
    assert sorted(rig.remote.deliveries) == ["/up/queued", "/wrong/begun"]
    assert (seen[0], seen[-1]) == (1, 0)
    assert "earlier destination" in caplog.text
    assert "files=1" in caplog.text


def test_a_refused_file_follows_the_corrected_destination_and_its_part_may_go(rig):
    """What the server has answered for is not under way: nothing can stand at the old place but a part."""
    rig.put("f")
    rig.outbox["destination"] = "/wrong"
    rig.remote.refuse["/wrong/f"] = PermissionDenied("no rights")
    assert rig.run() is End.REMAINS
    assert rig.left() == ["f"]
    rig.outbox["destination"] = "/up"
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["f"]
    assert rig.remote.given_up == [(str(rig.box / "f"), "/wrong/f")]

"""A server may ask all devices to come back later or to send slower; whatever it writes, it gets no more than that."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from unit.agent_rig import Rig
from unit.inbox_lab import InboxLab

from iot.spooler.server.availability import ServerState
from iot.spooler.server.hint import MOST_BYTES, RETRY_MAX_S, Hint, Hints, hint_from
from iot.spooler.timetable.pacing import Pacer
from iot.transfer import LinkLost

HINT = ".iot-spooler.json"


class Server:
    connections = 0

    def __init__(self, *contents: bytes | None) -> None:
        self.contents = list(contents)
        self.reads = self.disconnects = 0

    def read_small(self, path: bytes, most_bytes: int, *, tick: Any = None) -> bytes | None:
        assert path == HINT.encode()
        self.reads += 1
        return self.contents.pop(0)

    def disconnect(self) -> None:
        self.disconnects += 1


def hints(server: Server, device_id: str = "device", rates: list[float | None] | None = None) -> Hints:
    return Hints(server, HINT, device_id, (rates if rates is not None else []).append)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{}", Hint()),
        (b'{"retry_after_s": 60}', Hint(60.0)),
        (b'{"retry_after_s": 0.5, "max_rate": "1 Mbit/s"}', Hint(0.5, 125_000.0)),
        (b'{"max_rate": 2000, "what_comes_later": [1]}', Hint(0.0, 2000.0)),
        (b'{"retry_after_s": null, "max_rate": null}', Hint()),
    ],
)
def test_what_is_asked_for_is_understood(content: bytes, expected: Hint) -> None:
    assert hint_from(content) == (expected, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", Hint()),
        (b"\xff\xfe", Hint()),
        (b"[" * MOST_BYTES, Hint()),
        (b"[]", Hint()),
        (b"null", Hint()),
        (b'{"a":"' + b"x" * MOST_BYTES + b'"}', Hint()),
        (b'{"retry_after_s": -1}', Hint()),
        (b'{"retry_after_s": NaN}', Hint()),
        (b'{"retry_after_s": true}', Hint()),
        (b'{"retry_after_s": "60"}', Hint()),
        (b'{"retry_after_s": {}}', Hint()),
        (b'{"retry_after_s": 1e999}', Hint(RETRY_MAX_S)),
        (b'{"retry_after_s": ' + b"9" * 4000 + b"}", Hint(RETRY_MAX_S)),
        (b'{"max_rate": "nothing"}', Hint()),
        (b'{"max_rate": 0}', Hint()),
        (b'{"max_rate": -5}', Hint()),
        (b'{"max_rate": true}', Hint()),
        (b'{"max_rate": [2000]}', Hint()),
        (b'{"max_rate": 1e999}', Hint()),
        (b'{"max_rate": "' + b"9" * 3000 + b'"}', Hint()),
        (b'{"retry_after_s": -1, "max_rate": "1 Mbit/s"}', Hint(0.0, 125_000.0)),
    ],
)
def test_what_is_hostile_is_cut_or_ignored_and_reported(content: bytes, expected: Hint) -> None:
    found, problems = hint_from(content)
    assert found == expected
    assert len(problems) == 1


def test_it_is_read_once_for_each_connection() -> None:
    server = Server(b"{}", b"{}")
    each = hints(server)
    assert [each.look(lambda: None) for _ in range(3)] == [0.0] * 3
    assert server.reads == 1
    each.connection_lost()
    each.look(lambda: None)
    assert (server.reads, server.disconnects) == (2, 0)


def test_it_is_read_again_when_a_standby_connection_has_taken_over() -> None:
    server = Server(b"{}", b'{"max_rate": 2000}')
    rates: list[float | None] = []
    each = hints(server, rates=rates)
    server.connections = 1
    each.look(lambda: None)
    assert not each.is_due
    server.connections = 2
    assert each.is_due
    each.look(lambda: None)
    assert (server.reads, rates, each.is_due) == (2, [None, 2000.0], False)


def test_devices_come_back_at_different_times_up_to_a_third_later_and_each_at_the_same() -> None:
    def wait_s(device_id: str) -> float:
        server = Server(b'{"retry_after_s": 900}')
        found = hints(server, device_id).look(lambda: None)
        assert server.disconnects == 1
        return found

    waits_s = [wait_s(f"gw-{number}") for number in range(300)]
    assert 900 <= min(waits_s) < 910
    assert 1190 < max(waits_s) <= 1200
    assert wait_s("gw-1") == wait_s("gw-1")


def test_a_rate_that_is_no_longer_asked_for_no_longer_counts() -> None:
    rates: list[float | None] = []
    each = hints(Server(b'{"max_rate": 2000}', None), rates=rates)
    each.look(lambda: None)
    each.connection_lost()
    each.look(lambda: None)
    assert rates == [2000.0, None]


def test_one_warning_for_each_content(caplog: pytest.LogCaptureFixture) -> None:
    each = hints(Server(b"x", b"x", b"y\x1b[31m", None, b"x"))
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            each.look(lambda: None)
            each.connection_lost()
    assert len(caplog.messages) == 3
    assert not any("\x1b" in message for message in caplog.messages)


def test_a_rate_is_lowered_and_never_raised() -> None:
    applied: list[float | None] = []
    pacer = Pacer((), None, 5000.0, applied.append)  # type: ignore[arg-type]
    for at_most in (2000.0, 9000.0, None):
        pacer.lower(at_most)
        pacer.look(0.0)
    assert applied == [2000.0, 5000.0]
    free = Pacer((), None, None, applied.append)  # type: ignore[arg-type]
    free.lower(9000.0)
    free.look(0.0)
    assert applied[-1] == 9000.0


class Hinted(Rig):
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "hint_file": HINT, "device_id": "gw-1"}

    def hint(self, text: str) -> Path:
        self.remote.root.mkdir(exist_ok=True)
        path = self.remote.root / HINT
        path.write_text(text)
        return path


def test_the_agent_leaves_the_server_alone_and_then_sends(tmp_path: Path) -> None:
    rig = Hinted(tmp_path)
    path = rig.hint('{"retry_after_s": 600}')
    rig.put("file")
    began = rig.loop.now
    rig.loop.stop_at = began + 500
    rig.run(drain=False)
    assert (rig.left(), rig.remote.reads, rig.remote.disconnects) == (["file"], 1, 1)
    assert rig.agent is not None
    assert rig.agent.server.state is ServerState.DISCONNECTED
    assert "the server asks to come back in" in (rig.agent.server.last_error or "")
    rig.loop.stop_at = rig.loop.now + 900
    rig.loop.pause = lambda seconds: (path.unlink(missing_ok=True), setattr(rig.loop, "now", rig.loop.now + seconds))  # type: ignore[method-assign]
    rig.run(drain=False)
    assert rig.left() == []


def test_the_agent_reads_it_again_after_a_loss_and_sends_as_slow_as_asked(tmp_path: Path) -> None:
    rig = Hinted(tmp_path)
    rig.hint('{"max_rate": "16 kbit/s"}')
    rig.remote.cannot_connect = [LinkLost("gone"), LinkLost("gone")]
    rig.put("file")
    rig.loop.stop_at = rig.loop.now + 60
    rig.run(drain=False)
    assert (rig.left(), rig.remote.reads, rig.remote.rates[-1]) == ([], 1, 2000.0)


def test_the_agent_begins_nothing_on_a_standby_connection_before_it_has_read_the_hint_there(tmp_path: Path) -> None:
    rig = Hinted(tmp_path)
    path = rig.hint("{}")
    for number in range(40):
        rig.put(f"{number:02}")
    rig.remote.slots = 1

    def take_over(job: Any) -> None:
        if len(rig.remote.deliveries) == 10:
            path.write_text('{"retry_after_s": 600}')
            rig.remote.connections = 1

    rig.remote.before = take_over
    rig.loop.stop_at = rig.loop.now + 500
    rig.run(drain=False)
    assert (len(rig.left()), rig.remote.reads) == (29, 2)  # what was in flight has ended


def test_a_device_that_only_fetches_leaves_the_server_alone_too(tmp_path: Path) -> None:
    lab = InboxLab(tmp_path)
    lab.more = {"hint_file": HINT, "device_id": "gw-1"}
    lab.put("a.conf", b"one")
    hint = tmp_path / "server" / HINT
    hint.write_text('{"retry_after_s": 600}')
    lab.loop.stop_at = lab.loop.now + 500
    lab.run(drain=False)
    assert lab.published() == {}
    hint.unlink()
    lab.loop.stop_at = lab.loop.now + 900
    lab.run(drain=False)
    assert lab.published() == {"a.conf": b"one"}


@pytest.mark.parametrize("drain", [True, False])
def test_without_the_setting_and_by_a_drain_nothing_is_read(tmp_path: Path, *, drain: bool) -> None:
    rig: Rig = Hinted(tmp_path) if drain else Rig(tmp_path)
    rig.put("file")
    rig.loop.stop_at = rig.loop.now + 60
    rig.run(drain=drain)
    assert (rig.left(), rig.remote.reads) == ([], 0)


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 256])
def test_a_name_that_no_file_has_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    from iot.spooler.config.load import BadConfiguration, load

    environment = {
        "IOT_SPOOLER_STATE_DIR": str(tmp_path), "IOT_SPOOLER_SERVER__HOST": "h", "IOT_SPOOLER_HINT_FILE": name,
        "IOT_SPOOLER_OUTBOX__0__PATH": "/o", "IOT_SPOOLER_OUTBOX__0__DESTINATION": "/d",
    }  # fmt: skip
    with pytest.raises(BadConfiguration, match="hint_file"):
        load(None, environment)


def test_after_a_wish_to_be_left_alone_it_is_read_again_before_anything_else() -> None:
    each = hints(Server(b'{"retry_after_s": 900}', b"{}"))
    assert each.look(lambda: None) > 0
    assert each.is_due
    assert each.look(lambda: None) == 0
    assert not each.is_due


def test_a_hint_may_have_as_many_bytes_as_are_read_and_no_more() -> None:
    whole = b'{"max_rate": 2000}'.ljust(MOST_BYTES)
    assert hint_from(whole) == (Hint(max_rate=2000.0), [])
    assert hint_from(whole + b" ")[1] == [f"longer than {MOST_BYTES} bytes"]

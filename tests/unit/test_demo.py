"""The pieces of `iot-spooler demo`: what it draws, what its link does, and that it tells whatever goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.spooler.config.load import load
from iot.spooler.demo import demo, link, screen
from iot.spooler.demo.link import Relay
from iot.spooler.demo.server import Writes, watched_server

MIB = 1024 * 1024


class Clock:
    """time.monotonic and time.sleep of a module."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (screen, link, demo):
        monkeypatch.setattr(module, "time", clock)
    return clock


# -- the screen


def test_elsewhere_than_on_a_terminal_progress_is_a_line_a_second(clock, capsys):
    line = screen.ProgressLine()
    assert line.due()
    clock.now += 1.5
    line.show(3, 201, MIB, 4 * MIB)
    clock.now += 0.9
    assert not line.due()
    clock.now += 0.1
    assert line.due()
    line.event("the link is cut")
    line.show(0, 201, 0, 0, last=True)
    assert capsys.readouterr().out.splitlines() == [
        "[#######.......................]   1.0 of 4.0 MiB,   3 of 201 files,  1.5 s",
        "  * the link is cut",
        "[..............................]   0.0 of 0.0 MiB,   0 of 201 files,  2.5 s",
    ]


def test_on_a_terminal_one_line_is_drawn_over_and_events_stay_above_it(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    line = screen.ProgressLine()
    line.show(1, 2, 1, 2)
    clock.now += 0.1
    assert not line.due()
    line.event("cut")
    assert line.due()  # the line that it has taken away is drawn again at once
    line.show(2, 2, 2, 2, last=True)
    shown = capsys.readouterr().out
    assert shown.count("\r\x1b[K") == 3
    assert shown.count("\n") == 2
    assert "\r\x1b[K  * cut\n\r\x1b[K[" in shown
    assert shown.endswith(" s\n")


def test_the_table_has_two_columns_and_twenty_of_what_is_wrong(capsys):
    screen.print_table([("a", "1"), ("longer", "2")], [f"file{number}" for number in range(30)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["", "  a       1", "  longer  2"]
    assert lines[3:] == [f"  WRONG file{number}" for number in range(20)]


def test_a_share_is_told_in_percent():
    assert screen.percent(1, 8) == "12.50 %"


# -- the link


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def relay(server):
    with Relay(server.getsockname()[1], rate=1e9) as relay:
        yield relay


def connected(relay: Relay, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    near = socket.create_connection((relay.host, relay.port), timeout=10)
    far, _ = server.accept()
    far.settimeout(10)
    near.sendall(b"!")  # once it has arrived, the link knows of both ends
    assert far.recv(1) == b"!"
    return near, far


def test_the_link_carries_both_ways_and_counts_what_goes_up(relay, server):
    near, far = connected(relay, server)
    with near, far:
        near.sendall(b"up!")
        assert far.recv(3, socket.MSG_WAITALL) == b"up!"
        far.sendall(b"down")
        assert near.recv(4, socket.MSG_WAITALL) == b"down"
        assert (relay.up_bytes, relay.connections) == (4, 1)


def test_where_one_side_ends_the_other_learns_it(relay, server):
    near, far = connected(relay, server)
    with far:
        near.close()
        assert far.recv(1) == b""
    near, far = connected(relay, server)
    with near:
        far.close()
        assert near.recv(1) == b""
    assert relay.connections == 2


def test_a_cut_ends_every_connection_and_new_ones_are_welcome(relay, server):
    pairs = [connected(relay, server) for _ in range(2)]
    relay.cut()
    for near, far in pairs:
        with near, far:
            assert (near.recv(1), far.recv(1)) == (b"", b"")
    near, far = connected(relay, server)
    with near, far:
        far.sendall(b"x")
        assert near.recv(1) == b"x"
    assert relay.connections == 3


def test_a_server_that_refuses_makes_the_link_refuse(relay, server):
    server.close()
    with socket.create_connection((relay.host, relay.port), timeout=10) as near:
        assert near.recv(1) == b""
    assert relay.connections == 0


def test_a_link_that_is_over_takes_no_connection(server):
    with Relay(server.getsockname()[1], rate=1e9) as relay:
        near, far = connected(relay, server)
    with near, far:
        assert near.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((relay.host, relay.port), timeout=10)


def test_the_link_holds_to_its_rate_all_connections_together(clock):
    relay = Relay(1, rate=1000.0)
    relay._listener.close()
    for _ in range(5):
        relay._count(200)
    assert clock.now == pytest.approx(101.0)
    clock.now += 60.0  # what was not used is no credit
    relay._count(500)
    assert clock.slept[-1] == pytest.approx(0.5)
    relay._count(4)  # too short to sleep for
    assert len(clock.slept) == 6
    assert relay.up_bytes == 1504


# -- the play


@pytest.fixture
def stage(tmp_path: Path) -> demo.Stage:
    for name in ("outbox", "server/upload"):
        (tmp_path / name).mkdir(parents=True)
    server, writes = watched_server(tmp_path / "server")
    return demo.Stage(tmp_path, server, writes, SimpleNamespace(up_bytes=0, connections=3, host="h", port=7))


class Agent:
    def __init__(self, *, code: int | None = None) -> None:
        self.returncode = code

    def poll(self) -> int | None:
        return self.returncode


def test_nothing_sent_for_a_minute_ends_it_as_failed(stage, clock, capsys):
    stage.agents.append(Agent())
    demo.drop(stage, "file", b"x")
    assert not demo.watch(stage, iter([]))
    assert 160 <= clock.now < 161
    assert "nothing was sent for 60 s" in capsys.readouterr().out


def test_as_long_as_bytes_move_it_is_waited_for(stage, clock, monkeypatch):
    def moving(seconds: float) -> None:
        clock.now += seconds
        stage.relay.up_bytes += clock.now < 500.0

    monkeypatch.setattr(clock, "sleep", moving)
    stage.agents.append(Agent())
    demo.drop(stage, "file", b"x")
    assert not demo.watch(stage, iter([]))
    assert 560 <= clock.now < 561


def test_an_agent_that_ends_by_itself_ends_it_as_failed(stage, clock, capsys):
    stage.agents.append(Agent(code=7))
    assert not demo.watch(stage, iter([]))
    assert "the agent ended by itself, exit code 7" in capsys.readouterr().out


def test_every_mishap_happens_once_in_its_turn_and_all_must_have_left(stage, clock, monkeypatch):
    happened = []
    plans = [demo.Mishap(10 * step, f"mishap {step}", lambda _, step=step: happened.append(step)) for step in (1, 2)]
    monkeypatch.setattr(demo, "_mishaps", lambda: list(plans))
    stage.agents.append(Agent())

    def sent(seconds: float) -> None:
        clock.now += seconds
        stage.relay.up_bytes += 1
        if stage.relay.up_bytes == 300:
            for path in stage.outbox.iterdir():
                path.unlink()

    monkeypatch.setattr(clock, "sleep", sent)
    assert demo.watch(stage, ((f"{number}", b"x") for number in range(demo.SMALL_FILES + 1)))
    assert happened == [1, 2]
    assert stage.mishaps == ["mishap 1", "mishap 2"]
    assert len(stage.expected) == demo.SMALL_FILES + 1


def test_the_plan_has_two_cuts_and_a_kill_between(stage, monkeypatch):
    done = []
    stage.relay.cut = lambda: done.append("cut")
    stage.agents.append(SimpleNamespace(kill=lambda: done.append("kill"), wait=lambda: done.append("wait")))
    monkeypatch.setattr(demo, "start_agent", lambda _: done.append("start"))
    plan = demo._mishaps()
    for mishap in plan:
        mishap.happen(stage)
    assert done == ["cut", "kill", "wait", "start", "cut"]
    assert [mishap.at_bytes for mishap in plan] == [16 * MIB, 32 * MIB, 48 * MIB]


def test_what_has_arrived_is_counted_with_its_parts(stage):
    (stage.remote / "one").write_bytes(b"123")
    (stage.remote / "two.0123abcd.part").write_bytes(b"12")
    (stage.remote / "gone").symlink_to("nowhere")
    assert demo._arrived(stage.remote) == (1, 5)


def test_the_table_tells_what_it_cost(stage):
    demo.drop(stage, "file", bytes(1000))
    stage.writes = Writes(
        payload_bytes=1100, starts=[("upload/large.bin.x.part", 0), ("upload/large.bin.x.part", 5000)]
    )
    stage.relay.up_bytes = 1500
    rows = dict(demo.rows(stage, ["file: differs"], 1.25))
    assert rows["interruptions"] == "none"
    assert rows["large.bin resumed at"] == "5,000"
    assert rows["bytes sent twice"] == "100 (10.00 %), counted at the server"
    assert rows["bytes at the socket"].startswith("1,500 (50.00 % above")
    assert rows["SHA-256"] == "1 files compared, 1 wrong"
    assert (rows["connections"], rows["seconds"]) == ("3", "1.2")


SCREEN = """\
[..............................]   0.0 of 64.2 MiB,   0 of 201 files,  0.0 s
[#######.......................]  16.0 of 64.2 MiB,  11 of 201 files,  1.8 s
  * the link is cut
[##############................]  32.0 of 64.2 MiB,  17 of 201 files,  3.5 s
  * the agent is killed (SIGKILL) and started again
[######################........]  48.0 of 64.2 MiB,  28 of 201 files,  5.3 s
  * the link is cut again
[##############################]  64.2 of 64.2 MiB, 201 of 201 files,  7.6 s

  files                 201
  bytes                 67,318,579
  interruptions         the link is cut; the agent is killed (SIGKILL) and
                        started again; the link is cut again
  connections           4
  large.bin resumed at  16,684,854, 33,297,953, 49,841,459
  bytes sent twice      0 (0.00 %), counted at the server
  bytes at the socket   67,843,794 (0.78 % above: twice, headers, logins)
  SHA-256               201 files compared, none wrong
  seconds               7.9
"""


def test_the_whole_screen_fits_80_columns(stage, clock, capsys):
    stage.expected = {str(number): "" for number in range(201)}
    stage.payload_bytes, stage.relay.up_bytes, stage.relay.connections = 67_318_579, 67_843_794, 4
    offsets = (0, 16_684_854, 33_297_953, 49_841_459)
    stage.writes = Writes(payload_bytes=67_318_579, starts=[("upload/large.bin.x.part", at) for at in offsets])
    line = screen.ProgressLine()
    shown = [(0.0, 0, 0), (1.8, 11, 16 * MIB), (3.5, 17, 32 * MIB), (5.3, 28, 48 * MIB)]
    for (seconds, files, count), mishap in zip(shown, [None, *demo._mishaps()], strict=True):
        clock.now = 100.0 + seconds
        line.show(files, 201, count, stage.payload_bytes)
        if mishap is not None:
            line.event(mishap.text)
            stage.mishaps.append(mishap.text)
    clock.now = 107.6
    line.show(201, 201, stage.payload_bytes, stage.payload_bytes, last=True)
    screen.print_table(demo.rows(stage, [], 7.9), [])
    assert capsys.readouterr().out == SCREEN
    assert max(map(len, SCREEN.splitlines())) <= 80


def test_the_agents_settings_are_right_and_hold_no_password(stage):
    text = demo._configuration(stage)
    assert stage.server.password not in text
    file = stage.folder / "demo.toml"
    file.write_text(text)
    settings = load(file, {"IOT_SPOOLER_SERVER__PASSWORD": "secret"})
    assert [outbox.path for outbox in settings.outbox] == [stage.outbox]


def test_the_end_of_the_agents_log_is_shown(tmp_path):
    log = tmp_path / "log"
    assert demo._last_lines(log) == "the agent's last lines:"
    log.write_bytes(b"\xff\n" + b"".join(b"%d\n" % number for number in range(20)))
    assert demo._last_lines(log).splitlines()[1:] == [str(number) for number in range(20)]


@pytest.mark.parametrize(("complete", "wrong", "code"), [(True, [], 0), (False, [], 1), (True, ["f: differs"], 1)])
def test_the_exit_code_tells_whether_every_byte_arrived(stage, monkeypatch, capsys, complete, wrong, code):
    monkeypatch.setattr(demo, "_stage", lambda: contextlib.nullcontext(stage))
    for name, answer in (("drop_files", None), ("start_agent", None), ("stop_agent", None), ("watch", complete)):
        monkeypatch.setattr(demo, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(demo, "differences", lambda _: wrong)
    demo.drop(stage, "file", b"x")
    assert demo.main() == code
    assert ("last lines" in capsys.readouterr().out) is (code == 1)


def test_ctrl_c_is_an_end_of_its_own(monkeypatch, capsys):
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupted)
    assert demo.main() == 130
    assert "nothing is left behind" in capsys.readouterr().err


def test_every_file_that_is_missing_left_over_or_differs_is_named(stage):
    stage.remote.mkdir(parents=True, exist_ok=True)
    for name, content in {"same": b"a", "differs": b"b", "extra": b"c"}.items():
        (stage.remote / name).write_bytes(content)
    sha256 = hashlib.sha256(b"a").hexdigest()
    stage.expected.clear()
    stage.expected.update({"same": sha256, "differs": sha256, "gone": sha256})
    assert demo.differences(stage) == ["differs: differs", "extra: left over", "gone: missing"]

"""What `iot-spooler demo` sets up, starts and takes away again, and how its server counts what arrives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from unit.test_demo import Agent, Clock

from iot.spooler.demo import demo, link, screen
from iot.spooler.demo.link import Relay
from iot.spooler.demo.server import Writes, _watch, watched_server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (screen, demo):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def stage(tmp_path: Path) -> demo.Stage:
    for name in ("outbox", "server/upload"):
        (tmp_path / name).mkdir(parents=True)
    server, writes = watched_server(tmp_path / "server")
    relay: Any = SimpleNamespace(up_bytes=0, connections=3, host="h", port=7)
    return demo.Stage(tmp_path, server, writes, relay)


# -- the files


def test_half_of_the_small_files_are_there_when_it_begins_and_the_others_come(
    stage: demo.Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "LARGE_BYTES", 3 << 20)
    rest = demo.drop_files(stage)
    assert capsys.readouterr().out == "100 small files and one of 3 MiB are in the outbox, more will come\n"
    sizes = {path.name: path.stat().st_size for path in stage.outbox.iterdir()}
    assert sizes.pop("large.bin") == 3 << 20
    assert sorted(sizes) == [f"small-{number:03d}.dat" for number in range(100)]
    assert (sizes["small-000.dat"], sizes["small-001.dat"]) == (0, 1)
    for name, content in rest:
        demo.drop(stage, name, content)
    sizes = {path.name: path.stat().st_size for path in stage.outbox.iterdir()}
    assert len(sizes) == 201
    assert stage.payload_bytes == sum(sizes.values())
    assert set(stage.expected) == set(sizes)
    assert max(size for name, size in sizes.items() if name != "large.bin") < demo.SMALL_MAX_BYTES
    assert not (stage.folder / "fresh").exists()


# -- the agent


def test_the_agent_gets_its_password_in_the_environment_and_nothing_of_ours(
    stage: demo.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IOT_SPOOLER_CONFIG", "SFTP_HOST", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "ours")
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: started.append((command, how)) or len(started))
    stage.log.write_bytes(b"earlier\n")
    demo.start_agent(stage)
    ((command, how),) = started
    config = stage.folder / "demo.toml"
    assert command == [sys.executable, "-m", "iot.spooler", "run", "--config", str(config)]
    assert config.read_text() == demo._configuration(stage)
    given = {name: value for name, value in how["env"].items() if os.environ.get(name) != value}
    assert given == {
        "IOT_SPOOLER_SERVER__PASSWORD": stage.server.password,
        "RUNTIME_DIRECTORY": str(stage.folder / "runtime"),
    }
    assert not {"IOT_SPOOLER_CONFIG", "SFTP_HOST", "NOTIFY_SOCKET"} & set(how["env"])
    assert how["stdout"].name == how["stderr"].name == str(stage.log)
    assert stage.log.read_bytes() == b"earlier\n"
    assert stage.agents == [1]


class Stubborn:
    """An agent; code: with which it has ended, if it has. hangs: it does not react to a signal."""

    def __init__(self, code: int | None = None, *, hangs: bool = False) -> None:
        self.code, self.hangs, self.done = code, hangs, list[str]()

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.done.append("terminate")

    def kill(self) -> None:
        self.done.append("kill")

    def wait(self, limit_s: float | None = None) -> None:
        self.done.append(f"wait {limit_s}")
        if self.hangs and limit_s is not None:
            raise subprocess.TimeoutExpired("agent", limit_s)


def test_agents_that_still_run_are_stopped_and_killed_where_they_do_not_react(stage: demo.Stage) -> None:
    agents = [Stubborn(0), Stubborn(hangs=True), Stubborn()]
    stage.agents[:] = agents  # type: ignore[assignment]
    demo.stop_agent(stage)
    assert [agent.done for agent in agents] == [
        [],
        ["terminate", "wait 6.0", "kill", "wait None"],
        ["terminate", "wait 6.0"],
    ]


# -- the stage


def test_the_stage_is_taken_away_whatever_happens_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[demo.Stage] = []
    monkeypatch.setattr(demo, "stop_agent", stopped.append)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, demo._stage() as here:  # noqa: PT012
        assert sorted(path.name for path in here.folder.iterdir()) == ["outbox", "runtime", "server"]
        assert (here.outbox, here.remote) == (here.folder / "outbox", here.folder / "server" / "upload")
        with socket.create_connection((here.relay.host, here.relay.port), timeout=10) as near:
            assert near.recv(4) == b"SSH-"
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert stopped == [here]
    assert not here.folder.exists()


def test_what_is_compared_is_what_lies_there_once_the_agent_has_ended(
    stage: demo.Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    class Here:
        def __enter__(self) -> demo.Stage:
            return stage

        def __exit__(self, *_: object) -> None:
            done.append("left")

    monkeypatch.setattr(demo, "_stage", Here)
    for name, answer in (("drop_files", None), ("start_agent", None), ("watch", True), ("stop_agent", None)):
        monkeypatch.setattr(demo, name, lambda *_, name=name, answer=answer: done.append(name) or answer)
    monkeypatch.setattr(demo, "differences", lambda _: done.append("differences") or [])
    demo.drop(stage, "file", b"x")
    assert demo.run_demo() == 0
    assert done == ["drop_files", "start_agent", "watch", "stop_agent", "differences", "left"]
    told = capsys.readouterr().out
    assert "SHA-256               1 files compared, none wrong" in told
    assert "last lines" not in told


# -- while it goes on


def test_progress_is_drawn_when_it_is_due_and_at_the_end(stage: demo.Stage, capsys: pytest.CaptureFixture[str]) -> None:
    (stage.remote / "one").write_bytes(bytes(1 << 20))
    stage.payload_bytes = 2 << 20
    draw = SimpleNamespace(due=lambda: False, show=lambda *given, last: shown.append((*given, last)))
    shown: list[Any] = []
    demo._show(stage, draw)  # type: ignore[arg-type]
    assert shown == []
    demo._show(stage, draw, last=True)  # type: ignore[arg-type]
    draw.due = lambda: True
    demo._show(stage, draw)  # type: ignore[arg-type]
    assert shown == [(1, 201, 1 << 20, 2 << 20, True), (1, 201, 1 << 20, 2 << 20, False)]


@pytest.mark.parametrize(("mishaps", "complete"), [([], True), ([demo.Mishap(10**9, "too late", print)], False)])
def test_all_has_arrived_once_the_outbox_is_empty_and_every_mishap_has_happened(
    stage: demo.Stage,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mishaps: list[demo.Mishap],
    complete: bool,
) -> None:
    monkeypatch.setattr(demo, "_mishaps", lambda: list(mishaps))
    monkeypatch.setattr(demo, "SMALL_FILES", 2)
    stage.agents.append(Agent())  # type: ignore[arg-type]
    (stage.outbox / ".hidden").touch()

    def taken(seconds: float) -> None:
        clock.now += seconds
        for path in stage.outbox.glob("f*"):
            path.rename(stage.remote / path.name)

    monkeypatch.setattr(clock, "sleep", taken)
    assert demo.watch(stage, ((f"f{number}", b"x") for number in range(3))) is complete
    assert sorted(path.name for path in stage.remote.iterdir()) == ["f0", "f1", "f2"]
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"[{'#' * 30}]")
    assert clock.now == pytest.approx(100.0 + 3 * demo.TICK_S)


# -- what is counted


def test_what_arrives_is_counted_and_where_each_handle_began() -> None:
    writes, answered = Writes(), list[int]()
    session = SimpleNamespace(
        on_write=lambda message: answered.append(message.packet.tell()),
        file=lambda message: SimpleNamespace(path=b"/root/upload/" + message.get_binary()),
    )
    _watch(session, writes, "/root")
    for handle, offset, length in ((b"a", 0, 10), (b"a", 10, 5), (b"b", 7, 5)):
        message = paramiko.Message()
        message.add_string(handle)
        message.add_int64(offset)
        message.add_int(length)
        message.rewind()
        session.on_write(message)
    assert (writes.payload_bytes, writes.starts) == (20, [("upload/a", 0), ("upload/b", 7)])
    assert answered == [0, 0, 0]  # the session reads the message from its begin


def test_only_a_part_of_the_file_that_did_not_begin_anew_was_resumed() -> None:
    starts = [("up/f.x.part", 0), ("up/f.x.part", 1), ("up/f", 5), ("up/fg.x.part", 7), ("up/f.y.part", 9)]
    assert Writes(starts=starts).resumed("up/f") == [1, 9]


# -- the screen and the link


def test_a_value_that_is_too_long_goes_on_below_itself(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table([("name", "word " * 18)], [])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "  name  " + " ".join(["word"] * 14),
        " " * 8 + "word word word word",
    ]


def test_all_that_is_shown_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    out = SimpleNamespace(write=len, flush=lambda: flushed.append("now"), isatty=lambda: True)
    monkeypatch.setattr(sys, "stdout", out)
    line = screen.ProgressLine()
    line.show(0, 1, 0, 1)
    line.event("cut")
    assert len(flushed) == 2


def test_a_cut_loses_little_that_the_sender_believes_sent() -> None:
    with Relay(1, rate=1.0) as relay:
        held = relay._listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert held <= 2 * link.BUFFER_BYTES  # the kernel doubles it for its own


def test_the_link_holds_nothing_back_to_send_it_with_what_comes_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Relay(server.getsockname()[1], rate=1e9) as relay:
        near = socket.create_connection((relay.host, relay.port), timeout=10)
        far, _ = server.accept()
        with near, far:
            near.sendall(b"!")
            assert far.recv(1) == b"!"  # now the link knows of both ends
            options = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in relay._open]
            assert [bool(option) for option in options] == [True, True]

"""The process: notify socket, signals, lock, exit codes; each a real `iot-spooler run`."""

import argparse
import contextlib
import fcntl
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.guard import Guard
from servers.misbehaving_answers import LateClose
from servers.quirks import Misbehaving

from iot.sftp.client import EmbeddedServer
from iot.spooler.agent.draining import End
from iot.spooler.cli import commands
from iot.spooler.process import service

COMMAND = [sys.executable, "-m", "iot.spooler"]


class Setup:
    def __init__(self, base, server):
        self.base = base
        self.box = base / "box"
        self.box.mkdir()
        self.config = base / "spooler.toml"
        self.config.write_text(
            f'state_dir = "{base}/state"\ndevice_id = "gw-1"\n[server]\nhost = "{server.host}"\nport = {server.port}\n'
            f'user = "{server.user}"\npassword = "{server.password}"\nhost_key = "{server.host_key}"\n'
            f'[[outbox]]\npath = "{self.box}"\ndestination = "/up"\nsettle_s = 0.2\n'
        )
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(base / "notify"))
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NOTIFY_SOCKET": str(base / "notify"),
        }

    @contextlib.contextmanager
    def running(self, **environment):
        process = subprocess.Popen(
            [*COMMAND, "run", "--config", str(self.config)],
            env={**self.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        guard = Guard(process.pid)
        try:
            yield process
        finally:
            guard.dismiss()
            process.kill()
            process.communicate()

    def command(self, *arguments):
        return subprocess.run(
            [*COMMAND, *arguments, "--config", str(self.config)],
            env={**self.environment, "NOTIFY_SOCKET": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def hear(self, words, seconds=20.0):
        """All messages up to the first that has these words."""
        heard = []
        deadline = time.monotonic() + seconds
        while not any(words in message for message in heard):
            self.notify.settimeout(max(deadline - time.monotonic(), 0.01))
            heard.append(self.notify.recv(4096).decode())
        return heard


@pytest.fixture
def setup(tmp_path):
    (tmp_path / "remote").mkdir()
    with EmbeddedServer(tmp_path / "remote") as server:
        setup = Setup(tmp_path, server)
        yield setup
        setup.notify.close()


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come in time"
        time.sleep(0.05)


def test_ready_status_watchdog_reload_and_stop_are_told(setup):
    with setup.running(WATCHDOG_USEC="1000000") as process:
        setup.hear("READY=1")
        setup.hear("WATCHDOG=1")
        (setup.box / "f").write_bytes(b"x")
        wait_for(lambda: (setup.base / "remote/up/f").exists() and not (setup.box / "f").exists())
        setup.hear("STATUS=connected, 0 files to send")
        process.send_signal(signal.SIGHUP)
        (reloading,) = setup.hear("RELOADING=1")[-1:]
        assert "MONOTONIC_USEC=" in reloading
        setup.hear("READY=1")
        process.terminate()
        assert process.wait(5) == 0
        setup.hear("STOPPING=1")


def test_signs_of_life_and_sigterm_while_every_slot_waits_for_one_long_answer(setup):
    """The server is slow, the loop is not: the watchdog must not fire, and nobody waits for the server to stop."""
    with Misbehaving(setup.base / "slow", LateClose, delay_s=60.0) as server:
        settings = setup.config.read_text().replace("[server]", "[server]\nslots = 1", 1)
        old = re.search(r"port = .*\nuser = .*\npassword = .*\nhost_key = .*\n", settings).group()
        new = f'port = {server.port}\nuser = "{server.user}"\npassword = "{server.password}"\n'
        setup.config.write_text(settings.replace(old, new + f'host_key = "{server.host_key}"\n'))
        for number in range(4):
            (setup.box / str(number)).write_bytes(b"x")
        with setup.running(WATCHDOG_USEC="1000000") as process:
            wait_for(lambda: server.hits)
            while_stalled = time.monotonic()
            for _ in range(6):
                setup.hear("WATCHDOG=1", seconds=1.0)
            (setup.box / "later").write_bytes(b"x")
            setup.hear("5 files to send", seconds=10.0)
            assert time.monotonic() - while_stalled > 1
            process.terminate()
            assert process.wait(5) == 0


def test_wrong_settings_are_refused_on_reload_and_the_old_ones_go_on(setup):
    with setup.running() as process:
        setup.hear("READY=1")
        good = setup.config.read_text()
        assert '"/up"' in good
        setup.config.write_text(good.replace('"/up"', '"/elsewhere"') + "nonsense = 1\n")
        process.send_signal(signal.SIGHUP)
        setup.hear("RELOADING=1")
        setup.hear("READY=1")
        (setup.box / "f").write_bytes(b"x")
        wait_for((setup.base / "remote/up/f").exists)
        assert not (setup.base / "remote/elsewhere").exists()


def test_second_agent_on_one_state_directory_is_kept_out(setup):
    with setup.running() as process:
        setup.hear("READY=1")
        second = setup.command("run", "--drain")
        assert second.returncode == 75
        assert str(process.pid) in second.stderr
        assert "Traceback" not in second.stderr


def test_drain_status_and_flush(setup):
    (setup.box / "esc\x1b[31m").write_bytes(b"x")
    drained = setup.command("run", "--drain")
    assert (drained.returncode, os.listdir(setup.base / "remote/up")) == (0, ["esc\x1b[31m"])
    assert "\x1b" not in drained.stderr
    assert 'delivered path="esc\\x1b[31m"' in drained.stderr
    status = json.loads(setup.command("status", "--json").stdout)
    assert (status["running"], status["backlog"]["files"], status["delivered"]["files"]) == (False, 0, 1)
    assert "not running" in setup.command("status").stdout
    assert setup.command("flush").returncode == 1
    with setup.running() as process:
        setup.hear("READY=1")
        assert setup.command("flush").returncode == 0
        assert str(process.pid) in setup.command("status").stdout


def test_wrong_password_ends_a_drain_with_75_and_one_try(setup):
    (setup.box / "f").write_bytes(b"x")
    setup.environment["IOT_SPOOLER_SERVER__PASSWORD"] = "hunter2-wrong"
    drained = setup.command("run", "--drain")
    assert drained.returncode == 75
    assert drained.stderr.count("link held") == 1
    assert "hunter2" not in drained.stderr
    assert (setup.box / "f").exists()


def test_the_command_starts_light(setup):
    code = "import sys, iot.spooler.cli.main; print({'pydantic', 'paramiko', 'sqlite3'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=setup.environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_destination_corrected_by_reload_counts_for_what_is_queued_and_not_for_what_is_begun(setup):
    """One file is in flight at a server that does not answer, the others wait for its only slot."""
    with Misbehaving(setup.base / "slow", LateClose, delay_s=8.0) as server:
        settings = setup.config.read_text().replace("[server]", "[server]\nslots = 1", 1)
        old = re.search(r"port = .*\nuser = .*\npassword = .*\nhost_key = .*\n", settings).group()
        new = f'port = {server.port}\nuser = "{server.user}"\npassword = "{server.password}"\n'
        settings = settings.replace(old, new + f'host_key = "{server.host_key}"\n')
        setup.config.write_text(settings.replace('destination = "/up"', 'destination = "/wrong"'))
        for number in range(3):
            (setup.box / str(number)).write_bytes(b"x")
        with setup.running() as process:
            wait_for(lambda: server.hits, seconds=60)
            setup.hear("3 files to send", seconds=60)
            setup.config.write_text(settings)
            process.send_signal(signal.SIGHUP)
            setup.hear("RELOADING=1", seconds=60)
            server.active = False  # from now on it answers at once
            wait_for(lambda: not list(setup.box.iterdir()), seconds=90)
            process.terminate()
            assert process.wait(60) == 0
            log = process.stderr.read()
        roots = {path.name: path.parent.name for path in (setup.base / "slow").rglob("*") if path.is_file()}
    assert {name: roots[name] for name in "012"} == {"0": "wrong", "1": "up", "2": "up"}
    assert re.search(r"earlier destination.* files=1", log)


@contextlib.contextmanager
def start_held_up(setup):
    """An agent whose lock names it and whose journal is not open yet, until the block ends."""
    state = setup.base / "state"
    state.mkdir()
    folder = os.open(state, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # as a command does that opens the journal at the same time
    with setup.running() as process:
        wait_for(lambda: (state / "lock").exists() and (state / "lock").read_text() == f"{process.pid}\n")

        def go_on():
            os.close(folder)
            setup.hear("READY=1")

        yield process, go_on


@pytest.mark.parametrize("early", [signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_before_the_agent_is_ready_does_not_end_it(early, setup):
    """`flush` sends one to the process that the lock names, an operator to the one that was just started."""
    with start_held_up(setup) as (process, go_on):
        process.send_signal(early)
        go_on()
        (setup.box / "f").write_bytes(b"x")
        wait_for((setup.base / "remote/up/f").exists)
        process.terminate()
        assert process.wait(20) == 0


def test_a_reload_that_is_asked_for_before_the_agent_is_ready_is_not_forgotten(setup):
    with start_held_up(setup) as (process, go_on):
        setup.config.write_text(setup.config.read_text().replace('"/up"', '"/corrected"'))
        process.send_signal(signal.SIGHUP)
        go_on()
        (setup.box / "f").write_bytes(b"x")
        wait_for(lambda: not (setup.box / "f").exists())
        assert os.listdir(setup.base / "remote") == ["corrected"]


def test_the_collector_of_a_running_service_looks_rarely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At its usual thresholds, it takes a tenth of the CPU of small files."""
    before = gc.get_threshold()
    seen: list[tuple[int, int, int]] = []

    def run(*_: object, **__: object) -> End:
        seen.append(gc.get_threshold())
        return End.DRAINED

    monkeypatch.setattr(service, "run", run)
    monkeypatch.setattr(commands, "log_to_stderr", lambda _: None)
    try:
        assert commands.run(argparse.Namespace(config=tmp_path / "none", drain=True)) == 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    assert seen == [commands.RARELY]

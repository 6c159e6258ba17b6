"""start, stop, suspend, resume and flush on a real agent, and clients of its socket that mean harm."""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import time

import pytest
from unit.other_user import in_child
from unit.test_service import Setup, wait_for

from iot.sftp.client import EmbeddedServer


@pytest.fixture
def setup(tmp_path):
    (tmp_path / "remote").mkdir()
    (tmp_path / "run").mkdir(mode=0o755)
    with EmbeddedServer(tmp_path / "remote") as server:
        setup = Setup(tmp_path, server)
        setup.environment["RUNTIME_DIRECTORY"] = str(tmp_path / "run")
        yield setup
        setup.notify.close()


def state_of(setup) -> str:
    (outbox,) = json.loads(setup.command("status", "--json").stdout)["outboxes"]
    return outbox["state"]


def connect(setup) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    folder = os.open(setup.base / "run", os.O_PATH | os.O_DIRECTORY)
    try:
        client.connect(f"/proc/self/fd/{folder}/control.sock")
    finally:
        os.close(folder)
    client.settimeout(20)
    return client


def send_without_end(client: socket.socket, size: int) -> None:
    for _ in range(size >> 20):
        client.sendall(bytes(1 << 20))


def answered(setup) -> bool:
    return setup.command("resume").stdout == "box: started already\n"


def delivered(setup, name: str):
    return (setup.base / "remote/up" / name).exists


def test_what_is_suspended_or_stopped_stays_so_over_a_restart_until_it_is_undone(setup):
    with setup.running():
        setup.hear("READY=1")
        assert setup.command("suspend", "box").stdout == "box: suspended\n"
        (setup.box / "f").write_bytes(b"x")
        setup.hear("1 files to send, 1 bytes, suspended: box")  # found
        assert state_of(setup) == "suspended"
        refused = setup.command("flush", "box")
        assert refused.stdout == "box: stays suspended; `iot-spooler resume` ends that\n"
        assert refused.returncode == 1
    with setup.running() as process:
        setup.hear("READY=1")
        setup.hear("suspended: box")
        assert setup.command("stop").stdout == "box: stopped\n"
        assert setup.command("resume", "box").stdout == "box: stays stopped; `iot-spooler start` ends that\n"
        (setup.box / "g").write_bytes(b"y")
        wait_for(lambda: state_of(setup) == "stopped")
        process.terminate()
        process.communicate(timeout=20)
    with setup.running():
        setup.hear("READY=1")
        setup.hear("1 files to send, 1 bytes, stopped: box")  # g was never looked at
        assert not (setup.base / "remote/up").exists()
        assert setup.command("start").stdout == "box: started\n"
        wait_for(delivered(setup, "f"))
        wait_for(delivered(setup, "g"))


def test_enabled_false_wins_and_an_unknown_name_changes_nothing(setup):
    with open(setup.config, "a", encoding="utf-8") as file:
        file.write(f'[[outbox]]\nname = "off"\npath = "{setup.base}/off"\ndestination = "/off"\nenabled = false\n')
    with setup.running():
        setup.hear("READY=1")
        refused = setup.command("start", "off", "box")
        assert refused.returncode == 1
        assert "outbox off is disabled in the configuration (enabled = false)" in refused.stderr
        refused = setup.command("stop", "box", "bxo")
        assert "there is no outbox bxo; the outboxes are: box" in refused.stderr
        assert answered(setup)


@pytest.mark.parametrize("command", ["start", "stop", "suspend", "resume", "flush"])
def test_without_an_agent_a_command_says_so(setup, command):
    ended = setup.command(command)
    assert ended.returncode == 1
    assert "no agent is running" in ended.stderr


def test_a_drain_does_not_touch_what_is_stopped_and_says_that_it_remains(setup):
    with setup.running():
        setup.hear("READY=1")
        assert setup.command("stop").returncode == 0
    (setup.box / "f").write_bytes(b"x")
    drained = setup.command("run", "--drain")
    assert drained.returncode == 75
    assert "unread_outboxes=1" in drained.stderr
    assert (setup.box / "f").exists()


def test_hostile_clients_cost_nothing_and_are_dropped(setup):
    with setup.running() as process:
        setup.hear("READY=1")
        garbage = connect(setup)
        garbage.sendall(b"\xff\x00 no json\n")
        assert b'"error"' in garbage.recv(4096)
        nested = connect(setup)
        nested.sendall(b"[" * 60000 + b"\n")
        assert b'"error"' in nested.recv(4096)
        wrong = connect(setup)
        wrong.sendall(b'{"command": ["stop"], "outboxes": {"a": 1}}\n')
        assert b"no such command" in wrong.recv(4096)
        endless = connect(setup)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_without_end(endless, 1 << 30)
        silent = connect(setup)
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - began < 10
        deaf = connect(setup)
        deaf.sendall(b'{"command": "resume"}\n')  # and never reads
        many = [connect(setup) for _ in range(1000)]
        assert answered(setup)
        assert process.poll() is None
        with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
            assert int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") < 200 << 20
        for client in (garbage, nested, wrong, endless, silent, deaf, *many):
            client.close()


@pytest.mark.needs("root")
def test_another_user_may_not_unless_it_is_in_the_group(setup):
    nobody = pwd.getpwnam("nobody")
    open_up(setup.base)

    def asks(groups: list[int], expected: bool) -> None:
        def ask() -> None:
            os.setgroups(groups)
            os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
            os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20)
                    os.chdir(setup.base / "run")
                    client.connect("control.sock")
                    client.sendall(b'{"command": "resume"}\n')
                    assert b'"order": "started"' in client.recv(4096)
                    assert expected
            except PermissionError:
                assert not expected

        in_child(ask)

    with setup.running():
        setup.hear("READY=1")
        assert stat.S_IMODE(os.stat(setup.base / "run/control.sock").st_mode) == 0o600
        asks([1], expected=False)
    with open(setup.config, "a", encoding="utf-8") as file:
        file.write('[control]\ngroup = "daemon"\n')
    with setup.running():
        setup.hear("READY=1")
        assert stat.S_IMODE(os.stat(setup.base / "run/control.sock").st_mode) == 0o660
        asks([], expected=False)
        asks([1], expected=True)


def open_up(folder) -> None:
    """Others may pass through the folders above, which are pytest's own."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o011)

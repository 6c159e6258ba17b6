"""What `status` shows: in 80 columns, no older than a second while something moves, and nothing written at rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ordinary_user import AGENT
from unit.agent_rig import Rig

from iot.spooler.agent.agent import Agent
from iot.spooler.cli.main import main
from iot.spooler.outbox.intake import Clocks
from iot.spooler.state.running import announced, find, status_path
from iot.spooler.status import status as status_module
from iot.spooler.status.screen import table
from iot.spooler.status.status import MEMORY_EVERY_S, Rate, StatusFile, _replaced

OUTBOX: dict[str, Any] = {
    "name": "measurements",
    "path": "/var/spool/iot/outbox",
    "state": "started",
    "state_reason": None,
    "state_since": None,
    "source_failures": 0,
    "files": 12,
    "bytes": 9 << 20,
    "watched": 1,
    "open_for_writing": 1,
    "without_marker": 0,
    "completeness": "known",
    "scanned_often_because": None,
    "events_lost": 0,
    "waiting": 0,
    "kept": 0,
    "earlier_destination": 0,
    "held": 0,
    "dropped": 0,
    "dropped_bytes": 0,
    "over_budget": None,
    "hooks": 0,
    "never_sent": {"symlink": 3},
    "shares_destination_with": [],
    "waits_because": None,
    "error": None,
}
CONTENT: dict[str, Any] = {
    "device_id": "gw",
    "pid": 4711,
    "connection": {
        "state": "connected",
        "server": "sftp.example.com:22",
        "failures": 0,
        "next_attempt_at": None,
        "error": None,
        "to_do": None,
    },
    "backlog": {"files": 12, "bytes": 9 << 20, "oldest_at": 877, "left_s": 75},
    "current": [
        {
            "path": "large.bin",
            "bytes": 8 << 20,
            "done_bytes": 3 << 20,
            "percent": 37,
            "rate_bytes_per_s": 102_400,
            "left_s": 51,
        },
        {"path": "small.bin", "bytes": 10, "done_bytes": 0, "percent": 0, "rate_bytes_per_s": 0, "left_s": None},
    ],
    "in_flight": 2,
    "delivered": {"files": 301, "bytes": 1},
    "quarantined": 2,
    "last_error": None,
    "rate_bytes_per_s": 122_880,
    "outboxes": [OUTBOX, {**OUTBOX, "name": "old", "state": "disabled"}],
    "updated_at": 999,
}
SCREEN = """\
agent       running, process 4711, updated 1 s ago
connection  connected sftp.example.com:22
backlog     12 files, 9.0 MiB, oldest 2 min 3 s, 1 min 15 s left
rate        120.0 KiB/s, 2 in flight
delivered   301 files since start, 2 in quarantine
last error  none
sending     large.bin: 37 %, 3.0 MiB of 8.0 MiB, 100.0 KiB/s, 51 s left
sending     small.bin: 0 %, 0 B of 10 B
outbox      measurements: started, 12 files, 9.0 MiB, 1 not ready (1 open for
            writing), 0 waiting, 0 kept, 0 held, completeness known, 3 never
            sent (symlink: 3)
outbox      old: disabled"""


def test_the_screen_fits_80_columns() -> None:
    assert table(CONTENT, running=True, wall=1000.0) == SCREEN
    assert all(len(line) <= 80 for line in SCREEN.splitlines())


def test_files_without_a_marker_are_not_ready() -> None:
    outbox = {**OUTBOX, "without_marker": 2}
    told = " ".join(table({**CONTENT, "outboxes": [outbox]}, running=True, wall=1000.0).split())
    assert "3 not ready (1 open for writing, 2 without a marker), 0 waiting" in told


@pytest.mark.parametrize(
    ("more", "running", "wall", "words"),
    [
        ({}, True, 1013.9, "running, process 4711, updated 14 s ago"),
        ({}, True, 1119.0, "running, process 4711, nothing has changed for 2 min 0 s"),
        ({"ended": True}, False, 1059.0, "not running, ended 1 min 0 s ago; these are its last figures"),
        ({}, False, 1059.0, "DEAD: process 4711 has ended without a word; these figures are 1 min 0 s old"),
    ],
)
def test_it_says_how_fresh_it_is_and_whether_the_agent_lives(
    more: dict[str, Any], running: bool, wall: float, words: str
) -> None:
    first = " ".join(table({**CONTENT, **more}, running=running, wall=wall).partition("connection")[0].split())
    assert first == f"agent {words}"


def test_the_server_that_is_not_used_has_a_line_of_its_own() -> None:
    other = {"server": "a:22", "table": "server", "next_attempt_at": 1030, "error": "no answer"}
    connection = {**CONTENT["connection"], "server": "b:22", "other_server": other}
    told = table({**CONTENT, "connection": connection}, running=True, wall=1000.0).splitlines()
    assert told[1:3] == [
        "connection  connected b:22",
        "not used    [server] a:22, asked in 30 s (no answer)",
    ]
    quiet = {**connection, "other_server": {**other, "table": "fallback", "next_attempt_at": None, "error": None}}
    told = table({**CONTENT, "connection": quiet}, running=True, wall=1000.0).splitlines()
    assert told[2] == "not used    [fallback] a:22"


def test_a_hold_is_shown_with_what_to_do() -> None:
    connection = {**CONTENT["connection"], "state": "held", "to_do": "mend it", "next_attempt_at": 1060}
    told = table({**CONTENT, "connection": connection}, running=True, wall=1000.0).splitlines()
    assert told[1:3] == ["connection  held sftp.example.com:22, next attempt in 1 min 0 s", "to do       mend it"]


def test_a_rate_is_that_of_the_last_seconds_and_survives_a_fresh_start() -> None:
    rate = Rate()
    assert rate.add(0.0, 1000) == 0
    assert rate.add(2.0, 3000) == 1000
    assert rate.add(20.0, 3000) == 0
    assert not rate.moves
    assert rate.add(21.0, 0) == 0  # it began anew


@pytest.mark.parametrize(("in_flight", "left_s"), [(1, 4), (0, None)])
def test_what_waits_for_something_else_than_the_line_has_no_time_left(
    tmp_path: Path, in_flight: int, left_s: int | None
) -> None:
    status = StatusFile(tmp_path / "status.json", Clocks(lambda: 0.0, lambda: 0.0), in_memory=True)
    for now, confirmed_bytes in ((0.0, 0), (2.0, 2000)):
        content: dict[str, Any] = {"backlog": {"files": 1, "bytes": 4000}, "current": [], "in_flight": in_flight}
        status._add_rates(content, now, confirmed_bytes)
    assert (content["rate_bytes_per_s"], content["backlog"]["left_s"]) == (1000, left_s)


def test_each_file_that_is_sent_has_a_rate_and_a_time_left_of_its_own(tmp_path: Path) -> None:
    status = StatusFile(tmp_path / "status.json", Clocks(lambda: 0.0, lambda: 0.0), in_memory=True)

    def told(now: float, **done: int) -> list[tuple[int, int | None]]:
        current: list[dict[str, Any]] = [
            {"id": ord(name), "bytes": 10_000, "done_bytes": each and 1000 + each, "sent_bytes": each}
            for name, each in done.items()  # each was resumed at 1000
        ]
        content: dict[str, Any] = {"backlog": {"files": 2, "bytes": 1}, "current": current, "in_flight": len(done)}
        status._add_rates(content, now, 0)
        assert not any({"id", "sent_bytes"} & file.keys() for file in current)  # no matter of who reads the file
        return [(file["rate_bytes_per_s"], file["left_s"]) for file in current]

    assert told(0.0, a=0, b=5000) == [(0, None), (0, None)]
    assert told(2.0, a=4000, b=5000) == [(2000, 2), (0, None)]
    assert told(4.0, b=5100) == [(25, 156)]
    assert told(4.5, a=8000) == [(0, None)]  # it was away, so it begins anew


class Watched:
    """A rig whose status goes to a file, and how often that is written."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = Rig(base)
        self.path = base / "status.json"
        clocks = Clocks(self.rig.loop.clock, self.rig.loop.wall)
        self.file = StatusFile(self.path, clocks, in_memory=True)
        self.written_at: list[float] = []
        real = status_module._replaced

        def replaced(path: Path, content: dict[str, Any]) -> bool:
            self.written_at.append(self.rig.loop.now)
            return real(path, content)

        monkeypatch.setattr(status_module, "_replaced", replaced)
        self.rig.loop.report = lambda agent, *, changed, final=False: self.file.report(
            agent, changed=changed, final=final
        )
        pause = self.rig.loop.pause
        self.rig.loop.pause = lambda seconds: pause(min(seconds, self.file.due_s()))


def test_an_agent_at_rest_writes_no_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch)
    watched.rig.put("f", b"x" * 1_000_000)
    began = watched.rig.loop.now
    watched.rig.loop.stop_at = began + 3600
    watched.rig.run(drain=False)
    assert watched.rig.arrived() == ["f"]
    assert [at for at in watched.written_at if began + 5 < at] == []
    assert len(watched.written_at) >= 1
    content = json.loads(watched.path.read_text())
    assert (content["backlog"]["files"], content["delivered"]["files"]) == (0, 1)
    assert watched.path.stat().st_mode & 0o777 == 0o644


def test_while_something_moves_it_is_written_every_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, monkeypatch)
    watched.rig.outbox["schedule"] = ["Mon 00:00-00:01"]
    watched.rig.put("still to be sent")

    def report(agent: Agent, *, changed: bool, final: bool = False) -> None:
        for _ in range(100 if final else 0):  # 10 s
            watched.rig.loop.now += 0.1
            agent.totals.bytes += 1000
            watched.file.report(agent, changed=True)

    watched.rig.loop.report = report
    watched.rig.run()
    gaps = [later - earlier for earlier, later in zip(watched.written_at, watched.written_at[1:], strict=False)]
    assert max(gaps) <= 1.0 + 1e-6
    assert min(gaps) >= MEMORY_EVERY_S - 1e-6
    assert json.loads(watched.path.read_text())["rate_bytes_per_s"] == pytest.approx(10_000, rel=0.15)


@pytest.mark.parametrize(("tries", "times"), [(1, "1 time"), (64, "64 times")])
def test_a_source_that_fails_shows_for_how_long_and_how_often_it_was_tried(tries: int, times: str) -> None:
    failed = {"state": "source failed", "state_since": 1000.0, "source_failures": tries, "error": "no such folder"}
    content = {**CONTENT, "outboxes": [{**OUTBOX, **failed, "state_reason": "no such folder"}]}
    shown = " ".join(table(content, running=True, wall=1120.0).split())
    assert f"measurements: source failed for 2 min 0 s, tried {times}, 12 files" in shown
    assert shown.count("no such folder") == 1


def test_a_suspended_outbox_says_why_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch)
    watched.rig.outbox["schedule"] = ["Mon 00:00-00:01"]
    watched.rig.put("f")
    watched.rig.run()
    shown = " ".join(table(json.loads(watched.path.read_text()), running=True, wall=0.0).split())
    assert "suspended" in shown
    assert shown.count("outside its window") == 1


def test_a_disabled_outbox_is_listed_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch)
    watched.rig.outbox["enabled"] = False
    watched.rig.run()
    (outbox,) = json.loads(watched.path.read_text())["outboxes"]
    assert (outbox["name"], outbox["state"]) == ("box", "disabled")
    assert set(outbox) == set(OUTBOX)


def test_the_status_lies_in_memory_wherever_there_is_a_place(tmp_path: Path) -> None:
    config, state = tmp_path / "c.toml", tmp_path / "state"
    unit = {"RUNTIME_DIRECTORY": str(tmp_path)}
    user = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert status_path(config, state, unit) == (tmp_path / "status.json", True)
    one, in_memory = status_path(config, state, user)
    assert in_memory
    assert one.parent == tmp_path / "iot-spooler"
    assert status_path(tmp_path / "d.toml", state, user)[0] != one
    nowhere = {"XDG_RUNTIME_DIR": "/proc/nowhere"}
    assert status_path(config, state, nowhere) == (state / "status.json", False)


def test_an_agent_that_dies_leaves_a_note_by_which_its_status_is_found(tmp_path: Path) -> None:
    config, state, environment = tmp_path / "c.toml", tmp_path / "state", {"XDG_RUNTIME_DIR": str(tmp_path)}
    state.mkdir()
    status, _ = status_path(config, state, environment)
    pid = os.fork()
    if pid == 0:
        with announced(config, state, status, environment):
            os._exit(9)
    os.waitpid(pid, 0)
    assert find(config, environment) is None
    found = find(config, environment, dead=True)
    assert found is not None
    assert (found.pid, found.status) == (pid, str(status))
    state.rmdir()
    with announced(tmp_path / "d.toml", tmp_path, status, environment):
        assert find(config, environment, dead=True) is None  # swept: nobody will ask for it


@pytest.mark.needs("root")
def test_any_user_sees_the_status_and_the_configuration_need_not_be_readable(tmp_path: Path) -> None:
    runtime, state, config = tmp_path / "run", tmp_path / "private" / "state", tmp_path / "c.toml"
    for folder in (runtime, state.parent, state):
        folder.mkdir()
    state.parent.chmod(0o700)
    config.write_text("secret")
    config.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(runtime), "PYTHONPATH": os.pathsep.join(sys.path)}
    (runtime / "status.json").write_text(json.dumps(CONTENT))
    with announced(config, state, runtime / "status.json", environment):
        command = [sys.executable, "-c", STATUS.format(user=AGENT), "--config", str(config)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "connection  connected sftp.example.com:22" in done.stdout


STATUS = """
import contextlib, io, os, sys
from iot.spooler.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["status", *sys.argv[1:]])  # loads all while this user may still read it
os.setuid({user})
sys.exit(main(["status", *sys.argv[1:]]))
"""


def test_errors_are_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--config", str(tmp_path / "none.toml")]) == 78
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "error": f"{tmp_path}/none.toml: cannot be read: No such file or directory; name the right one: --config FILE",
        "exit": 78,
    }


def test_status_loads_neither_the_agent_nor_ssh() -> None:
    code = (
        "import sys\nfrom iot.spooler.cli.main import main\nmain(['status', '--config', '/none'])\n"
        "print({'paramiko', 'iot.spooler.agent.agent'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


@pytest.mark.needs("root")
def test_a_folder_of_another_user_is_not_written_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There a name may lead anywhere: root would write where a producer wants."""
    environment = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", AGENT, AGENT)
    status, in_memory = status_path(None, tmp_path / "state", environment)
    assert (status, in_memory) == (tmp_path / "state" / "status.json", False)
    with announced(None, tmp_path / "state", status, environment):
        assert os.listdir(tmp_path / "run") == []
    assert "cannot write the note of the agent's files" in caplog.text


@pytest.mark.needs("root")
def test_a_link_of_another_user_is_not_followed_to_a_folder_of_ours(tmp_path: Path) -> None:
    """As with XDG_RUNTIME_DIR of the user who has become root by sudo -E."""
    theirs, ours = tmp_path / "user", tmp_path / "etc"
    ours.mkdir()
    theirs.mkdir()
    (theirs / "iot-spooler").symlink_to(ours)
    for path in (theirs, theirs / "iot-spooler"):
        os.chown(path, AGENT, AGENT, follow_symlinks=False)
    environment = {"XDG_RUNTIME_DIR": str(theirs)}
    status, in_memory = status_path(None, tmp_path / "state", environment)
    assert (status, in_memory) == (tmp_path / "state" / "status.json", False)
    with announced(None, tmp_path / "state", status, environment):
        assert os.listdir(ours) == []


def test_a_link_in_place_of_the_new_status_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "status.json.new").symlink_to("precious")
    assert _replaced(tmp_path / "status.json", {"pid": 1})
    assert (tmp_path / "precious").read_text() == "content"
    assert not (tmp_path / "status.json").is_symlink()


def test_of_the_files_in_flight_the_largest_are_listed_first(tmp_path: Path) -> None:
    rig, seen = Rig(tmp_path), []
    for number, size in enumerate([5, 2000, 0, 900, 30, 1200]):
        rig.put(f"f{number}", bytes(size))

    def look(_: object) -> None:
        assert rig.agent is not None
        seen.append([row["bytes"] for row in status_module.snapshot(rig.agent, 1e9, 1e3)["current"]])

    rig.remote.before = look
    rig.run()
    assert seen[0] == [2000, 1200, 900, 30, 5, 0]

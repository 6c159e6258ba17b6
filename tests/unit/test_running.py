"""The note of where a running agent's files are: found by the commands, believed only from those who may write it."""

from __future__ import annotations

import argparse
import json
import os
import socket
from pathlib import Path

import pytest

from iot.spooler.cli.agent_of import told
from iot.spooler.config.load import BadConfiguration
from iot.spooler.state import running
from iot.spooler.state.running import Running, announced, find


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(running, "RUN", folder)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "spooler.toml"
    file.touch()
    (tmp_path / "state").mkdir()
    return file


def note(tmp_path: Path, config: Path, **environment: str):
    return announced(config, tmp_path / "state", tmp_path / "status.json", environment)


def test_a_running_agent_is_found_by_its_configuration_and_a_stopped_one_is_not(tmp_path, config):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    link = tmp_path / "link.toml"
    link.symlink_to(config)
    with note(tmp_path, config, **runtime):
        expected = Running(os.getpid(), str(config), str(tmp_path / "state"), str(tmp_path / "status.json"))
        assert find(config, runtime) == find(link, runtime) == expected
        assert find(tmp_path / "other.toml", runtime) is None
        assert find(None, runtime) is None
        (file,) = (tmp_path / "runtime").iterdir()
        assert file.stat().st_mode & 0o777 == 0o644
    assert list((tmp_path / "runtime").iterdir()) == []
    assert find(config, runtime) is None


def test_two_agents_of_one_configuration_have_a_note_each(tmp_path, config):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    with note(tmp_path, config, **runtime), announced(config, tmp_path, tmp_path / "s", runtime):
        assert len(list((tmp_path / "runtime").iterdir())) == 2


def test_a_longer_note_of_an_earlier_agent_is_replaced_whole(tmp_path, config):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    with note(tmp_path, config, **runtime):
        (file,) = (tmp_path / "runtime").iterdir()
    file.write_text("x" * 5000)
    file.chmod(0o600)
    with note(tmp_path, config, **runtime):
        assert json.loads(file.read_text())["pid"] == os.getpid()
        assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("environment", "user", "folder"),
    [
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/5"}, 0, "/run/a"),
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, 5, "/run/user/5/iot-spooler"),
        ({"RUNTIME_DIRECTORY": ""}, 5, None),
    ],
)
def test_where_the_note_lies(monkeypatch, environment, user, folder):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = running._own_folder(environment)
    assert (str(found) if found else None) == folder


def test_root_without_a_runtime_directory_has_one_of_the_system(monkeypatch, run_folder):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert running._own_folder({}) == run_folder / "iot-spooler"


def test_without_a_folder_there_is_no_note_and_the_agent_runs(tmp_path, config, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 5)
    with announced(config, tmp_path / "state", tmp_path / "status", {}):
        assert find(config, {}) is None


def test_a_note_that_cannot_be_written_is_told_and_the_agent_runs(tmp_path, config, caplog):
    with note(tmp_path, config, RUNTIME_DIRECTORY=str(tmp_path / "missing" / "runtime")):
        pass
    assert "cannot write the note of the agent's files" in caplog.text
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    with note(tmp_path, config, **runtime), note(tmp_path, config, **runtime):  # the second has no lock
        assert find(config, runtime) is not None
    assert caplog.text.count("cannot write the note") == 2


def test_a_note_is_looked_for_where_services_of_this_name_and_root_also_users_keep_them(monkeypatch, run_folder):
    for name in ("iot-spooler-2", "iot-spooler-1", "other", "user/5/iot-spooler", "user/6/other"):
        (run_folder / name).mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 5)
    mine = {"XDG_RUNTIME_DIR": str(run_folder / "user/5")}
    names = [folder.relative_to(run_folder).as_posix() for folder in running._folders(mine)]
    assert names == ["user/5/iot-spooler", "iot-spooler", "iot-spooler-1", "iot-spooler-2"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    names = [folder.relative_to(run_folder).as_posix() for folder in running._folders({})]
    assert names == ["iot-spooler", "iot-spooler-1", "iot-spooler-2", "user/5/iot-spooler"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"[]", b"\xff", b"{}", b'{"pid": "x", "config": "", "state_dir": "/", "status": ""}',
     b'{"pid": 1, "config": "CONFIG", "state_dir": "/nonexistent", "status": ""}'],
)  # fmt: skip
def test_a_note_that_makes_no_sense_is_none(tmp_path, config, damage):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    with note(tmp_path, config, **runtime):
        (file,) = (tmp_path / "runtime").iterdir()
        file.write_bytes(damage.replace(b"CONFIG", bytes(config)))
        assert find(config, runtime) is None


def test_a_note_of_another_user_than_the_state_directorys_is_not_believed(tmp_path, config, monkeypatch):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    real_stat, real_fstat = os.stat, os.fstat
    with note(tmp_path, config, **runtime):
        (file,) = (tmp_path / "runtime").iterdir()

        def owned(user: int, state_user: int) -> Running | None:
            def with_user(status: os.stat_result, number: int) -> os.stat_result:
                return os.stat_result((*status[:4], number, *status[5:]))

            with monkeypatch.context() as patches:
                patches.setattr(os, "fstat", lambda file: with_user(real_fstat(file), user))
                patches.setattr(os, "stat", lambda path, **how: with_user(real_stat(path, **how), state_user))
                return running._read(file)

        assert owned(0, 990) is not None
        assert owned(990, 990) is not None
        assert owned(991, 990) is None


def test_what_is_no_file_or_not_locked_is_no_note(tmp_path):
    assert running._read(tmp_path / "missing") is None
    os.mkfifo(tmp_path / "pipe")
    assert running._read(tmp_path / "pipe") is None
    (tmp_path / "dead").write_text(json.dumps(Running(1, "c", str(tmp_path), "s")._asdict()))
    assert running._read(tmp_path / "dead") is None


def listening(path: Path) -> socket.socket:
    """By the folder's descriptor, since the path of a socket may have 107 bytes at most."""
    listener, folder = socket.socket(socket.AF_UNIX), os.open(path.parent, os.O_PATH)
    listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    listener.listen()
    return listener


def test_sockets_of_agents_that_were_killed_go_at_the_next_start_of_any_and_nothing_else_does(tmp_path, config):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    others = {name: tmp_path / name for name in ("killed", "living", "starting")}
    for state in others.values():
        state.mkdir()
    folder = tmp_path / "runtime"
    marks = {name: running._mark(config, state) for name, state in others.items()}
    with announced(config, others["starting"], tmp_path / "s", runtime):
        with announced(config, others["killed"], tmp_path / "s", runtime):
            left = (folder / f"agent-{marks['killed']}.json").read_bytes()
        (folder / f"agent-{marks['killed']}.json").write_bytes(left)
        for mark in (marks["killed"], marks["starting"], "without-a-note"):
            listening(folder / f"control-{mark}.sock").close()
        (folder / "control-file.sock").touch()
        with listening(folder / f"control-{marks['living']}.sock"), note(tmp_path, config, **runtime):
            found = {path.name for path in folder.iterdir()}
    assert {name for name in found if name.startswith("control")} == {
        f"control-{marks['starting']}.sock",  # it has its note, and will listen in a moment
        f"control-{marks['living']}.sock",
        "control-file.sock",
    }
    assert f"agent-{marks['killed']}.json" in found


def test_a_dead_agent_is_told_of_though_its_configuration_can_no_longer_be_read(tmp_path, config, monkeypatch):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    monkeypatch.setenv("RUNTIME_DIRECTORY", runtime["RUNTIME_DIRECTORY"])
    monkeypatch.delenv("IOT_SPOOLER_STATE_DIR", raising=False)
    status = tmp_path / "runtime" / "status.json"
    with announced(config, tmp_path / "state", status, runtime):
        (path,) = status.parent.iterdir()
        left = path.read_bytes()
    path.write_bytes(left)
    status.write_text('{"pid": 1, "updated_at": 2}')
    config.write_text("broken [")
    config.chmod(0o600)
    assert told(argparse.Namespace(config=config)) == ({"pid": 1, "updated_at": 2}, False)
    path.unlink()
    with pytest.raises(BadConfiguration):
        told(argparse.Namespace(config=config))


@pytest.mark.parametrize("elsewhere", ["above", "zebra"])
def test_of_a_dead_agent_without_a_state_directory_the_note_goes_and_a_status_that_lies_beside_it(
    tmp_path, config, elsewhere
):
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}
    folder, other = tmp_path / "runtime", tmp_path / elsewhere
    other.mkdir()
    statuses = {"gone": folder / "status-1.json", "gone too": other / "status.json", "there": folder / "status-2.json"}
    for name, status in statuses.items():
        (tmp_path / name).mkdir()
        with announced(config, tmp_path / name, status, runtime):
            status.write_text("{}")
            path = folder / f"agent-{running._mark(config, tmp_path / name)}.json"
            left = path.read_bytes()
        path.write_bytes(left)
    for name in ("gone", "gone too"):
        (tmp_path / name).rmdir()
    kept = folder / f"agent-{running._mark(config, tmp_path / 'there')}.json"
    with note(tmp_path, config, **runtime):
        own = folder / f"agent-{running._mark(config, tmp_path / 'state')}.json"
        assert set(folder.iterdir()) == {kept, own, statuses["there"]}
        assert statuses["gone too"].exists()

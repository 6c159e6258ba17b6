"""The folder of an agent's note, status and socket: whose it must be, what is left in it, and what is taken away."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.test_running import listening

from iot.spooler.state import running
from iot.spooler.state.running import Running, announced, control_of, control_path, find, status_path, wake_path

ME = os.geteuid()


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(running, "RUN", folder)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def unit(tmp_path: Path) -> dict[str, str]:
    return {"RUNTIME_DIRECTORY": str(tmp_path / "runtime")}


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "user").mkdir()
    return {"XDG_RUNTIME_DIR": str(tmp_path / "user")}


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Paths that belong to another user."""
    paths: set[str] = set()
    real_stat, real_lstat = os.stat, os.lstat

    def of(status: os.stat_result, path: object) -> os.stat_result:
        return os.stat_result((*status[:4], 4711, *status[5:])) if str(path) in paths else status

    monkeypatch.setattr(os, "stat", lambda path, **how: of(real_stat(path, **how), path))
    monkeypatch.setattr(os, "lstat", lambda path, **how: of(real_lstat(path, **how), path))
    return paths


# -- where things lie


def test_a_unit_has_its_folder_for_itself_and_agents_of_a_user_share_one(tmp_path, state, unit, user):
    config, other = tmp_path / "a.toml", tmp_path / "b.toml"
    assert status_path(config, state, unit) == (tmp_path / "runtime/status.json", True)
    assert control_path(config, state, unit) == tmp_path / "runtime/control.sock"
    assert wake_path(unit) == tmp_path / "runtime/wake"
    statuses = {status_path(which, where, user)[0] for which in (config, other, None) for where in (state, tmp_path)}
    assert len(statuses) == 6
    one, in_memory = status_path(config, state, user)
    assert (one.parent, in_memory) == (tmp_path / "user/iot-spooler", True)
    assert one.name.startswith("status-")
    assert control_of(one) == one.with_name(one.name.replace("status", "control").replace(".json", ".sock"))
    assert control_path(config, state, user) == control_of(one)


def test_without_a_folder_of_its_own_the_status_lies_in_the_state_directory(state, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert status_path(None, state, {}) == (state / "status.json", False)
    assert wake_path({}) is None


@pytest.mark.parametrize("whose", ["runtime", "."])
def test_a_folder_that_is_anothers_or_lies_below_anothers_is_not_used(tmp_path, state, unit, foreign, caplog, whose):
    (tmp_path / "runtime").mkdir()
    foreign.add(str(tmp_path / whose))
    assert status_path(None, state, unit) == (state / "status.json", False)
    assert wake_path(unit) is None
    with announced(None, state, state / "status.json", unit):
        assert list((tmp_path / "runtime").iterdir()) == []
    assert "this user cannot make it, or it belongs to another" in caplog.text


def test_a_link_on_the_way_counts_as_what_it_leads_to(tmp_path, state, foreign):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    unit = {"RUNTIME_DIRECTORY": str(tmp_path / "link")}
    assert status_path(None, state, unit)[1]
    foreign.add(str(tmp_path / "real"))
    assert not status_path(None, state, unit)[1]
    foreign.clear()
    foreign.add(str(tmp_path / "link"))
    assert not status_path(None, state, unit)[1]


def test_a_folder_that_may_not_be_written_is_not_used(tmp_path, state, unit, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
    assert not status_path(None, state, unit)[1]
    assert (tmp_path / "runtime").stat().st_mode & 0o777 == 0o755


# -- the note


def test_a_note_says_all_that_the_commands_need_and_goes_with_what_lies_beside_it(tmp_path, state, user):
    config, folder = tmp_path / "a.toml", tmp_path / "user/iot-spooler"
    status = status_path(config, state, user)[0]
    open_before = len(os.listdir("/proc/self/fd"))
    with announced(config, state, status, user):
        [note] = folder.glob("agent-*.json")
        status.write_text("{}")
        assert json.loads(note.read_text()) == {
            "pid": os.getpid(),
            "config": str(config),
            "state_dir": str(state),
            "status": str(status),
        }
        assert note.read_bytes().endswith(b"\n")
        assert running._is_held(note)
    assert list(folder.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("place", ["runtime", "state"])
def test_a_status_in_a_folder_of_its_own_stays(tmp_path, state, unit, place):
    (tmp_path / "runtime").mkdir()
    status = tmp_path / place / "status.json"
    status.write_text("{}")
    with announced(None, state, status, unit):
        pass
    assert status.exists()


def test_an_agent_without_a_file_is_found_by_its_state_directory(tmp_path, state, user):
    with announced(None, state, tmp_path / "s1", user), announced(None, tmp_path, tmp_path / "s2", user):
        assert find(None, user, state_dir=state).status == str(tmp_path / "s1")
        assert find(None, user, state_dir=tmp_path).status == str(tmp_path / "s2")
        assert find(None, user, state_dir=tmp_path / "other") is None
        assert find(tmp_path / "a.toml", user, state_dir=state) is None


def left_by_a_dead_agent(config: Path | None, state: Path, status: Path, environment: dict[str, str]) -> Path:
    folder = running._own_folder(environment)
    path = folder / f"agent-{running._mark(config, state)}.json"
    with announced(config, state, status, environment):
        content = path.read_bytes()
    path.write_bytes(content)
    return path


def test_a_living_agent_and_one_that_died_are_told_apart(tmp_path, state, user):
    config = tmp_path / "a.toml"
    left_by_a_dead_agent(config, state, tmp_path / "status", user)
    assert find(config, user) is None
    assert find(config, user, dead=True) == Running(os.getpid(), str(config), str(state), str(tmp_path / "status"))
    with announced(config, state, tmp_path / "status", user):
        assert find(config, user) is not None
        assert find(config, user, dead=True) is None


def test_what_reads_a_note_leaves_nothing_open(tmp_path, state, user):
    config = tmp_path / "a.toml"
    note = left_by_a_dead_agent(config, state, tmp_path / "status", user)
    open_before = len(os.listdir("/proc/self/fd"))
    for act in (lambda: find(config, user, dead=True), lambda: find(config, user), lambda: running._is_held(note)):
        act()
        assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_dead_agent_whose_state_directory_is_gone_is_told_of_as_far_as_the_folder_is_ours(tmp_path, state, user):
    config = tmp_path / "a.toml"
    note = left_by_a_dead_agent(config, state, tmp_path / "status", user)
    state.rmdir()
    assert find(config, user, dead=True) is not None
    with note.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert find(config, user) is None  # of a living one it would have to be seen


def test_a_state_directory_that_may_not_be_looked_at_is_taken_for_the_folders_owner(tmp_path, state, user, monkeypatch):
    config, real = tmp_path / "a.toml", os.stat

    def stat(path: object, **how: object) -> os.stat_result:
        if str(path) == str(state):
            raise PermissionError(13, "Permission denied")
        return real(path, **how)

    with announced(config, state, tmp_path / "status", user):
        monkeypatch.setattr(os, "stat", stat)
        assert find(config, user) is not None


# -- what is swept away


def test_a_socket_at_which_somebody_listens_stays_and_a_deserted_one_goes(tmp_path, user):
    folder = tmp_path / "user/iot-spooler"
    folder.mkdir()
    with listening(folder / "control-living.sock"):
        listening(folder / "control-dead.sock").close()
        listening(folder / "control-held.sock").close()
        (folder / "control-file.sock").write_text("")
        with (folder / "agent-held.json").open("w") as note:
            fcntl.flock(note, fcntl.LOCK_EX)
            open_before = len(os.listdir("/proc/self/fd"))
            running._sweep(folder)
            assert len(os.listdir("/proc/self/fd")) == open_before
        names = {path.name for path in folder.iterdir()}
    assert names == {"control-living.sock", "control-held.sock", "control-file.sock", "agent-held.json"}


def test_the_note_of_a_dead_agent_goes_only_if_its_state_directory_is_gone(tmp_path, state, user):
    folder = tmp_path / "user/iot-spooler"
    gone = tmp_path / "gone"
    gone.mkdir()
    kept = left_by_a_dead_agent(None, state, folder / "status-1.json", user)
    left_by_a_dead_agent(None, gone, folder / "status-2.json", user)
    for name in ("status-1.json", "status-2.json"):
        (folder / name).write_text("{}")
    gone.rmdir()
    running._sweep(folder)
    assert {path.name for path in folder.iterdir()} == {kept.name, "status-1.json"}

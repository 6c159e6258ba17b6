"""Against a real server: each file arrives, or a list that names it as dropped, whenever the agent is killed."""

from __future__ import annotations

import json
from pathlib import Path

from servers.device import Device
from servers.openssh import OpenSSH

BUDGET = "settle_s = 0\n[outbox.budget]\nmax_files = {}\n"
FILES = 400
KEPT = 40
KILLS = 4


def lists(server: OpenSSH) -> list[str]:
    """Paths in all lists that have arrived."""
    files = (server.root / "up").glob("box-dropped-*.jsonl")
    return [json.loads(line)["path"] for file in files for line in file.read_text().splitlines()]


def delivered(server: OpenSSH) -> list[str]:
    return [path.name for path in (server.root / "up").iterdir() if not path.name.startswith("box-dropped-")]


def test_what_does_not_fit_is_dropped_and_listed_and_the_rest_is_delivered(tmp_path: Path, sshd: OpenSSH) -> None:
    with Device(tmp_path / "device", sshd, outbox=BUDGET.format(3)) as device:
        for number in range(10):
            device.put(f"f{number}", b"content %d" % number)
        device.drain()
        assert list(device.box.iterdir()) == []
        assert list((device.state / "dropped" / "box").iterdir()) == []
    assert sorted([*delivered(sshd), *lists(sshd)]) == [f"f{number}" for number in range(10)]
    assert len(lists(sshd)) == 7


def test_no_file_goes_without_a_trace_whenever_the_agent_is_killed(tmp_path: Path, sshd: OpenSSH) -> None:
    names = [f"{round_}-{number:03}" for round_ in range(KILLS) for number in range(FILES)]
    with Device(tmp_path / "device", sshd, outbox=BUDGET.format(KEPT)) as device:
        device.log.touch()
        for round_ in range(KILLS):
            for number in range(FILES):
                device.put(f"{round_}-{number:03}", b"%d" % number)
            before = device.told().count("dropped ")
            agent = device.start()
            device.wait(lambda before=before: device.told().count("dropped ") > before + round_)  # type: ignore[misc]  # noqa: B023
            agent.kill()
            agent.wait()
        device.drain()
        assert list(device.box.iterdir()) == []
    arrived, dropped = delivered(sshd), lists(sshd)
    assert set(arrived) | set(dropped) == set(names)
    assert len(arrived) >= KEPT
    assert dropped


def test_a_list_never_replaces_that_of_another_device(tmp_path: Path, sshd: OpenSSH) -> None:
    names = [f"{name}{number}" for name in ("one", "two") for number in range(3)]
    for name in ("one", "two"):
        with Device(tmp_path / name, sshd, outbox=BUDGET.format(1)) as device:
            for number in range(3):
                device.put(f"{name}{number}", b"x")
            device.drain()
    assert sorted([*delivered(sshd), *lists(sshd)]) == names

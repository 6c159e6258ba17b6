"""`iot-spooler quarantine list|retry|drop`: what an operator sees and does."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quarantined import quarantined
from unit.removing import taken

from iot.spooler.cli.main import main
from iot.spooler.leaving import release
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import listed
from iot.spooler.leaving.removal import Item
from iot.transfer import Fingerprint

LONG = "PermissionDenied: '/upload/gw/a.csv': the server refuses to make the folder " + "and says why " * 8
SCREEN = """\
{first}  2026-11-28 19:20:11    1.0 KiB
    {box}/a.csv
    8 attempts to /upload/a.csv: PermissionDenied: '/upload/gw/a.csv': the
    server refuses to make the folder and says why and says why and says why and
    says why and says why and says why and says why and says why
{second}  2026-11-28 19:20:12        1 B
    "{box}/sub/b\\x1b.csv"
    8 attempts to /upload/sub/b: no reason is known
"""


class Device:
    def __init__(self, base: Path) -> None:
        self.box, self.state, self.config = base / "box", base / "state", base / "spooler.toml"
        self.box.mkdir()
        self.state.mkdir()
        self.config.write_text(
            f'state_dir = "{self.state}"\n[server]\nhost = "127.0.0.1"\nport = 1\nuser = "u"\npassword = "hunter2"\n'
            f'host_key = "SHA256:{"A" * 43}"\n[[outbox]]\npath = "{self.box}"\ndestination = "/upload"\n'
        )
        self.config.chmod(0o600)

    def give_up(self, name: str, content: bytes, **about: Any) -> None:
        path = self.box / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        item = Item(1, os.fsencode(name), Fingerprint.of(path.stat()), {"attempts": 8, "reason": "", **about})
        folder = os.open(self.box, os.O_RDONLY)
        assert taken(folder, [item], Quarantine(self.state / "quarantine", self.box)) == ([1], [])
        os.close(folder)

    def give_up_two(self) -> None:
        self.give_up("a.csv", b"x" * 1024, at="2026-11-28T19:20:11+00:00", destination="/upload/a.csv", reason=LONG)
        self.give_up("sub/b\x1b.csv", b"b", at="2026-11-28T19:20:12+00:00", destination="/upload/sub/b")

    def ids(self) -> list[str]:
        return [file.id for file in listed([self.state / "quarantine"])[0]]

    def paths(self) -> list[str]:
        return [file.path for file in quarantined(self.state / "quarantine")]

    def run(self, *words: str) -> int:
        return main(["quarantine", *words, "--config", str(self.config)])


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_list_shows_file_and_reason_in_80_columns(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    assert device.run("list") == 0
    assert capfd.readouterr().out == "the quarantine is empty\n"
    device.give_up_two()
    first, second = device.ids()
    assert device.run("list") == 0
    assert capfd.readouterr().out == SCREEN.format(first=first, second=second, box=device.box)
    assert device.run("list", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert [(file["id"], file["path"], file["bytes"]) for file in told] == [
        (first, "a.csv", 1024),
        (second, "sub/b\x1b.csv", 1),
    ]


def test_a_file_that_never_had_a_name_on_the_server_is_shown_without_one(
    device: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    device.give_up("a", b"x", attempts=1, destination="", reason="no rule matches this file")
    assert device.run("list") == 0
    assert "\n    1 attempt: no rule matches this file\n" in capfd.readouterr().out


@pytest.mark.parametrize("pattern", ["a.csv", "*.csv", "re:[ab].csv", "{box}/a*", "{id}"])
def test_a_pattern_chooses_by_path_below_the_outbox_by_whole_path_or_by_id(
    device: Device, pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    device.give_up("a.csv", b"1")
    device.give_up("sub/other.txt", b"2")
    (number,) = [file.id for file in listed([device.state / "quarantine"])[0] if file.path == "a.csv"]
    assert device.run("retry", pattern.format(box=device.box, id=number)) == 0
    assert capfd.readouterr().out.startswith("released 1 file")
    assert (device.box / "a.csv").read_bytes() == b"1"
    assert device.paths() == ["sub/other.txt"]


def test_what_matches_nothing_is_said_and_what_cannot_match_is_wrong_usage(
    device: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    device.give_up("a.csv", b"1")
    for does in ("list", "drop"):
        assert device.run(does, "b*") == 0
        assert capfd.readouterr().out == "nothing there matches b*\n"
    with pytest.raises(SystemExit) as ended:
        device.run("drop", "re:[", "--yes")
    assert ended.value.code == 64
    assert "invalid pattern value: 're:['" in capfd.readouterr().err
    assert device.paths() == ["a.csv"]


def test_drop_removes_what_matches_and_nothing_else(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    device.give_up_two()
    assert device.run("drop", "sub/*", "--yes") == 0
    assert capfd.readouterr().out == "dropped 1 file\n"
    assert device.paths() == ["a.csv"]
    assert device.run("drop", "--yes") == 0
    assert list((device.state / "quarantine").iterdir()) == []
    assert list(device.box.rglob("*.csv")) == []


def test_drop_without_a_terminal_asks_for_yes(device: Device) -> None:
    device.give_up("a.csv", b"1")
    command = [sys.executable, "-m", "iot.spooler", "quarantine", "drop", "--config", str(device.config)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "iot-spooler: drop one file, 1 B: nobody to ask here; --yes does it\n"
    assert device.paths() == ["a.csv"]


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", ["a.csv"]), (b"\n", ["a.csv"]), (b"y\n", [])])
def test_drop_asks_on_a_terminal(device: Device, answer: bytes, left: list[str]) -> None:
    device.give_up("a.csv", b"1")
    command = [sys.executable, "-m", "iot.spooler", "quarantine", "drop", "--config", str(device.config)]
    here, there = pty.openpty()
    with subprocess.Popen(command, stdin=there, stdout=subprocess.PIPE, stderr=there) as process:
        os.write(here, answer)
        told, _ = process.communicate(timeout=60)
    os.close(here)
    os.close(there)
    assert b"for ever? They were never delivered. [y/N]" in told
    assert (process.returncode == 0) is (not left)
    assert device.paths() == left


@pytest.mark.parametrize("words", [("retry",), ("drop", "--yes")])
def test_an_agent_that_hangs_in_the_middle_of_a_move_is_not_waited_for_without_end(
    device: Device, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(release, "LOCK_WAIT_S", 0.1)
    device.give_up_two()
    agent = os.open(device.state / "quarantine", os.O_RDONLY)
    fcntl.flock(agent, fcntl.LOCK_SH)
    try:
        assert device.run(*words) == 75
    finally:
        os.close(agent)
    assert "try again later" in capfd.readouterr().err
    assert len(device.paths()) == 2
    assert device.run(*words) == 0


def test_a_file_on_its_way_back_is_not_dropped(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    """Its copy lies in the outbox already: a retry was interrupted."""
    device.give_up("a.csv", b"1")
    (record,) = (device.state / "quarantine").glob("*.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "leaving": True}))
    assert device.run("drop", "--yes") == 1
    assert capfd.readouterr().out == "dropped 0 files, 1 could not be (see above)\n"
    assert device.paths() == ["a.csv"]


def test_a_drop_that_dies_before_the_record_went_leaves_nothing_that_retry_stumbles_over(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.give_up("a.csv", b"1")

    def die(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("iot.spooler.leaving.release.drop_record", die)
        with pytest.raises(KeyboardInterrupt):
            device.run("drop", "--yes")
    assert device.run("list") == 0
    assert device.run("retry") == 0
    assert list((device.state / "quarantine").iterdir()) == []

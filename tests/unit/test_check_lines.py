"""`iot-spooler check` says at once what is wrong and where it stands, and nothing that only follows from it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.spooler.cli import check
from iot.spooler.cli.main import main
from iot.spooler.config.origins import Origins

PIN = "SHA256:" + "A" * 43
TEXT = """\
# a comment
state_dir = "/s"
[server]  # with a comment
host = "h"
ciphers = [
    "a",  # "]"
    "b",
]
password = '''
[retry]
'''
"user" = "u"

[[outbox]]
path = "/a"

[[outbox]]
path = "/b"
include = ["*.csv"]
retry.below = 1
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("state_dir",), 2),
        (("server",), 3),
        (("server", "host"), 4),
        (("server", "ciphers"), 5),
        (("server", "ciphers", 1), 5),
        (("server", "password"), 9),
        (("server", "user"), 12),
        (("server", "port"), 3),
        (("outbox", 0, "path"), 15),
        (("outbox", 1), 17),
        (("outbox", 1, "path"), 18),
        (("outbox", 1, "destination"), 17),
        (("outbox", 1, "include", 0), 19),
        (("outbox", 1, "retry", "below"), 20),
    ],
)
def test_each_setting_has_the_line_at_which_it_begins(place: tuple[str | int, ...], line: int) -> None:
    assert Origins(Path("f.toml"), TEXT, {}).of(place) == f"f.toml:{line}"


def test_what_the_file_does_not_set_has_no_line() -> None:
    origins = Origins(Path("a b.toml"), TEXT, {("server", "port"): "environment variable X"})
    assert origins.of(("retry", "base_s")) == '"a b.toml"'
    assert origins.of(("server", "port")) == "environment variable X"
    assert Origins(None, "", {}).of(("server", "host")) == "the environment"


@given(st.lists(st.sampled_from(["a = 1", "b = [1,", "2]", "", "# c", "[t]", "c = '''", "'''", "[[o]]"]), max_size=12))
def test_any_text_that_is_toml_has_lines_for_what_it_sets(lines: Sequence[str]) -> None:
    text = "\n".join(lines)
    for place in (("a",), ("t", "a"), ("o", 0, "a")):
        told = Origins(Path("f"), text, {}).of(place)
        if ":" in told:
            assert 1 <= int(told.partition(":")[2]) <= len(lines) + 1


class Device:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.box = base / "box"
        self.box.mkdir()
        self.server = f'host = "127.0.0.1"\nuser = "u"\npassword = "hunter2"\nhost_key = "{PIN}"\n'
        self.retry = ""
        self.outbox = f'[[outbox]]\npath = "{self.box}"\ndestination = "/up"\n'
        self.state = base / "state"

    @property
    def config(self) -> Path:
        return self.base / "c.toml"

    def check(self) -> int:
        self.config.write_text(f'state_dir = "{self.state}"\n[server]\n{self.server}[retry]\n{self.retry}{self.outbox}')
        self.config.chmod(0o600)
        return main(["check", "--config", str(self.config)])


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def wrong(device: Device, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert device.check() == 78
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.replace(str(device.base), "BASE").splitlines()


def test_what_is_good_says_so(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert device.check() == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "configuration good: 127.0.0.1:22, outboxes box"
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("pin", "shown"), [("SHA256:abc", "SHA256:abc"), ("MD5:00", "MD5:00"), ("SHA256:" + "é" * 43, "SHA256:")]
)
def test_a_pin_that_is_no_fingerprint(device: Device, pin: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    device.server = device.server.replace(PIN, pin)
    (line,) = wrong(device, capsys)
    assert line.startswith(f"server.host_key = '{shown}")
    assert line.endswith(': must be "SHA256:" and 43 characters, as ssh-keygen -lf prints it (from BASE/c.toml:6)')


def test_a_first_wait_above_the_longest(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.retry = "base_s = 5\ncap_s = 2\n"
    assert wrong(device, capsys) == [
        "retry.cap_s = 2: is less than base_s = 5.0, with which the waits begin (from BASE/c.toml:9)"
    ]
    device.retry = "base_s = 1000\nherd_window_s = 999\n"
    assert wrong(device, capsys) == [
        "retry.cap_s = 900.0: is less than base_s = 1000.0, with which the waits begin (from BASE/c.toml:7)",
        "retry.herd_window_s = 999: is less than base_s = 1000.0, with which the waits begin (from BASE/c.toml:9)",
    ]
    device.retry = "auth_hold_s = 40\nauth_hold_max_s = 36\n"
    assert wrong(device, capsys) == [
        "retry.auth_hold_max_s = 36: is less than auth_hold_s = 40.0, with which the holds begin (from BASE/c.toml:9)"
    ]
    device.retry = "herd_window_s = 86401\n"
    assert wrong(device, capsys) == ["retry.herd_window_s = 86401: must be at most 86400 (from BASE/c.toml:8)"]
    device.retry = "herd_window_s = 0\n"
    assert device.check() == 0


def test_an_empty_destination(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.outbox = device.outbox.replace('"/up"', '" "')
    assert wrong(device, capsys) == [
        (
            "outbox[0].destination = ' ': must name a folder;"
            ' "." is the one that the login begins in (from BASE/c.toml:10)'
        )
    ]


def test_credentials_that_are_missing_of_each_kind(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.server = f'host = "h"\nuser = "u"\nhost_key = "{PIN}"\n'
    (line,) = wrong(device, capsys)
    assert line.startswith("server: nothing to log in with")
    assert line.endswith("(from BASE/c.toml:2)")
    device.server = 'kind = "ftp"\nhost = "h"\nuser = "u"\n'
    assert wrong(device, capsys) == [
        "server: nothing to log in with: user 'u' needs a password or password_file (from BASE/c.toml:2)"
    ]
    device.server = 'kind = "ftp"\nhost = "h"\n'
    assert device.check() == 0  # anonymous


def test_a_folder_that_nobody_mounted_and_that_no_marker_guards(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.server = 'kind = "folder"\npath = "/usr"\n'
    device.outbox = device.outbox.replace('"/up"', '"up"')
    on_root = os.stat("/usr").st_dev == os.stat("/").st_dev
    assert device.check() == 0
    told = capsys.readouterr().err.replace(str(device.base), "BASE")
    warning = (
        "warning: server.path: is on no disk of its own now: if one is to be mounted there, set marker or mounted"
        " (from BASE/c.toml:4)\n"
    )
    assert told == (warning if on_root else "")
    device.server = 'kind = "folder"\npath = "/nowhere/at/all"\n'
    assert device.check() == 0
    assert (
        "/nowhere/at/all is not available: No such file or directory; until it is, files wait"
        in capsys.readouterr().err
    )


def test_a_state_directory_that_cannot_be_made(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.state = device.config / "state"
    told = [line for line in wrong(device, capsys) if line.startswith("state_dir")]
    assert len(told) == 1
    assert "(from BASE/c.toml:1)" in told[0]


def test_everything_at_once_each_with_its_line_and_nothing_twice(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.server = 'host = "127.0.0.1"\nport = 99999\nuser = "u"\npasword = "hunter2"\n'
    device.retry = "base_s = 9\ncap_s = 1\n"
    device.outbox = (
        f'[[outbox]]\npath = "relative"\ndestination = "/a"\n[[outbox]]\npath = "{device.base}/none"\n'
        f'destination = ""\nsettle_s = -1\n[[outbox]]\npath = "{device.box}"\ndestination = "/b"\n'
        f'after_upload = "archive"\narchive = "{device.config}"\n'
    )
    assert wrong(device, capsys) == [
        "server.port = 99999: must be at most 65535 (from BASE/c.toml:4)",
        "server.pasword: no such setting; perhaps server.password (from BASE/c.toml:6)",
        "retry.cap_s = 1: is less than base_s = 9.0, with which the waits begin (from BASE/c.toml:9)",
        "outbox[0].path = 'relative': must be an absolute path without \"..\" (from BASE/c.toml:11)",
        (
            "outbox[1].destination = '': must name a folder; \".\" is the one that the login begins in"
            " (from BASE/c.toml:15)"
        ),
        "outbox[1].settle_s = -1: must be at least 0 (from BASE/c.toml:16)",
        "outbox[1].path = BASE/none: is not there; the agent would wait for it (from BASE/c.toml:14)",
        "outbox[2].archive = BASE/c.toml: Not a directory (from BASE/c.toml:21)",
    ]


SCREEN = """\
outbox[0].destination = '': must name a folder; "." is the one that the login
    begins in (from c.toml:9)
server: nothing to log in with: user 'u' needs a password or password_file (from
    c.toml:2)
"""


def test_on_a_terminal_lines_go_on_after_80_columns(device: Device) -> None:
    device.server = 'kind = "ftp"\nhost = "h"\nuser = "u"\n'
    device.outbox = device.outbox.replace('"/up"', '""')
    device.check()
    here, there = pty.openpty()
    command = [sys.executable, "-m", "iot.spooler", "check", "--config", "c.toml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=device.base, env=environment, stderr=there, check=False, timeout=60)
    os.close(there)
    told = os.read(here, 65536).decode().replace("\r\n", "\n")
    os.close(here)
    assert told == SCREEN
    assert all(len(line) <= 80 for line in told.splitlines())


def test_folders_in_each_others_way_are_told_with_both_lines(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.outbox += device.outbox.replace(f'{device.box}"', f'{device.box}/in"')
    assert wrong(device, capsys) == [
        (
            "outbox[0].path = 'BASE/box' and outbox[1].path = 'BASE/box/in': one lies within the other: every file"
            " would be sent twice (in BASE/c.toml:9, BASE/c.toml:12)"
        ),
        "outbox[1].path = BASE/box/in: is not there; the agent would wait for it (from BASE/c.toml:12)",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_signal_leaves_a_copy_of_the_units_credentials(tmp_path: Path, number: int) -> None:
    (tmp_path / "password").write_text("secret")
    program = (
        "import sys, time; from pathlib import Path; from types import SimpleNamespace\n"
        "from iot.spooler.cli import check\n"
        "here = Path(sys.argv[1])\n"
        "with check._credentials(here, SimpleNamespace(state_dir=here)) as given:\n"
        "    print(*given.values(), flush=True); time.sleep(60)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        copies = Path(process.stdout.readline().strip())
        assert (copies / "sftp_password").read_text() == "secret"
        process.send_signal(number)
        assert process.wait(30) != 0
    assert not copies.exists()


def test_signals_are_as_they_were_once_the_copies_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # under nohup
        with check._credentials(tmp_path, SimpleNamespace(state_dir=tmp_path)):  # type: ignore[arg-type]
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 128 + signal.SIGTERM
        assert [signal.getsignal(number) for number in numbers] == [signal.SIG_DFL, signal.SIG_IGN]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_what_logs_in_for_a_check_is_a_copy_of_the_units_credentials_that_only_its_owner_can_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "password").write_text("secret")
    with check._credentials(tmp_path, SimpleNamespace(state_dir=tmp_path)) as given:  # type: ignore[arg-type]
        copies = Path(given["CREDENTIALS_DIRECTORY"])
        assert [path.name for path in copies.iterdir()] == ["sftp_password"]
        assert (copies / "sftp_password").read_text() == "secret"
        assert (copies / "sftp_password").stat().st_mode & 0o777 == 0o600
    assert not copies.exists()

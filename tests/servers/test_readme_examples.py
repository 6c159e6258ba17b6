"""The first commands and programs of README.md, run as they stand there against a real sshd: only names differ."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers.base import client_key, program
from servers.openssh import OpenSSH

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SCAN = re.search(r"^ +(ssh-keyscan .*)$", README, re.MULTILINE)
SECRETS = re.compile(r"pass(word|phrase)?\w* *= *[\"']")


class Home:
    """A user's home and working folder, with a key and nothing else."""

    def __init__(self, folder: Path, server: OpenSSH) -> None:
        self.folder = folder
        self.server = server
        (folder / ".ssh").mkdir(parents=True)
        (folder / ".ssh/id_ed25519").write_bytes(client_key().read_bytes())
        (folder / ".ssh/id_ed25519").chmod(0o600)
        for name in ("today.csv", "big.bin"):
            (folder / name).write_bytes(os.urandom(100_000))

    def here(self, text: str) -> str:
        """What the README says, for this server: it listens elsewhere, and its user is not called device."""
        for there, ours in (
            ("sftp.example.com", self.server.host),
            (" 22", f" {self.server.port}"),
            ('sftp_user="device"', f'sftp_port={self.server.port}, sftp_user="device"'),
            ('"device"', f'"{self.server.user}"'),
            ("/etc/device/", f"{self.folder}/.ssh/"),
            ("/upload/", f"{self.server.path('upload')}/"),
        ):
            text = text.replace(there, ours)
        return text

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SFTP_")}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment | {"HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def scan(self) -> None:
        program("ssh-keyscan", "openssh-client")
        assert SCAN is not None
        done = self.run("sh", "-c", self.here(SCAN[1]))
        assert done.returncode == 0, done.stderr


@pytest.fixture
def home(sshd: OpenSSH, tmp_path: Path) -> Home:
    return Home(tmp_path / "home", sshd)


def test_no_program_of_the_readme_holds_a_secret() -> None:
    assert len(PROGRAMS) >= 2
    assert [text for text in PROGRAMS if SECRETS.search(text)] == []


def test_the_first_example_refuses_an_unknown_host_and_says_how_to_add_it(home: Home, sshd: OpenSSH) -> None:
    done = home.run(sys.executable, "-c", home.here(PROGRAMS[0]))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ssh-keyscan -p {sshd.port} {sshd.host} >> " in done.stdout
    assert sshd.names() == []


def test_the_first_example_works_as_it_stands(home: Home, sshd: OpenSSH) -> None:
    home.scan()
    done = home.run(sys.executable, "-c", home.here(PROGRAMS[0]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sshd.content("upload/today.csv") == (home.folder / "today.csv").read_bytes()


def test_the_second_example_works_as_it_stands(home: Home, sshd: OpenSSH) -> None:
    home.scan()
    done = home.run(sys.executable, "-c", home.here(PROGRAMS[1]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 100000 " in done.stdout
    assert sshd.content("upload/big.bin") == (home.folder / "big.bin").read_bytes()

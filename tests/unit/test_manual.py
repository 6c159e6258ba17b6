"""The manual page and the completions: up to date, complete, and readable to what reads them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = ("iot-sftp.1", "iot-sftp.bash", "_iot-sftp", "iot-sftp.fish")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    path = list(sys.path)
    specification = importlib.util.spec_from_file_location("generate", DEPLOY / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_what_is_kept_is_what_would_be_generated(generate: ModuleType) -> None:
    for name, content in generate.generated().items():
        kept = (DEPLOY / "generated" / name).read_text()
        assert kept == content, "run: python3 deploy/generate.py"
    assert {path.name for path in (DEPLOY / "generated").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_command_and_option_is_there(name: str, generate: ModuleType) -> None:
    text = (DEPLOY / "generated" / name).read_text().replace("\\-", "-")
    commands = generate.Commands()
    for command in commands.texts:
        assert re.search(rf"\b{command}\b", text)
    for action in generate._all(commands):
        for flag in action.option_strings:
            assert (f"-l {flag[2:]} " if name.endswith("fish") and flag.startswith("--") else flag[1:]) in text


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def test_the_manual_is_sound_and_fits_eighty_columns() -> None:
    page = str(DEPLOY / "generated/iot-sftp.1")
    command = [program("groff"), "-man", "-ww", "-rLL=78n", "-Tascii", "-P-c", "-P-b", "-P-u", page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for heading in ("NAME", "SYNOPSIS", "COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert heading in lines


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = DEPLOY / "generated/iot-sftp.bash"
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; compopt() {{ :; }}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _iot_sftp;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_values() -> None:
    program("bash")
    assert completed("iot-sftp", "m") == ["mv", "mkdir"]
    assert completed("iot-sftp", "put", "--rec") == ["--recursive"]
    assert completed("iot-sftp", "ls", "--rec") == ["--recursive"]
    assert completed("iot-sftp", "get", "--dry") == ["--dry-run"]
    assert completed("iot-sftp", "mkdir", "--dry") == []
    assert completed("iot-sftp", "put", "--proof", "") == ["size", "tail", "full"]
    assert completed("iot-sftp", "-v", "put", "--host-k") == ["--host-key"]
    assert completed("iot-sftp", "put", f"{DEPLOY}/insta") == [f"{DEPLOY}/install"]
    assert completed("iot-sftp", "put", "--port", "") == []


@pytest.mark.parametrize(("shell", "option", "name"), [("zsh", "-n", "_iot-sftp"), ("fish", "-n", "iot-sftp.fish")])
def test_the_other_shells_can_read_theirs(shell: str, option: str, name: str) -> None:
    done = subprocess.run(
        [program(shell), option, str(DEPLOY / "generated" / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

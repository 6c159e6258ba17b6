"""The manual page and the completions: up to date, complete, and readable to what reads them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from servers.base import program

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAMS = ("iot-sftp", "iot-spooler")
FORMS = ("{}.1", "{}.bash", "_{}", "{}.fish")
FILES = tuple(form.format(program) for program in PROGRAMS for form in FORMS)


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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", [0, 1])
def test_every_command_and_option_is_there(form: str, which: int, generate: ModuleType) -> None:
    program = generate.PROGRAMS[which]()
    text = (DEPLOY / "generated" / form.format(program.name)).read_text().replace("\\-", "-")
    for command in program.commands:
        assert re.search(rf"\b{command.split()[-1]}\b", text)
    for action in program.actions():
        for flag in action.option_strings:
            assert (f"-l {flag[2:]} " if form == "{}.fish" and flag.startswith("--") else flag[1:]) in text


def test_a_command_below_another_has_its_place_everywhere(generate: ModuleType) -> None:
    spooler = generate.iot_spooler()
    assert {"quarantine list", "quarantine retry", "quarantine drop"} <= set(spooler.commands)
    assert "quarantine" in spooler.first_words
    assert spooler.commands["quarantine drop"].usage == "iot-spooler quarantine drop [OPTIONS] [PATTERN]"


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_manual_is_sound_and_fits_eighty_columns(name: str) -> None:
    page = str(DEPLOY / f"generated/{name}.1")
    command = [program("groff", "groff-base"), "-man", "-ww", "-rLL=78n", "-Tascii", "-P-c", "-P-b", "-P-u", page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for heading in ("NAME", "SYNOPSIS", "COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert heading in lines


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = DEPLOY / f"generated/{words[0]}.bash"
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; compopt() {{ :; }}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1};"
        f" _{words[0].replace('-', '_')};"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_values() -> None:
    program("bash", "bash")
    assert completed("iot-sftp", "m") == ["mv", "mkdir"]
    assert completed("iot-sftp", "put", "--rec") == ["--recursive"]
    assert completed("iot-sftp", "ls", "--rec") == ["--recursive"]
    assert completed("iot-sftp", "get", "--dry") == ["--dry-run"]
    assert completed("iot-sftp", "mkdir", "--dry") == []
    assert completed("iot-sftp", "put", "--proof", "") == ["size", "tail", "full"]
    assert completed("iot-sftp", "-v", "put", "--host-k") == ["--host-key"]
    assert completed("iot-sftp", "put", f"{DEPLOY}/insta") == [f"{DEPLOY}/install"]
    assert completed("iot-sftp", "put", "--port", "") == []


def test_bash_completes_the_commands_of_the_agent_and_those_below_them() -> None:
    program("bash", "bash")
    assert completed("iot-spooler", "sta") == ["status", "start"]
    assert completed("iot-spooler", "status", "--w") == ["--watch"]
    assert completed("iot-spooler", "quarantine", "") == ["list", "retry", "drop"]
    assert completed("iot-spooler", "quarantine", "drop", "--y") == ["--yes"]
    assert completed("iot-spooler", "quarantine", "list", "--y") == []
    assert completed("iot-spooler", "check", "--config", f"{DEPLOY}/iot-spooler.to") == [f"{DEPLOY}/iot-spooler.toml"]


@pytest.mark.parametrize("program_name", PROGRAMS)
@pytest.mark.parametrize(("shell", "form"), [("zsh", "_{}"), ("fish", "{}.fish")])
def test_the_other_shells_can_read_theirs(shell: str, form: str, program_name: str) -> None:
    name = form.format(program_name)
    done = subprocess.run(
        [program(shell, shell), "-n", str(DEPLOY / "generated" / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

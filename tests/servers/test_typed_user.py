"""Programs that use the installed package, checked with `mypy --strict`: what is wrong does not pass."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "typed" / "user_program.py"
EXAMPLES = HERE.parents[1] / "deploy/examples"
HOWTO = (HERE.parents[1] / "deploy/HOWTO.md").read_text(encoding="utf-8")
START = """\
from iot.folder import FolderClient
from iot.ftp import FTPClient
from iot.sftp.client import IoTSFTPClient, Progress, TransferResult, UploadJob

def misuse(client: IoTSFTPClient, usb: FolderClient) -> None:
    """
MISUSES = {
    "a misspelt option": ("IoTSFTPClient('h', prof='full')", "call-arg"),
    "a misspelt value": ("IoTSFTPClient('h', proof='fulll')", "arg-type"),
    "a port as text": ("IoTSFTPClient('h', '22')", "arg-type"),
    "a number as text": ("IoTSFTPClient('h', attempts='3')", "arg-type"),
    "an option of another client": ("FolderClient('/mnt/usb', host_key='SHA256:x')", "call-arg"),
    "a misspelt kind of TLS": ("FTPClient('h', tls='explizit')", "arg-type"),
    "answers to prompts from a function with too few arguments": (
        "def answer(prompt: str) -> str: return prompt\n    IoTSFTPClient('h', prompts=answer)",
        "arg-type",
    ),
    "a list that may be None": ("print(len(client.list_files('/upload')))", "arg-type"),
    "an error that may be None": ("print(client.last_error.args)", "union-attr"),
    "a misspelt keyword of a twin that returns a bool": ("client.upload_file('a', '/a', restart=True)", "call-arg"),
    "a digest to compare an upload with": ("client.upload('a', '/a', sha256='00')", "arg-type"),
    "a progress callback that takes two numbers": (
        "def told(done: int, total: int) -> None: ...\n    usb.download_file('/a', 'a', progress=told)",
        "arg-type",
    ),
    "the outcome of a file that may have failed": (
        "for outcome in client.upload_many([UploadJob('a', '/a')]):\n        print(outcome.sent_bytes)",
        "union-attr",
    ),
    "a result taken for a bool": ("sent: bool = client.upload('a', '/a')", "assignment"),
    "a field that a result does not have": ("print(client.upload('a', '/a').bytes)", "attr-defined"),
}
"""What is wrong -> the statement, and the error code that mypy has to give it."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each file: the error codes; all are checked in one run."""
    folder = tmp_path_factory.mktemp("typed")
    shutil.copy(PROGRAM, folder)
    for example in EXAMPLES.glob("*.py"):
        shutil.copy(example, folder)
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", HOWTO, re.MULTILINE | re.DOTALL)):
        (folder / f"howto{number}.py").write_text(block)
    for number, (statement, _) in enumerate(MISUSES.values()):
        (folder / f"misuse{number}.py").write_text(f"{START}{statement}\n")
    files = sorted(path.name for path in folder.glob("*.py"))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder / 'cache'}", *files]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert not done.stderr, done.stderr
    found: dict[str, list[str]] = {name: [] for name in files}
    for line in done.stdout.splitlines():
        error = re.fullmatch(r"(\S+?\.py):\d+: error: .*  \[([\w-]+)\]", line)
        if error is not None:
            found.setdefault(error[1], []).append(error[2])
    return found


def test_a_users_program_passes(told: dict[str, list[str]]) -> None:
    assert told[PROGRAM.name] == []
    assert set(told) >= {PROGRAM.name, *(example.name for example in EXAMPLES.glob("*.py"))}


def test_the_examples_and_the_how_tos_pass(told: dict[str, list[str]]) -> None:
    shown = [name for name in told if not name.startswith("misuse")]
    assert "howto0.py" in shown
    assert {name: told[name] for name in shown if told[name]} == {}


def test_no_misuse_passes_unnoticed(told: dict[str, list[str]]) -> None:
    unnoticed = [what for number, what in enumerate(MISUSES) if not told[f"misuse{number}.py"]]
    assert len(MISUSES) >= 10
    assert not unnoticed


@pytest.mark.parametrize(("number", "what"), list(enumerate(MISUSES)))
def test_a_misuse_is_told_as_what_it_is(told: dict[str, list[str]], number: int, what: str) -> None:
    assert told[f"misuse{number}.py"] == [MISUSES[what][1]]


def test_a_users_program_runs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("user_program", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    (tmp_path / "remote").mkdir()
    shown = program.main(tmp_path, tmp_path / "state")
    assert len(shown) == 4


def test_the_wheel_says_of_each_package_that_it_has_types() -> None:
    files = importlib.metadata.files("iot-sftp-client") or []
    parts = [path.parts for path in files if path.parts[0] == "iot" and path.name == "__init__.py"]
    tops = {path[:-1] for path in parts if len(path) == 3 or (path[1] == "sftp" and len(path) == 4)}
    assert tops == {path.parts[:-1] for path in files if path.name == "py.typed"}
    assert len(tops) == 6

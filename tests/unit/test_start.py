"""What is loaded at the start, and what only when it is used: a device pays for every module with time and memory."""

import subprocess
import sys

import pytest

import iot.sftp.client
from iot.transfer.deferred import deferred

SETTINGS = """
import io, paramiko
config = paramiko.SSHConfig.from_file(io.StringIO("Match exec true\\n  User me\\nMatch exec false\\n  Port 99\\n"))
found = config.lookup("somewhere")
assert (found["user"], "port" in found) == ("me", False), found
"""
LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def python(code):
    """Run it in a process of its own; what it prints, as words."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_version_and_the_help_need_neither_ssh_nor_settings_nor_a_database():
    for option in ("--version", "--help"):
        run = f"from iot.sftp.client.cli.main import main\ntry: main(['{option}'])\nexcept SystemExit: pass\n"
        assert {"paramiko", "cryptography", "pydantic", "sqlite3"}.isdisjoint(python(run + LOADED))


def test_a_command_loads_nothing_of_the_libraries_that_it_does_not_need(tmp_path):
    (tmp_path / "file").touch()
    words = ["put", str(tmp_path / "file"), "me@127.0.0.1:/x", "-P", "1", "--agent"]
    words += ["--state-dir", str(tmp_path / "state")]
    loaded = python(f"from iot.sftp.client.cli.main import main\nassert main({words})\n" + LOADED)
    assert {"paramiko", "pydantic_settings", "sqlite3"} <= set(loaded)
    assert {"invoke", "asyncio", "concurrent", "email", "ssl", "unittest", "zipfile"}.isdisjoint(loaded)


def test_errors_and_values_need_no_ssh_either():
    run = "from iot.sftp.client import LinkLost, UploadJob, terminal_safe\n"
    assert {"paramiko", "pydantic", "sqlite3"}.isdisjoint(python(run + LOADED))


def test_a_name_is_shown_also_when_the_installation_cannot_be_read_any_more():
    """As after root has become the agent's user, who cannot read where Python lies."""
    run = "import encodings, sys\nfrom iot.transfer import terminal_safe\nencodings.__path__ = sys.path = []\n"
    assert python(run + r"print(terminal_safe('\n\x1b\ud800\u202e'))") == [r"\n\x1b\ud800\u202e"]


@pytest.mark.parametrize("names", ["IoTSFTPClient", "IoTSFTPClient, ClientSettings"])
def test_what_our_dependencies_import_and_nobody_uses_is_not_loaded(names):
    loaded = python(f"from iot.sftp.client import {names}\n" + LOADED)
    assert "paramiko" in loaded
    assert {"invoke", "asyncio", "unittest", "concurrent"}.isdisjoint(loaded)


def test_an_agent_does_not_load_what_its_configuration_does_not_ask_for():
    modules = "import sys; print(*sorted(sys.modules))"
    loaded = {
        *python(f"import iot.spooler.cli.main, iot.spooler.process.service, iot.sftp.client.configured\n{modules}")
    }
    assert {"iot.spooler.agent.agent", "iot.sftp.client.runner"} <= loaded
    assert {"iot.spooler.inbox.inbox", "iot.transfer.trees.planning", "iot.ftp.client", "iot.folder.store"}.isdisjoint(
        loaded
    )
    assert "difflib" not in loaded - {*python(f"import pydantic\n{modules}")}


def test_valid_options_load_nothing_that_only_invalid_ones_need():
    make = "from iot.sftp.client import IoTSFTPClient\nIoTSFTPClient('h', sftp_user='me', proof='full')\n"
    assert {"difflib", "pydoc", "textwrap"}.isdisjoint(
        {*python(make + LOADED)} - {*python("import pydantic\n" + LOADED)}
    )
    wrong = "from iot.sftp.client import ConfigurationError, IoTSFTPClient\n"
    wrong += "try: IoTSFTPClient('h', prot='full')\nexcept ConfigurationError: pass\n"
    assert "difflib" in python(wrong + LOADED)


SERVICE = "import iot.spooler.process.service, iot.sftp.client.configured\n"
CONFIGURATION = """
state_dir = "/nowhere/state"
[server]
host = "sftp.example.com"
[[outbox]]
path = "/nowhere/outbox"
destination = "/upload"
"""


def test_the_service_loads_nothing_that_it_does_not_need(tmp_path):
    file = tmp_path / "iot-spooler.toml"
    file.write_text(CONFIGURATION)
    load = f"from pathlib import Path\niot.spooler.process.service.load(Path({str(file)!r}), {{}})\n"
    loaded = python(SERVICE + load + LOADED)
    assert {"paramiko", "pydantic", "sqlite3"} <= set(loaded)
    assert {"invoke", "asyncio", "difflib", "email", "zipfile", "ssl", "http"}.isdisjoint(loaded)


def test_the_version_of_paramiko_is_the_one_that_is_installed():
    compare = "import importlib.metadata, paramiko\nprint(paramiko.__version__, importlib.metadata.version('paramiko'))"
    told, installed = python("import iot.sftp.client.ssh\n" + compare)
    assert told == installed


def test_every_public_name_is_there():
    for name in iot.sftp.client.__all__:
        assert getattr(iot.sftp.client, name) is not None
    assert dir(iot.sftp.client) == sorted(iot.sftp.client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        iot.sftp.client.Nothing  # noqa: B018


def test_paramiko_runs_a_match_exec_as_it_would_without_us():
    python("from iot.sftp.client import IoTSFTPClient\n" + SETTINGS)


def test_who_imports_invoke_later_gets_invoke():
    run = "from iot.sftp.client import IoTSFTPClient\nimport invoke\nassert invoke.run('true', hide=True).ok\n"
    python(run + SETTINGS + "assert invoke.__file__ and invoke.context")


def test_who_has_invoke_or_paramiko_already_keeps_it():
    for already in ("invoke", "paramiko"):
        run = f"import {already}, sys\nbefore = sys.modules['invoke']\nfrom iot.sftp.client import IoTSFTPClient\n"
        python(run + "assert sys.modules['invoke'] is before\n" + SETTINGS)


def test_the_client_works_where_invoke_is_not_installed():
    python("import sys\nsys.modules['invoke'] = None\nfrom iot.sftp.client import IoTSFTPClient")
    absent = "import importlib.util\nfind = importlib.util.find_spec\n"
    absent += "importlib.util.find_spec = lambda name, *rest: None if name == 'invoke' else find(name, *rest)\n"
    python(absent + "from iot.sftp.client import IoTSFTPClient")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package that counts how often it is loaded."""
    package = tmp_path / "rarely_used"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nsys.loads = getattr(sys, 'loads', 0) + 1\nvalue = 7\n")
    (package / "below.py").write_text("value = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "rarely_used"
    for name in [name for name in sys.modules if name.startswith("rarely_used")]:
        del sys.modules[name]
    if hasattr(sys, "loads"):
        del sys.loads


def test_a_deferred_module_is_loaded_at_its_first_use_and_once(module):
    with deferred(module):
        import rarely_used
    assert module not in sys.modules
    assert not hasattr(sys, "loads")
    assert (rarely_used.value, rarely_used.value, sys.loads) == (7, 7, 1)
    assert sys.modules[module].value == 7


def test_what_a_stand_in_has_itself_loads_nothing(module):
    with deferred(module, known=9):
        import rarely_used
        from rarely_used import known
    assert (known, rarely_used.known) == (9, 9)
    assert not hasattr(sys, "loads")
    assert (rarely_used.value, sys.loads) == (7, 1)


def test_a_deferred_module_may_be_used_at_once(module):
    with deferred(module):
        from rarely_used import value
        from rarely_used.below import value as below
    assert (value, below, sys.loads) == (7, 8, 1)
    assert sys.modules[module].__file__


def test_a_stand_in_goes_also_when_the_import_fails(module):
    with pytest.raises(ValueError, match="broken"), deferred(module):
        raise ValueError("broken")
    assert module not in sys.modules


def test_a_deferred_module_that_is_not_installed_is_missing_as_usual():
    with pytest.raises(ModuleNotFoundError), deferred("no_such_module_anywhere"):
        import no_such_module_anywhere  # noqa: F401

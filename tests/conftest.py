"""What all tests share: they run against the installed wheel, each in folders of its own."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import require, why_not
from faults.powercut import enter_private_namespace
from hypothesis import HealthCheck, settings
from servers.base import Server
from servers.openssh import OpenSSH
from servers.zoo import REMOTES, ZOO, start

TEMPORARY = "iot-sftp-tests-"
OPEN_FILES = 20_000
"""Some tests open a thousand connections; a login shell allows 1,024 files."""

# A run of everything says the same twice; `sh tests/run unit` and `faults` look for what nobody has thought of yet.
# Nor does it time each example: the machine is shared.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
if os.environ.get("IOT_SFTP_TESTS") == "short":
    settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A temporary folder of this run alone: a server's other user may be let in without pytest shutting it again.

    And mounts of this run alone, before there is any thread or server: they go with it, whatever ends it. A job in the
    background begins with some signals ignored, and so would what it starts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(OPEN_FILES, hard)), hard))
    if why_not("mounts") is None:
        enter_private_namespace()
    if not config.option.basetemp:
        config.option.basetemp = tempfile.mkdtemp(prefix=TEMPORARY)


def pytest_unconfigure(config: pytest.Config) -> None:
    base = Path(config.option.basetemp)
    if base.name.startswith(TEMPORARY) and not os.environ.get("KEEP_TEMPORARY"):
        shutil.rmtree(base, ignore_errors=True)


def pytest_sessionstart() -> None:
    """Started by `tests/run` or CI, the installed wheel is what is tested, never the source tree."""
    import iot.sftp.client

    place = Path(str(iot.sftp.client.__file__))
    installed_only = os.environ.get("CI") == "true" or "IOT_SFTP_INSTALLED" in os.environ
    if installed_only and "site-packages" not in place.parts:
        pytest.exit(f"the tests must run against the installed wheel, not {place}: use `sh tests/run`", 2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.fixture(scope="session", autouse=True)
def the_temporary_folder_keeps_its_mode() -> Iterator[None]:
    """It is everybody's: apt-get and others no longer work where a test shuts it."""
    folder = Path(tempfile.gettempdir())
    before = folder.stat().st_mode
    yield
    after = folder.stat().st_mode
    folder.chmod(before)
    assert after == before, f"a test has changed the mode of {folder} to {after:o}"


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_at_the_root_of_the_machine() -> Iterator[None]:
    """Tests run as root here, who may make any folder that a made-up path names."""
    before = set(os.listdir("/"))
    yield
    made = set(os.listdir("/")) - before
    assert not made, f"a test has made {', '.join(sorted(made))} in /"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[OpenSSH]:
    """The real OpenSSH server, login by key as the current user."""
    with OpenSSH(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def sshd_with_password(tmp_path: Path) -> Iterator[OpenSSH]:
    """The real OpenSSH server, login by password as a throw-away user: file permissions count here."""
    with OpenSSH(tmp_path / "sshd-password", password=True) as server:
        yield server


@pytest.fixture(scope="session", params=ZOO)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One running SFTP server of each kind, shared by all tests: work in a folder of your own there."""
    yield from _started(str(request.param), tmp_path_factory)


@pytest.fixture(scope="session", params=REMOTES)
def any_remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same of every protocol."""
    yield from _started(str(request.param), tmp_path_factory)


def _started(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(kind, tmp_path_factory.mktemp(kind) / "root") as server:
        yield server

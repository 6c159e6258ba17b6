"""A library prints nothing: where no logging was configured, neither we nor paramiko show anything; where it was, each
event is one record."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import Fault
from servers.base import Server, free_port
from servers.openssh import OpenSSH

import iot.folder
import iot.ftp
import iot.sftp.client.client
import iot.transfer.abandoned_parts  # noqa: F401

SCRIPT = """
import json, logging, sys
given = json.loads(sys.argv[1])
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append((record.name, record.levelname, record.getMessage()))
if given["logged"]:
    logging.basicConfig(level="INFO", handlers=[Keep()])
from iot.folder import FolderClient
from iot.ftp import FTPClient
from iot.sftp.client import IoTSFTPClient
client = globals()[given["client"]](**given["options"])
if client.upload_file(given["source"], given["dest"]):
    sys.exit("it was sent")
if type(client.last_error).__name__ != given["error"]:
    sys.exit(repr(client.last_error))
client.close()
if given["logged"]:
    print(json.dumps(records))
"""
LOST_AT = 300_000


@dataclass(frozen=True)
class Case:
    """logged: the beginnings of the records, in order."""

    client: str
    options: dict[str, Any]
    dest: str
    error: str
    logged: tuple[str, ...]


def refused_login(sshd: OpenSSH, folder: Path) -> Iterator[Case]:
    wrong = {**sshd.login(), "sftp_pass": "wrong", "attempts": 2}
    yield Case("IoTSFTPClient", wrong, "dest", "LoginRefused", ("WARNING failed error=",))


def lost_link(sshd: OpenSSH, folder: Path) -> Iterator[Case]:
    faults = (Fault("reset", up_bytes=LOST_AT), Fault("refuse", up_bytes=LOST_AT))
    with sshd.link(script=faults) as link:
        login = sshd.login() | {"sftp_port": link.port, "host_key": sshd.host_key, "attempts": 2, "backoff_s": 0.01}
        del login["known_hosts"]
        logged = ("INFO connected host=", "WARNING no connection attempt=1 error=", "WARNING failed error=")
        yield Case("IoTSFTPClient", login, sshd.path("dest"), "LinkLost", logged)


def plain_ftp_that_nobody_serves(sshd: OpenSSH, folder: Path) -> Iterator[Case]:
    options = {"host": "127.0.0.1", "port": free_port(), "tls": False, "attempts": 2, "backoff_s": 0.01}
    logged = ("WARNING plain FTP: ", "WARNING no connection attempt=1 error=", "WARNING failed error=")
    yield Case("FTPClient", options, "dest", "LinkLost", logged)


def disk_that_is_not_mounted(sshd: OpenSSH, folder: Path) -> Iterator[Case]:
    options = {"path": str(folder), "marker": ".disk", "attempts": 1}
    yield Case("FolderClient", options, "dest", "LinkLost", ("WARNING failed error=",))


CASES = (refused_login, lost_link, plain_ftp_that_nobody_serves, disk_that_is_not_mounted)


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request: pytest.FixtureRequest, sshd_with_password: OpenSSH, tmp_path: Path) -> Iterator[Case]:
    make: Callable[[Server, Path], Iterator[Case]] = request.param
    with contextmanager(make)(sshd_with_password, tmp_path) as made:
        yield made


def failed(case: Case, tmp_path: Path, *, logged: bool) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "source"
    source.write_bytes(bytes(4 * 1024 * 1024))
    options = {**case.options, "state_dir": tmp_path / "state"}
    given = {**asdict(case), "options": options, "source": str(source), "logged": logged}
    words = json.dumps(given, default=str)
    command = [sys.executable, "-c", SCRIPT, words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)


def test_a_failure_prints_nothing_where_no_logging_was_configured(case: Case, tmp_path: Path) -> None:
    done = failed(case, tmp_path, logged=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_each_event_is_one_record_where_logging_was_configured(case: Case, tmp_path: Path) -> None:
    done = failed(case, tmp_path, logged=True)
    assert (done.stderr, done.returncode) == ("", 0)
    records = json.loads(done.stdout)
    shown = [f"{level} {message}" for _, level, message in records]
    assert [line[: len(begin)] for line, begin in zip(shown, case.logged, strict=True)] == [*case.logged], shown
    assert all(name.startswith("iot.") for name, _, _ in records)


def test_every_logger_of_the_library_is_below_one_that_prints_nothing() -> None:
    roots = ("iot.sftp", "iot.transfer", "iot.ftp", "iot.folder", "paramiko")
    for root in roots:
        assert any(isinstance(each, logging.NullHandler) for each in logging.getLogger(root).handlers), root
    ours = [name for name in logging.root.manager.loggerDict if name.startswith("iot.")]
    assert [name for name in ours if not name.startswith((*roots, "iot.spooler"))] == []

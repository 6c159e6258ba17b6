"""On a long round trip files go side by side: as many as there are slots, whoever gives them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.proxy import BadLink
from servers.openssh import OpenSSH

from iot.sftp.client import IoTSFTPClient, UploadJob

FILES = 400
DELAY_S = 0.15


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03}").write_bytes(b"%d" % number)
    return folder


@pytest.fixture
def link(sshd: OpenSSH) -> Iterator[BadLink]:
    with BadLink(sshd.host, sshd.port, delay_s=DELAY_S) as link:
        yield link


def test_all_files_are_under_way_before_the_first_has_arrived(
    sshd: OpenSSH, link: BadLink, box: Path, tmp_path: Path
) -> None:
    given: list[Path] = []

    def jobs() -> Iterator[UploadJob]:
        for path in sorted(box.iterdir()):
            given.append(path)
            yield UploadJob(path, sshd.path(path.name))

    login = sshd.login() | {"sftp_port": link.port, "known_hosts": None, "host_key": sshd.host_key}
    with IoTSFTPClient(**login, state_dir=tmp_path / "state") as client:
        client.connect()
        outcomes = client.upload_many(jobs())
        next(outcomes)
        assert len(given) == FILES
        assert sum(1 for _ in outcomes) == FILES - 1


def test_the_service_sends_many_files_side_by_side(sshd: OpenSSH, link: BadLink, box: Path, tmp_path: Path) -> None:
    """One a tick they would take a minute and more, here some three seconds."""
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "{link.target[0]}"\nport = {link.port}\n'
        f'user = "{sshd.user}"\nkey_file = "{sshd.key_file}"\nhost_key = "{sshd.host_key}"\n'
        f'[[outbox]]\npath = "{box}"\ndestination = "{sshd.path("up")}"\nsettle_s = 0\n'
    )
    drain = subprocess.run(
        [sys.executable, "-m", "iot.spooler", "run", "--drain", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert drain.returncode == 0, drain.stderr[-2000:]
    assert len(sshd.names()) == FILES

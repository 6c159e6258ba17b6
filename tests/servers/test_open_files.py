"""A file in flight is an open file here and there: never more of them than this process may have open."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from servers.openssh import OpenSSH

FILES = 900


@pytest.mark.parametrize(("soft", "hard"), [(128, 128), (128, 4096)])
def test_many_small_files_are_delivered_within_the_limit_of_open_files(
    sshd: OpenSSH, tmp_path: Path, soft: int, hard: int
) -> None:
    """Where the hard limit lets it, the spooler raises its own."""
    box = tmp_path / "box"
    box.mkdir()
    for number in range(FILES):
        (box / f"{number}").write_bytes(os.urandom(100))
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "{sshd.host}"\nport = {sshd.port}\nuser = "{sshd.user}"\n'
        f'key_file = "{sshd.key_file}"\nknown_hosts = "{sshd.known_hosts}"\n'
        f'[[outbox]]\npath = "{box}"\ndestination = "{sshd.path("up")}"\nsettle_s = 0\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "iot.spooler", "run", "--drain", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Too many open files" not in done.stderr
    assert "failed path" not in done.stderr
    assert len(sshd.names()) == FILES
    assert list(box.iterdir()) == []

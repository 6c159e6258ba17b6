"""A drain over a link that is cut again and again: as long as connections get on, every file arrives in this run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faults.proxy import BadLink, Fault
from servers.openssh import OpenSSH

FILES = 600
CUTS = 5
LARGE_BYTES = 1024 * 1024
CUT_BYTES = 1_200_000


def test_five_cuts_after_progress_leave_no_file_behind(sshd: OpenSSH, tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    for number in range(FILES):
        (box / f"{number:03}").write_bytes(os.urandom(10_000))
    (box / "large").write_bytes(os.urandom(LARGE_BYTES))
    content = {path.name: path.read_bytes() for path in box.iterdir()}
    script = [Fault("cut", up_bytes=(cut + 1) * CUT_BYTES) for cut in range(CUTS)]
    with BadLink(sshd.host, sshd.port, rate_bps=8e6, delay_s=0.05, script=script) as link:
        login = sshd.login()
        config = tmp_path / "spooler.toml"
        config.write_text(
            f'state_dir = "{tmp_path}/state"\n[server]\nhost = "{link.target[0]}"\nport = {link.port}\n'
            f'user = "{login["sftp_user"]}"\nkey_file = "{login["key_file"]}"\nhost_key = "{sshd.host_key}"\n'
            "[retry]\nbase_s = 0.1\ndrain_attempts = 3\n"
            f'[[outbox]]\npath = "{box}"\ndestination = "{sshd.path("up")}"\nsettle_s = 0\n'
        )
        drain = subprocess.run(
            [sys.executable, "-m", "iot.spooler", "run", "--drain", "--config", str(config)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert link.connections > 3  # cuts that come close together may find one connection only
    assert drain.returncode == 0, drain.stderr[-3000:]
    assert list(box.iterdir()) == []
    assert {name: (sshd.root / "up" / name).read_bytes() for name in content} == content

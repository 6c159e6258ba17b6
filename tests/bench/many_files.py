"""An outbox with very many files: how long until the first byte is on the server, and what finding them costs.

    python tests/bench/many_files.py [--files 100000] [--first-only]

against the real OpenSSH server. The growth of memory is against the same agent with an empty outbox; later scans are
whole ones (SIGUSR1), of files that wait because the server is not there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers.bad_input import Site
from servers.openssh import OpenSSH

SCANS = 3
LONG_S = 3600.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--files", type=int, default=100_000)
    options.add_argument("--first-only", action="store_true", help="only the time until the first byte")
    given = options.parse_args()
    base = Path(tempfile.mkdtemp(prefix="many-files-"))
    base.chmod(0o755)
    try:
        with OpenSSH(base / "sshd") as server:
            site = Site(server, base / "device")
            del site.outbox["settle_s"], site.top["scan_s"]
            empty_kib = resting(site, 0, "empty")
            fill(site.box, given.files)
            print(f"first byte after {first_byte_s(site):.2f} s")
            if not given.first_only:
                full_kib = resting(site, SCANS, "full")
                print(
                    f"memory {empty_kib / 1024:.1f} MiB empty, {(full_kib - empty_kib) / 1024:.1f} MiB more when full"
                )
    finally:
        shutil.rmtree(base, ignore_errors=True)


def fill(box: Path, files: int) -> None:
    old_s = time.time() - 3600
    for number in range(files):
        path = box / f"reading-{number:07}.csv"
        path.write_bytes(b"x" * 1024)
        os.utime(path, (old_s, old_s))


def first_byte_s(site: Site) -> float:
    up = site.server.root / "up"
    began = time.monotonic()
    with site.running():
        while not up.is_dir() or not any(entry.stat().st_size for entry in list(os.scandir(up))[:1]):
            time.sleep(0.002)
        took_s = time.monotonic() - began
    shutil.rmtree(up)
    return took_s


def resting(site: Site, scans: int, words: str) -> int:
    """The most memory in KiB that an agent takes that cannot send. It scans everything so many times more."""
    site.state = site.folder / f"state-{words}"
    with site.running(port=1, host_key=None) as agent:
        wait_for_rest(agent.pid)
        for _ in range(scans):
            before_s, began = cpu_s(agent.pid), time.monotonic()
            agent.send_signal(signal.SIGUSR1)
            time.sleep(0.2)
            wait_for_rest(agent.pid)
            print(
                f"whole scan: {cpu_s(agent.pid) - before_s:.2f} s CPU, {time.monotonic() - began:.1f} s with the wait"
            )
        status = Path(f"/proc/{agent.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def wait_for_rest(pid: int) -> None:
    quiet, before_s = 0, -1.0
    end = time.monotonic() + LONG_S
    while quiet < 3 and time.monotonic() < end:
        time.sleep(0.5)
        now_s = cpu_s(pid)
        quiet = quiet + 1 if now_s - before_s < 0.03 else 0
        before_s = now_s


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

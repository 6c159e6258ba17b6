"""Many downloads over SFTP, ended at a named step of their work. A program:

python -m faults.many_downloads STEP NTH before|after LOGIN FAR HERE STATE
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from faults.steps import Call, Step, install

from iot.sftp.client import DownloadJob, IoTSFTPClient, TransferResult

__all__ = ["STEPS"]

STEPS = {
    "open": "iot.transfer.sink:FileSink.open",
    "bytes": "iot.transfer.sink:FileSink.write",
    "fsync": "iot.transfer.sink:FileSink._fsync",
    "beside": "iot.transfer.sink:FileSink.sync_beside",
    "rename": "iot.transfer.sink:os.replace",
    "folder": "iot.transfer.sink:FileSink.sync_name",
    "commit": "iot.transfer.journal.journal:Journal._transact",
}


def die() -> None:
    signal.pthread_kill(threading.get_ident(), signal.SIGKILL)


def main(step: str, nth: str, side: str, login: str, far: str, here: str, state: str) -> int:
    if step in STEPS:
        install(Step(step, Call(STEPS[step]), side, nth=int(nth)), die)
    with IoTSFTPClient(**json.loads(login), state_dir=state, checkpoint_bytes=512 * 1024) as client:
        names = [os.path.basename(path) for path in client.list(far)]
        outcomes = list(client.download_many(DownloadJob(f"{far}/{name}", f"{here}/{name}") for name in names))
    for outcome in outcomes:
        if isinstance(outcome, TransferResult):
            print(os.path.basename(outcome.dest), outcome.resumed_at)
    return 0 if all(isinstance(outcome, TransferResult) for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

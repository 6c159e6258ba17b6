"""One upload to a folder, ended at a named step of its work. A program:

python -m faults.folder_upload STEP NTH before|after SOURCES FOLDER STATE
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.steps import Countdown, wrap

from iot.folder import FolderClient
from iot.sftp.client import TransferResult, UploadJob

STEPS = {
    "begin": "iot.folder.store:FolderStore.begin",
    "write": "iot.folder.store:FolderStore.write",
    "bytes": "iot.folder.store:_write_all",
    "fsync": "iot.folder.store:sync",
    "where": "iot.folder.store:FolderStore.where",
    "publish": "iot.folder.store:FolderStore.publish",
    "rename": "iot.folder.store:os.replace",
    "commit": "iot.transfer.journal.journal:Journal._transact",
}


def die() -> None:
    signal.pthread_kill(threading.get_ident(), signal.SIGKILL)


def main(step: str, nth: str, side: str, sources: str, folder: str, state: str) -> int:
    if step in STEPS:
        count = Countdown(int(nth), die)

        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **keywords: Any) -> Any:
                if side == "before":
                    count()
                result = function(*arguments, **keywords)
                if side == "after":
                    count()
                return result

            return wrapped

        wrap(STEPS[step], around)
    jobs = [UploadJob(path, f"to/{path.name}") for path in sorted(Path(sources).iterdir())]
    with FolderClient(folder, state_dir=state) as client:
        outcomes = list(client.upload_many(jobs))
    print(
        *(
            f"{os.path.basename(outcome.source)}:{outcome.resumed_at}"
            for outcome in outcomes
            if isinstance(outcome, TransferResult)
        )
    )
    return 0 if all(isinstance(outcome, TransferResult) for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

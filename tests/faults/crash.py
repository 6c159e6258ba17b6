"""The agent, ended or stopped at a named step of its work: what rig.py starts. A program:

    python -m faults.crash STEP NTH die|stop MARKER ARGUMENTS OF THE AGENT...

The step's name is written to the file MARKER when it is reached. The signal goes to the thread that is there, so that
it does nothing more. `stop` (SIGSTOP) leaves the process for others to kill, or to let go on (SIGCONT).
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from faults.steps import BY_NAME, install

SIGNALS = {"die": signal.SIGKILL, "stop": signal.SIGSTOP}


def main(name: str, nth: str, action: str, marker: str, *arguments: str) -> int:
    descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def reached() -> None:
        os.write(descriptor, name.encode())
        signal.pthread_kill(threading.get_ident(), SIGNALS[action])

    install(BY_NAME[name], reached, int(nth) or None)
    from iot.spooler.cli.main import main as agent

    return agent(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

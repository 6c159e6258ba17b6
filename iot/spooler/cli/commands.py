"""run, status, deliveries and demo."""

from __future__ import annotations

import argparse
import os
import sys

from iot.spooler.cli.agent_of import act_as_owner, settings_in_use, told
from iot.spooler.cli.output import EX_FAILED, EX_OK, EX_TEMPFAIL, failed, log_to_stderr, say

__all__ = ["deliveries", "demo", "run", "status"]

CLEAR = "\x1b[H\x1b[J"
WATCH_S = 1.0
RARELY = (2000, 20, 20)
"""Thresholds of the collector. A thousand files in flight are sixty thousand objects that live for a second, and hardly
any is part of a cycle: by default, looking at them again and again takes a tenth of the CPU of small files."""


def run(options: argparse.Namespace) -> int:
    import gc

    gc.disable()
    from iot.spooler.agent.draining import End
    from iot.spooler.process import service
    from iot.spooler.state.lock import AlreadyRunning

    gc.freeze()  # what is loaded is no garbage: no collection looks at it again
    gc.set_threshold(*RARELY)
    gc.enable()
    log_to_stderr("INFO")
    try:
        end = service.run(options.config, os.environ, drain=options.drain)
    except AlreadyRunning as error:
        say(f"iot-spooler: {error}")
        return EX_TEMPFAIL
    return EX_TEMPFAIL if end is End.REMAINS or (options.drain and end is End.STOPPED) else EX_OK


def status(options: argparse.Namespace) -> int:
    import time

    if not options.watch:
        return _show(options)
    code = EX_OK
    try:
        while True:  # until Ctrl-C
            if sys.stdout.isatty() and not options.json:
                print(CLEAR, end="")
            code = _show(options)
            sys.stdout.flush()
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return code


def _show(options: argparse.Namespace) -> int:
    """The status once. Ends well where an agent runs, or has ended as it should."""
    import json
    import time

    from iot.spooler.status.screen import table

    content, running = told(options)
    if content is None:
        return failed(
            options, "no status yet" if running else "no agent is running, and none has left a status", EX_FAILED
        )
    content["running"] = running
    if options.json:
        print(json.dumps(content, indent=None if options.watch else 1))
    else:
        print(table(content, running=running, wall=time.time()))
    return EX_OK if running or content.get("ended") else EX_FAILED


def deliveries(options: argparse.Namespace) -> int:
    import json

    from iot.spooler.queue.deliveries import last_deliveries, table

    settings, _ = settings_in_use(options)
    act_as_owner(settings.state_dir)
    found = last_deliveries(settings.state_dir, options.last)
    if options.json:
        print(json.dumps([item._asdict() for item in found], indent=1))
    else:
        print(table(found) or "nothing was delivered yet")
    return EX_OK


def demo(_: argparse.Namespace) -> int:
    from iot.spooler.demo import demo

    return demo.main()

"""run, status, deliveries, flush and demo."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from iot.spooler.cli.agent_of import act_as_owner, poke, settings_in_use
from iot.spooler.cli.output import EX_FAILED, EX_OK, EX_TEMPFAIL, log_to_stderr, say

__all__ = ["deliveries", "demo", "flush", "run", "status"]


def run(options: argparse.Namespace) -> int:
    import gc

    gc.disable()
    from iot.spooler import service
    from iot.spooler.agent import End
    from iot.spooler.state.lock import AlreadyRunning

    gc.freeze()  # what is loaded is no garbage: no collection looks at it again
    gc.enable()
    log_to_stderr("INFO")
    try:
        end = service.run(options.config, os.environ, drain=options.drain)
    except AlreadyRunning as error:
        say(f"iot-spooler: {error}")
        return EX_TEMPFAIL
    return EX_TEMPFAIL if end is End.REMAINS or (options.drain and end is End.STOPPED) else EX_OK


def status(options: argparse.Namespace) -> int:
    import json
    import time

    from iot.spooler.state.lock import holder
    from iot.spooler.status import read, status_path, table
    from iot.transfer import terminal_safe

    settings, running = settings_in_use(options)
    pid = running.pid if running is not None else holder(settings.state_dir)
    paths = [Path(running.status)] if running is not None else []
    paths += [status_path(settings.state_dir, os.environ), Path("/run/iot-spooler/status.json")]
    found = [content for content in map(read, paths) if content and (pid is None or content["pid"] == pid)]
    if not found:
        say("no status: the agent has not run yet" if pid is None else "no status yet")
        return EX_FAILED
    content = {**found[0], "running": pid is not None}
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        lines = table(content, running=pid is not None, wall=time.time()).splitlines()
        print("\n".join(map(terminal_safe, lines)))
    return EX_OK


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


def flush(options: argparse.Namespace) -> int:
    if poke(settings_in_use(options)[0]):
        return EX_OK
    say("no agent is running on this state directory")
    return EX_FAILED


def demo(_: argparse.Namespace) -> int:
    from iot.spooler.demo import demo

    return demo.main()

"""run, status, deliveries, flush and demo."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iot.spooler.cli.agent_of import act_as_owner, poke, settings_in_use
from iot.spooler.cli.output import EX_FAILED, EX_OK, EX_TEMPFAIL, log_to_stderr, say

if TYPE_CHECKING:
    from iot.spooler.config.settings import Settings
    from iot.spooler.state.running import Running

__all__ = ["deliveries", "demo", "flush", "run", "status"]


def run(options: argparse.Namespace) -> int:
    import gc

    gc.disable()
    from iot.spooler import service
    from iot.spooler.draining import End
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

    from iot.spooler.status import table
    from iot.transfer import terminal_safe

    content, pid = _content(*settings_in_use(options))
    if content is None:
        say("no status: the agent has not run yet" if pid is None else "no status yet")
        return EX_FAILED
    if options.json:
        print(json.dumps({**content, "running": pid is not None}, indent=1))
    else:
        lines = table(content, running=pid is not None, wall=time.time()).splitlines()
        print("\n".join(map(terminal_safe, lines)))
    return EX_OK


def _content(settings: Settings, running: Running | None) -> tuple[dict[str, Any] | None, int | None]:
    """What the agent has told last, and its process; None where there is none."""
    from iot.spooler.state.lock import holder
    from iot.spooler.status import read, status_path

    pid = running.pid if running is not None else holder(settings.state_dir)
    paths = [Path(running.status)] if running is not None else []
    paths += [status_path(settings.state_dir, os.environ), Path("/run/iot-spooler/status.json")]
    found = (content for content in map(read, paths) if content and (pid is None or content["pid"] == pid))
    return next(found, None), pid


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
    settings, running = settings_in_use(options)
    content, _ = _content(settings, running)
    if not poke(settings, must=True):
        return EX_FAILED
    connection = content["connection"] if content else {}
    if connection.get("state") == "held":
        say(f"the server was held: {connection['error']}")
        print("the hold is released: one try now; iot-spooler status tells what came of it")
    else:
        print("the agent looks and tries now")
    return EX_OK


def demo(_: argparse.Namespace) -> int:
    from iot.spooler.demo import demo

    return demo.main()

"""The command `iot-spooler`. Only argparse here: what one command needs is imported when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iot.spooler.config.settings import Settings
    from iot.spooler.state.running import Running

__all__ = ["main"]

EX_OK = 0
EX_FAILED = 1
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 good, 75 something remains or is in the way, 78 bad configuration)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["demo"]:
        from iot.spooler.demo import demo

        return int(demo.main(given[1:]) or 0)
    options = _parser().parse_args(given)
    from iot.transfer import ConfigurationError, LocalStateError

    try:
        return int(COMMANDS[options.command](options))
    except ConfigurationError as error:  # a line for each wrong setting
        _say(str(error))
        return EX_CONFIG
    except LocalStateError as error:
        _say(f"iot-spooler: {error}")
        return EX_TEMPFAIL
    except Exception:  # noqa: BLE001 - what Python would print of it is not safe for a terminal
        import traceback

        _say(traceback.format_exc())
        return EX_SOFTWARE


def _say(text: str) -> None:
    """To standard error; what a server or a file put into it cannot act on a terminal."""
    from iot.transfer import terminal_safe

    for line in text.splitlines():
        print(terminal_safe(line), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "iot-spooler", description="Deliver what appears in outboxes, whole, at least once."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, default=os.environ.get("IOT_SPOOLER_CONFIG"), help="TOML file; also IOT_SPOOLER_CONFIG"
    )
    run = commands.add_parser("run", parents=[common], help="deliver until stopped")
    run.add_argument(
        "--drain",
        action="store_true",
        help="send what is there, then end: 0 all delivered, 75 something remains, in quarantine, too, or is never"
        " sent: symlinks, fifos, sockets, devices, what lies below 100 folders; `exclude` takes them out",
    )
    commands.add_parser("check", parents=[common], help="report at once all that would keep the agent from its work")
    status = commands.add_parser("status", parents=[common], help="backlog, connection, last error")
    status.add_argument("--json", action="store_true", help="for programs")
    deliveries = commands.add_parser(
        "deliveries", parents=[common], help="what was delivered last, and how it was proven"
    )
    deliveries.add_argument("--json", action="store_true", help="for programs")
    deliveries.add_argument("--last", type=_count, default=20, metavar="N", help="so many (20); 1,000 are kept")
    commands.add_parser("retry", parents=[common], help="move quarantined files back into their outboxes")
    commands.add_parser("flush", parents=[common], help="make the running agent look and try now")
    commands.add_parser("demo", help="show it at work: no server, no settings needed")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    from iot.spooler.config.load import load

    return load(options.config, os.environ)


def _settings_in_use(options: argparse.Namespace) -> tuple[Settings, Running | None]:
    """The settings, with the state directory of the agent that runs with them: its unit may have set another one."""
    from iot.spooler.state.running import find

    settings = _settings(options)
    running = None if "IOT_SPOOLER_STATE_DIR" in os.environ else find(options.config, os.environ)
    if running is None:
        return settings, None
    return settings.model_copy(update={"state_dir": Path(running.state_dir)}), running


def _run(options: argparse.Namespace) -> int:
    import gc

    gc.disable()
    from iot.spooler.agent import End
    from iot.spooler.service import run
    from iot.spooler.state.lock import AlreadyRunning

    gc.freeze()  # what is loaded is no garbage: no collection looks at it again
    gc.enable()
    _log_to_stderr("INFO")
    try:
        end = run(options.config, os.environ, drain=options.drain)
    except AlreadyRunning as error:
        _say(f"iot-spooler: {error}")
        return EX_TEMPFAIL
    return EX_TEMPFAIL if end is End.REMAINS or (options.drain and end is End.STOPPED) else EX_OK


def _log_to_stderr(level: str) -> None:
    import logging

    from iot.spooler.logs import NonBlockingHandler
    from iot.transfer import TerminalSafeFormatter

    handler = NonBlockingHandler(sys.stderr.fileno())
    handler.setFormatter(TerminalSafeFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("paramiko").setLevel("CRITICAL")  # its errors come to us as exceptions, and are told once


def _check(options: argparse.Namespace) -> int:
    from iot.spooler.config.exposure import exposed_secrets
    from iot.spooler.config.layout import shared_destinations
    from iot.spooler.config.load import load_with_origins
    from iot.spooler.outbox.scan import completeness_of
    from iot.spooler.preflight import doubts, obstacles

    settings, origins = load_with_origins(options.config, os.environ)
    found = exposed_secrets(settings, options.config, os.environ)
    _act_as_owner(settings.state_dir)
    found += obstacles(settings, origins, options.config)
    if found:
        _say("\n".join(found))
        return EX_CONFIG
    names = ", ".join(outbox.label for outbox in settings.outbox)
    print(f"configuration good: {settings.server.address}, outboxes {names}")
    for outbox in settings.outbox:
        print(f"outbox {outbox.label}: completeness {completeness_of(outbox.path)}")
    for warning in (*doubts(settings, origins), *map(str, shared_destinations(settings))):
        _say(f"warning: {warning}")
    return EX_OK


def _status(options: argparse.Namespace) -> int:
    import json
    import time

    from iot.spooler.state.lock import holder
    from iot.spooler.status import read, status_path, table
    from iot.transfer import terminal_safe

    settings, running = _settings_in_use(options)
    pid = running.pid if running is not None else holder(settings.state_dir)
    paths = [Path(running.status)] if running is not None else []
    paths += [status_path(settings.state_dir, os.environ), Path("/run/iot-spooler/status.json")]
    found = [content for content in map(read, paths) if content and (pid is None or content["pid"] == pid)]
    if not found:
        print("no status: the agent has not run yet" if pid is None else "no status yet", file=sys.stderr)
        return EX_FAILED
    content = {**found[0], "running": pid is not None}
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        lines = table(content, running=pid is not None, wall=time.time()).splitlines()
        print("\n".join(map(terminal_safe, lines)))
    return EX_OK


def _deliveries(options: argparse.Namespace) -> int:
    import json

    from iot.spooler.queue.deliveries import last_deliveries, table

    settings, _ = _settings_in_use(options)
    _act_as_owner(settings.state_dir)
    found = last_deliveries(settings.state_dir, options.last)
    if options.json:
        print(json.dumps([item._asdict() for item in found], indent=1))
    else:
        print(table(found) or "nothing was delivered yet")
    return EX_OK


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_count.__name__ = "number"  # argparse calls it so in its message


def _retry(options: argparse.Namespace) -> int:
    from iot.spooler.leaving.quarantine import release
    from iot.spooler.queue.deliveries import last_delivered
    from iot.spooler.state import lock  # noqa: F401  while the installation can be read for certain
    from iot.transfer import terminal_safe

    settings, _ = _settings_in_use(options)
    _log_to_stderr("WARNING")
    _act_as_owner(settings.state_dir)
    quarantines = sorted(set(map(settings.quarantine_of, settings.outbox)))
    outboxes = [outbox.path for outbox in settings.outbox]
    released, stuck = release(quarantines, outboxes, last_delivered(settings.state_dir))
    from_where = terminal_safe(", ".join(map(str, quarantines)))
    left = f", {stuck} could not be moved (see above)" if stuck else ""
    print(f"released {released} files from {from_where}{left}")
    _poke(settings)
    return EX_FAILED if stuck else EX_OK


def _act_as_owner(state_dir: Path) -> None:
    """As root, become the user whose agent keeps its state there, for good: what is done to an outbox, which producers
    can write to, is done with the agent's rights at most."""
    import pwd

    try:
        owner = os.stat(state_dir)
    except FileNotFoundError:
        return  # no agent has run here
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    group = owner.st_gid
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:
        os.setgroups([])  # a number without a name
    else:
        group = user.pw_gid
        os.environ["HOME"] = user.pw_dir
        os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def _flush(options: argparse.Namespace) -> int:
    if _poke(_settings_in_use(options)[0]):
        return EX_OK
    print("no agent is running on this state directory", file=sys.stderr)
    return EX_FAILED


def _poke(settings: Settings) -> bool:
    import signal

    from iot.spooler.state.lock import holder

    pid = holder(settings.state_dir)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as error:
        print(f"cannot signal the agent (process {pid}): {error.strerror}", file=sys.stderr)
        return False
    return True


COMMANDS = {
    "run": _run,
    "check": _check,
    "status": _status,
    "deliveries": _deliveries,
    "retry": _retry,
    "flush": _flush,
}

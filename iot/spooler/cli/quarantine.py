"""What lies in quarantine: look at it, send it again, drop it."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iot.spooler.cli.agent_of import act_as_owner, poke, settings_in_use
from iot.spooler.cli.output import EX_FAILED, EX_OK, EX_TEMPFAIL, EX_USAGE, WIDTH, failed, log_to_stderr, say

if TYPE_CHECKING:
    from iot.spooler.config.settings import Settings
    from iot.spooler.leaving.release import Quarantined, Wanted

__all__ = ["drop", "list_files", "retry"]


def list_files(options: argparse.Namespace) -> int:
    from iot.spooler.leaving.release import listed

    settings = _settings(options)
    found, unread = listed(map(settings.quarantine_of, settings.outbox), _wanted(options))
    if options.json:
        import json

        print(json.dumps([file._asdict() for file in found], indent=1))
    else:
        for file in found:
            print(_described(file))
        if not found and not unread:
            print(_nothing(options))
    return EX_FAILED if unread else EX_OK


def retry(options: argparse.Namespace) -> int:
    from iot.spooler.leaving.release import QuarantineBusy, release
    from iot.spooler.queue.deliveries import last_delivered
    from iot.spooler.state import lock  # noqa: F401  while the installation can be read for certain
    from iot.transfer import counted_files

    settings = _settings(options)
    quarantines = sorted(set(map(settings.quarantine_of, settings.outbox)))
    outboxes = [outbox.path for outbox in settings.outbox]
    try:
        released, stuck = release(quarantines, outboxes, last_delivered(settings.state_dir), _wanted(options))
    except QuarantineBusy as error:
        return failed(options, str(error), EX_TEMPFAIL)
    left = f", {stuck} could not be moved (see above)" if stuck else ""
    _print(f"released {counted_files(released)} from {', '.join(map(str, quarantines))}{left}")
    poke(settings)
    return EX_FAILED if stuck else EX_OK


def drop(options: argparse.Namespace) -> int:
    """What is asked about is what goes: a file that comes meanwhile stays."""
    from iot.spooler.leaving.release import QuarantineBusy, drop, listed
    from iot.spooler.state import lock  # noqa: F401  as above
    from iot.transfer import counted_files

    settings = _settings(options)
    quarantines = sorted(set(map(settings.quarantine_of, settings.outbox)))
    found, unread = listed(quarantines, _wanted(options))
    if not found:
        _print(_nothing(options))
        return EX_FAILED if unread else EX_OK
    if not options.yes and not _agreed(found):
        return EX_USAGE if not sys.stdin.isatty() else EX_FAILED
    meant = {file.id for file in found}
    try:
        dropped, stuck = drop(quarantines, lambda file: file.id in meant)
    except QuarantineBusy as error:
        return failed(options, str(error), EX_TEMPFAIL)
    _print(f"dropped {counted_files(dropped)}" + (f", {stuck} could not be (see above)" if stuck else ""))
    poke(settings)
    return EX_FAILED if stuck or unread else EX_OK


def _settings(options: argparse.Namespace) -> Settings:
    settings, _ = settings_in_use(options)
    log_to_stderr("ERROR")
    act_as_owner(settings.state_dir)
    return settings


def _wanted(options: argparse.Namespace) -> Wanted:
    from iot.spooler.leaving.release import everything, matching

    return everything if options.pattern is None else matching(options.pattern)


def _agreed(found: Sequence[Quarantined]) -> bool:
    """Ask on a terminal; without one the answer is no."""
    from iot.transfer import human_bytes

    what = f"{len(found)} files" if len(found) > 1 else "one file"
    what += f", {human_bytes(sum(file.bytes for file in found))}"
    if not sys.stdin.isatty():
        say(f"iot-spooler: drop {what}: nobody to ask here; --yes does it")
        return False
    for file in found:
        print(_described(file))
    try:
        answer = input(f"drop {what}, for ever? They were never delivered. [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing was dropped")
    return False


def _described(file: Quarantined) -> str:
    """Two lines or more: which file, then why it lies here."""
    from iot.spooler.naming import shown
    from iot.transfer import human_bytes, terminal_safe

    place = shown(f"{file.outbox}/{file.path}")
    to = f" to {shown(file.destination)}" if file.destination else ""
    attempts = f"{file.attempts} attempt{'s' * (file.attempts != 1)}{to}"
    why = f"{attempts}: {terminal_safe(file.reason) or 'no reason is known'}"
    lines = textwrap.wrap(why, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    head = f"{file.id}  {terminal_safe(file.at)[:19].replace('T', ' ')}  {human_bytes(file.bytes):>9}"
    return "\n".join([head, f"    {place}", *lines])


def _nothing(options: argparse.Namespace) -> str:
    from iot.spooler.naming import shown

    return "the quarantine is empty" if options.pattern is None else f"nothing there matches {shown(options.pattern)}"


def _print(text: str) -> None:
    from iot.transfer import terminal_safe

    print(terminal_safe(text))

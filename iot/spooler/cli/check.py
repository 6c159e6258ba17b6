"""`check`: what would keep the agent from its work, and, with --connect, from delivering."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iot.spooler.cli.agent_of import act_as_owner
from iot.spooler.cli.output import EX_CONFIG, EX_OK, EX_TEMPFAIL, WIDTH, say

if TYPE_CHECKING:
    from iot.spooler.checks.trial import Step
    from iot.spooler.config.settings import Settings
    from iot.transfer import ConfiguredRemote

__all__ = ["check"]

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there


def check(options: argparse.Namespace) -> int:
    from iot.spooler.checks.preflight import credentials_of_unit, doubts, obstacles
    from iot.spooler.config.effects import without_effect
    from iot.spooler.config.exposure import exposed_secrets
    from iot.spooler.config.fallbacks import divided_batches
    from iot.spooler.config.layout import merging_rules, shared_destinations
    from iot.spooler.config.load import look
    from iot.spooler.outbox.place import completeness_of
    from iot.spooler.outbox.watches import why_unwatched

    if options.connect:
        from iot.spooler.checks import trial  # noqa: F401  while the installation can be read for certain
    settings, origins, found = look(options.config, os.environ)
    folder = credentials_of_unit(options.config)
    with _credentials(folder if options.connect else None, settings) as given:
        environment = {**os.environ, **given}
        if given:
            settings, origins, found = look(options.config, environment)
        if settings is not None:
            found += exposed_secrets(settings, options.config, environment)
            act_as_owner(settings.state_dir)
            found += obstacles(settings, origins, options.config, by_unit=folder is not None)
            for warning in doubts(settings, origins, by_unit=folder is not None):
                say(f"warning: {warning}")
        if found or settings is None:
            say("\n".join(found))
            return EX_CONFIG
        also = (*merging_rules(settings), *without_effect(settings), *divided_batches(settings))
        for doubt in (*shared_destinations(settings), *also):
            say(f"warning: {doubt}")
        _tell_good(settings, completeness_of, why_unwatched)
        return _connect(settings) if options.connect else EX_OK


def _tell_good(
    settings: Settings, completeness_of: Callable[[Path], object], why_unwatched: Callable[[Path], str]
) -> None:
    names = ", ".join(outbox.label for outbox in settings.outbox)
    inboxes = ", ".join(inbox.label for inbox in settings.inbox)
    also = f", inboxes {inboxes}" if inboxes else ""
    servers = ", fallback ".join(server.address for server in settings.servers.values())
    say(f"configuration good: {servers}, outboxes {names}{also}", sys.stdout)
    for outbox in settings.outbox:
        say(f"outbox {outbox.label}: completeness {completeness_of(outbox.path)}", sys.stdout)
        if reason := why_unwatched(outbox.path):
            say(f"outbox {outbox.label}: scanned often ({reason})", sys.stdout)


def _connect(settings: Settings) -> int:
    """The servers one after the other; the fallback as the agent would use it."""
    from iot.spooler.checks.trial import sources

    first, *others = settings.servers.values()
    found = [_connect_to(settings, "server", first, sources(settings))]
    found += [_connect_to(settings, "fallback", other, []) for other in others]
    return EX_CONFIG if EX_CONFIG in found else max(found)


def _connect_to(settings: Settings, table: str, server: ConfiguredRemote, fetched: Sequence[tuple[str, str]]) -> int:
    import time

    from iot.spooler.checks.trial import Came, destinations, tried
    from iot.transfer import Journal

    remote = server.remote(Journal(None), settings.device_id)
    worst = EX_OK
    print(f"{table} {server.address}")
    try:
        for step in tried(remote, server.identity, destinations(settings, time.time_ns()), fetched):
            print(_line(step), flush=True)
            if step.came is Came.FAILED:
                worst = EX_CONFIG
            elif step.came is Came.LATER and worst == EX_OK:
                worst = EX_TEMPFAIL
    finally:
        remote.close()
    return worst


def _line(step: Step) -> str:
    from iot.transfer import terminal_safe

    if step.came is None:
        return terminal_safe(f"{step.name} {step.means}")
    words = terminal_safe(f"  {step.name:<11}  {step.came.value}" + f": {step.means}" * bool(step.means))
    return textwrap.fill(words, WIDTH, subsequent_indent=" " * 15, break_on_hyphens=False, drop_whitespace=True)


@contextlib.contextmanager
def _credentials(folder: Path | None, settings: Settings | None) -> Iterator[Mapping[str, str]]:
    """What a unit adds to the environment of its agent: the folder of its credentials. As systemd makes them, these are
    copies in memory that are the user's own.

    folder: where the unit has them from; None where they are not wanted, or there are none.
    """
    if folder is None or settings is None or "CREDENTIALS_DIRECTORY" in os.environ:
        yield {}
        return
    with _ended_in_order():
        copies = _copied(folder, settings.state_dir)
        try:
            yield {"CREDENTIALS_DIRECTORY": str(copies)}
        finally:
            _remove(copies)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is closed, leave no copy of a secret behind."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _copied(folder: Path, state_dir: Path) -> Path:
    import shutil
    import tempfile

    copies = Path(tempfile.mkdtemp(prefix="iot-spooler-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        owner = os.stat(state_dir) if state_dir.is_dir() else None
        for file in folder.iterdir():
            copy = copies / f"sftp_{file.name}"
            copy.touch(0o600)
            shutil.copyfile(file, copy)
            if owner is not None:
                os.chown(copy, owner.st_uid, owner.st_gid)
        if owner is not None:
            os.chown(copies, owner.st_uid, owner.st_gid)
    except OSError as error:
        say(f"warning: the credentials of the unit are not used: {error}")
    return copies


def _remove(copies: Path) -> None:
    for copy in copies.iterdir():
        copy.unlink()
    copies.rmdir()

"""Whose agent a command is about: its settings, its state directory, its rights, its process."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iot.spooler.cli.output import say

if TYPE_CHECKING:
    from iot.spooler.config.settings import Settings
    from iot.spooler.state.running import Running

__all__ = ["act_as_owner", "poke", "settings_in_use", "told"]


def settings_in_use(options: argparse.Namespace) -> tuple[Settings, Running | None]:
    """The settings, with the state directory of the agent that runs with them: its unit may have set another one."""
    from iot.spooler.config.load import load
    from iot.spooler.state.running import find

    settings = load(options.config, os.environ)
    asks_here = "IOT_SPOOLER_STATE_DIR" in os.environ and options.config is not None
    running = None if asks_here else find(options.config, os.environ, state_dir=settings.state_dir)
    if running is None:
        return settings, None
    return settings.model_copy(update={"state_dir": Path(running.state_dir)}), running


def told(options: argparse.Namespace) -> tuple[dict[str, Any] | None, bool]:
    """What the agent has told last, and whether it runs; nothing but the note of a running one is needed for it.

    Raises: BadConfiguration, JournalUnavailable, where no agent announces itself and nobody else may look.
    """
    from iot.spooler.state.running import find
    from iot.spooler.status.screen import read

    asks_here = options.config is None or "IOT_SPOOLER_STATE_DIR" in os.environ
    running = None if asks_here else find(options.config, os.environ)
    if running is not None:
        return read(Path(running.status)), True
    found, pid = _told_by_files(options)
    mine = [content for content in map(read, found) if content and pid in (None, content["pid"])]
    return max(mine, key=lambda content: float(content.get("updated_at", 0)), default=None), pid is not None


def _told_by_files(options: argparse.Namespace) -> tuple[list[Path], int | None]:
    """Where an agent that announces itself nowhere, or has died, may have told something; and its process."""
    from iot.spooler.config.load import load
    from iot.spooler.state.lock import holder
    from iot.spooler.state.running import STATUS, find, status_path
    from iot.transfer import ConfigurationError

    dead = find(options.config, os.environ, dead=True) if options.config is not None else None
    paths = [Path(dead.status)] if dead is not None else []
    try:
        state_dir = load(options.config, os.environ).state_dir
    except ConfigurationError:
        if dead is None:
            raise
        return paths, None
    live = status_path(options.config, state_dir, os.environ)[0]
    return [*paths, live, state_dir / STATUS], holder(state_dir)


def act_as_owner(state_dir: Path) -> None:
    """As root, become the user whose agent keeps its state there, for good: what is done to an outbox, which producers
    can write to, is done with the agent's rights at most."""
    import pwd

    if os.geteuid() != 0:
        return
    try:
        owner = os.stat(state_dir)
    except (FileNotFoundError, NotADirectoryError):
        return  # no agent has run here
    if owner.st_uid == 0:
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


def poke(settings: Settings, *, flush: bool = False) -> bool:
    """Make the running agent look and try now; False where there is none, or it is another user's.

    flush: past the schedule, too; that there is none is said.
    """
    import signal

    from iot.spooler.state.lock import holder

    pid = holder(settings.state_dir)
    if pid is None:
        if flush:
            say(f"no agent is running on this state directory: {settings.state_dir}")
        return False
    try:
        os.kill(pid, signal.SIGUSR2 if flush else signal.SIGUSR1)
    except OSError as error:
        say(f"cannot signal the agent (process {pid}): {error.strerror}")
        return False
    return True

"""Whose agent a command is about: its settings, its state directory, its rights, its process."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from iot.spooler.cli.output import say

if TYPE_CHECKING:
    from iot.spooler.config.settings import Settings
    from iot.spooler.state.running import Running

__all__ = ["act_as_owner", "poke", "settings_in_use"]


def settings_in_use(options: argparse.Namespace) -> tuple[Settings, Running | None]:
    """The settings, with the state directory of the agent that runs with them: its unit may have set another one."""
    from iot.spooler.config.load import load
    from iot.spooler.state.running import find

    settings = load(options.config, os.environ)
    running = None if "IOT_SPOOLER_STATE_DIR" in os.environ else find(options.config, os.environ)
    if running is None:
        return settings, None
    return settings.model_copy(update={"state_dir": Path(running.state_dir)}), running


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


def poke(settings: Settings, *, must: bool = False) -> bool:
    """Make the running agent look and try now; False where there is none, or it is another user's.

    must: that there is none is said.
    """
    import signal

    from iot.spooler.state.lock import holder

    pid = holder(settings.state_dir)
    if pid is None:
        if must:
            say(f"no agent is running on this state directory: {settings.state_dir}")
        return False
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as error:
        say(f"cannot signal the agent (process {pid}): {error.strerror}")
        return False
    return True

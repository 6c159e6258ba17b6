"""What the process does once, before its first agent runs."""

from __future__ import annotations

import logging
import os
import resource

from iot.spooler.agent.agent import Agent
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown
from iot.spooler.outbox.place import OutboxTaken, SourceFailed
from iot.spooler.state.lock import AlreadyRunning
from iot.transfer import __version__

__all__ = ["allow_open_files", "refuse_taken_outboxes", "tell_start"]

log = logging.getLogger(__name__)

OPEN_FILES = 8192


def tell_start(settings: Settings) -> None:
    outboxes = ", ".join(outbox.label for outbox in settings.outbox if outbox.enabled)
    fallback = "" if settings.fallback is None else f" fallback={shown(settings.fallback.address)}"
    log.info(
        "started version=%s server=%s%s outboxes=%s state_dir=%s pid=%d",
        __version__,
        shown(settings.server.address),
        fallback,
        shown(outboxes),
        shown(str(settings.state_dir)),
        os.getpid(),
    )


def allow_open_files() -> None:
    """Each file in flight is an open file. The usual soft limit of 1,024 only protects programs that call select(),
    which this one uses for two descriptors only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def refuse_taken_outboxes(agent: Agent) -> None:
    """A second agent is refused at its start; an outbox found taken later (after a reload or mount) counts as failed.

    Raises: AlreadyRunning.
    """
    for intake in agent.intakes:
        try:
            os.close(intake.outbox.open())
        except OutboxTaken as error:
            raise AlreadyRunning(intake.settings.path, error.pid) from None
        except SourceFailed:
            pass  # the scan reports it

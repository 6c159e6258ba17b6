"""What lies in quarantine."""

from __future__ import annotations

import argparse

from iot.spooler.cli.agent_of import act_as_owner, poke, settings_in_use
from iot.spooler.cli.output import EX_FAILED, EX_OK, log_to_stderr

__all__ = ["retry"]


def retry(options: argparse.Namespace) -> int:
    from iot.spooler.leaving.quarantine import release
    from iot.spooler.queue.deliveries import last_delivered
    from iot.spooler.state import lock  # noqa: F401  while the installation can be read for certain
    from iot.transfer import terminal_safe

    settings, _ = settings_in_use(options)
    log_to_stderr("WARNING")
    act_as_owner(settings.state_dir)
    quarantines = sorted(set(map(settings.quarantine_of, settings.outbox)))
    outboxes = [outbox.path for outbox in settings.outbox]
    released, stuck = release(quarantines, outboxes, last_delivered(settings.state_dir))
    from_where = terminal_safe(", ".join(map(str, quarantines)))
    left = f", {stuck} could not be moved (see above)" if stuck else ""
    print(f"released {released} files from {from_where}{left}")
    poke(settings)
    return EX_FAILED if stuck else EX_OK

"""Decides the name of a file on the server, when its first attempt is about to be recorded."""

from __future__ import annotations

from iot.spooler.cpu_limit import TookTooLong, within
from iot.spooler.naming import Facts, Naming, UnsafeName
from iot.spooler.queue.queue import Entry
from iot.spooler.state.elapsed import boot_id

__all__ = ["facts_of", "name_of"]

LIMIT_CPU_S = 0.1


def facts_of(entry: Entry) -> Facts:
    """What a template can say of its file."""
    return Facts(entry.fingerprint.mtime_ns, entry.id, boot_id(), entry.hash8 or "")


def name_of(entry: Entry, naming: Naming) -> str:
    """Raises: UnsafeName if it cannot have one."""
    facts = facts_of(entry)
    if not naming.may_take_long:
        return naming.destination(entry.path, facts)
    try:
        return within(LIMIT_CPU_S, lambda: naming.destination(entry.path, facts))
    except TookTooLong:
        raise UnsafeName(f"the regular expressions of the rules take longer than {LIMIT_CPU_S} s for it") from None

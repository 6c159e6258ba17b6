"""What is wrong with a configured fallback, and what to know of it."""

from __future__ import annotations

from iot.spooler.config.origins import Contradiction, Setting
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown

__all__ = ["divided_batches", "fallback_problems"]

POLICY = ("fallback_after_s", "fallback_check_s", "fallback_back_after_s", "fallback_when_held")


def fallback_problems(settings: Settings) -> list[Contradiction]:
    if settings.fallback is None:
        given = [key for key in POLICY if key in settings.model_fields_set]
        keys: list[Setting] = [((key,), f" = {getattr(settings, key)}") for key in given]
        return [Contradiction(tuple(keys), "there is no [fallback]")] if keys else []
    if settings.server.account != settings.fallback.account or not settings.server.account:
        return []
    both: tuple[Setting, ...] = ((("server",), ""), (("fallback",), ""))
    return [Contradiction(both, f"both are {settings.server.account}: a fallback must be another server or folder")]


def divided_batches(settings: Settings) -> list[str]:
    """A warning for each outbox whose batches may come to lie on both servers."""
    if settings.fallback is None:
        return []
    return [
        f"outbox {shown(outbox.label)}: when the server changes within a batch, its first files are on one server and"
        " the rest, with the marker, on the other; whoever waits for the marker has to look at both"
        for outbox in settings.outbox
        if outbox.batch_marker is not None
    ]

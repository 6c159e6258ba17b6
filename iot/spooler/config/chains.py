"""Chains of outboxes: which outbox the delivered files of another go on to, and what is wrong with that.

Only the outboxes of one configuration are known here. What another agent does with what it is given, it alone knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from iot.spooler.config.origins import Contradiction, Setting
from iot.spooler.config.outboxes import AfterUpload, OutboxSettings
from iot.spooler.config.settings import Settings
from iot.spooler.config.whereabouts import Mounts, whereabouts
from iot.spooler.naming import shown

__all__ = ["broken_chains"]

Links = Mapping[int, int]
"""Of outboxes, by number: the next one."""


def broken_chains(settings: Settings, mounts: Mounts) -> Iterator[Contradiction]:
    """Chains that lead nowhere or in a circle, or into an outbox that would not send what comes."""
    for number, outbox in enumerate(settings.outbox):
        reason = _incomplete(settings, outbox)
        if reason is not None:
            keys = (_after_upload(number, outbox), _forward_to(number, outbox))
            yield Contradiction(keys if outbox.forward_to is not None else keys[:1], reason)
    links = _links(settings, mounts)
    yield from _circles(settings, links)
    yield from _unsent(settings, links)


def _incomplete(settings: Settings, outbox: OutboxSettings) -> str | None:
    forwards = outbox.after_upload is AfterUpload.FORWARD
    if outbox.forward_to is None:
        return "needs forward_to: the name of another outbox, or the absolute path of one" if forwards else None
    if not forwards:
        return 'files go on only with after_upload = "forward"'
    if settings.next_of(outbox) is None:
        names = ", ".join(shown(each.label) for each in settings.outbox if each is not outbox) or "none"
        return f"no other outbox has this name, and it is no absolute path; other outboxes are: {names}"
    return None


def _links(settings: Settings, mounts: Mounts) -> Links:
    places = [whereabouts(outbox.path, mounts) for outbox in settings.outbox]
    links: dict[int, int] = {}
    for number, outbox in enumerate(settings.outbox):
        target = settings.next_of(outbox)
        if target is None:
            continue
        there = whereabouts(target, mounts)
        following = next((other for other, place in enumerate(places) if place.is_same(there)), None)
        if following is not None:
            links[number] = following
    return links


def _circles(settings: Settings, links: Links) -> Iterator[Contradiction]:
    """Each circle once, as the settings that make it."""
    told: set[int] = set()
    for first in links:
        way: list[int] = []
        here: int | None = first
        while here is not None and here not in way and here not in told:
            way.append(here)
            here = links.get(here)
        told.update(way)
        if here is None or here not in way:
            continue
        circle = way[way.index(here) :]
        keys = tuple(_forward_to(number, settings.outbox[number]) for number in circle)
        what = "forwards into itself" if len(circle) == 1 else "they form a circle"
        yield Contradiction(keys, f"{what}: files would be sent again and again")


def _unsent(settings: Settings, links: Links) -> Iterator[Contradiction]:
    for number, other in links.items():
        outbox, following = settings.outbox[number], settings.outbox[other]
        if outbox.recursive and not following.recursive:
            recursive: Setting = (("outbox", other, "recursive"), " = False")
            reason = "what comes from subfolders would never be sent from there"
            yield Contradiction((_forward_to(number, outbox), recursive), reason)


def _after_upload(number: int, outbox: OutboxSettings) -> Setting:
    return ("outbox", number, "after_upload"), f" = {outbox.after_upload.value!r}"


def _forward_to(number: int, outbox: OutboxSettings) -> Setting:
    return ("outbox", number, "forward_to"), f" = {outbox.forward_to!r}"

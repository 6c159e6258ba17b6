"""Finds conflicts between the folders and names of a configuration.

Folders are compared by identity, not by name (see whereabouts), so that symlinks and bind mounts hide nothing. Two
outboxes that deliver to the same place are not a conflict, but their files may replace each other.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from iot.spooler.config.chains import broken_chains
from iot.spooler.config.fallbacks import fallback_problems
from iot.spooler.config.origins import Contradiction, Place
from iot.spooler.config.outboxes import AfterUpload, OutboxSettings
from iot.spooler.config.settings import Settings
from iot.spooler.config.whereabouts import Mounts, Whereabouts, mounted_now, whereabouts
from iot.spooler.naming import MERGING, VARYING, Collision, is_plain_name, shown, undoing

__all__ = ["Shared", "contradictions", "merging_rules", "shared_destinations"]


class Role(NamedTuple):
    """A folder and what it is for. setting: its key. place: where it really is."""

    kind: str
    setting: Place
    path: Path
    place: Whereabouts
    outbox: OutboxSettings | None = None


class Shared(NamedTuple):
    """Two outboxes, by name, and the place on the server that files of both may go to."""

    one: str
    other: str
    destination: str

    def __str__(self) -> str:
        return (
            f"outboxes {shown(self.one)} and {shown(self.other)} both deliver to {shown(self.destination)}:"
            " files of the same name overwrite each other; {outbox} in the destination keeps them apart"
        )


def contradictions(settings: Settings) -> list[Contradiction]:
    """Each pair of folders that must not be as they are, and each name that is not one outbox's."""
    mounts = mounted_now()
    allowed = {
        "archive": whereabouts(settings.default_archive, mounts),
        "quarantine": whereabouts(settings.default_quarantine, mounts),
    }
    found = []
    for one, other in itertools.combinations(_roles(settings, mounts), 2):
        reason = _reason(allowed, one, other)
        if reason is not None:
            hidden = "" if _is_plain(one.path, other.path) else " (by a symlink or a mount)"
            keys = tuple((role.setting, f" = {str(role.path)!r}") for role in (one, other))
            found.append(Contradiction(keys, f"{reason}{hidden}"))
    found += broken_chains(settings, mounts)
    others = (
        *(_bad_names, _undone_rules, _written_directly, _shrinking_waits, _dead_before_sent),
        *(_private_modes, _two_kinds_of_batches, _hooks_without_batches, fallback_problems),
    )
    return found + [each for look in others for each in look(settings)]


def _shrinking_waits(settings: Settings) -> list[Contradiction]:
    """Of outboxes that set one end of their waits, while the other is that of [retry]."""
    found = []
    for number, outbox in enumerate(settings.outbox):
        waits = settings.retry_of(outbox)
        if waits.cap_s < waits.base_s:
            place: Place = ("outbox", number, "retry")
            keys = [
                ((*place, key) if key in outbox.retry.model_fields_set else ("retry", key), f" = {value}")
                for key, value in (("base_s", waits.base_s), ("cap_s", waits.cap_s))
            ]
            found.append(Contradiction(tuple(keys), "the waits begin with base_s and may not be longer than cap_s"))
    return found


def _dead_before_sent(settings: Settings) -> list[Contradiction]:
    found = []
    for number, outbox in enumerate(settings.outbox):
        ttl_s, batch_s = outbox.budget.ttl_s, outbox.batch_interval_s
        if ttl_s is not None and batch_s is not None and ttl_s <= batch_s:
            batch: tuple[Place, str] = ("outbox", number, "batch_interval_s"), f" = {batch_s}"
            ttl: tuple[Place, str] = ("outbox", number, "budget", "ttl_s"), f" = {ttl_s}"
            reason = "a file would have to leave before its batch may be sent"
            found.append(Contradiction((batch, ttl), reason))
    return found


def _two_kinds_of_batches(settings: Settings) -> list[Contradiction]:
    found = []
    for number, outbox in enumerate(settings.outbox):
        if outbox.batch_marker is not None and outbox.batch_interval_s is not None:
            given = {"batch_marker": repr(outbox.batch_marker), "batch_interval_s": str(outbox.batch_interval_s)}
            keys = tuple((("outbox", number, key), f" = {value}") for key, value in given.items())
            found.append(Contradiction(keys, "a batch ends with its marker or after an interval; leave one out"))
    return found


def _hooks_without_batches(settings: Settings) -> list[Contradiction]:
    return [
        Contradiction(
            ((("outbox", number, "hooks", name), f" = {list(getattr(outbox.hooks, name))}"),),
            "the outbox has no batches: set batch_interval_s or batch_marker",
        )
        for number, outbox in enumerate(settings.outbox)
        if outbox.batch_marker is None and outbox.batch_interval_s is None
        for name in ("before_batch", "after_batch")
        if getattr(outbox.hooks, name)
    ]


def _written_directly(settings: Settings) -> list[Contradiction]:
    table = _where(settings, "direct_write")  # only SFTP has it
    if table is None:
        return []
    direct: tuple[Place, str] = ((table, "direct_write"), " = True")
    found: list[Contradiction] = []
    for number, outbox in enumerate(settings.outbox):
        if outbox.collision is not Collision.OVERWRITE:
            keys = direct, (("outbox", number, "collision"), f" = {outbox.collision.value!r}")
            found.append(Contradiction(keys, "a file that is written directly to its name replaces what is there"))
        if outbox.adopt_partial is not None:
            keys = direct, (("outbox", number, "adopt_partial"), f" = {outbox.adopt_partial!r}")
            found.append(Contradiction(keys, "a file that is written directly to its name is never resumed"))
        if outbox.commands.before_publish:
            given = [list(words) for words in outbox.commands.before_publish]
            both = direct, (("outbox", number, "commands", "before_publish"), f" = {given}")
            found.append(Contradiction(both, "a file that is written directly to its name has no moment before that"))
    return found


def _where(settings: Settings, option: str) -> str | None:
    """The table of the first server that has this option on."""
    return next((table for table, server in settings.servers.items() if getattr(server, option, False)), None)


def _private_modes(settings: Settings) -> list[Contradiction]:
    table = _where(settings, "keep_mode")
    if table is None:
        return []
    keep: tuple[Place, str] = ((table, "keep_mode"), " = True")
    return [
        Contradiction(
            (keep, (("outbox", number, "compress"), f" = {outbox.compress.value!r}")),
            "a compressed file is the agent's own, with mode 600, and not the producer's",
        )
        for number, outbox in enumerate(settings.outbox)
        if outbox.compress is not None
    ]


def _undone_rules(settings: Settings) -> list[Contradiction]:
    found = []
    for number, outbox in enumerate(settings.outbox):
        for one, other in undoing([rule.plain for rule in outbox.rules]):
            places = [("outbox", number, "rules", each) for each in (one, other)]
            shown_rules = [f" = {shown(outbox.rules[each].action.value)}" for each in (one, other)]
            keys = tuple(zip(places, shown_rules, strict=True))
            found.append(Contradiction(keys, "the later one undoes the earlier one; leave both out"))
    return found


def merging_rules(settings: Settings) -> list[str]:
    """A warning for each outbox whose rules may give two of its files one name, so that one replaces the other."""
    found = []
    for outbox in settings.outbox:
        merging = [rule.action.value for rule in outbox.rules if rule.action in MERGING]
        replaces = outbox.collision is Collision.OVERWRITE
        if merging and replaces and "seq" not in outbox.naming(settings.device_id).fields:
            found.append(
                f"outbox {shown(outbox.label)}: {', '.join(dict.fromkeys(merging))} may give different files one name,"
                " and the later replaces the earlier; another collision, or {seq} in the destination or in a prefix,"
                " keeps them apart"
            )
    return found


def _bad_names(settings: Settings) -> list[Contradiction]:
    found = []
    for label, times in Counter(outbox.label for outbox in settings.outbox).items():
        if times > 1:
            found.append(Contradiction(((("outbox",), ""),), f"{times} are called {label!r}: give each its own name"))
    for label, times in Counter(inbox.label for inbox in settings.inbox).items():
        if times > 1:
            found.append(Contradiction(((("inbox",), ""),), f"{times} are called {label!r}: give each its own name"))
    for number, outbox in enumerate(settings.outbox):
        named = "{outbox}" in outbox.destination or "outbox" in outbox.commands.fields
        if named and not is_plain_name(outbox.label):
            key = ("outbox", number, "name"), f" = {outbox.label!r}"
            reason = (
                "as {outbox} in its destination or a remote command it would lead elsewhere; it must be one name, not"
                ' "." or "..", without "/"'
            )
            found.append(Contradiction((key,), reason))
    return found


def shared_destinations(settings: Settings) -> list[Shared]:
    """The pairs of outboxes whose files of the same name would replace each other on the server."""
    bases = [_base(settings, outbox) for outbox in settings.outbox]
    found = []
    for (one, mine), (other, theirs) in itertools.combinations(zip(settings.outbox, bases, strict=True), 2):
        upper, lower = ((one, mine), (other, theirs)) if len(mine) <= len(theirs) else ((other, theirs), (one, mine))
        same, below = upper[1] == lower[1], lower[1][: len(upper[1])] == upper[1]
        replaces = Collision.OVERWRITE in (one.collision, other.collision)
        if replaces and (same or (below and upper[0].recursive)):
            found.append(Shared(one.label, other.label, lower[0].destination))
    return found


def _base(settings: Settings, outbox: OutboxSettings) -> tuple[str, ...]:
    """The components of the path that its files go to."""
    base = outbox.naming(settings.device_id).base
    first = "/" if base.startswith("/") else ""
    return (first, *(name for name in base.split("/") if name not in ("", ".")))


def _roles(settings: Settings, mounts: Mounts) -> list[Role]:
    def role(kind: str, setting: Place, path: Path, outbox: OutboxSettings | None = None) -> Role:
        return Role(kind, setting, path, whereabouts(path, mounts), outbox)

    roles = [role("state", ("state_dir",), settings.state_dir)]
    for number, outbox in enumerate(settings.outbox):
        table = ("outbox", number)
        roles.append(role("outbox", (*table, "path"), outbox.path, outbox))
        if outbox.after_upload is AfterUpload.ARCHIVE or outbox.archive is not None:
            roles.append(role("archive", (*table, "archive"), settings.archive_of(outbox), outbox))
        roles.append(role("quarantine", (*table, "quarantine"), settings.quarantine_of(outbox), outbox))
        forwards_to = settings.next_of(outbox)
        if forwards_to is not None and outbox.forward_to == str(forwards_to):
            roles.append(role("next outbox", (*table, "forward_to"), forwards_to, outbox))
        destination = (*table, "destination")
        roles += [role("destination", destination, folder, outbox) for folder in _delivers_to(settings, outbox)]
    for number, inbox in enumerate(settings.inbox):
        roles.append(role("inbox", ("inbox", number, "path"), inbox.path))
        base = settings.server.local_folder
        if base is not None:
            fetched_from = base.joinpath(*_names(inbox.source_of(settings.device_id)))
            roles.append(role("source", ("inbox", number, "source"), fetched_from))
    return roles


def _names(remote: str) -> list[str]:
    return [name for name in remote.split("/") if name not in ("", ".")]


def _delivers_to(settings: Settings, outbox: OutboxSettings) -> list[Path]:
    """The local folders that its files go to, as far as they are the same for all of them."""
    fixed = [*itertools.takewhile(lambda name: VARYING not in name, _base(settings, outbox)[1:])]
    bases = (server.local_folder for server in settings.servers.values())
    return [base.joinpath(*fixed) for base in bases if base is not None]


def _reason(allowed: Mapping[str, Whereabouts], one: Role, other: Role) -> str | None:
    """Why these two are in conflict, or None; `one` comes before `other` in the list of roles.

    allowed: where archives and quarantines may lie in the state directory, which are their default places.
    """
    kinds = {one.kind, other.kind}
    if not one.place.overlaps(other.place):
        return None
    if "source" in kinds or "inbox" in kinds:
        return _reason_of_inbox(kinds)
    if kinds & {"destination", "next outbox"}:
        return _reason_of_target(kinds, one, other)
    return _reason_of_outbox(allowed, one, other)


def _reason_of_outbox(allowed: Mapping[str, Whereabouts], one: Role, other: Role) -> str | None:
    kinds = {one.kind, other.kind}
    if kinds == {"outbox"}:
        return "one lies within the other: every file would be sent twice"
    if "outbox" in kinds:
        return "one lies within the other: an outbox must hold nothing but what is to be sent"
    if "state" in kinds:
        has_its_place = other.place.is_within(allowed[other.kind])
        return None if has_its_place else "the state directory holds nothing but the agent's state"
    if kinds == {"archive", "quarantine"}:
        return "one lies within the other: what was never delivered would be deleted by age"
    return _shared(one, other) if one.place.is_same(other.place) else "one lies within the other"


def _reason_of_target(kinds: set[str], one: Role, other: Role) -> str | None:
    """Why files cannot be delivered or forwarded to a folder; a next outbox may be one of this configuration."""
    if kinds == {"destination"}:
        return None
    if "destination" in kinds:
        return "one lies within the other: what is delivered must lie apart"
    if kinds <= {"outbox", "next outbox"}:
        reason = "one lies within the other: files are forwarded to an outbox itself"
        return None if one.place.is_same(other.place) else reason
    return "one lies within the other: what is forwarded must come into an outbox"


def _reason_of_inbox(kinds: set[str]) -> str | None:
    """Why an inbox, or the folder that it is fetched from, must not lie there. A server that is a folder may hold what
    is delivered beside what is fetched."""
    if "inbox" not in kinds:
        return (
            None if kinds <= {"source", "destination"} else "one lies within the other: what is fetched must lie apart"
        )
    if kinds == {"inbox"}:
        return "one lies within the other: each inbox needs a folder of its own"
    if "outbox" in kinds:
        return "one lies within the other: what is fetched would be sent again"
    return "one lies within the other: an inbox must hold nothing but what is fetched"


def _shared(one: Role, other: Role) -> str | None:
    """Why two outboxes cannot share this folder."""
    if one.kind == "quarantine" or _limits(one) == _limits(other):
        return None
    return "outboxes that share an archive must set the same archive_max_age_s and archive_max_bytes"


def _is_plain(one: Path, other: Path) -> bool:
    """Whether the paths themselves show that one lies within the other."""
    mine, theirs = Path(os.path.normpath(one)), Path(os.path.normpath(other))
    return mine == theirs or mine in theirs.parents or theirs in mine.parents


def _limits(role: Role) -> tuple[float | None, int | None]:
    assert role.outbox is not None
    return role.outbox.archive_max_age_s, role.outbox.archive_max_bytes

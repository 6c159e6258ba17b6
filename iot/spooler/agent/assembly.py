"""What an agent is made of, as its settings say."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from iot.spooler.batches.batches import Batches
from iot.spooler.batches.markers import MarkedOutbox, Markers
from iot.spooler.budget.ages import Ages
from iot.spooler.budget.budget import Budget
from iot.spooler.budget.shelf import Shelf
from iot.spooler.budget.tombstones import TombstoneLists, Tombstones
from iot.spooler.commands import environment, plain_environment
from iot.spooler.compression.packing import Packing
from iot.spooler.config.outboxes import Beyond, OutboxSettings
from iot.spooler.config.retry import RetrySettings
from iot.spooler.config.settings import Settings
from iot.spooler.gates.condition import CommandGate
from iot.spooler.gates.gates import Gate, Gates, ServerGate, WindowGate
from iot.spooler.gates.quota import QuotaGate
from iot.spooler.hooks.batches import BatchHooks
from iot.spooler.hooks.hooks import Hooks
from iot.spooler.leaving.owed import Owed
from iot.spooler.leaving.trust import open_trusted
from iot.spooler.naming import Collision, is_plain_name
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.outbox.names import facts_of
from iot.spooler.patterns import matcher
from iot.spooler.queue.policy import Admission, Backoff, RetryRules
from iot.spooler.queue.queue import Entry, Queue
from iot.spooler.server.availability import Availability, Remote
from iot.spooler.server.hint import Hints
from iot.spooler.state.elapsed import observe
from iot.spooler.state.homes import Homes
from iot.spooler.timetable.pacing import Pacer
from iot.transfer import Elsewhere, Journal, RemoteCommands

if TYPE_CHECKING:
    from iot.spooler.inbox.inbox import Inbox

__all__ = [
    "among_servers",
    "budget",
    "commands",
    "gates",
    "hints",
    "homes",
    "hooks",
    "inboxes",
    "intakes",
    "lists_outbox",
    "markers",
    "pacer",
    "packing",
    "quota",
    "rules",
    "server",
    "was_lost",
]

DRAIN_CAP_S = 5.0
DRAIN_QUIET_S = 1.0
HOLD_JITTER = 0.1


def was_lost(journal: Journal) -> bool:
    """Whether the journal is new because an earlier one was lost."""
    return journal.moved_aside is not None or journal.state_dir is None


def server(settings: Settings, random: Callable[[], float], *, drain: bool) -> Availability:
    """A drain ends soon, so it has no time to wait for its turn."""
    retry = settings.retry
    backoff = Backoff(retry.base_s, min(retry.cap_s, DRAIN_CAP_S) if drain else retry.cap_s)
    hold = Backoff(retry.auth_hold_s, retry.auth_hold_max_s, HOLD_JITTER)
    return Availability(backoff, hold, random, herd_window_s=0.0 if drain else retry.herd_window_s)


def rules(settings: Settings, intakes: Sequence[Intake], *, drain: bool) -> dict[int, RetryRules]:
    """By the number of the outbox."""
    return {intake.number: _rules(settings.retry_of(intake.settings), drain=drain) for intake in intakes}


def _rules(retry: RetrySettings, *, drain: bool) -> RetryRules:
    if drain:
        backoff = Backoff(min(retry.base_s, DRAIN_CAP_S), min(retry.cap_s, DRAIN_CAP_S))
        return RetryRules(backoff, retry.max_attempts, retry.drain_attempts)
    return RetryRules(Backoff(retry.base_s, retry.cap_s), retry.max_attempts)


BEYOND = {Beyond.STOP: Admission.NONE, Beyond.URGENT: Admission.URGENT, Beyond.SEND: Admission.ALL}


def markers(intakes: Sequence[Intake], queue: Queue, journal: Journal, hooks: BatchHooks, *, drain: bool) -> Markers:
    """A drain sends all there is, and of each batch that has come its marker last."""
    each = {
        intake.number: MarkedOutbox(intake, _is_marker(intake.settings), intake.settings.batch_grace_s)
        for intake in intakes
        if intake.settings.batch_marker is not None
    }
    return Markers(each, queue, journal, hooks, everything=drain)


def _is_marker(settings: OutboxSettings) -> Callable[[bytes], bool]:
    match = matcher([settings.batch_marker or ""], ignore_case=settings.ignore_case)
    return lambda path: match(path.decode("utf-8", "surrogateescape"))


def gates(
    settings: Settings,
    intakes: Sequence[Intake],
    queue: Queue,
    journal: Journal,
    clocks: Clocks,
    rest: Sequence[Gate],
    markers: Markers,
    hooks: BatchHooks,
    inboxes: Sequence[Inbox],
    *,
    drain: bool,
) -> Gates:
    """rest: the gates that others have to do with, too."""
    boxes: list[Intake | Inbox] = [*intakes, *inboxes]
    schedules = {box.number: box.settings.schedule for box in boxes}
    numbered = {inbox.number: inbox for inbox in inboxes}
    server = ServerGate(numbered if settings.uses_fallback else ())
    each: list[Gate] = [server, WindowGate(schedules, settings.zone), *rest, *_commands(settings, boxes)]
    return Gates(each, _batches(intakes, queue, journal, hooks, drain=drain), markers, intakes, queue, clocks, numbered)


def _batches(intakes: Sequence[Intake], queue: Queue, journal: Journal, hooks: BatchHooks, *, drain: bool) -> Batches:
    """A drain sends all there is, and collects no longer than hooks need to be told of it at once."""
    given = {intake.number: intake.settings.batch_interval_s for intake in intakes}
    intervals = {number: interval_s for number, interval_s in given.items() if interval_s is not None}
    if drain:
        hooked = {intake.number for intake in intakes if intake.settings.hooks.of_batches}
        intervals = {number: min(each, DRAIN_QUIET_S) for number, each in intervals.items() if number in hooked}
    return Batches(intervals, {intake.number: intake.settings.label for intake in intakes}, queue, journal, hooks)


def _commands(settings: Settings, boxes: Sequence[Intake | Inbox]) -> list[CommandGate]:
    """The condition and the metered rule, as far as they are configured."""
    timing = {"every_s": settings.command_every_s, "limit_s": settings.command_limit_s}
    nothing = dict.fromkeys((box.number for box in boxes), Admission.NONE)
    beyond = {box.number: BEYOND[box.settings.on_metered] for box in boxes}
    ours = environment(os.environ)
    gates = []
    if settings.condition:
        reason = "the condition is not met"
        gates.append(CommandGate(settings.condition, nothing, bool, reason, **timing, environment=ours))
    if settings.metered_command and any(admission is not Admission.ALL for admission in beyond.values()):
        reason, command = "the link is metered", settings.metered_command
        gates.append(CommandGate(command, beyond, lambda code: code != 1, reason, **timing, environment=ours))
    return gates


def hooks(
    settings: Settings,
    intakes: Sequence[Intake],
    queue: Queue,
    journal: Journal,
    clocks: Clocks,
    random: Callable[[], float],
    *,
    drain: bool,
) -> Hooks:
    each = {intake.number: intake for intake in intakes}

    def source(entry: Entry) -> str:
        return each[entry.outbox].source(entry)

    each_hooks = {number: intake.settings.hooks for number, intake in each.items()}
    folders = {number: bytes(intake.settings.path) for number, intake in each.items()}
    given, waits = plain_environment(os.environ), rules(settings, intakes, drain=drain)
    return Hooks(each_hooks, folders, source, given, waits, queue, journal, clocks.monotonic, random)


def commands(settings: Settings, intakes: Sequence[Intake]) -> Callable[[Entry], RemoteCommands]:
    """What is done on the server for each file, besides sending it."""
    chosen = {each.number: each.settings for each in intakes if not each.settings.commands.is_empty}
    device_id = settings.device_id
    namings = {number: outbox.naming(device_id) for number, outbox in chosen.items()}

    def of(entry: Entry) -> RemoteCommands:
        outbox = chosen.get(entry.outbox)
        if outbox is None:
            return RemoteCommands()
        facts = facts_of(entry)
        base = namings[entry.outbox].place("", facts)
        if not entry.destination.startswith(base):  # begun under an earlier destination
            base = os.path.dirname(entry.destination)
        return outbox.commands.filled(facts, base, device_id=device_id, outbox=outbox.label)

    return of


def homes(settings: Settings, intakes: Sequence[Intake]) -> Homes:
    """Of all folders of the agent; outboxes know theirs from now on."""
    made = Homes(settings.state_dir, settings.mounts)
    for intake in intakes:
        intake.outbox.homes = made
    return made


def inboxes(
    settings: Settings, journal: Journal, clocks: Clocks, random: Callable[[], float], homes: Homes
) -> list[Inbox]:
    """Their numbers are below those of outboxes."""
    if not settings.inbox:
        return []
    from iot.spooler.inbox.inbox import Inbox

    retry = settings.retry
    backoff = Backoff(retry.base_s, retry.cap_s)
    given = plain_environment(os.environ)
    return [
        Inbox(inbox, -number, settings.device_id, journal, clocks, backoff, given, random, homes)
        for number, inbox in enumerate(settings.inbox, 1)
        if inbox.enabled
    ]


def quota(
    settings: Settings, intakes: Sequence[Intake], inboxes: Sequence[Inbox], journal: Journal, remote: Remote
) -> QuotaGate:
    given = {"day": settings.quota_day, "month": settings.quota_month}
    limits = {per: int(limit) for per, limit in given.items() if limit is not None}
    boxes: list[Intake | Inbox] = [*intakes, *inboxes]
    beyond = {box.number: BEYOND[box.settings.beyond_quota] for box in boxes}
    return QuotaGate(limits, beyond, settings.zone, journal, lambda: remote.wire)


def packing(settings: Settings, intakes: Sequence[Intake], queue: Queue, clocks: Clocks) -> Packing:
    return Packing(settings.state_dir, intakes, queue, int(settings.compress_max_bytes), clocks.monotonic)


def among_servers(settings: Settings, remote: Remote) -> tuple[str | None, Elsewhere | None]:
    """Where this agent delivers to, and what was begun elsewhere; None for both where there is one server.

    Raises: JournalUnavailable.
    """
    return (None, None) if settings.fallback is None else (settings.server.address, remote.elsewhere())


def hints(settings: Settings, remote: Remote, pacer: Pacer, *, drain: bool) -> Hints | None:
    """A drain is somebody's wish to send now."""
    if settings.hint_file is None or drain:
        return None
    return Hints(remote, settings.hint_file, settings.device_id, pacer.lower)


def pacer(settings: Settings, remote: Remote) -> Pacer:
    otherwise = settings.server.client_options().get("max_rate")
    return Pacer(settings.rates, settings.zone, otherwise, remote.limit_rate)


def intakes(settings: Settings, queue: Queue, clocks: Clocks, *, journal_lost: bool) -> list[Intake]:
    """Of all outboxes, then of the lists of what they drop."""
    outboxes = [outbox for outbox in settings.outbox if outbox.enabled]
    lists = [lists_outbox(settings, outbox) for outbox in outboxes if outbox.budget.may_drop]
    return [
        Intake(
            outbox,
            queue,
            clocks,
            device_id=settings.device_id,
            scan_s=settings.scan_s if outbox.scan_s is None else outbox.scan_s,
            small_file_bytes=settings.small_file_bytes,
            journal_lost=journal_lost,
        )
        for outbox in (*outboxes, *lists)
    ]


def lists_outbox(settings: Settings, outbox: OutboxSettings) -> OutboxSettings:
    """The outbox, in the state directory, that the lists of dropped files are sent from: as those of this one are."""
    folder = settings.lists_of(outbox)
    with suppress(OSError):  # the scan will say that it cannot be read
        os.close(open_trusted(folder, make=True))
    destination = outbox.budget.log_destination or outbox.destination
    if is_plain_name(outbox.label):
        destination = destination.replace("{outbox}", outbox.label)
    same = ("retry", "percent_encode", "server_ignores_case", "priority", "schedule", "beyond_quota", "on_metered")
    return OutboxSettings(
        path=folder,
        name=f"{outbox.label[:72]}-dropped",
        destination=destination,
        collision=Collision.UNIQUE,  # another device may have a list of the same name there
        settle_s=0,
        recursive=False,
        include=("*.jsonl",),
        quarantine=outbox.quarantine,
        **{key: getattr(outbox, key) for key in same},
    )


def budget(
    settings: Settings,
    intakes: Sequence[Intake],
    queue: Queue,
    owed: Owed,
    journal: Journal,
    clocks: Clocks,
    withdraw: Callable[[Sequence[Entry]], None],
    *,
    drain: bool,
) -> Budget:
    """withdraw: as Budget has it."""
    by_folder = {intake.settings.path: intake for intake in intakes}
    limited = [intake for intake in intakes if intake.settings.budget.is_limited or intake.settings.budget.ttl_s]
    tombstones = Tombstones(journal) if any(each.settings.budget.may_drop for each in limited) else None
    shelves = []
    for intake in limited:
        folder, lists = settings.lists_of(intake.settings), None
        if tombstones is not None and intake.settings.budget.may_drop:
            lists = TombstoneLists(folder, folder.name, intake.number, tombstones)
        shelves.append(Shelf(intake, lists, by_folder.get(folder), queue))
    given = {intake.number: intake.settings.budget.ttl_s for intake in limited}
    ages = Ages({number: ttl_s for number, ttl_s in given.items() if ttl_s is not None}, queue, journal, observe)
    return Budget(shelves, ages, tombstones, queue, owed, journal, clocks, withdraw, drain=drain)

"""The status as a table for people, at most 80 columns wide; nothing here knows the agent."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from iot.transfer import counted_files, human_bytes, terminal_safe

__all__ = ["read", "table"]

WIDTH = 80
LABEL = 12
QUIET_S = 15.0
"""An agent at rest writes nothing; one that works, at least every 10 s."""
Content = Mapping[str, Any]


def read(path: Path) -> dict[str, Any] | None:
    """What the agent last wrote; None when there is nothing to read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def table(content: Content, *, running: bool, wall: float) -> str:
    """wall: now, seconds. A line that is too long goes on below its first word."""
    return "\n".join(_wrapped(label, words) for label, words in _rows(content, running=running, wall=wall))


def _wrapped(label: str, words: str) -> str:
    margin = " " * LABEL
    return textwrap.fill(
        terminal_safe(words),
        WIDTH,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rows(content: Content, *, running: bool, wall: float) -> Iterator[tuple[str, str]]:
    connection, backlog, delivered = content["connection"], content["backlog"], content["delivered"]
    yield "agent", _agent(content, running=running, wall=wall)
    yield "connection", f"{connection['state']} {connection['server']}" + _next(connection, wall)
    if connection.get("other_server"):
        yield "not used", _other(connection["other_server"], wall)
    if connection.get("to_do"):
        yield "to do", connection["to_do"]
    age = "" if backlog["oldest_at"] is None else f", oldest {_span(wall - backlog['oldest_at'])}"
    left = _left(backlog.get("left_s"))
    yield "backlog", f"{counted_files(backlog['files'])}, {human_bytes(backlog['bytes'])}{age}{left}"
    limit = content.get("rate_limit_bytes_per_s")
    most = "" if limit is None else f" of {human_bytes(int(limit))}/s at most"
    yield "rate", f"{human_bytes(content['rate_bytes_per_s'])}/s{most}, {content['in_flight']} in flight"
    for quota in content.get("quota", ()):
        used, most = human_bytes(quota["used_bytes"]), human_bytes(quota["bytes"])
        yield "quota", f"{used} of {most} this {quota['per']}, resets in {_span(quota['resets_at'] - wall)}"
    yield "delivered", f"{counted_files(delivered['files'])} since start, {content['quarantined']} in quarantine"
    yield "last error", content["last_error"] or "none"
    for item in content["current"]:
        yield "sending", _sending(item)
    for outbox in content["outboxes"]:
        yield "outbox", _outbox(outbox, wall)
    for inbox in content.get("inboxes", ()):
        yield "inbox", _inbox(inbox, wall)
        for item in inbox["current"]:
            yield "fetching", _sending(item)


def _agent(content: Content, *, running: bool, wall: float) -> str:
    age_s = wall - content.get("updated_at", wall)
    ago = _span(age_s)
    if running:
        words = f"updated {ago} ago" if age_s < QUIET_S else f"nothing has changed for {ago}"
        return f"running, process {content['pid']}, {words}"
    if content.get("ended"):
        return f"not running, ended {ago} ago; these are its last figures"
    return f"DEAD: process {content['pid']} has ended without a word; these figures are {ago} old"


def _sending(item: Content) -> str:
    done, size = human_bytes(item["done_bytes"]), human_bytes(item["bytes"])
    words = f"{item['path']}: {item.get('percent', 0)} %, {done} of {size}"
    rate = item.get("rate_bytes_per_s")
    return words + (f", {human_bytes(rate)}/s{_left(item.get('left_s'))}" if rate else "")


def _outbox(outbox: Content, wall: float) -> str:
    if outbox["state"] == "disabled":
        return f"{outbox['name']}: disabled"
    return (
        f"{outbox['name']}: {_state(outbox, wall)}, {counted_files(outbox['files'])}, {human_bytes(outbox['bytes'])},"
        f" {outbox['watched'] + outbox.get('without_marker', 0)} not ready ({_not_ready_words(outbox)}),"
        f" {outbox['waiting']} waiting, {outbox['kept']} kept, {outbox['held']} held,"
        f" completeness {outbox['completeness']}"
        + (f", {outbox['hooks']} hooks to end" if outbox.get("hooks") else "")
        + (f", scanned often ({outbox['scanned_often_because']})" if outbox.get("scanned_often_because") else "")
        + (f", {outbox['events_lost']} times events lost" if outbox.get("events_lost") else "")
        + (f", {outbox['earlier_destination']} to an earlier destination" if outbox["earlier_destination"] else "")
        + _never_sent_words(outbox["never_sent"])
        + _budget_words(outbox)
        + (f", {outbox['waits_because']}" if outbox.get("waits_because") else "")
        + _sharing_words(outbox["shares_destination_with"])
        + _reason_words(outbox)
    )


def _state(outbox: Content, wall: float) -> str:
    words, since, tries = str(outbox["state"]), outbox.get("state_since"), outbox.get("source_failures")
    if words == "started" or since is None:
        return words
    return f"{words} for {_span(wall - since)}" + (f", tried {tries} time{'s' * (tries != 1)}" if tries else "")


def _reason_words(outbox: Content) -> str:
    """What is wrong, and why it is in its state unless that has been said."""
    reason = outbox.get("state_reason")
    if outbox["state"] in ("suspended", "stopped") and outbox.get("waits_because"):
        reason = None  # said as what it waits for
    return "".join(f" ({words})" for words in (outbox["error"], None if reason == outbox["error"] else reason) if words)


def _inbox(inbox: Content, wall: float) -> str:
    at = inbox["last_look_at"]
    looked = "not looked at yet" if at is None else f"looked at {_span(wall - at)} ago"
    reasons = "; ".join(f"{path}: {reason}" for path, reason in inbox["reasons"].items())
    return (
        f"{inbox['name']}: {_state(inbox, wall)}, {looked}, {counted_files(inbox['taken'])} taken since start,"
        f" {inbox['pending']} to fetch, {inbox['waiting']} waiting, {inbox['not_taken']} not taken"
        + (f" ({reasons})" if reasons else "")
        + (f", {inbox['waits_because']}" if inbox["waits_because"] else "")
        + _reason_words(inbox)
    )


def _next(connection: Content, wall: float) -> str:
    at = connection["next_attempt_at"]
    return "" if at is None else f", next attempt in {_span(at - wall)}"


def _other(other: Content, wall: float) -> str:
    """A server, named by its table, that no file goes to now."""
    error = f" ({other['error']})" if other["error"] else ""
    asked = "" if other["next_attempt_at"] is None else f", asked in {_span(other['next_attempt_at'] - wall)}"
    return f"[{other['table']}] {other['server']}{asked}{error}"


def _left(seconds: int | None) -> str:
    return "" if seconds is None else f", {_span(seconds)} left"


def _not_ready_words(outbox: Content) -> str:
    alone = outbox.get("without_marker")
    return f"{outbox['open_for_writing']} open for writing" + (f", {alone} without a marker" if alone else "")


def _never_sent_words(reasons: Mapping[str, int]) -> str:
    words = ", ".join(f"{reason}: {number}" for reason, number in reasons.items())
    return f", {sum(reasons.values())} never sent ({words})" if reasons else ""


def _budget_words(outbox: Content) -> str:
    dropped, over = outbox.get("dropped"), outbox.get("over_budget")
    words = f", {dropped} dropped ({human_bytes(outbox['dropped_bytes'])})" if dropped else ""
    return words + (f", over budget and nothing more may be dropped: {over}" if over else "")


def _sharing_words(names: Sequence[str]) -> str:
    return f", same destination as {', '.join(names)}: files of the same name overwrite each other" if names else ""


def _span(seconds: float) -> str:
    seconds = max(int(seconds), 0)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"

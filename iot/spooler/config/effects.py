"""Settings that do nothing as they stand: whoever has set them expects something else.

They are warned of and no error, since a configuration may be made from parts, and a device must not stay silent for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.outboxes import AfterUpload, Beyond, OutboxSettings, Ready
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown, useless
from iot.spooler.patterns import REGEX_MARK, is_unfinished, matcher, wanted
from iot.transfer import human_bytes

__all__ = ["without_effect"]

OF_ARCHIVES = ("archive", "archive_max_age_s", "archive_max_bytes")


def without_effect(settings: Settings) -> list[str]:
    """A warning for each."""
    found = [*_of_all(settings)]
    for outbox in settings.outbox:
        whose = f"outbox {shown(outbox.label)}: "
        found += [whose + words for words in (*_of_limits(settings, outbox), *_of_outbox(outbox))]
    for inbox in settings.inbox:
        found += [f"inbox {shown(inbox.label)}: {words}" for words in _of_limits(settings, inbox)]
    return found


def _of_all(settings: Settings) -> Iterator[str]:
    boxes: list[OutboxSettings | InboxSettings] = [*settings.outbox, *settings.inbox]
    if settings.metered_command and all(box.on_metered is Beyond.SEND for box in boxes):
        yield 'metered_command has no effect: everything is sent on a metered link; set on_metered = "stop" or "urgent"'
    day, month = settings.quota_day, settings.quota_month
    if day is not None and month is not None and day > month:
        yield f"quota_day of {human_bytes(day)} has no effect: it is more than the quota_month of {human_bytes(month)}"


def _of_limits(settings: Settings, box: OutboxSettings | InboxSettings) -> Iterator[str]:
    if box.on_metered is not Beyond.SEND and not settings.metered_command:
        yield f'on_metered = "{box.on_metered.value}" has no effect without metered_command'
    has_quota = settings.quota_day is not None or settings.quota_month is not None
    if box.beyond_quota is not Beyond.STOP and not has_quota:
        yield f'beyond_quota = "{box.beyond_quota.value}" has no effect without quota_day or quota_month'
    if isinstance(box, OutboxSettings) and not box.urgent:
        for key in ("on_metered", "beyond_quota"):
            if getattr(box, key) is Beyond.URGENT:
                yield f'{key} = "urgent" sends nothing: the outbox has no urgent patterns'


def _of_outbox(outbox: OutboxSettings) -> Iterator[str]:
    given = outbox.model_fields_set
    if "batch_grace_s" in given and outbox.batch_marker is None:
        yield "batch_grace_s has no effect without batch_marker"
    if outbox.after_upload is not AfterUpload.ARCHIVE:
        for key in OF_ARCHIVES:
            if key in given and getattr(outbox, key) is not None:
                yield f'{key} has no effect without after_upload = "archive"'
    if outbox.batch_marker is not None and not _marker_is_sent(outbox, outbox.batch_marker):
        yield (
            f"batch_marker = {shown(outbox.batch_marker)} names files that are not sent, by include, exclude or ready:"
            " no batch would ever be complete; include them"
        )
    for one, other in useless([rule.plain for rule in outbox.rules]):
        earlier, later = (outbox.rules[each].action.value for each in (one, other))
        yield f"rules[{one}] ({earlier}) has no effect: rules[{other}] ({later}) leaves nothing of it"


# -- whether a marker can ever be found


def _marker_is_sent(outbox: OutboxSettings, pattern: str) -> bool:
    """False if none of the names that the patterns suggest is a marker and sent. A regular expression is believed."""
    if any(each.startswith(REGEX_MARK) for each in (pattern, *outbox.include)):
        return True
    is_marker = matcher([pattern], ignore_case=outbox.ignore_case)
    is_sent = wanted(outbox.include, outbox.exclude, ignore_case=outbox.ignore_case)
    unfinished = is_unfinished if outbox.ready is Ready.RENAMED else lambda _: False
    names = [name for name in _examples(pattern, outbox.include) if is_marker(name)]
    return not names or any(is_sent(name) and not unfinished(name) for name in names)


def _examples(pattern: str, include: tuple[str, ...]) -> Iterator[str]:
    """Names of markers, alone and where the include patterns would have them."""
    marker = _filled(pattern)
    yield marker
    for each in include:
        folder = _filled(each).rpartition("/")[0]
        yield f"{folder}/{marker}"
        before, star, after = each.rpartition("*")
        yield _filled(before) + (marker if star else "") + _filled(after)


def _filled(pattern: str) -> str:
    """A name that matches a pattern without brackets."""
    return re.sub(r"[*?]", "x", pattern)

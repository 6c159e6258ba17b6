"""Decide how to proceed with an upload. Pure, so that every case is a row of a table in the tests.

journal            source      part on the server   final on the server   step
nothing            -           -                    -                     Fresh
nothing, but a     -           -                    same size as source   ProveFinal
  final may exist
sending            changed     -                    -                     Fresh
sending            unchanged   missing/empty/long   -                     Fresh
sending            unchanged   present              -                     ResumeAt its size; unacked is suspect
sending            unchanged   present, unreadable  -                     ResumeAt the end of the certain bytes
publishing         changed     -                    -                     Fresh
publishing         unchanged   present              -                     ResumeAt (all its bytes are acked)
publishing         unchanged   gone                 same size as source   ProveFinal
publishing         unchanged   gone                 anything else         Fresh, a possible repeat
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from iot.transfer.model import Checkpoint, Fingerprint, Phase, RemoteFile, Span, UploadJob
from iot.transfer.window import merge


@dataclass(frozen=True, slots=True)
class ResumeRules:
    """verify: size, timestamp, tail or full (the setting `verify`). trust: answered writes need no verification.

    identified: the source has a name and times that reveal a change; a stream has neither.
    beyond_bytes: up to this many bytes of the part beyond acked are kept as well: they were in flight when the link
        was lost, and are read back instead of sent again.
    readable: the server allows suspect bytes to be read back; otherwise they are sent again.
    """

    verify: str
    trust: bool
    tail_size: int
    identified: bool
    beyond_bytes: int
    readable: bool


@dataclass(frozen=True, slots=True)
class Fresh:
    """Start over. possible_repeat: an earlier attempt may have been published and then taken away."""

    possible_repeat: bool = False


@dataclass(frozen=True, slots=True)
class ResumeAt:
    """Continue at `offset` and read the `suspect` spans back meanwhile. `tail`: compare this span first."""

    offset: int
    suspect: tuple[Span, ...] = ()
    synced: int = 0
    tail: Span | None = None

    def unread(self) -> ResumeAt | Fresh:
        """The same without reading back: everything from the first suspect byte on is sent again."""
        if self.tail is not None:
            return Fresh()
        if not self.suspect:
            return self
        start = min(span.start for span in self.suspect)
        return ResumeAt(start, (), min(self.synced, start)) if start else Fresh()


@dataclass(frozen=True, slots=True)
class ProveFinal:
    """The final may be this very version: verify its content; if it differs, go on as given."""

    otherwise: Fresh | ResumeAt


Step: TypeAlias = Fresh | ResumeAt | ProveFinal


def only_commands_left(job: UploadJob, known: Checkpoint | None, source: Fingerprint) -> int | None:
    """Under which name an earlier attempt has published this version, if only commands are to follow. They may have
    taken that away, so nothing else would tell."""
    is_known = known is not None and known.fingerprint == source and bool(job.commands.after_success)
    return known.published_as if known is not None and is_known else None


def plan(
    source: Fingerprint,
    checkpoint: Checkpoint | None,
    part: RemoteFile | None,
    final: RemoteFile | None,
    rules: ResumeRules,
) -> Step:
    """Choose the next step. part and final are None where the server reports that there is no such file."""
    stands = final is not None and final.size == source.size
    if checkpoint is None:
        return ProveFinal(Fresh()) if stands else Fresh()
    if _is_other_version(source, checkpoint.fingerprint, rules.verify):
        return Fresh()
    if part is None:
        gone = Fresh(possible_repeat=checkpoint.phase is Phase.PUBLISHING)
        return ProveFinal(gone) if stands and gone.possible_repeat else gone
    offset = min(checkpoint.acked_bytes + rules.beyond_bytes, source.size, part.size or 0)
    if source.size and not offset:
        return Fresh()
    if part.size is not None and part.size > source.size:  # someone else wrote to it
        return Fresh()
    step = _resume(source, checkpoint, offset, rules)
    return step if rules.readable else step.unread()


def _resume(source: Fingerprint, checkpoint: Checkpoint, offset: int, rules: ResumeRules) -> ResumeAt:
    synced = min(checkpoint.synced_bytes, offset)
    suspect = [Span(span.start, min(span.end, offset)) for span in checkpoint.suspect]
    suspect.append(Span(checkpoint.acked_bytes, offset))
    if not rules.trust:
        suspect.append(Span(synced, offset))
    if rules.verify == "full" or not rules.identified or _is_doubtful(source, checkpoint.fingerprint, rules.verify):
        suspect.append(Span(0, offset))
    tail = Span(max(0, offset - rules.tail_size), offset) if rules.verify == "tail" else None
    return ResumeAt(offset, merge(tuple(suspect)), synced, tail)


def _is_other_version(source: Fingerprint, known: Fingerprint, verify: str) -> bool:
    if source.size != known.size:
        return True
    return verify != "size" and source.mtime_ns != known.mtime_ns


def _is_doubtful(source: Fingerprint, known: Fingerprint, verify: str) -> bool:
    """Only ctime or inode changed: chmod, a copy back, FAT - or an edit whose mtime was reset. The content decides."""
    return verify != "size" and (source.ctime_ns != known.ctime_ns or source.inode != known.inode)

"""Uploads that this journal has begun with another server than the one that is used now.

Nothing of them is ever continued here: their checkpoints are those of that server. But one whose answer to the publish
was lost may stand there under its name, so who sends the file to this server may have it delivered twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from iot.transfer.journal.checkpoints import Key, keep_for, kept_with_others
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Fingerprint, Phase, TransferResult

__all__ = ["Elsewhere"]

GIVEN_UP = Fingerprint(0, 0)
"""No source looks like this: its part is an abandoned one, and removed when that server is used again."""


class Elsewhere:
    """As it is when this is made: while one server is used, nothing changes with the others.

    server: the account that is used. key_of: the key of a result's checkpoint. Raises: JournalUnavailable.
    """

    def __init__(self, journal: Journal, server: str, key_of: Callable[[TransferResult], Key]) -> None:
        self._journal = journal
        self._key_of = key_of
        self._begun: dict[Key, list[tuple[str, Checkpoint]]] = {}
        for owner, checkpoint in kept_with_others(journal, server):
            key = (checkpoint.direction.value, checkpoint.remote_path, checkpoint.local_path)
            self._begun.setdefault(key, []).append((owner, checkpoint))

    def may_stand(self, result: TransferResult) -> bool:
        """Whether another server may have published this version of the file, too."""
        begun = self._begun.get(self._key_of(result), ()) if self._begun else ()
        sent = result.fingerprint
        intents = [checkpoint for _, checkpoint in begun if checkpoint.phase is Phase.PUBLISHING]
        return any(sent is None or sent.looks_like(checkpoint.fingerprint) for checkpoint in intents)

    def overtaken(self, results: Iterable[TransferResult]) -> None:
        """These are delivered to the server that is used, and recorded: what others have of them may go.

        Raises: DiskFull, JournalUnavailable; a crash before it is harmless, a part may stay there.
        """
        keys = [key for key in map(self._key_of, results) if key in self._begun] if self._begun else []
        late = [begun for key in keys for begun in self._begun[key]]
        if late:
            given_up = [(owner, replace(each, fingerprint=GIVEN_UP, phase=Phase.SENDING)) for owner, each in late]
            self._journal.write(lambda db: keep_for(db, given_up))
        for key in keys:
            self._begun.pop(key, None)

"""What each server is known to refuse, kept in the journal: asked once, not once per connection."""

from __future__ import annotations

import time

from iot.sftp.client.protocol.server import Refusal
from iot.transfer.journal.journal import Journal, Schema

__all__ = ["REFUSALS", "LearnedRefusals"]

REFUSAL_DAYS = 7
REFUSALS = Schema(
    "refusals",
    (
        # IF NOT EXISTS: 0.1.0 made this table together with that of the checkpoints
        """
        CREATE TABLE IF NOT EXISTS refusal (
            host_key TEXT NOT NULL, what TEXT NOT NULL, banner TEXT NOT NULL, learned_at INTEGER NOT NULL,
            PRIMARY KEY (host_key, what)
        ) WITHOUT ROWID
        """,
    ),
)
LEARN = "INSERT OR REPLACE INTO refusal (host_key, what, banner, learned_at) VALUES (?, ?, ?, ?)"


class LearnedRefusals:
    """Refusals by host key; asked again after 7 days or when the version banner changes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def load(self, host_key: str, banner: str) -> set[Refusal]:
        rows = self._journal.read(
            "SELECT what FROM refusal WHERE host_key = ? AND banner = ? AND learned_at BETWEEN ? AND ?",
            host_key,
            banner,
            int(time.time()) - REFUSAL_DAYS * 86400,
            int(time.time()) + 86400,  # learned "tomorrow": the clock was set back, so ask again
        )
        known = {item.value for item in Refusal}
        return {Refusal(row["what"]) for row in rows if row["what"] in known}

    def learn(self, host_key: str, banner: str, what: Refusal) -> None:
        values = (host_key, what.value, banner, int(time.time()))
        self._journal.write(lambda db: db.execute(LEARN, values))

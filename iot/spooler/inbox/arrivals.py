"""From a file that was fetched to one that has its name: recorded, judged by the hook, published.

    fetched     the content is complete, verified and synced; it is sealed, and then recorded
    judge       by the hook, if there is one, while other files are fetched. Its verdict is about one record, and so
                about the bytes that are sealed for it: once a newer version is recorded, it counts for nothing
    publish     rename, sync; then recorded as published, or as taken where nothing is left to do on the server

Each step is recorded before the next, and may be done twice: a power cut at any moment costs at most the step it hit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping

from iot.spooler.inbox.judge import Judge, Judged, Verdict
from iot.spooler.inbox.place import Place
from iot.spooler.inbox.records import FileState, Record, Records
from iot.spooler.inbox.retries import Retries
from iot.spooler.naming import shown
from iot.transfer import LocalStateError

__all__ = ["Arrivals"]

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often a name is looked at that another file still has."""
TAKEN_NAME = "waits, as a file of this name has not been taken out yet (replace = false)"


class Arrivals:
    """label: of the inbox. keeps: nothing is to be done on the server after a file is published. replaces: a file gets
    its name also while another file has it.

    remote_path: of a path below the inbox.
    published_files: since the start of this agent.
    """

    def __init__(
        self,
        label: str,
        place: Place,
        records: Records,
        judge: Judge | None,
        retries: Retries,
        clock: Callable[[], float],
        remote_path: Callable[[str], str],
        *,
        keeps: bool,
        replaces: bool,
    ) -> None:
        self.published_files = 0
        self._label = label
        self._place = place
        self._records = records
        self._judge = judge
        self._retries = retries
        self._now = clock
        self._remote_path = remote_path
        self._after = FileState.TAKEN if keeps else FileState.PUBLISHED
        self._replaces = replaces
        self._passed: set[Record] = set()
        self._news: list[Record] = []
        self._step_at = float("-inf")

    def add(self, record: Record) -> None:
        """It was fetched, or refused; not recorded yet."""
        self._news.append(record)
        self.wake()

    def wake(self) -> None:
        self._step_at = float("-inf")

    def is_judging(self, path: bytes) -> bool:
        return self._judge is not None and path in self._judge

    def under_way(self) -> list[Record]:
        """Those whose content waits for its name."""
        return [*self._news, *self._records.of(FileState.FETCHED)]

    def next_at(self) -> float:
        hook_in_s = self._judge.look_in_s() if self._judge is not None else float("inf")
        return min(self._step_at, self._now() + hook_in_s)

    def step(self) -> bool:
        """Whether anything has changed. Raises: DiskFull, JournalUnavailable."""
        news = self._record()
        judged = self._judge.judged() if self._judge is not None else []
        self._heed(judged)
        now = self._now()
        if now >= self._step_at:
            self._step_at = float("inf")
            self._publish(self._ready(now))
            return True
        return news or bool(judged)

    def close(self) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        if self._judge is not None:
            self._judge.close()
        self._record()

    # -- inside

    def _record(self) -> bool:
        if not self._news:
            return False
        sealed = [record for record in self._news if record.state is FileState.FETCHED]
        failed: Mapping[bytes, OSError] = {}
        try:
            failed = self._place.seal([record.content for record in sealed]) if sealed else {}
        except OSError as error:
            failed = {record.path: error for record in sealed}
        before = [known for record in self._news if (known := self._records.get(record.path)) is not None]
        self._records.write(record for record in self._news if record.path not in failed)
        self._news = []
        for path, reason in failed.items():
            self._put_off(path, f"cannot be kept: {reason.strerror}")  # it is fetched again
        for known in before:
            self._discard_if_superseded(known)
        return True

    def _discard_if_superseded(self, record: Record) -> None:
        self._passed.discard(record)
        current = self._records.get(record.path)
        if record.state is FileState.FETCHED and (current is None or current.content != record.content):
            self._discard(record)

    def _discard(self, record: Record) -> None:
        try:
            self._place.discard(record.content)
        except OSError as error:
            log.debug("not discarded inbox=%s path=%s reason=%s", shown(self._label), shown(record.path), error)

    def _heed(self, judged: Iterable[Judged]) -> None:
        good = []
        for record, verdict, reason in judged:
            if self._records.get(record.path) != record:
                self.wake()  # a newer version took its place, and is judged now
            elif verdict is Verdict.GOOD:
                self._passed.add(record)
                good.append(record)
            elif verdict is Verdict.BAD:
                self._refuse(record, reason)
            else:
                self._put_off(record.path, reason)
        self._publish(good)

    def _refuse(self, record: Record, reason: str) -> None:
        """The verdict is recorded before the content goes: it is not fetched again in this version."""
        self._records.write([record._replace(state=FileState.REFUSED, reason=reason)])
        self._discard(record)
        self._retries.tell(record.path, reason)

    def _put_off(self, path: bytes, reason: str) -> None:
        self._step_at = min(self._step_at, self._retries.put_off(path, reason))

    def _ready(self, now: float) -> list[Record]:
        """Those that get their names now; the hook is asked about the others."""
        ready = []
        for record in self._records.of(FileState.FETCHED):
            again_at = self._retries.again_at(record.path)
            try:
                if again_at > now:
                    self._step_at = min(self._step_at, again_at)
                elif self._judge is None or record in self._passed or self._is_published(record):
                    ready.append(record)
                elif self._place.is_waiting(record.content):
                    path = os.fsdecode(record.path)
                    self._judge.ask(record, self._place.sealed_path(record.content), self._remote_path(path))
                else:
                    self._fetch_again(record)
            except OSError as error:
                self._put_off(record.path, f"cannot be looked at: {error.strerror}")
        return ready

    def _fetch_again(self, record: Record) -> None:
        log.warning("fetched file is gone inbox=%s path=%s", shown(self._label), shown(record.path))
        self._records.drop([record.path])

    def _is_published(self, record: Record) -> bool:
        """Whether what has the name has this content already."""
        try:
            here = self._place.here(record.path)
            return here is not None and here.size == record.size and self._place.digest(record.path) == record.sha256
        except OSError:
            return False  # publishing it will say what is wrong

    def _publish(self, records: list[Record]) -> None:
        if not records:
            return
        there = {record.path for record in records if self._is_published(record)}
        failed: Mapping[bytes, OSError]
        try:
            failed = self._place.publish(
                [record.content for record in records if record.path not in there], replace=self._replaces
            )
            for record in records:
                if record.path in there:
                    self._place.confirm(record.content)
        except OSError as error:
            failed = dict.fromkeys((record.path for record in records), error)
        published = []
        for record in records:
            error_of_it = failed.get(record.path)
            if error_of_it is None:
                published.append(record)
            elif isinstance(error_of_it, FileNotFoundError) and not self._waits(record):
                self._fetch_again(record)
            elif isinstance(error_of_it, FileExistsError) and not self._replaces:
                self._step_at = min(self._step_at, self._retries.put_off(record.path, TAKEN_NAME, wait_s=LOOK_S))
            else:
                self._put_off(record.path, f"cannot be published: {error_of_it.strerror}")
        self._record_published(published)

    def _waits(self, record: Record) -> bool:
        try:
            return self._place.is_waiting(record.content)
        except OSError:
            return True  # unknown is never "gone"

    def _record_published(self, records: list[Record]) -> None:
        try:
            self._records.write(record._replace(state=self._after) for record in records)
        except LocalStateError:
            self.wake()  # found published then
            raise
        self._passed.difference_update(records)
        for record in records:
            self._retries.forget(record.path)
            self.published_files += 1
            log.info(
                "published inbox=%s path=%s bytes=%d sha256=%s",
                *(shown(self._label), shown(record.path), record.size, record.sha256),
            )

"""Folders listed together: a server without handles gets fewer at once, a lost link costs what was not listed yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client import runner as module
from iot.sftp.client.pipeline.job import Job
from iot.sftp.client.runner import Account, Runner
from iot.sftp.client.settings import ClientOptions
from iot.transfer.errors import LinkLost, NotFound, ServerBusy, SFTPError, Timeout
from iot.transfer.model import Finished

FOLDERS = [b"/a", b"/b", b"/c"]


class Connection:
    """Lists at most so many folders at once; what `script` has for a folder comes in place of its listing."""

    def __init__(self, script: dict[bytes, list[SFTPError]], slots: int = 8, most: int = 8) -> None:
        self.script, self.slots, self.most = script, slots, most
        self.asked: list[list[bytes]] = []
        self.context: Any = None
        self.pipeline = self
        self.delivered_bytes = self.sent_bytes = 1000

    def run(self, jobs: Iterator[Job[Any]], slots: Callable[[], int]) -> Iterator[Finished]:
        self.asked.append([])
        for number, job in enumerate(jobs):
            folder: Any = job.work
            self.asked[-1].append(folder)
            error = self.script[folder].pop(0) if self.script.get(folder) else None
            if error is None and number >= self.most:
                error = ServerBusy("no more handles")
            yield Finished(job.tag, None if error else [folder.decode()], error)

    def close(self) -> None: ...


def scanned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *connections: Connection) -> list[Any]:
    monkeypatch.setattr(module.paths, "scan", lambda context, folder, leave_out: folder)
    left = list(connections)
    options = ClientOptions(state_dir=tmp_path, attempts=len(left), backoff_s=0)
    runner = Runner(Account(SimpleNamespace(user="u", host="h", port=22), None), options, None)  # type: ignore[arg-type]
    monkeypatch.setattr(runner.links, "session", lambda tick: left[0])
    monkeypatch.setattr(runner.links, "drop", lambda: left.pop(0))
    try:
        return runner.scan(FOLDERS)
    finally:
        runner.close()


def test_every_folder_has_its_listing_or_its_own_refusal_in_the_order_of_the_question(monkeypatch, tmp_path) -> None:
    gone = NotFound("no folder")
    assert scanned(monkeypatch, tmp_path, Connection({b"/b": [gone]})) == [["/a"], gone, ["/c"]]


def test_a_server_without_handles_gets_half_as_many_at_once_and_only_what_is_missing_is_asked_again(
    monkeypatch, tmp_path
) -> None:
    connection = Connection({}, most=1)
    assert scanned(monkeypatch, tmp_path, connection) == [["/a"], ["/b"], ["/c"]]
    assert connection.asked == [[b"/a", b"/b", b"/c"], [b"/b", b"/c"], [b"/c"]]
    assert connection.slots == 2


def test_a_server_that_can_open_not_even_one_folder_is_busy(monkeypatch, tmp_path) -> None:
    connection = Connection({b"/a": [ServerBusy("none")] * 9}, slots=4)
    with pytest.raises(ServerBusy):
        scanned(monkeypatch, tmp_path, connection)
    assert (connection.slots, len(connection.asked)) == (1, 3)


@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent")])
def test_after_a_lost_link_only_the_rest_is_listed_again(monkeypatch, tmp_path, error: SFTPError) -> None:
    first, second = Connection({b"/b": [error]}), Connection({})
    assert scanned(monkeypatch, tmp_path, first, second) == [["/a"], ["/b"], ["/c"]]
    assert second.asked == [[b"/b", b"/c"]]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent"), NotFound("no")])
def test_whether_a_lost_call_may_have_been_carried_out_is_known_to_the_next_attempt(
    monkeypatch, tmp_path, error: SFTPError, sent: bool
) -> None:
    told: list[Any] = []

    class Losing(Connection):
        def run_one(self, job: Job[Any]) -> None:
            self.sent_bytes += sent
            raise error

    class Good(Connection):
        def run_one(self, job: Job[Any]) -> Any:
            return None

    monkeypatch.setattr(module.paths, "delete", lambda path, earlier: told.append(earlier))
    left: list[Any] = [Losing({}), Good({})]
    options = ClientOptions(state_dir=tmp_path, attempts=2, backoff_s=0)
    runner = Runner(Account(SimpleNamespace(user="u", host="h", port=22), None), options, None)  # type: ignore[arg-type]
    monkeypatch.setattr(runner.links, "session", lambda tick: left[0])
    monkeypatch.setattr(runner.links, "drop", lambda: left.pop(0))
    lost: list[bool] = []
    monkeypatch.setattr(module.Earlier, "lost", lambda self, *, something_sent: lost.append(something_sent))
    try:
        runner.delete(b"/f")
    except NotFound:
        assert isinstance(error, NotFound)
    runner.close()
    assert lost == ([] if isinstance(error, NotFound) else [sent])
    assert all(earlier is told[0] for earlier in told)

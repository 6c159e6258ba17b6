"""Many downloads at once: grouped renames, a few large files at a time, a busy server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.download_lab import CONTENT, SOURCE, Lab, answering, calls, nth
from unit.scripted import Event, Files, drive

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.download import FEW, TOGETHER_BYTES, Download
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.packets import Code, Status
from iot.sftp.client.protocol.server import Server
from iot.transfer.errors import PermanentError, ServerBusy, ServerRefused, SFTPError
from iot.transfer.landing import DownloadTask, Landing, publish_together
from iot.transfer.model import Evidence, RemoteFile, TransferResult
from iot.transfer.options import TransferOptions

__all__ = ["calls"]  # a fixture

FAILURE = Status(Code.FAILURE, "Failure")
MIB = 1024 * 1024


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "here"
    folder.mkdir()
    return Lab(folder)


# -- grouped renames


def arrived(path: Path, content: bytes = b"new") -> Landing:
    """A download of which everything is there but the name."""
    path.parent.mkdir(exist_ok=True)
    task = DownloadTask(b"/up/" + os.fsencode(path.name), str(path))
    landing = Landing(task, TransferOptions(owner="me"), lambda _: None, task.tell, lambda: 0.0)
    landing.found(RemoteFile(len(content), 5))
    landing.begin(None)
    landing.sink.write(0, memoryview(content))
    landing.end = len(content)
    return landing


def test_every_file_is_on_the_disk_before_its_rename_and_each_folder_once_after_all_of_its_names(
    tmp_path: Path, calls: list[str]
) -> None:
    paths = [tmp_path / "one" / "a", tmp_path / "one" / "b", tmp_path / "two" / "c"]
    landings = [arrived(path) for path in paths]
    del calls[:]
    publish_together(landings)
    assert calls == ["fsync part", "rename"] * 3 + ["fsync one", "fsync two"]
    for landing, path in zip(landings, paths, strict=True):
        assert landing.published(None, Evidence.END_OF_FILE, 3).durable
        assert path.read_bytes() == b"new"


def test_a_name_that_cannot_be_given_is_the_failure_of_its_own_download(tmp_path: Path) -> None:
    landings = [arrived(tmp_path / name) for name in "abc"]
    (tmp_path / "b").mkdir()
    publish_together(landings)
    assert [landing.failure is None for landing in landings] == [True, False, True]
    with pytest.raises(PermanentError, match="is a folder"):
        landings[1].published(None, Evidence.END_OF_FILE, 3)
    landings[1].close()
    assert (tmp_path / "c").read_bytes() == b"new"


def test_names_in_a_folder_that_cannot_be_synced_are_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landings = [arrived(tmp_path / "bad" / "a"), arrived(tmp_path / "bad" / "b"), arrived(tmp_path / "good" / "c")]
    real = os.fsync

    def failing(fd: int) -> None:
        if os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == "bad":
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", failing)
    publish_together(landings)
    assert [landing.failure is None for landing in landings] == [False, False, True]


def test_the_name_comes_at_a_barrier_that_many_downloads_can_share(lab: Lab) -> None:
    seen: list[bool] = []
    lab.run(at_barrier=lambda: seen.append(lab.dest.exists()))
    [barrier] = lab.files.did("BARRIER")
    assert isinstance(barrier.record, Landing)
    assert seen == [True]


# -- round trips


def test_a_small_file_takes_four_round_trips(lab: Lab) -> None:
    """The last look goes out with the CLOSE."""
    lab.run()
    told = [event.what for event in lab.files.events if event.what != "READ"]
    assert told == ["STAT", "OPEN", "CLOSE", "STAT", "BARRIER"]


@pytest.mark.parametrize("blocks", [1, 5])
def test_the_end_of_a_file_whose_size_is_known_is_asked_for_with_a_single_byte(lab: Lab, blocks: int) -> None:
    """READs in flight are counted by what they ask for: with a whole block more, small files would fill the window."""
    lab.files.content[SOURCE] = bytearray(CONTENT[: blocks * 1024])
    lab.files.size = blocks * 1024
    lab.run()
    reads = [(event.offset, event.length) for event in lab.files.did("READ")]
    assert sorted(reads) == [*((number * 1024, 1024) for number in range(blocks)), (blocks * 1024, 1)]


@pytest.mark.parametrize("size", [1024, 1025, 5000, 0, None])
def test_a_file_that_is_longer_than_reported_comes_whole_however_its_end_is_asked_for(
    lab: Lab, size: int | None
) -> None:
    lab.files.size = size
    assert lab.run().size == len(CONTENT)
    assert lab.dest.read_bytes() == CONTENT


# -- a few large files at a time


@dataclass
class Crowd:
    """A connection on which other files are arriving, or open."""

    lab: Lab
    arriving: list[int] = field(default_factory=list)
    handles: set[bytes] = field(default_factory=set)

    def context(self) -> Context:
        options = TransferOptions(chunk_size=1024, owner="me")
        server = Server("SSH-2.0-OpenSSH_9.2", "key", {}, max_read=1024)
        made = Context(server, Pace(2**20, 1024), self.lab.ledger, options, self.lab.clock)
        made.arriving.update(enumerate(self.arriving))
        made.handles.update(self.handles)
        return made

    def run(self, context: Context, **script: Any) -> TransferResult:
        return drive(Download(DownloadTask(SOURCE, str(self.lab.dest)), context).run(), self.lab.files, **script)


def looks(files: Files) -> list[str]:
    return [event.what for event in files.events if event.what in ("STAT", "LINGER", "OPEN")]


def test_a_large_file_waits_until_there_is_room_and_is_looked_at_again(lab: Lab) -> None:
    lab.files.size = 2 * MIB
    context = Crowd(lab).context()
    context.arriving = Leaving({0: 32 * MIB, 1: 20 * MIB, 2: 20 * MIB, 3: 2 * MIB}, lab.files)
    assert len(context.arriving) == FEW
    assert drive(Download(DownloadTask(SOURCE, str(lab.dest)), context).run(), lab.files).size == len(CONTENT)
    assert looks(lab.files) == ["STAT", "LINGER", "LINGER", "STAT", "OPEN", "STAT"]
    assert set(context.arriving) == {1, 2, 3}, "what has arrived makes room"


class Leaving(dict[int, int]):
    """The large one is gone after two waits."""

    def __init__(self, arriving: dict[int, int], files: Files) -> None:
        super().__init__(arriving)
        self._files = files

    def values(self) -> Any:
        if len(self._files.did("LINGER")) == 2:
            self.pop(0, None)
        return super().values()


@pytest.mark.parametrize(
    ("size", "arriving"),
    [
        (2 * MIB, []),
        (2 * MIB, [32 * MIB] * (FEW - 1)),
        (2 * MIB, [2 * MIB] * (TOGETHER_BYTES // (2 * MIB) - 1)),
        (2 * MIB, [64 * MIB] * 100),
        (64 * MIB, [2 * MIB] * 100),
        (MIB, [8 * MIB] * 100),
    ],
)
def test_a_few_of_any_size_arrive_at_once_and_none_waits_for_others_of_quite_another_size(
    lab: Lab, size: int, arriving: list[int]
) -> None:
    lab.files.size = size
    crowd = Crowd(lab, arriving)
    crowd.run(crowd.context())
    assert not lab.files.did("LINGER")


# -- a server without handles left


def test_a_refusal_to_open_one_more_file_is_a_busy_server_while_others_are_open(lab: Lab) -> None:
    lab.files.refuse = answering(nth("OPEN"), FAILURE)
    crowd = Crowd(lab, handles={b"another's"})
    with pytest.raises(ServerBusy, match="while others are open"):
        crowd.run(crowd.context())
    lab.files.refuse = answering(nth("OPEN"), FAILURE)
    alone = Crowd(lab)
    with pytest.raises(ServerRefused):
        alone.run(alone.context())
    assert os.listdir(lab.folder) == []


def test_what_counts_is_what_was_open_when_the_request_was_sent(lab: Lab) -> None:
    crowd = Crowd(lab, handles={b"another's"})
    context = crowd.context()

    def closed_meanwhile(event: Event) -> Status | None:
        if event.what != "OPEN":
            return None
        context.handles.clear()
        return FAILURE

    lab.files.refuse = closed_meanwhile
    with pytest.raises(ServerBusy):
        crowd.run(context)


@pytest.mark.parametrize("refused", [None, "READ", "CLOSE"])
def test_a_file_that_is_no_longer_open_is_in_nobodys_way(lab: Lab, refused: str | None) -> None:
    if refused:
        lab.files.refuse = answering(nth(refused), FAILURE)
    crowd = Crowd(lab)
    context = crowd.context()
    try:
        crowd.run(context)
    except SFTPError:
        assert refused == "READ"
    assert (context.handles, context.arriving) == (set(), {})

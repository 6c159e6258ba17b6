"""What is taken away from the server once it is published here: that very version and its checksum, nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from iot.spooler.inbox.records import FileState, Record
from iot.spooler.inbox.removal import remove
from iot.transfer import NotFound, PermanentError, PermissionDenied, RemoteFile

FILE, CHECKSUM = RemoteFile(3, 1000), RemoteFile(64, 1001)


class Server:
    """Its files, and what was done to them."""

    def __init__(self, **files: RemoteFile) -> None:
        self.files = {f"/cfg/{name.replace('_', '.')}": file for name, file in files.items()}
        self.done: list[tuple[str, ...]] = []
        self.refuses: Exception | None = None

    def stat(self, path: str) -> RemoteFile:
        if path not in self.files:
            raise NotFound(path)
        return self.files[path]

    def delete(self, path: str) -> None:
        self._does("delete", path)

    def move(self, source: str, dest: str) -> None:
        self._does("move", source, dest)

    def _does(self, *words: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.done.append(words)
        del self.files[words[1]]


def record(checksum: str = "", mtime_s: int | None = 1000) -> Record:
    return Record(b"a", FileState.PUBLISHED, "3@1000", checksum, 3, mtime_s)


def removed(server: Server, target: str = "", **of_record: Any) -> str:
    return remove(server, "/cfg/a", target, record(**of_record))  # type: ignore[arg-type]


def test_a_file_and_its_checksum_are_moved_beside_each_other() -> None:
    server = Server(a=FILE, a_sha256=CHECKSUM)
    assert removed(server, "/done/a", checksum="64@1001") == "moved on the server"
    assert server.done == [("move", "/cfg/a", "/done/a"), ("move", "/cfg/a.sha256", "/done/a.sha256")]


def test_a_file_and_its_checksum_are_deleted_in_this_order() -> None:
    server = Server(a=FILE, a_sha256=CHECKSUM)
    assert removed(server, checksum="64@1001") == "deleted on the server"
    assert server.done == [("delete", "/cfg/a"), ("delete", "/cfg/a.sha256")]


@pytest.mark.parametrize("checksum", ["", "64@999"])
def test_a_checksum_that_was_not_asked_for_or_is_of_another_version_stays(checksum: str) -> None:
    server = Server(a=FILE, a_sha256=CHECKSUM)
    removed(server, checksum=checksum)
    assert server.done == [("delete", "/cfg/a")]


@pytest.mark.parametrize("found", [RemoteFile(4, 1000), RemoteFile(3, 999), RemoteFile(3, None)])
def test_another_version_stays(found: RemoteFile) -> None:
    server = Server(a=found)
    assert removed(server) == "left on the server, it has changed since"
    assert server.done == []


def test_what_is_gone_is_no_failure_and_what_is_refused_is_one() -> None:
    assert removed(Server()) == "no longer on the server"
    server = Server(a=FILE)
    server.refuses = NotFound("an earlier attempt did it")
    assert removed(server) == "deleted on the server"
    server.refuses = PermissionDenied("no")
    with pytest.raises(PermissionDenied):
        removed(server)
    with pytest.raises(PermanentError, match="no times"):
        removed(Server(a=RemoteFile(3, None)), mtime_s=None)

"""What a client makes of each call: a request of its remote, and of the answer a result, a bool or an error."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest

from iot.transfer.client import Client
from iot.transfer.errors import (
    Cancelled,
    ConfigurationError,
    LinkLost,
    NotFound,
    PermanentError,
    PermissionDenied,
    TransferError,
)
from iot.transfer.model import DownloadJob, Failure, RemoteEntry, RemoteFile, TransferResult, UploadJob
from iot.transfer.rate import Wire
from iot.transfer.stop import no_tick

DONE = TransferResult("a", "b", 1, 1, 0, 0.1, None)
FOLDER, FILE = RemoteFile(None, None, stat.S_IFDIR | 0o755), RemoteFile(1, 2, stat.S_IFREG | 0o644)


class Remote:
    """Notes what is asked. answers: what each call returns, or raises."""

    wire, connections = Wire(7, 8), 9

    def __init__(self, **answers: Any) -> None:
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.asked.append((name, arguments, keywords))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


def client(**answers: Any) -> tuple[Client, Remote]:
    remote = Remote(**answers)
    return Client(remote), remote  # type: ignore[arg-type]


# -- each call is one request


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (lambda each: each.connect(), ("connect",)),
        (lambda each: each.disconnect(), ("disconnect",)),
        (lambda each: each.close(), ("close",)),
        (lambda each: each.cancel(), ("cancel",)),
        (lambda each: each.delete("/f"), ("delete", b"/f")),
        (lambda each: each.mkdir(PurePosixPath("/d")), ("mkdir", b"/d")),
        (lambda each: each.rmdir(b"/d"), ("rmdir", b"/d")),
        (lambda each: each.move("/a", "/b"), ("move", b"/a", b"/b")),
        (lambda each: each.release_checkpoints([DONE]), ("release_checkpoints", [DONE])),
        (lambda each: each.elsewhere(), ("elsewhere",)),
        (lambda each: each.give_up([("a", "/b")]), ("discard", [("a", "/b")])),
        (lambda each: each.limit_rate(None), ("limit_rate", None)),
        (lambda each: each.limit_rate(5000), ("limit_rate", 5000.0)),
        (lambda each: each.limit_rate("2 Mbit/s"), ("limit_rate", 250_000.0)),
    ],
)
def test_a_call_is_a_request_of_the_remote(call: Callable[[Client], object], asked: tuple[Any, ...]) -> None:
    mine, remote = client()
    call(mine)
    assert remote.asked == [(asked[0], asked[1:], {})]


def test_a_transfer_is_a_job_that_goes_on_unless_it_is_told_not_to() -> None:
    mine, remote = client(upload=DONE, download=DONE)
    assert mine.upload("a", "/b", progress=print, adopt_partial="{name}") is DONE
    assert mine.download("/b", "a", progress=print, sha256=True) is DONE
    assert mine.upload_file("a", "/b", resume=False, sha256=True)
    assert mine.download_file("/b", "a", resume=False)
    up, down, again, anew = remote.asked
    assert up == ("upload", (UploadJob("a", "/b", adopt_partial="{name}"),), {"resume": True, "sha256": False})
    assert down == ("download", (DownloadJob("/b", "a", sha256=True),), {"resume": True})
    assert (up[1][0].progress, down[1][0].progress) == (print, print)
    assert again == ("upload", (UploadJob("a", "/b"),), {"resume": False, "sha256": True})
    assert anew == ("download", (DownloadJob("/b", "a"),), {"resume": False})
    assert (again[1][0].progress, anew[1][0].progress) == (None, None)


def test_what_a_bool_method_is_given_reaches_the_job() -> None:
    mine, remote = client(upload=DONE, download=DONE)
    mine.upload_file("a", "/b", progress=print, adopt_partial="{name}.p")
    mine.download_file("/b", "a", progress=print, sha256="ab" * 32)
    (up, _), (down, _) = ((arguments[0], name) for name, arguments, _ in remote.asked)
    assert (up.progress, up.adopt_partial) == (print, "{name}.p")
    assert (down.progress, down.sha256) == (print, "ab" * 32)


def test_an_expected_hash_of_an_upload_is_refused() -> None:
    mine, remote = client(upload=DONE)
    with pytest.raises(ConfigurationError, match=r"^sha256: must be True or False for an upload; the digest is in the"):
        mine.upload("a", "/b", sha256="ab" * 32)  # type: ignore[arg-type]
    assert remote.asked == []


# -- what becomes of the answer


@pytest.mark.parametrize("error", [LinkLost("cut"), NotFound("gone")])
def test_a_failed_transfer_raises_its_error_and_one_that_never_began_was_cancelled(error: TransferError) -> None:
    failed, _ = client(upload=Failure(None, "a", "b", error), download=Failure(None, "a", "b", error))
    never, _ = client()
    for method in ("upload", "download"):
        with pytest.raises(type(error), match=str(error)):
            getattr(failed, method)("a", "b")
        with pytest.raises(Cancelled, match="stopped on request"):
            getattr(never, method)("a", "b")


TWINS = [
    ("upload_file", "upload", ("a", "/b")),
    ("download_file", "download", ("/b", "a")),
    ("delete_file", "delete", ("/f",)),
    ("move_file", "move", ("/a", "/b")),
    ("make_dir", "mkdir", ("/d",)),
    ("delete_dir", "rmdir", ("/d",)),
]


@pytest.mark.parametrize(("method", "asked", "arguments"), TWINS)
def test_a_bool_method_keeps_the_error_that_its_twin_raises(
    method: str, asked: str, arguments: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    mine, _ = client(**{asked: DONE})
    assert getattr(mine, method)(*arguments) is True
    assert mine.last_error is None
    error = PermissionDenied("no")
    mine, remote = client(**{asked: error})
    assert getattr(mine, method)(*arguments) is False
    assert mine.last_error is error
    assert "failed error=no" in caplog.text
    assert [name for name, _, _ in remote.asked] == [asked]
    with pytest.raises(PermissionDenied):
        getattr(mine, asked)(*arguments)


def test_an_error_that_is_no_transfers_is_raised_by_a_bool_method_too() -> None:
    mine, _ = client(delete=KeyError("own"))
    with pytest.raises(KeyError):
        mine.delete_file("/f")
    assert mine.last_error is None


def test_whether_something_exists_is_never_a_guess() -> None:
    assert client(stat=FILE)[0].exists("/f")
    assert client(stat=FILE)[0].stat("/f") is FILE
    missing, remote = client(stat=None)
    assert not missing.exists("/f")
    with pytest.raises(NotFound, match=r"^'/f' is not on the server$"):
        missing.stat("/f")
    assert remote.asked == [("stat", (b"/f",), {})] * 2
    with pytest.raises(PermissionDenied):
        client(stat=PermissionDenied("no"))[0].exists("/f")


def test_a_small_file_is_read_with_the_callers_own_work_beside_it() -> None:
    mine, remote = client(read_small=b"content")
    assert mine.read_small("/f", 5) == b"content"
    mine.read_small("/f", 5, tick=print)
    assert remote.asked == [("read_small", (b"/f", 5), {"tick": tick}) for tick in (no_tick, print)]


def test_a_client_is_closed_at_the_end_of_its_block() -> None:
    mine, remote = client()
    with mine as inside:
        assert inside is mine
        assert remote.asked == []
    assert remote.asked == [("close", (), {})]


def test_a_connection_that_does_not_answer_is_none_and_why_is_kept() -> None:
    assert client(is_connected=True)[0].is_connected() is True
    error = LinkLost("cut")
    mine, _ = client(is_connected=error)
    assert mine.is_connected() is False
    assert mine.last_error is error


def test_the_wire_is_that_of_the_remote() -> None:
    mine, _ = client()
    assert (mine.wire, mine.connections) == (Wire(7, 8), 9)


def test_a_rate_that_is_none_is_refused_with_its_value() -> None:
    mine, remote = client()
    with pytest.raises(ConfigurationError, match=r"^bytes_per_s: must be bytes a second.* \(got 'fast'\)$"):
        mine.limit_rate("fast")  # type: ignore[arg-type]
    assert remote.asked == []


# -- many


def test_jobs_are_taken_one_at_a_time_as_jobs_or_pairs() -> None:
    mine, remote = client(upload_many=iter(()), download_many=iter(()))
    up, down = UploadJob("a", "/b"), DownloadJob("/b", "a")
    mine.upload_many(iter([up, ("c", "/d"), None]))
    mine.upload_many([], resume=False, hold_checkpoints=True, tick=print)
    mine.download_many([down, ("/d", "c"), None])
    mine.download_many([], resume=False, tick=print)
    uploads, held, downloads, anew = remote.asked
    assert list(uploads[1][0]) == [up, UploadJob("c", "/d"), None]
    assert list(downloads[1][0]) == [down, DownloadJob("/d", "c"), None]
    assert uploads[2] == {"resume": True, "hold_checkpoints": False, "tick": no_tick}
    assert held[2] == {"resume": False, "hold_checkpoints": True, "tick": print}
    assert (downloads[2], anew[2]) == ({"resume": True, "tick": no_tick}, {"resume": False, "tick": print})


@pytest.mark.parametrize(
    ("job", "kind"), [("ab", "str"), (("a", "b", "c"), "tuple"), (DownloadJob("a", "b"), "DownloadJob")]
)
def test_what_is_no_job_is_refused_by_its_type(job: Any, kind: str) -> None:
    mine, remote = client(upload_many=iter(()))
    mine.upload_many([job])
    told = rf"^jobs: must hold UploadJob, \(source, dest\) or None \(got {kind}\)$"
    with pytest.raises(ConfigurationError, match=told):
        list(remote.asked[0][1][0])


# -- listings


ENTRIES = [RemoteEntry("a.txt", FILE), RemoteEntry("box", FOLDER), RemoteEntry("c.log", FILE), RemoteEntry("t", FILE)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, ["/d/a.txt", "/d/c.log", "/d/t"]),
        ("", ["/d/a.txt", "/d/c.log", "/d/t"]),
        ("t", ["/d/a.txt", "/d/t"]),
        ("/d/c", ["/d/c.log"]),
        ("*.txt", ["/d/a.txt"]),
        ("?.*", ["/d/a.txt", "/d/c.log"]),
        ("[ct]*", ["/d/c.log", "/d/t"]),
        ("A*", []),
    ],
)
def test_files_are_listed_by_a_part_of_their_path_or_a_pattern_of_their_name(
    pattern: str | None, names: list[str]
) -> None:
    mine, remote = client(scan=[ENTRIES])
    assert mine.list("/d", pattern) == mine.list_files("/d", pattern) == names
    assert mine.list_directories("/d") == mine.list_dirs("/d") == ["/d/box"]
    assert remote.asked[0] == ("scan", ([b"/d"], None), {})


def test_a_folder_is_scanned_with_what_is_to_be_left_out() -> None:
    mine, remote = client(scan=[ENTRIES])
    assert mine.scan("/d", leave_out=print) == ENTRIES  # type: ignore[arg-type]
    assert remote.asked == [("scan", ([b"/d"], print), {})]


@pytest.mark.parametrize("method", ["list_files", "list_dirs"])
def test_a_folder_that_cannot_be_listed_is_none_and_a_lost_link_an_error(method: str) -> None:
    error = NotFound("gone")
    mine, _ = client(scan=[error])
    assert getattr(mine, method)("/d") is None
    assert mine.last_error is error
    with pytest.raises(PermanentError):
        mine.list("/d")
    lost, _ = client(scan=LinkLost("cut"))
    with pytest.raises(LinkLost):
        getattr(lost, method)("/d")

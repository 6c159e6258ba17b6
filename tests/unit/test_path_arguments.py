"""Paths as str, bytes or path objects in every method; anything else is an error that names the argument."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from iot.folder import FolderClient
from iot.sftp.client import ConfigurationError, Failure, IoTSFTPClient, NotFound, TransferResult, UploadJob
from iot.sftp.server import EmbeddedServer
from iot.transfer.client import Client

KINDS: list[Callable[[str], Any]] = [str, os.fsencode, PurePosixPath]
ONE_PATH = ("exists", "stat", "delete", "delete_file", "mkdir", "make_dir", "rmdir", "delete_dir", "list")
ONE_PATH_TOO = ("list_files", "list_dirs", "list_directories")


@pytest.fixture(params=["sftp", "folder"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    there, state = tmp_path / "there", tmp_path / "state"
    there.mkdir()
    if request.param == "folder":
        with FolderClient(there, state_dir=state) as client:
            yield client
        return
    with EmbeddedServer(there) as server:
        login = (server.host, server.port, server.user, server.password)
        with IoTSFTPClient(*login, host_key=server.host_key, state_dir=state) as client:
            yield client


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_takes_every_kind_of_remote_path(
    client: Client, tmp_path: Path, kind: Callable[[str], Any]
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    assert client.upload(source, kind("/d/a")).dest == "/d/a"
    assert client.upload_file(os.fsencode(source), kind("/d/b"))
    assert client.stat(kind("/d/b")).size == 1
    assert client.exists(kind("/d/b"))
    assert client.move_file(kind("/d/b"), kind("/d/c"))
    assert client.list(kind("/d")) == client.list_files(kind("/d")) == ["/d/a", "/d/c"]
    assert client.make_dir(kind("/d/e"))
    assert client.list_directories(kind("/d")) == client.list_dirs(kind("/d")) == ["/d/e"]
    assert client.download(kind("/d/a"), os.fsencode(tmp_path / "back")).dest == str(tmp_path / "back")
    assert client.download_file(kind("/d/a"), tmp_path / "back")
    assert client.delete_file(kind("/d/c"))
    assert client.delete_dir(kind("/d/e"))
    client.give_up([(source, kind("/d/never"))])
    with pytest.raises(NotFound, match=r"^'/d/c' is not"):
        client.stat(kind("/d/c"))


@pytest.mark.parametrize("kind", KINDS)
def test_many_files_may_be_given_as_pairs_beside_jobs(
    client: Client, tmp_path: Path, kind: Callable[[str], Any]
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    jobs = [(source, kind("/d/a")), None, UploadJob(source, kind("/d/b"), key="b"), (str(source), kind("/d/c"))]
    outcomes = list(client.upload_many(jobs))
    assert all(isinstance(outcome, TransferResult) for outcome in outcomes)
    found = sorted((outcome.dest, outcome.key) for outcome in outcomes)
    assert found == [
        ("/d/a", None),
        ("/d/b", "b"),
        ("/d/c", None),
    ]


@pytest.mark.parametrize("method", [*ONE_PATH, *ONE_PATH_TOO])
def test_anything_else_is_refused_by_the_name_of_the_argument(client: Client, method: str) -> None:
    expected = r"^path: must be str, bytes or PurePosixPath \(got int\)$"
    if method in ("delete_file", "make_dir", "delete_dir"):
        assert getattr(client, method)(3) is False
        with pytest.raises(ConfigurationError, match=expected):
            raise client.last_error or AssertionError
    else:
        with pytest.raises(ConfigurationError, match=expected):
            getattr(client, method)(3)


def test_both_arguments_of_a_transfer_are_checked(client: Client, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: client.upload(tmp_path / "source", 3), "dest: must be str, bytes or PurePosixPath (got int)"),
        (lambda: client.upload(3, "/a"), "source: must be str, bytes, os.PathLike or an open binary file (got int)"),
        (lambda: client.download(None, "x"), "source: must be str, bytes or PurePosixPath (got NoneType)"),
        (lambda: client.download("/a", 3), "dest: must be str, bytes, os.PathLike or an open binary file (got int)"),
        (lambda: client.move(3, "/a"), "source: must be str, bytes or PurePosixPath (got int)"),
        (lambda: client.move("/a", 3), "dest: must be str, bytes or PurePosixPath (got int)"),
        (lambda: list(client.upload_many([3])), "jobs: must hold UploadJob, (source, dest) or None (got int)"),
    ]
    for call, expected in cases:
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert str(raised.value) == expected
    assert client.upload(tmp_path / "source", "/a").size == 1  # and the client still works


def test_a_windows_path_is_refused_with_the_reason(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="a backslash is part of a name; use PurePosixPath"):
        client.exists(PureWindowsPath("a/b"))


def test_one_bad_destination_among_many_is_that_jobs_failure(client: Client, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    bad, good = UploadJob(tmp_path / "source", 3, key="bad"), UploadJob(tmp_path / "source", "/a", key="good")
    outcomes = {outcome.key: outcome for outcome in client.upload_many([bad, good])}
    failure = outcomes["bad"]
    assert isinstance(failure, Failure)
    assert str(failure.error) == "dest: must be str, bytes or PurePosixPath (got int)"
    assert isinstance(outcomes["good"], TransferResult)

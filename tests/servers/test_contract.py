"""One contract for every server: what the client promises holds for all of them, with default settings.

Where a server cannot do what the best way needs, the client falls back. Which server needs which fallback is the table
FALLBACKS; any other is a failure, so that neither the client nor a server changes unnoticed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.proxy import Fault
from servers.base import Server
from servers.s3 import S3Gateway

from iot.sftp.client import (
    AlreadyExists,
    Cancelled,
    DownloadJob,
    Failure,
    IoTSFTPClient,
    NameRefused,
    NotFound,
    PermanentError,
    ProofFailed,
    SourceChanged,
    TransferResult,
    UploadJob,
)
from iot.transfer.client import Client

LARGE_BYTES = 6 * 1024 * 1024


class Expected:
    """What is expected of one server.

    durable: it confirms by fsync. replaces: it renames over an existing file in one step. resumes: it goes on with a
    part. hashes: proof="full" makes nothing be learned. refusals: what the client has learned of it after a lost link.
    """

    def __init__(
        self,
        *,
        durable: bool,
        replaces: bool = True,
        resumes: bool = True,
        hashes: bool = False,
        refusals: tuple[str, ...] = (),
    ) -> None:
        self.durable, self.replaces, self.resumes, self.hashes = durable, replaces, resumes, hashes
        self.refusals = set(refusals)


FALLBACKS = {
    "openssh": Expected(durable=True),
    "proftpd": Expected(durable=True, hashes=True),
    "embedded": Expected(durable=True),
    "asyncssh": Expected(durable=True),
    "rclone": Expected(durable=False),
    "s3": Expected(durable=False, resumes=False, refusals=("resume",)),
    "s3-cached": Expected(durable=False),
    "ssh2": Expected(durable=False, replaces=False, refusals=("write-create",)),
    "dropbear": Expected(durable=True),
    "folder": Expected(durable=True, hashes=True),
    "vsftpd": Expected(durable=False, hashes=True),
    "pure-ftpd": Expected(durable=False, hashes=True),
    "proftpd-ftp": Expected(durable=False, hashes=True),
    "pyftpdlib": Expected(durable=False, hashes=True),
}


@pytest.fixture
def expected(request: pytest.FixtureRequest, any_remote: Server) -> Expected:
    return FALLBACKS[request.node.callspec.params["any_remote"]]


@pytest.fixture
def client(any_remote: Server, tmp_path: Path) -> Iterator[Client]:
    with any_remote.connect(tmp_path) as client:
        yield client


@pytest.fixture
def place(any_remote: Server, request: pytest.FixtureRequest) -> str:
    """A folder of this test's own on the server, as a name below its root; not made yet."""
    return "contract-" + request.node.name.partition("[")[0]


def learned(client: Client) -> set[str]:
    """What an SFTP client has learned that its server refuses."""
    return {what.value for what in client._runner.links.session().server.refused} if _is_sftp(client) else set()


def _is_sftp(client: Client) -> bool:
    return isinstance(client, IoTSFTPClient)


def make(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


def needs_a_link(server: Server) -> None:
    if not server.has_link:
        pytest.skip(f"{server.name} has no link that could be cut or slow")


def parts(server: Server, place: str) -> list[str]:
    return [name for name in server.names() if name.startswith(place) and ".part" in name]


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 1024 * 1024 + 7])
def test_a_file_arrives_whole_under_its_name(any_remote, client, expected, place, tmp_path, size):
    content = make(tmp_path / "source", size)
    result = client.upload(tmp_path / "source", any_remote.path(f"{place}/deep/{size}"))
    assert any_remote.content(f"{place}/deep/{size}") == content
    assert (result.sent_bytes, result.resumed_at, result.durable) == (size, 0, expected.durable)
    assert not parts(any_remote, place)


def test_it_comes_back_as_it_was(any_remote, client, place, tmp_path):
    content = make(tmp_path / "source", LARGE_BYTES)
    client.upload(tmp_path / "source", any_remote.path(f"{place}/file"))
    result = client.download(any_remote.path(f"{place}/file"), tmp_path / "back", sha256=True)
    assert (tmp_path / "back").read_bytes() == content
    assert result.size == LARGE_BYTES
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_an_existing_file_is_replaced_or_left_alone(any_remote, client, expected, place, tmp_path):
    make(tmp_path / "source", 100)
    client.upload(tmp_path / "source", any_remote.path(f"{place}/file"))
    old = any_remote.content(f"{place}/file")
    new = make(tmp_path / "source", 200)
    if expected.replaces:
        client.upload(tmp_path / "source", any_remote.path(f"{place}/file"))
        assert any_remote.content(f"{place}/file") == new
    else:
        with pytest.raises(AlreadyExists, match="replace_by_remove"):
            client.upload(tmp_path / "source", any_remote.path(f"{place}/file"))
        assert any_remote.content(f"{place}/file") == old


def test_an_upload_over_a_cut_link_arrives_whole(any_remote, expected, place, tmp_path):
    content = make(tmp_path / "source", LARGE_BYTES)
    needs_a_link(any_remote)
    script = [Fault("cut", up_bytes=LARGE_BYTES // 2)]
    link = any_remote.link(rate_bps=50e6, script=script)
    with link, any_remote.connect(tmp_path, link) as client:
        result = client.upload(tmp_path / "source", any_remote.path(f"{place}/file"))
        refused = learned(client)
    assert any_remote.content(f"{place}/file") == content
    assert (result.resumed_at > 0) is expected.resumes
    assert refused == expected.refusals
    assert not parts(any_remote, place)


def test_many_small_files_go_at_once(any_remote, client, place, tmp_path):
    files, rounds = (15, 3) if any_remote.name == "s3" else (60, 1)
    contents = {f"{number}": make(tmp_path / f"{number}", 1000 + number) for number in range(files)}
    left = dict.fromkeys(contents)
    for _ in range(
        rounds
    ):  # an object store that is busy loses a part now and then: that is told, and it is sent again
        jobs = [UploadJob(tmp_path / name, any_remote.path(f"{place}/{name}"), key=name) for name in left]
        for outcome in client.upload_many(jobs):
            if isinstance(outcome, TransferResult):
                del left[outcome.key]
            else:
                assert isinstance(outcome.error, ProofFailed)
    assert not left
    assert {name: any_remote.content(f"{place}/{name}") for name in contents} == contents
    assert not parts(any_remote, place)


def test_many_files_come_at_once_and_a_missing_one_holds_up_nobody(any_remote, client, place, tmp_path):
    contents = {f"{number}": make(tmp_path / f"{number}", 1000 + number) for number in range(12)}
    for name in contents:
        client.upload(tmp_path / name, any_remote.path(f"{place}/{name}"))
    back = tmp_path / "back"
    back.mkdir()
    names = [*contents, "missing"]
    jobs = [DownloadJob(any_remote.path(f"{place}/{name}"), back / name, key=name, sha256=True) for name in names]
    outcomes = {outcome.key: outcome for outcome in client.download_many(jobs)}
    assert isinstance(outcomes.pop("missing").error, NotFound)
    assert {name: (back / name).read_bytes() for name in outcomes} == contents
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert {name: outcome.sha256 for name, outcome in outcomes.items()} == digests
    assert sorted(path.name for path in back.iterdir()) == sorted(contents)


def test_many_downloads_over_a_cut_link_arrive_whole(any_remote, client, place, tmp_path):
    needs_a_link(any_remote)
    sizes = {"large": LARGE_BYTES, **{f"small{number}": 1000 + number for number in range(8)}}
    contents = {name: make(tmp_path / name, size) for name, size in sizes.items()}
    for name in contents:
        client.upload(tmp_path / name, any_remote.path(f"{place}/{name}"))
    back = tmp_path / "back"
    back.mkdir()
    jobs = [DownloadJob(any_remote.path(f"{place}/{name}"), back / name, key=name) for name in contents]
    link = any_remote.link(rate_bps=50e6, script=[Fault("cut", down_bytes=LARGE_BYTES // 2)])
    with link, any_remote.connect(tmp_path / "other", link) as over_link:
        outcomes = list(over_link.download_many(jobs))
        assert link.connections > 1
    assert [outcome for outcome in outcomes if isinstance(outcome, Failure)] == []
    assert {path.name: path.read_bytes() for path in back.iterdir()} == contents


def test_a_bad_file_does_not_hold_up_its_neighbours(any_remote, client, place, tmp_path):
    make(tmp_path / "good", 10)
    missing = UploadJob(tmp_path / "missing", any_remote.path(f"{place}/missing"), key="missing")
    good = UploadJob(tmp_path / "good", any_remote.path(f"{place}/good"), key="good")
    outcomes = {outcome.key: outcome for outcome in client.upload_many([missing, good])}
    assert isinstance(outcomes["missing"], Failure)
    assert isinstance(outcomes["missing"].error, NotFound)
    assert isinstance(outcomes["good"], TransferResult)


def test_a_suspended_upload_is_kept_and_goes_on_later_while_the_others_are_sent(
    any_remote, client, expected, place, tmp_path
):
    content = make(tmp_path / "large", LARGE_BYTES)
    make(tmp_path / "small", 10)
    asked = itertools.count()
    job = UploadJob(tmp_path / "large", any_remote.path(f"{place}/large"), suspended=lambda: next(asked) >= 4)
    small = UploadJob(tmp_path / "small", any_remote.path(f"{place}/small"), key="small", priority=1)
    outcomes = {outcome.key: outcome for outcome in client.upload_many([job, small])}
    assert isinstance(outcomes["small"], TransferResult)
    assert isinstance(outcomes[None].error, Cancelled)
    assert f"{place}/large" not in any_remote.names()
    later = client.upload(tmp_path / "large", any_remote.path(f"{place}/large"))
    assert any_remote.content(f"{place}/large") == content
    assert (later.resumed_at > 0) is expected.resumes
    assert not parts(any_remote, place)


def test_an_upload_takes_as_long_as_the_limit_of_the_rate_says(any_remote, place, tmp_path):
    content = make(tmp_path / "source", 300 * 1024)
    with any_remote.connect(tmp_path, max_rate="1200 kbit/s") as client:
        client.upload(tmp_path / "source", any_remote.path(f"{place}/f"))
        began = time.monotonic()
        client.upload(tmp_path / "source", any_remote.path(f"{place}/g"))
        limited_s = time.monotonic() - began
        client.limit_rate(None)
        began = time.monotonic()
        client.upload(tmp_path / "source", any_remote.path(f"{place}/h"))
        free_s = time.monotonic() - began
    assert {any_remote.content(f"{place}/{name}") for name in "fgh"} == {content}
    assert 1.7 < limited_s < 4
    assert free_s < limited_s / 2


def test_a_small_file_is_read_and_a_longer_one_noticed(any_remote, client, place, tmp_path):
    make(tmp_path / "small", 100)
    client.upload(tmp_path / "small", any_remote.path(f"{place}/small"))
    content = any_remote.content(f"{place}/small")
    assert client.read_small(any_remote.path(f"{place}/small"), 100) == content
    assert client.read_small(any_remote.path(f"{place}/small"), 60) == content[:61]
    assert client.read_small(any_remote.path(f"{place}/missing"), 100) is None
    assert client.read_small(any_remote.path(place), 100) in (None, b"")


def test_paths_are_told_moved_and_deleted(any_remote, client, expected, place, tmp_path):
    folder = any_remote.path(place)
    assert client.exists(folder) is False
    assert client.list_files(folder) is None
    assert isinstance(client.last_error, NotFound)
    assert client.make_dir(f"{folder}/sub/deep")
    assert client.list_files(folder) == []
    make(tmp_path / "source", 10)
    assert client.upload_file(tmp_path / "source", f"{folder}/b.txt")
    assert client.upload_file(tmp_path / "source", f"{folder}/a.log")
    assert client.list_files(folder) == [f"{folder}/a.log", f"{folder}/b.txt"]
    assert client.list_files(folder, ".log") == [f"{folder}/a.log"]
    assert client.list_dirs(folder) == [f"{folder}/sub"]
    if expected.replaces:
        assert client.move_file(f"{folder}/a.log", f"{folder}/b.txt")
        assert client.list_files(folder) == [f"{folder}/b.txt"]
    assert client.stat(f"{folder}/b.txt").size == 10
    assert client.delete_file(f"{folder}/b.txt")
    assert client.delete_file(f"{folder}/b.txt") is False
    assert client.exists(f"{folder}/b.txt") is False
    assert client.is_connected()


def test_a_source_that_changes_is_never_published(any_remote, place, tmp_path):
    make(tmp_path / "source", LARGE_BYTES)

    def rewrite(progress):
        if progress.done_bytes < LARGE_BYTES:
            (tmp_path / "source").write_bytes(os.urandom(LARGE_BYTES))

    needs_a_link(any_remote)
    link = any_remote.link(rate_bps=50e6)
    with link, any_remote.connect(tmp_path, link) as client, pytest.raises(SourceChanged):
        client.upload(tmp_path / "source", any_remote.path(f"{place}/file"), progress=rewrite)
    assert any_remote.content(f"{place}/file") is None


@pytest.mark.parametrize("proof", ["tail", "full"])
def test_the_content_is_proven_when_asked(any_remote, expected, place, tmp_path, proof):
    content = make(tmp_path / "source", 3 * 1024 * 1024)
    with any_remote.connect(tmp_path, proof=proof, sidecar=True) as client:
        result = client.upload(tmp_path / "source", any_remote.path(f"{place}/{proof}"), sha256=True)
        refused = learned(client)
    assert refused == (set() if expected.hashes or proof == "tail" else {"check-file"})
    assert result.proof.value == proof
    assert any_remote.content(f"{place}/{proof}") == content
    assert any_remote.content(f"{place}/{proof}.sha256") == f"{result.sha256}  {proof}\n".encode()


def test_a_sidecar_replaces_nothing_but_an_earlier_checksum_of_its_file(any_remote, place, tmp_path):
    make(tmp_path / "source", 1000)
    with any_remote.connect(tmp_path, sidecar=True, replace_by_remove=True) as client:
        of_two = b"".join(b"%s  %s\n" % (b"0" * 64, name) for name in (b"two", b"another"))
        for name, theirs in (("file", b"the producer's own\n"), ("two", of_two)):
            (tmp_path / "theirs").write_bytes(theirs)
            client.upload(tmp_path / "theirs", any_remote.path(f"{place}/{name}.sha256"))
            client.upload(tmp_path / "source", any_remote.path(f"{place}/{name}"))
            assert any_remote.content(f"{place}/{name}.sha256") == theirs
        for _ in range(2):
            content = make(tmp_path / "source", 1000)
            client.upload(tmp_path / "source", any_remote.path(f"{place}/other"))
            digest = hashlib.sha256(content).hexdigest()
            assert any_remote.content(f"{place}/other.sha256") == f"{digest}  other\n".encode()


@pytest.mark.parametrize("size", [1000, LARGE_BYTES], ids=["small", "large"])
def test_a_folder_as_destination_is_named_and_nothing_is_left(any_remote, place, tmp_path, size):
    make(tmp_path / "source", size)
    place = f"{place}-{size}"
    if isinstance(any_remote, S3Gateway):
        pytest.skip("an object store has no empty folders: the name is free")
    with any_remote.connect(tmp_path) as client:
        client.mkdir(any_remote.path(f"{place}/folder"))
        for dest in ("folder", "folder/", "folder/.", "folder/.."):
            with pytest.raises(NameRefused, match=r"is a folder; did you mean .*/source'"):
                client.upload(tmp_path / "source", any_remote.path(f"{place}/{dest}"))
        assert not client.list_files(any_remote.path(place))  # on an object store an empty folder is none


def test_a_local_folder_as_destination_is_named_before_a_byte_is_fetched(any_remote, place, tmp_path):
    make(tmp_path / "source", LARGE_BYTES)
    (tmp_path / "folder").mkdir()
    with any_remote.connect(tmp_path) as client:
        client.upload(tmp_path / "source", any_remote.path(f"{place}/file"))
        with pytest.raises(PermanentError, match="is a folder; give the name of a file in it"):
            client.download(any_remote.path(f"{place}/file"), tmp_path / "folder", progress=pytest.fail)
    assert sorted(os.listdir(tmp_path)) == ["folder", "source", "state"]

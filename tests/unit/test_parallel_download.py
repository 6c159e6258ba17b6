"""Downloads through workers, and the small operations."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.client import Client
from iot.transfer.errors import (
    Cancelled,
    LinkLost,
    NameRefused,
    NotFound,
    PermanentError,
    ProofFailed,
    SourceChanged,
    Unsupported,
)
from iot.transfer.model import Evidence, Proof, RemoteEntry, RemoteFile

SIZE = 9 * 1024 * 1024


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(SIZE))
    return folder


def cutting(at: int, times: int = 1):
    """Ends a reading after so many bytes."""
    left = [times]

    def cut(blocks):
        seen = 0
        with contextlib.closing(blocks):  # else the error that the log keeps has its file open
            for block in blocks:
                yield block
                seen += len(block)
                if seen >= at and left[0]:
                    left[0] -= 1
                    raise LinkLost("cut")

    return cut


def fetch(tmp_path, faults=None, dest="back", source=b"file", *, resume=True, sha256=False, **settings):
    remote = folder_remote(tmp_path / "far", tmp_path / "state", faults, **settings)
    try:
        return Client(remote).download(source, tmp_path / dest, resume=resume, sha256=sha256)
    finally:
        remote.close()


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_download_goes_on_over_lost_links(tmp_path, far):
    faults = Faults(answer={"read": cutting(4 * 1024 * 1024)})
    result = fetch(tmp_path, faults)
    assert (tmp_path / "back").read_bytes() == (far / "file").read_bytes()
    assert result.resumed_at == 4 * 1024 * 1024
    assert result.sent_bytes == SIZE
    assert not leftovers(tmp_path)


def test_a_download_goes_on_after_a_restart(tmp_path, far):
    with pytest.raises(LinkLost):
        fetch(tmp_path, Faults(answer={"read": cutting(4 * 1024 * 1024)}), attempts=1)
    assert not (tmp_path / "back").exists()
    result = fetch(tmp_path)
    assert result.resumed_at == 4 * 1024 * 1024
    assert (tmp_path / "back").read_bytes() == (far / "file").read_bytes()


def test_a_remote_file_that_changed_is_fetched_from_its_start(tmp_path, far):
    with pytest.raises(LinkLost):
        fetch(tmp_path, Faults(answer={"read": cutting(4 * 1024 * 1024)}), attempts=1)
    (far / "file").write_bytes(os.urandom(SIZE))
    os.utime(far / "file", (10**9, 10**9))
    assert fetch(tmp_path).resumed_at == 0
    assert (tmp_path / "back").read_bytes() == (far / "file").read_bytes()


def test_a_remote_file_that_changes_meanwhile_is_not_taken(tmp_path, far):
    def change(blocks):
        yield from blocks
        os.utime(far / "file", (10**9, 10**9))

    with pytest.raises(SourceChanged):
        fetch(tmp_path, Faults(answer={"read": change}))
    assert not (tmp_path / "back").exists()
    assert not leftovers(tmp_path)


def test_a_connection_that_ends_early_is_no_end_of_file(tmp_path, far):
    short = iter([1])

    def cut(blocks):
        for number, block in enumerate(blocks):
            if number == 3 and next(short, None):
                return
            yield block

    result = fetch(tmp_path, Faults(answer={"read": cut}))
    assert (tmp_path / "back").read_bytes() == (far / "file").read_bytes()
    assert result.resumed_at > 0


def test_a_far_side_that_cannot_read_from_an_offset_is_read_from_the_start(tmp_path, far):
    with pytest.raises(LinkLost):
        fetch(tmp_path, Faults(answer={"read": cutting(4 * 1024 * 1024)}), attempts=1)
    faults = Faults(before={("read", 0): Unsupported("REST refused")})
    assert fetch(tmp_path, faults).resumed_at == 0
    assert (tmp_path / "back").read_bytes() == (far / "file").read_bytes()


def test_what_was_fetched_is_proven_as_asked(tmp_path, far):
    digest = hashlib.sha256((far / "file").read_bytes()).hexdigest()
    assert fetch(tmp_path, sha256=digest).evidence is Evidence.EXPECTED_HASH
    assert fetch(tmp_path, proof="full").evidence is Evidence.SECOND_READING
    assert fetch(tmp_path, proof="tail").proof is Proof.TAIL
    (far / "file.sha256").write_text(f"{digest}  file\n")
    assert fetch(tmp_path, sidecar=True).evidence is Evidence.SHA256_FILE
    with pytest.raises(ProofFailed):
        fetch(tmp_path, dest="wrong", sha256="0" * 64)
    assert not (tmp_path / "wrong").exists()


def test_a_part_that_reads_differently_is_not_gone_on_with(tmp_path, far):
    with pytest.raises(LinkLost):
        fetch(tmp_path, Faults(answer={"read": cutting(4 * 1024 * 1024)}), attempts=1)
    [part] = [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    with part.open("r+b") as file:
        file.write(b"damage")
    assert fetch(tmp_path, verify="full").resumed_at == 0
    assert (tmp_path / "back").read_bytes() == (far / "file").read_bytes()


def test_a_reading_that_hangs_is_cancelled_within_a_second(tmp_path, far):
    faults = Faults(hang={("read", 0)})
    remote = folder_remote(far, tmp_path / "state", faults)
    errors: list[BaseException] = []

    def run():
        try:
            Client(remote).download("file", tmp_path / "back")
        except Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert faults.hanging.wait(10)
    began = time.monotonic()
    remote.cancel()
    thread.join(10)
    assert errors
    assert time.monotonic() - began < 1.0
    remote.close()


def test_what_is_no_file_is_not_fetched(tmp_path, far):
    (far / "folder").mkdir()
    os.mkfifo(far / "pipe")
    for name, error in ((b"folder", NotFound), (b"missing", NotFound), (b"pipe", PermanentError)):
        with pytest.raises(error):
            fetch(tmp_path, source=name)


# -- small operations


@pytest.mark.parametrize("call", ["stat", "list", "delete", "move", "mkdir", "rmdir"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_small_operation_over_a_lost_link_has_happened_once(tmp_path, far, call, when):
    (far / "empty").mkdir()
    faults = Faults(**{when: {(call, 0): LinkLost("cut")}})
    with Client(folder_remote(far, tmp_path / "state", faults)) as client:
        if call == "stat":
            assert client.stat("file").size == SIZE
        elif call == "list":
            assert client.list(".") == ["./file"]
        elif call == "delete":
            client.delete("file")
            assert not (far / "file").exists()
        elif call == "move":
            client.move("file", "deep/moved")
            assert (far / "deep" / "moved").exists()
        elif call == "mkdir":
            client.mkdir("a/b/c")
            assert (far / "a/b/c").is_dir()
        else:
            client.rmdir("empty")
            assert not (far / "empty").exists()


def test_what_is_not_there_is_told_and_never_guessed(tmp_path, far):
    with Client(folder_remote(far, tmp_path / "state")) as client:
        assert client.exists("file")
        assert not client.exists("missing")
        assert client.delete_file("missing") is False
        assert isinstance(client.last_error, NotFound)
        assert client.move_file("missing", "other") is False
        assert client.list_files("missing") is None
        assert client.is_connected()
    faults = Faults(before={("stat", number): LinkLost("cut") for number in range(9)})
    with Client(folder_remote(far, tmp_path / "state", faults)) as lost, pytest.raises(LinkLost):
        lost.exists("file")


def test_a_listed_name_that_is_a_path_is_refused(tmp_path, far):
    faults = Faults(answer={"list": lambda _: iter([RemoteEntry("../../etc/passwd", RemoteFile(1))])})
    with Client(folder_remote(far, tmp_path / "state", faults)) as client, pytest.raises(NameRefused):
        client.list(".")


def test_an_idle_connection_is_known_to_be_gone(tmp_path, far):
    faults = Faults(before={("check", 0): LinkLost("cut")})
    with Client(folder_remote(far, tmp_path / "state", faults)) as client:
        assert client.is_connected() is False
        client.connect()
        assert client.is_connected() is False
        assert client.is_connected() is False  # dropped, and not made again by a question
        client.connect()
        assert client.is_connected() is True

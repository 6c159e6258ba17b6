"""Another file has the name: what an upload does then, with every server, and when the answer to a publish was lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from paramiko import Message
from servers.base import Server
from servers.quirks import Misbehaving, Quirk
from servers.zoo import start

from iot.sftp.client import AlreadyExists, Failure, IoTSFTPClient, TransferResult, UploadJob
from iot.sftp.server.protocol import FAILURE, OK, Reply, status
from iot.transfer import IfExists


def sent(client: Any, source: Path, dest: str, policy: IfExists, *others: str, **more: Any) -> Any:
    (outcome,) = client.upload_many([UploadJob(source, dest, if_exists=policy, alternatives=others, **more)])
    return outcome


def make(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def names(server: Server, folder: str) -> list[str]:
    return [name.removeprefix(f"{folder}/") for name in server.names() if name.startswith(f"{folder}/")]


@pytest.mark.parametrize("size", [3, 3 * 1024 * 1024])
def test_a_file_that_stands_there_is_left_alone_skipped_or_gone_round(any_remote: Server, tmp_path: Path, size: int):
    folder = f"collisions-{size}"
    dest, other, last = (any_remote.path(f"{folder}/{name}") for name in ("file", "other", "last"))
    with any_remote.connect(tmp_path) as client:
        first = os.urandom(size)
        assert sent(client, make(tmp_path / "first", first), dest, IfExists.FAIL).sent_bytes == size
        mine = make(tmp_path / "mine", os.urandom(size))
        failed = sent(client, mine, dest, IfExists.FAIL)
        assert isinstance(failed, Failure)
        assert isinstance(failed.error, AlreadyExists)
        assert "is not to be replaced" in str(failed.error)
        skipped = sent(client, mine, dest, IfExists.SKIP)
        assert (skipped.skipped, skipped.proof, skipped.sent_bytes) == (True, None, 0)
        for name in (other, last):
            renamed = sent(client, mine, dest, IfExists.RENAME, other, last)
            assert (renamed.dest, renamed.published_as) == (dest, name)
        full = sent(client, mine, dest, IfExists.RENAME, other, last)
        assert isinstance(full.error, AlreadyExists)
        assert "and so does each name to use instead" in str(full.error)
        free = sent(client, mine, any_remote.path(f"{folder}/free"), IfExists.RENAME, other)
        assert free.published_as == ""
        found = {name: any_remote.content(f"{folder}/{name}") for name in names(any_remote, folder)}
    content = mine.read_bytes()
    parts = [name for name in found if ".part" in name]
    assert all(found.pop(name) == content for name in parts)  # kept for the next attempt, as after any refusal
    assert found == {"file": first, "other": content, "last": content, "free": content}


class LinkedAndCut(Quirk):
    """The link or rename is made, and the connection is cut before the answer."""

    def cut(self, reply: Reply) -> Reply:
        if self.hit():
            self.server.active = False
            self.server.drop_connections()
        return reply

    def on_hardlink(self, message: Message) -> Reply:
        return self.cut(super().on_hardlink(message))

    def on_rename(self, message: Message) -> Reply:
        return self.cut(super().on_rename(message))


class RenamedAndCut(LinkedAndCut):
    extensions: Mapping[bytes, bytes] = MappingProxyType(
        {name: value for name, value in Quirk.extensions.items() if name != b"hardlink@openssh.com"}
    )


class NoLinks(Quirk):
    """A file system without links: announced, and refused."""

    def on_hardlink(self, message: Message) -> Reply:
        self.refuse(FAILURE, "no links here")
        return super().on_hardlink(message)


class LinksInWordsOnly(Quirk):
    """As rclone does: OK, and nothing is there."""

    def on_hardlink(self, message: Message) -> Reply:
        return status(OK) if self.hit() else super().on_hardlink(message)


def connect(server: Server, tmp_path: Path, **changes: Any) -> IoTSFTPClient:
    return IoTSFTPClient(**{**server.login(), "state_dir": tmp_path / "state", "backoff_s": 0.05, **changes})


@pytest.mark.parametrize("later_process", [False, True])
@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("policy", [IfExists.SKIP, IfExists.FAIL, IfExists.RENAME])
@pytest.mark.parametrize("quirk", [LinkedAndCut, RenamedAndCut])
def test_our_own_file_is_no_collision_when_the_answer_to_its_publish_was_lost(
    quirk: type[Quirk], policy: IfExists, taken: bool, later_process: bool, tmp_path: Path
) -> None:
    if taken and policy is not IfExists.RENAME:
        pytest.skip("nothing is published then")
    source = make(tmp_path / "source", os.urandom(100_000))
    with Misbehaving(tmp_path / "root", quirk) as server:
        dest, other = server.path("up/file"), server.path("up/other")
        if taken:
            (server.root / "up").mkdir(parents=True)
            (server.root / "up/file").write_bytes(os.urandom(100_000))
        server.active = True
        with connect(server, tmp_path, attempts=1 if later_process else 3) as client:
            outcome = sent(client, source, dest, policy, other)
        if later_process:
            assert isinstance(outcome, Failure)
            with connect(server, tmp_path) as client:
                outcome = sent(client, source, dest, policy, other)
        assert server.hits == 1
        assert isinstance(outcome, TransferResult), outcome
        assert (outcome.already_done, outcome.skipped) == (True, False)
        assert outcome.published_as == (other if taken else "")
        assert server.names() == (["up/file", "up/other"] if taken else ["up/file"])
        assert server.content("up/other" if taken else "up/file") == source.read_bytes()


@pytest.mark.parametrize("quirk", [NoLinks, LinksInWordsOnly])
def test_where_no_links_are_made_the_protocols_own_rename_replaces_nothing(quirk: type[Quirk], tmp_path: Path) -> None:
    source = make(tmp_path / "source", b"mine")
    with Misbehaving(tmp_path / "root", quirk) as server, connect(server, tmp_path) as client:
        server.active = True
        dest, other = server.path("file"), server.path("other")
        assert sent(client, source, dest, IfExists.FAIL).published_as == ""
        assert isinstance(sent(client, source, dest, IfExists.FAIL), Failure)
        assert sent(client, source, dest, IfExists.RENAME, other).published_as == other
        assert server.hits == 1  # asked once
        assert server.names() == ["file", "other"]
        assert server.content("file") == server.content("other") == b"mine"


@pytest.mark.parametrize("kind", ["openssh", "proftpd", "folder"])
def test_of_devices_that_publish_one_name_at_once_one_gets_it_and_no_file_is_lost(kind: str, tmp_path: Path) -> None:
    devices, rounds = 4, 12
    with start(kind, tmp_path / "root") as server:
        outcomes: list[TransferResult | Failure] = []
        begin = threading.Barrier(devices)

        def device(number: int) -> None:
            state = tmp_path / f"device{number}"
            state.mkdir()
            with server.connect(state) as client:
                for each in range(rounds):
                    source = make(state / f"source{each}", b"%d of %d" % (each, number))
                    begin.wait(60)
                    other = server.path(f"up/f{each}-{number}")
                    outcomes.append(sent(client, source, server.path(f"up/f{each}"), IfExists.RENAME, other))

        threads = [threading.Thread(target=device, args=(number,)) for number in range(devices)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert all(isinstance(outcome, TransferResult) for outcome in outcomes), outcomes
        found = {server.content(name) for name in server.names()}
        assert found == {b"%d of %d" % (each, number) for each in range(rounds) for number in range(devices)}
        assert sum(not outcome.published_as for outcome in outcomes) == rounds  # type: ignore[union-attr]

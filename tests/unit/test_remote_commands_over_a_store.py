"""Commands on the far side that belong to an upload, over a store: as over SFTP, whatever the moment of a lost link."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote
from unit.remote_commands import ALL, END, command
from unit.upload_lab import CONTENT

from iot.transfer import (
    Failure,
    LinkLost,
    NotFound,
    PermissionDenied,
    RemoteCommands,
    TransferResult,
    Unsupported,
    UploadJob,
    Verb,
)


class Side:
    """A folder as the far side, and a source. calls: those that may go wrong."""

    calls = ("move", "delete", "mkdir", "chmod", "touch", "publish", "stat", "where", "confirm", "begin", "write")

    def __init__(self, base: Path) -> None:
        self.root = base / "far"
        (self.root / "up").mkdir(parents=True)
        (self.root / "up/file").write_bytes(b"old")
        (self.root / "up/stale").write_bytes(b"x")
        self.source = base / "source"
        self.source.write_bytes(CONTENT)
        self.state = base / "state"

    def job(self, commands: RemoteCommands = ALL, **more) -> UploadJob:
        return UploadJob(self.source, "/up/file", commands=commands, **more)

    def send(self, faults: Faults | None = None, commands: RemoteCommands = ALL, **more) -> object:
        remote = folder_remote(self.root, self.state, faults, attempts=1)
        try:
            return remote.upload(self.job(commands, **more))
        finally:
            remote.close()

    def stands(self) -> dict[bytes, bytes]:
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {b"/" + os.fsencode(path.relative_to(self.root)): path.read_bytes() for path in files}


def test_over_a_store_they_come_to_the_same_end(tmp_path: Path) -> None:
    side = Side(tmp_path)
    assert isinstance(side.send(), TransferResult)
    assert side.stands() == END
    assert (side.root / "up/done/file").stat().st_mode & 0o777 == 0o640


def test_whenever_a_stores_link_is_lost_the_next_attempt_comes_to_the_same_end(tmp_path: Path) -> None:
    whole = Faults()
    Side(tmp_path / "whole").send(whole)
    cuts = [(name, number) for name in Side.calls for number in range(whole.counts[name])]
    assert len(cuts) > 12
    for number, cut in enumerate(cuts):
        for when in ("before", "after"):
            side = Side(tmp_path / f"{when}-{number}")
            first = Faults(**{when: {cut: LinkLost("cut")}})
            assert isinstance(side.send(first), Failure), cut
            outcome = side.send()
            assert isinstance(outcome, TransferResult), (cut, when, outcome)
            assert side.stands() == END, (cut, when)
            was_published = first.counts["publish"] and not (cut[0] == "publish" and when == "before")
            assert not (was_published and outcome.sent_bytes), (cut, when)


@pytest.mark.parametrize("when", ["before", "after"])
def test_over_a_store_those_that_follow_a_rename_are_carried_out_under_another_name_too(tmp_path: Path, when) -> None:
    side = Side(tmp_path)
    follow = (command("rename", "{path}", "done/{name}"), command("delete", "stale"))
    commands = RemoteCommands(after_success=follow, base="/up")
    rename: dict = {"if_exists": "rename", "alternatives": ("/up/file-2",)}
    assert isinstance(side.send(Faults(**{when: {("move", 0): LinkLost("cut")}}), commands, **rename), Failure)
    outcome = side.send(None, commands, **rename)
    assert isinstance(outcome, TransferResult)
    assert not outcome.sent_bytes
    assert side.stands() == {b"/up/file": b"old", b"/up/done/file-2": CONTENT}


def test_over_a_store_files_for_one_destination_wait_for_the_commands_that_follow_each(tmp_path: Path) -> None:
    jobs = []
    for number in range(12):
        source = tmp_path / str(number)
        source.write_bytes(b"%02d" % number)
        commands = RemoteCommands(after_success=(command("rename", "{path}", f"done/{number}"),))
        jobs.append(UploadJob(source, "/file", commands=commands))
    remote = folder_remote(tmp_path / "far", tmp_path / "state")
    assert all(isinstance(outcome, TransferResult) for outcome in remote.upload_many(jobs))
    remote.close()
    found = {path.name: path.read_bytes() for path in (tmp_path / "far").rglob("*") if path.is_file()}
    assert found == {str(number): b"%02d" % number for number in range(12)}


@pytest.mark.parametrize("where", ["before", "before_publish"])
def test_over_a_store_one_that_fails_is_the_failure_of_the_file(tmp_path: Path, where: str) -> None:
    side = Side(tmp_path)
    commands = replace(RemoteCommands(base="/up"), **{where: (command("delete", "stale"),)})
    failure = side.send(Faults(before={("delete", 0): PermissionDenied("no")}), commands)
    assert isinstance(failure, Failure)
    assert str(failure.error) == "remote command delete '/up/stale': no"
    assert side.stands()[b"/up/file"] == b"old"


def test_over_a_store_one_that_fails_afterwards_is_logged(tmp_path: Path, caplog) -> None:
    side = Side(tmp_path)
    assert isinstance(side.send(Faults(before={("chmod", 0): PermissionDenied("no")})), TransferResult)
    assert side.stands() == END
    assert "remote command failed after the delivery" in caplog.text


def test_what_a_server_cannot_do_is_named(tmp_path: Path) -> None:
    side = Side(tmp_path)
    faults = Faults(capabilities={"commands": frozenset(Verb) - {Verb.CHMOD}})
    commands = RemoteCommands(before_publish=(command("chmod", "stale", mode=0o600),), base="/up")
    failure = side.send(faults, commands)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, Unsupported)
    assert "remote command chmod 600 '/up/stale': this server cannot chmod" in str(failure.error)
    assert faults.counts["chmod"] == 0


def test_over_a_store_a_rename_that_fails_is_done_only_if_the_new_name_alone_is_there(tmp_path: Path) -> None:
    for number, (to, gone) in enumerate([("stale", False), ("none", False), ("none", True), ("stale", True)]):
        side = Side(tmp_path / str(number))
        commands = RemoteCommands(before=(command("rename", "{path}", to),), base="/up")
        if gone:
            (side.root / "up/file").unlink()
        outcome = side.send(Faults(before={("move", 0): NotFound("gone, says the server")}), commands)
        assert isinstance(outcome, TransferResult) is (gone and to == "stale"), (to, gone)


def test_over_a_store_a_rename_to_its_own_name_asks_for_nothing(tmp_path: Path) -> None:
    faults = Faults()
    commands = RemoteCommands(before=(command("rename", "stale", "./stale"),), base="/up")
    assert isinstance(Side(tmp_path).send(faults, commands), TransferResult)
    assert faults.counts["move"] == 0


def test_a_folder_follows_no_link(tmp_path: Path) -> None:
    side = Side(tmp_path)
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    outside.chmod(0o600)
    (side.root / "up/link").symlink_to(outside)
    for each in (command("chmod", "link", mode=0o777), command("touch", "link")):
        before = outside.stat()
        assert isinstance(side.send(commands=RemoteCommands(before=(each,), base="/up")), Failure)
        assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_touch_sets_the_time_and_keeps_the_content(tmp_path: Path) -> None:
    side = Side(tmp_path)
    os.utime(side.root / "up/stale", (5, 5))
    commands = RemoteCommands(before=(command("touch", "stale"), command("touch", "new/flag")), base="/up")
    assert isinstance(side.send(commands=commands), TransferResult)
    assert (side.root / "up/stale").read_bytes() == b"x"
    assert (side.root / "up/stale").stat().st_mtime > 1e9
    assert (side.root / "up/new/flag").read_bytes() == b""

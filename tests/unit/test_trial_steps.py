"""The steps of `check --connect`: what is done at a server that works, and what each step says when it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from iot.spooler.checks.trial import HALF, WHOLE, Came, Destination, Step, destinations, sources, tried
from iot.spooler.config.settings import Settings
from iot.transfer import (
    ConfigurationError,
    CredentialsInvalid,
    HostKeyMismatch,
    LinkLost,
    LoginRefused,
    NotFound,
    PermissionDenied,
    ServerRefused,
    SourceUnreadable,
    TransferError,
    TransferResult,
)

FOLDERS = "up/2026/new"
SCRATCH = f"{FOLDERS}/.check.part"


class Server:
    """Remembers what it was asked. resumes: goes on with a broken upload. fails: what a call raises."""

    def __init__(self, *, durable: bool = True, resumes: bool = True) -> None:
        self.folders = {"up"}
        self.files: dict[str, bytes] = {}
        self.read: list[int] = []
        self.asked: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self._durable, self._resumes = durable, resumes
        self._got = 0

    def connect(self) -> None:
        self._ask("connect")

    def upload(self, source: BinaryIO, dest: str) -> TransferResult:
        self._ask("upload")
        self._ask(f"upload {len(self.read) + 1}")
        self.folders |= {"up/2026", FOLDERS}
        began, content = self._got, b""
        source.seek(began)
        try:
            while piece := source.read(HALF // 2):
                content += piece
        except OSError:
            self.read.append(len(content))
            self._got = len(content) if self._resumes else 0
            self.files[f"{dest}.part"] = content
            raise SourceUnreadable("interrupted") from None
        self._got = 0
        self.files.pop(f"{dest}.part", None)
        self.files[dest] = content
        self.read.append(len(content))
        return TransferResult(dest, dest, 8, 8, began, 0.1, None, self._durable)

    def exists(self, path: str) -> bool:
        self._ask("exists")
        return path in self.folders

    def scan(self, path: str) -> list[Any]:
        self._ask(f"scan {path}")
        return [None] * 3

    def list(self, path: str, file_pattern: str | None = None) -> list[str]:
        self._ask("list")
        assert path == FOLDERS
        assert file_pattern == SCRATCH.rpartition("/")[2]
        return sorted(self.files)

    def delete(self, path: str) -> None:
        self._ask("delete")
        if path not in self.files:
            raise NotFound(path)
        del self.files[path]

    def rmdir(self, path: str) -> None:
        self._ask(f"rmdir {path}")
        self.folders.remove(path)

    def _ask(self, call: str) -> None:
        self.asked.append(call)
        if call in self.fails:
            raise self.fails[call]


def steps(server: Server, identity: str = "host key", **more: Any) -> list[Step]:
    return list(tried(server, identity, [Destination(SCRATCH, ("box", "b b"))], **more))


def came(found: list[Step]) -> dict[str, Came | None]:
    return {step.name: step.came for step in found}


def test_at_a_server_that_offers_all_every_step_is_good_and_nothing_is_left() -> None:
    server = Server()
    found = steps(server)
    seconds = found[2].means.removeprefix("the server lets us in, after ")
    assert re.fullmatch(r"\d+\.\d\d s", seconds)
    assert found == [
        Step("reach", Came.GOOD, "the server answers"),
        Step("host key", Came.GOOD, "it is the one that is trusted"),
        Step("login", Came.GOOD, f"the server lets us in, after {seconds}"),
        Step(f"destination {FOLDERS}", None, 'of outbox box, "b b"'),
        Step("write", Came.GOOD, "a file was sent, proven and given its name"),
        Step("fsync", Came.GOOD, "the server confirms that a file is on its disk"),
        Step("resume", Came.GOOD, "an upload that was broken off has gone on at 256.0 KiB"),
        Step("rename", Came.GOOD, "a file that was there already has been replaced"),
        Step("delete", Came.GOOD, "nothing of this check is left there"),
    ]
    assert server.read == [8, HALF, WHOLE - HALF, 8]
    assert (server.files, server.folders) == ({}, {"up"})
    assert [call for call in server.asked if "rmdir" in call] == [f"rmdir {FOLDERS}", "rmdir up/2026"]


def test_what_a_server_does_not_offer_is_no_failure() -> None:
    found = {step.name: step for step in steps(Server(durable=False, resumes=False), "")}
    assert "host key" not in found
    assert "" not in found
    assert found["fsync"].came is found["resume"].came is Came.NO
    assert found["fsync"].means.endswith("a file leaves its outbox only publish_grace_s after it was sent")
    assert found["resume"].means == "an upload that is broken off starts over"
    assert found["delete"].came is Came.GOOD


HELD = "the agent would hold the server: nothing is sent until this is fixed"
LATER = "the agent tries again and again, and files wait"


@pytest.mark.parametrize(
    ("error", "identity", "expected"),
    [
        (LoginRefused("no"), "host key", [("reach", Came.GOOD), ("host key", Came.GOOD), ("login", Came.FAILED)]),
        (
            HostKeyMismatch("no"),
            "host key",
            [("reach", Came.GOOD), ("host key", Came.FAILED), ("login", Came.NOT_TRIED)],
        ),
        (HostKeyMismatch("no"), "", [("reach", Came.FAILED), ("login", Came.NOT_TRIED)]),
        (
            CredentialsInvalid("no"),
            "host key",
            [("reach", Came.NOT_TRIED), ("host key", Came.NOT_TRIED), ("login", Came.FAILED)],
        ),
        (ConfigurationError("no"), "", [("reach", Came.GOOD), ("login", Came.FAILED)]),
        (
            LinkLost("no"),
            "host key",
            [("reach", Came.LATER), ("host key", Came.NOT_TRIED), ("login", Came.NOT_TRIED)],
        ),
    ],
)
def test_a_login_is_told_up_to_the_step_that_fails(
    error: TransferError, identity: str, expected: list[tuple[str, Came]]
) -> None:
    server = Server()
    server.fails["connect"] = error
    found = steps(server, identity, fetched=[("/cfg", "in")])
    login = found[: len(expected)]
    assert [step[:2] for step in login] == expected
    good = {"reach": "the server answers", "host key": "it is the one that is trusted"}
    failed = f"no; {LATER if isinstance(error, LinkLost) else HELD}"
    says = {Came.NOT_TRIED: lambda _: "", Came.GOOD: good.get}
    assert [step.means for step in login] == [says.get(step.came, lambda _: failed)(step.name) for step in login]
    assert found[len(expected) :] == [
        Step(f"destination {FOLDERS}", None, 'of outbox box, "b b"'),
        Step("write", Came.NOT_TRIED, ""),
        Step("source /cfg", None, "of inbox in"),
        Step("list", Came.NOT_TRIED, ""),
    ]
    assert server.asked == ["connect"]


def test_a_folder_that_is_fetched_from_is_listed_and_no_more() -> None:
    server = Server()
    server.fails["scan /none"] = PermissionDenied("no")
    found = list(tried(server, "", [], [("/c fg", "in"), ("/none", "i i")]))[2:]
    assert found == [
        Step('source "/c fg"', None, "of inbox in"),
        Step("list", Came.GOOD, "the folder can be listed, and holds 3 names"),
        Step("source /none", None, 'of inbox "i i"'),
        Step("list", Came.FAILED, "no; nothing would be fetched"),
    ]
    assert server.asked == ["connect", "scan /c fg", "scan /none"]


def test_a_destination_without_a_folder_is_the_one_of_the_login() -> None:
    server = Server()
    server.fails["upload"] = ServerRefused("no")
    server.list = lambda path, pattern=None: server.asked.append(f"list {path}") or []  # type: ignore[method-assign]
    found = list(tried(server, "", [Destination(".check.part", ("box",))]))
    assert found[2].name == "destination ."
    assert "list ." in server.asked
    assert "exists" not in server.asked


def test_an_absolute_destination_is_looked_for_up_to_the_root() -> None:
    server = Server()
    server.fails["upload"] = ServerRefused("no")
    server.list = lambda *_: []  # type: ignore[method-assign]
    server.rmdir = server.asked.append  # type: ignore[method-assign]
    list(tried(server, "", [Destination("/a/b/.check.part", ("box",))]))
    assert server.asked[-2:] == ["/a/b", "/a"]
    assert server.asked.count("exists") == 2


def test_whether_folders_are_missing_is_no_step_of_its_own() -> None:
    server = Server()
    server.fails["exists"] = PermissionDenied("no")
    assert came(steps(server))["delete"] is Came.GOOD
    assert FOLDERS in server.folders  # perhaps it was there


def test_a_file_that_cannot_be_deleted_is_named_once() -> None:
    server = Server()
    server.fails["delete"] = PermissionDenied("no")
    found = steps(server)
    assert found[-1] == Step(
        "delete", Came.FAILED, f"no; {SCRATCH} is left there, and so are parts of files that are given up"
    )


@pytest.mark.parametrize(("call", "left"), [("upload 2", {}), ("upload 4", {}), ("delete", {SCRATCH: b"another\n"})])
def test_who_stops_in_the_middle_leaves_nothing_that_can_be_removed(call: str, left: dict[str, bytes]) -> None:
    server = Server()
    server.fails[call] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        steps(server)
    assert call == "delete" or (server.files, server.folders) == (left, {"up"})


def test_a_folder_that_cannot_be_listed_is_no_reason_to_leave_the_others() -> None:
    server = Server()
    server.fails["list"] = PermissionDenied("no")
    assert came(steps(server))["delete"] is Came.GOOD
    assert server.folders == {"up"}


def test_what_cannot_be_told_any_more_is_told_as_left() -> None:
    server = Server()
    server.fails |= {"list": LinkLost("gone"), f"rmdir {FOLDERS}": LinkLost("gone")}
    last = steps(server)[-1]
    assert (last.name, last.came) == ("clean up", Came.LATER)
    assert last.means == (
        f"what this check made may still be there, also with an ending: {SCRATCH}, {FOLDERS}; remove it by hand"
    )


def test_a_link_that_is_lost_leaves_the_folders_that_were_made_too() -> None:
    server = Server()
    server.fails["upload 2"] = LinkLost("gone")
    last = steps(server)[-1]
    assert f"with an ending: {SCRATCH}, {FOLDERS}, up/2026; remove it by hand" in last.means
    assert "delete" not in server.asked


# -- where


def settings(base: Path) -> Settings:
    box, into = {"destination": "up", "name": ""}, {"source": "/cfg/{device_id}"}
    names = {"one": "up", "two": "up", "three": "other", "off": "off"}
    return Settings.model_validate(
        {
            "state_dir": str(base),
            "device_id": "gw",
            "server": {"host": "h"},
            "outbox": [
                {**box, "path": f"/{name}", "destination": to, "enabled": name != "off"} for name, to in names.items()
            ],
            "inbox": [{**into, "path": "/in"}, {**into, "path": "/out", "enabled": False}],
        }
    )


def test_each_destination_is_tried_once_for_all_its_outboxes_under_a_name_that_nobody_takes(tmp_path: Path) -> None:
    found = destinations(settings(tmp_path), 10**18)
    assert [each.outboxes for each in found] == [("one", "two"), ("three",)]
    folders, names = zip(*(each.scratch.rsplit("/", 1) for each in found), strict=True)
    assert folders == ("up", "other")
    assert len(set(names)) == 1
    assert re.fullmatch(r"\.iot-spooler-check\.[0-9a-f]{8}\.part", names[0])
    assert destinations(settings(tmp_path), 10**18)[0].scratch != found[0].scratch


def test_each_inbox_that_is_used_has_its_source_tried(tmp_path: Path) -> None:
    assert sources(settings(tmp_path)) == [("/cfg/gw", "in")]

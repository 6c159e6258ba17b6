"""What `check` says of the folders and files that the agent would use, with whose rights whatsoever."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.other_user import without_capabilities

from iot.ftp.configured import ServerSettings
from iot.spooler.checks import preflight
from iot.spooler.checks.preflight import credentials_of_unit, doubts, obstacles
from iot.spooler.config.origins import Origins
from iot.spooler.config.settings import Settings

NOWHERE = Origins(None, "", {})
NO_LOGIN = "nothing to log in with: user 'u' needs a password or password_file"


class Device:
    """An agent that fetches from and sends to a folder. outbox, inbox, more: settings that a test adds."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.box, self.into, self.state = base / "box", base / "into", base / "state"
        for folder in (self.box, self.into, self.state):
            folder.mkdir()
        self.outbox: dict[str, Any] = {"path": str(self.box), "destination": "up", "after_upload": "delete"}
        self.inbox: dict[str, Any] = {"path": str(self.into), "source": "cfg"}
        self.more: dict[str, Any] = {}

    def settings(self) -> Settings:
        given = {
            "state_dir": str(self.state),
            "server": {"kind": "folder", "path": str(self.base), "marker": "into"},
            "outbox": [self.outbox],
            "inbox": [self.inbox],
            **self.more,
        }
        return Settings.model_validate(given)

    def obstacles(self, *, by_unit: bool = False) -> list[str]:
        return [self._plain(line) for line in obstacles(self.settings(), NOWHERE, None, by_unit=by_unit)]

    def doubts(self, *, by_unit: bool = False) -> list[str]:
        return [self._plain(line) for line in doubts(self.settings(), NOWHERE, by_unit=by_unit)]

    def _plain(self, line: str) -> str:
        assert line.endswith(" (from the environment)")
        return line.removesuffix(" (from the environment)").replace(str(self.base), "BASE")

    def powerless(self) -> list[str]:
        """The obstacles of an ordinary user, who owns everything here."""
        told = self.base / "told"

        def ask() -> None:
            told.write_text("\n".join(self.obstacles()))

        without_capabilities(ask)
        return re.sub(rf"user {os.geteuid()}\b", "user ME", told.read_text()).splitlines()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_nothing_hinders_where_all_is_as_it_should_be(device: Device) -> None:
    device.outbox |= {
        "after_upload": "archive",
        "archive": str(device.base / "arc"),
        "quarantine": str(device.base / "q"),
    }
    assert device.powerless() == []
    assert device.doubts() == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.rmdir(), "is not there; the agent would wait for it"),
        (lambda path: (path.rmdir(), path.touch()), "is not a folder"),
        (lambda path: path.chmod(0o300), "cannot be read by user ME"),
        (lambda path: path.chmod(0o600), "cannot be read by user ME"),
        (lambda path: path.chmod(0o500), "user ME may not take files out of it, or its file system is read-only"),
    ],
)
def test_an_outbox_from_which_nothing_can_be_taken(device: Device, make: Callable[[Path], object], words: str) -> None:
    make(device.box)
    assert device.powerless() == [f"outbox[0].path = BASE/box: {words}"]


def test_an_outbox_that_keeps_its_files_need_not_be_writable(device: Device) -> None:
    device.outbox["after_upload"] = "keep"
    device.box.chmod(0o500)
    assert device.powerless() == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is not there; delivered files would wait for it"),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(0o500), "user ME may not put files into it, or its file system is read-only"),
        (lambda path: path.mkdir(0o600), "user ME may not put files into it, or its file system is read-only"),
        (lambda path: path.mkdir(0o300), None),
    ],
)
def test_a_next_outbox_into_which_nothing_can_be_put(
    device: Device, make: Callable[[Path], object], words: str | None
) -> None:
    target = device.base / "next"
    make(target)
    device.outbox |= {"after_upload": "forward", "forward_to": str(target)}
    assert device.powerless() == ([] if words is None else [f"outbox[0].forward_to = BASE/next: {words}"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.rmdir(), "is not there; the agent would wait for it"),
        (lambda path: (path.rmdir(), path.touch()), "is not a folder"),
        (lambda path: path.chmod(0o500), "user ME may not write to it, or its file system is read-only"),
        (lambda path: path.chmod(0o600), "user ME may not write to it, or its file system is read-only"),
        (lambda path: path.chmod(0o300), None),
    ],
)
def test_an_inbox_in_which_files_cannot_get_their_names(
    device: Device, make: Callable[[Path], object], words: str | None
) -> None:
    make(device.into)
    assert device.powerless() == ([] if words is None else [f"inbox[0].path = BASE/into: {words}"])


@pytest.mark.parametrize(
    ("mode", "owner", "judges", "told"),
    [
        (0o755, 0, True, False),
        (0o775, 0, True, True),
        (0o757, 0, True, True),
        (0o1777, 0, True, False),
        (0o777, 0, False, False),
        (0o755, 4711, True, True),
        (0o1755, 4711, True, False),
    ],
)
def test_nobody_else_can_exchange_what_is_judged_before_it_is_published(
    device: Device, mode: int, owner: int, judges: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if judges:
        device.inbox["before_publish"] = ["/bin/true"]
    real = Path.stat

    def stat(path: Path, **how: Any) -> Any:
        found = real(path, **how)
        if path != device.into:
            return found
        return os.stat_result((found.st_mode & ~0o7777 | mode, *found[1:4], owner, *found[5:]))

    monkeypatch.setattr(Path, "stat", stat)
    words = "other users may write to it, and could exchange what before_publish judges; chmod +t"
    assert device.obstacles() == [f"inbox[0].path = BASE/into: {words}"] * told


def test_an_inbox_of_the_agents_own_user_is_nobody_elses(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.inbox["before_publish"] = ["/bin/true"]
    owner = device.into.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert device.obstacles() == []


def test_what_is_disabled_hinders_nobody(device: Device) -> None:
    device.box.rmdir()
    device.into.rmdir()
    assert len(device.obstacles()) == 2
    device.outbox["enabled"] = device.inbox["enabled"] = False
    device.more["outbox"] = [device.outbox, {"path": str(device.state.parent / "two"), "destination": "up"}]
    (device.base / "two").mkdir()
    assert device.obstacles() == []


@pytest.mark.parametrize("key", ["outbox", "inbox", "forward_to"])
def test_a_disk_that_is_not_mounted_is_told_instead_of_what_is_wrong_with_its_mount_point(
    device: Device, key: str
) -> None:
    point = device.base / "mnt"
    point.mkdir()
    device.more["mounts"] = [str(point)]
    folder = str(point / "none")
    if key == "forward_to":
        device.outbox |= {"after_upload": "forward", "forward_to": folder}
    else:
        getattr(device, key)["path"] = folder
    place = "outbox[0].forward_to" if key == "forward_to" else f"{key}[0].path"
    assert device.obstacles() == [f"{place} = BASE/mnt/none: BASE/mnt is not mounted; the agent would wait for it"]


def test_a_folder_of_the_agents_own_that_it_can_neither_use_nor_make(device: Device) -> None:
    device.state.chmod(0o500)
    (device.base / "shut").mkdir(0o500)
    device.outbox |= {"after_upload": "archive", "archive": str(device.base / "shut" / "a" / "b")}
    why = ", or its file system is read-only"
    assert device.powerless() == [
        f"state_dir = BASE/state: user ME may not write to it{why}",
        f"outbox[0].archive = BASE/shut/a/b: user ME may not make it in BASE/shut{why}",
        f"outbox[0].quarantine = BASE/state/quarantine: user ME may not make it in BASE/state{why}",
    ]


def test_of_a_state_directory_that_is_not_there_what_lies_in_it_by_default_is_not_told_again(device: Device) -> None:
    device.state.rmdir()
    device.state.touch()
    device.outbox["after_upload"] = "archive"
    assert device.obstacles() == ["state_dir = BASE/state: Not a directory"]
    device.outbox["quarantine"] = str(device.state / "q")
    assert device.obstacles() == [
        "state_dir = BASE/state: Not a directory",
        "outbox[0].quarantine = BASE/state/q: Not a directory",
    ]


def test_an_archive_that_nothing_is_moved_to_hinders_nobody(device: Device) -> None:
    device.box.joinpath("file").touch()
    device.outbox["archive"] = str(device.box / "file")
    device.outbox["after_upload"] = "archive"
    assert [line for line in device.obstacles() if "archive" in line] != []
    device.outbox["after_upload"] = "delete"
    assert [line for line in device.obstacles() if "archive" in line] == []


def test_a_configuration_that_this_user_cannot_read_is_told_first(device: Device) -> None:
    config = device.base / "c d.toml"
    config.touch(0o600)
    settings = device.settings()
    assert obstacles(settings, NOWHERE, config, by_unit=False) == []
    config.chmod(0)

    def ask() -> None:
        (line,) = obstacles(settings, NOWHERE, config, by_unit=False)
        assert line == f'"{config}": user {os.geteuid()} cannot read it'

    without_capabilities(ask)


def test_a_login_may_lack_what_the_service_gets_as_a_credential(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.more["server"] = {"kind": "ftp", "host": "h", "user": "u"}
    device.more["fallback"] = {"kind": "ftp", "host": "i", "user": "u", "tls": True}
    problems = {"h": ("", NO_LOGIN), "i": ("password_file", "is empty")}
    monkeypatch.setattr(ServerSettings, "login_problems", lambda server: [problems[server.host]])
    lacking = [line for line in device.obstacles() if line.startswith(("server", "fallback"))]
    assert lacking[0] == f"server: {NO_LOGIN}"
    assert [line.partition(":")[0] for line in lacking] == ["server", "fallback.password_file"]
    by_unit = [line for line in device.obstacles(by_unit=True) if line.startswith(("server", "fallback"))]
    assert by_unit == lacking[1:]
    told = f"server: {NO_LOGIN}; unless the service gets it as a credential"
    assert told in device.doubts(by_unit=True)
    assert told not in device.doubts()
    assert device.doubts(by_unit=True)[:-1] == device.doubts()


@pytest.mark.parametrize(
    ("mode", "owner", "user", "after_upload", "told"),
    [
        (0o1777, 0, 1000, "delete", True),
        (0o777, 0, 1000, "delete", False),
        (0o1777, 0, 0, "delete", False),
        (0o1777, 1000, 1000, "delete", False),
        (0o1777, 0, 1000, "keep", False),
    ],
)
def test_files_of_other_users_stay_in_a_sticky_outbox(
    device: Device, mode: int, owner: int, user: int, after_upload: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.outbox["after_upload"] = after_upload
    settings = device.settings()
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Path, "stat", lambda path: SimpleNamespace(st_mode=mode, st_uid=owner))
    words = "it is sticky, so files of other users stay there when they are delivered; chmod -t"
    found = [line for line in doubts(settings, NOWHERE, by_unit=False) if "sticky" in line]
    assert [line.replace(str(device.base), "BASE") for line in found] == [
        f"outbox[0].path = BASE/box: {words} (from the environment)"
    ] * told


def test_a_folder_that_is_not_there_is_not_sticky(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.box.rmdir()
    assert device.doubts() == []


def test_the_credentials_of_a_unit_lie_beside_its_configuration_under_its_name(tmp_path: Path) -> None:
    for name in ("credentials", "credentials-two", "credentials-empty"):
        (tmp_path / name).mkdir()
    for name in ("credentials", "credentials-two"):
        (tmp_path / name / "password").touch()
    assert credentials_of_unit(None) is None
    assert credentials_of_unit(tmp_path / "iot-spooler.toml") == tmp_path / "credentials"
    assert credentials_of_unit(tmp_path / "two.toml") == tmp_path / "credentials-two"
    assert credentials_of_unit(tmp_path / "empty.toml") is None
    assert credentials_of_unit(tmp_path / "none.toml") is None


def test_credentials_that_only_root_can_read_are_there(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir(0)

    def ask() -> None:
        assert credentials_of_unit(tmp_path / "iot-spooler.toml") == tmp_path / "credentials"

    without_capabilities(ask)


def test_rights_are_those_with_which_the_process_works_now(tmp_path: Path) -> None:
    assert preflight._may(tmp_path, os.R_OK)
    assert not preflight._may(tmp_path / "none", os.R_OK)

"""What a remote command is made into for one file, and how it and what is wrong with it are told."""

from __future__ import annotations

import re
from typing import Any

import pytest

from iot.transfer import remote_commands as module
from iot.transfer.errors import ConfigurationError, NameRefused
from iot.transfer.remote_commands import NO_COMMANDS, RemoteCommand, RemoteCommands, RemoteStep, Verb


def steps(*commands: RemoteCommand, base: str = "", final: bytes = b"/up/dev/a/b") -> list[RemoteStep]:
    return RemoteCommands(base=base).steps(commands, final)


def test_every_step_has_its_paths_its_mode_and_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time", lambda: 1000.9)
    rename = RemoteCommand(Verb.RENAME, "{path}", "{folder}/{name}.old")
    chmod = RemoteCommand("chmod", "/x", mode=0o640)  # type: ignore[arg-type]
    assert steps(rename, chmod, base="/up/dev/") == [
        RemoteStep(Verb.RENAME, b"/up/dev/a/b", b"/up/dev/a/b.old", 0, 1000),
        RemoteStep(Verb.CHMOD, b"/x", b"", 0o640, 1000),
    ]
    assert steps() == []
    assert (NO_COMMANDS.before, NO_COMMANDS.before_publish, NO_COMMANDS.after_success, NO_COMMANDS.base) == (
        (),
        (),
        (),
        "",
    )


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (RemoteStep(Verb.CHMOD, b"/a", b"", 0o640, 0), "chmod 640 '/a'"),
        (RemoteStep(Verb.RENAME, b"/a", b"/b\xff", 0, 0), "rename '/a' '/b\\\\xff'"),
        (RemoteStep(Verb.DELETE, b"/a", b"", 0, 0), "delete '/a'"),
    ],
)
def test_a_step_is_told_as_it_is_written(step: RemoteStep, told: str) -> None:
    assert str(step) == told


@pytest.mark.parametrize(
    ("base", "final", "path"),
    [
        ("/", b"/a/b", b"/a/b.x"),
        ("/up", b"/up/a", b"/up/a.x"),
        ("/up/./", b"//up//a", b"/up/a.x"),
        ("up", b"up/a", b"up/a.x"),
        ("", b"a", b"a.x"),
        ("", b"/a", b"/a.x"),
    ],
)
def test_a_path_is_below_its_base_however_that_is_written(base: str, final: bytes, path: bytes) -> None:
    [step] = steps(RemoteCommand(Verb.DELETE, "{path}.x"), base=base, final=final)
    assert step.path == path


@pytest.mark.parametrize(
    ("text", "base", "told"),
    [
        ("/", "", "remote command mkdir: '/' names no file or folder below ''"),
        (".", "", "remote command mkdir: '.' names no file or folder below ''"),
        ("../a", "/up", "remote command: '/up/../a' must not contain \"..\" or a NUL"),
        ("a\0", "/up", "remote command: '/up/a\\x00' must not contain \"..\" or a NUL"),
    ],
)
def test_a_path_that_names_nothing_or_leaves_its_base_is_told(text: str, base: str, told: str) -> None:
    with pytest.raises(NameRefused, match=re.escape(told)):
        steps(RemoteCommand(Verb.MKDIR, text), base=base)


def test_the_base_itself_is_only_made() -> None:
    assert steps(RemoteCommand(Verb.MKDIR, "."), base="/up")[0].path == b"/up"
    with pytest.raises(NameRefused, match=r"remote command delete: '.' names no file or folder below '/up'"):
        steps(RemoteCommand(Verb.DELETE, "."), base="/up")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"verb": "copy", "path": "a"}, "verb: must be one of rename, delete, mkdir, chmod, touch (got 'copy')"),
        ({"verb": "delete", "path": ""}, "delete: takes a path, and rename alone the new one as well"),
        ({"verb": "rename", "path": "a"}, "rename: takes a path, and rename alone the new one as well"),
        ({"verb": "touch", "path": "a", "to": "b"}, "touch: takes a path, and rename alone the new one as well"),
        ({"verb": "chmod", "path": "a", "mode": -1}, "mode: must be from 0 to 7777, octal (got -1)"),
        ({"verb": "chmod", "path": "a", "mode": 0o10000}, "mode: must be from 0 to 7777, octal (got 4096)"),
    ],
)
def test_a_command_that_makes_no_sense_is_told_with_what_would(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(told)}$"):
        RemoteCommand(**wrong)


def test_a_mode_may_be_none_at_all() -> None:
    assert RemoteCommand(Verb.CHMOD, "a", mode=0).mode == RemoteCommand(Verb.CHMOD, "a").mode == 0

"""How the command line reads its words and shows its help, line by line."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

import iot.sftp.client.ssh
from iot.sftp.client.cli.address import Place, Server, host_from, one_server, place_from
from iot.sftp.client.cli.output import EXIT_SUMMARY, EXIT_TEXT
from iot.sftp.client.cli.parser import SERVER, Parser, UsageError, add_command, top_parser
from iot.transfer._version import __version__


def add(commands: Any) -> None:
    parser = add_command(commands, "do", lambda *_: 0, "does it", words="PATHS...", example="x", remote=("paths",))
    parser.add_argument("paths", nargs="+", metavar="PATHS...", help="what, 50 %%")
    parser.add_argument("-x", "--long", action="store_true", help="more")
    parser.add_argument("--size", metavar="N", help="how much")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    add_command(commands, "other", lambda *_: 1, "does another", words="PATH", example="y").add_argument("path")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        top_parser((add,)).parse_args(list(words))
    assert ended.value.code == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        top_parser((add,)).parse_args(list(words))
    assert ended.value.code == 64
    return capsys.readouterr().err.splitlines()


HELP = [
    "usage: iot-sftp do [OPTIONS] PATHS...",
    "",
    "does it",
    "",
    "  -v, --verbose            print what is done [SFTP_VERBOSE]",
    "  -q, --quiet              print errors only [SFTP_QUIET]",
    "  PATHS...                 what, 50 %",
    "  -x, --long               more",
    "  --size N                 how much",
    SERVER,
    "",
    "example: iot-sftp do x",
    "more: iot-sftp do --help-all",
]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_of_a_command_has_its_own_options_and_an_example(capsys, flag: str) -> None:
    assert printed(capsys, "do", flag).splitlines() == HELP
    assert printed(capsys, "--port", "5", "do", flag).splitlines() == HELP


def test_all_help_has_every_setting_and_the_exit_codes(capsys) -> None:
    text = printed(capsys, "do", "--help-all")
    assert "\nusage: " not in text
    assert "--link-deadline-s" in text
    assert text.endswith(f"\n{EXIT_TEXT}")


def test_the_short_help_stays_short_when_the_settings_are_loaded() -> None:
    parser = Parser(prog="p", words="", has_settings=True, description="d")
    short = parser.format_help()
    assert short.splitlines()[0] == "usage: p [OPTIONS]"
    assert "example:" not in short
    parser.load_settings()
    count = len(parser._actions)
    parser.load_settings()
    assert len(parser._actions) == count, "once"
    assert parser.format_help() == short


def test_settings_are_only_loaded_for_a_command_that_is_run() -> None:
    parser = Parser(prog="p", has_settings=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert parser._lacks_settings
    parser.parse_args([])
    assert parser._lacks_settings
    assert parser.parse_args(["--port", "5"]).port == "5"
    assert not parser._lacks_settings


def test_the_help_of_the_program_lists_its_commands(capsys) -> None:
    text = printed(capsys, "--help")
    assert text.startswith("usage: iot-sftp [OPTIONS] COMMAND ...\n\nResumable")
    assert "\n  do       does it\n  other    does another\n" in text
    assert EXIT_SUMMARY in text
    assert printed(capsys, "--version") == f"iot-sftp {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "iot-sftp: missing: COMMAND"),
        (["od"], "iot-sftp: no such command: od; did you mean do?"),
        (["do"], "iot-sftp do: missing: PATHS..."),
        (["do", "a", "--size"], "iot-sftp do: --size needs a value"),
        (["do", "a", "--long=secret"], "iot-sftp do: -x/--long takes no value"),
        (["do", "a", "--lnog=secret"], "iot-sftp do: no such option: --lnog; did you mean --long?"),
        (["do", "a", "-xz"], "iot-sftp do: no such option: -z"),
        (["do", "a", "--lo"], "iot-sftp do: no such option: --lo; did you mean --long?"),
        (["do", "a", "--foo", "--bar"], "iot-sftp do: no such option: --foo"),
        (["--port=5"], "iot-sftp: missing: COMMAND"),
        (["other", "a", "secret"], "iot-sftp other: one word more than it takes"),
        (["other", "a", "secret", "secret"], "iot-sftp other: 2 words more than it takes"),
        (["--szie", "secret", "do", "a"], "iot-sftp: no such option: --szie; did you mean --size?"),
        (["do", "a", "\x1b[2J", "--\x1b"], "iot-sftp do: no such option: --\\x1b"),
    ],
)
def test_wrong_words_are_told_in_a_line_without_what_may_be_a_secret(capsys, words: list[str], said: str) -> None:
    lines = refused(capsys, *words)
    assert len(lines) == 2
    assert lines[0].startswith("usage: iot-sftp")
    assert lines[1].startswith(said.split(";", maxsplit=1)[0])
    assert "secret" not in lines[1]


def test_words_behind_an_option_are_words_and_a_dash_is_one() -> None:
    found = top_parser((add,)).parse_args(["do", "a", "--size", "5", "b", "-x", "-"])
    assert (found.paths, found.size, found.long, found.command) == (["a", "b", "-"], "5", True, "do")
    found = top_parser((add,)).parse_args(["-q", "--port", "7", "other", "a"])
    assert (found.quiet, found.port, found.path, found.remote, found.arrange) == (True, "7", "a", ("path",), None)
    assert not hasattr(found, "verbose")
    assert found.run() == 1


# -- addresses


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sftp://h:65535/x", Place("/x", Server("h", None, 65535))),
        ("sftp://h:1/x", Place("/x", Server("h", None, 1))),
        ("sftp://h:/x", Place("/x", Server("h"))),
        ("sftp://@h/x", Place("/x", Server("h"))),
        ("sftp://h/~x", Place("/~x", Server("h"))),
        ("sftp://h/~/", Place(".", Server("h"))),
        ("sftp://h/%ff", Place("/\udcff", Server("h"))),
    ],
)
def test_the_parts_of_an_address_are_what_they_stand_for(word: str, expected: Place) -> None:
    assert place_from(word, host_known=True) == expected


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_is_none_is_told(port: str) -> None:
    with pytest.raises(UsageError, match=f"^port {port}: must be 1 to 65535$"):
        place_from(f"sftp://h:{port}/x", host_known=True)


def test_a_host_is_a_host_and_one_server_is_meant() -> None:
    assert host_from("@h") == Server("h")
    assert host_from("sftp://h") == host_from("sftp://h/") == Server("h")
    assert host_from("a@b@h") == Server("h", "a@b")
    assert one_server([]) is None
    assert one_server([Place("x"), Place("y", Server("h")), Place("z", Server("h"))]) == Server("h")
    assert [str(Server(*given)) for given in (("h",), ("h", "u"), ("h", None, 5), ("h", "u", 5))] == [
        "h", "u@h", "h port 5", "u@h port 5",
    ]  # fmt: skip


# -- what starts quickly


@pytest.mark.parametrize(
    ("folders", "version"),
    [
        (["paramiko-3.5.1.dist-info"], "3.5.1"),
        ([], None),
        (["paramiko-3.5.1.dist-info", "paramiko-4.0.dist-info"], None),
    ],
)
def test_paramikos_version_is_that_of_the_only_one_that_is_installed(tmp_path, monkeypatch, folders, version) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    origin = str(tmp_path / "paramiko/__init__.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: SimpleNamespace(origin=origin))
    found = iot.sftp.client.ssh._known_version()
    assert {name: tell("paramiko") for name, tell in found.items()} == ({"version": version} if version else {})
    for spec in (None, SimpleNamespace(origin=None)):
        monkeypatch.setattr("importlib.util.find_spec", lambda _, spec=spec: spec)
        assert iot.sftp.client.ssh._known_version() == {}

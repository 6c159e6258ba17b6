"""Options made of settings: what each takes and says, where secrets come from, and what is told of files."""

from __future__ import annotations

import argparse
import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from iot.sftp.client.cli import options as module
from iot.sftp.client.cli.options import add_settings, may_ask, settings_from, wants_password, with_password
from iot.sftp.client.cli.parser import Parser, UsageError, add_command, top_parser
from iot.sftp.client.cli.syncing import add_sync
from iot.sftp.client.cli.whereabouts import locate
from iot.sftp.client.environment import ClientSettings
from iot.transfer.errors import ConfigurationError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*ClientSettings.model_fields, "key", "password_file", "proxy_password_file"]:
        monkeypatch.delenv(f"SFTP_{name.upper()}", raising=False)


def secret(path: Path, text: str = "typed\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def actions() -> dict[str, argparse.Action]:
    parser = Parser(prog="test")
    add_settings(parser)
    return {action.dest: action for action in parser._actions}


# -- what an option takes


@pytest.mark.parametrize(
    ("name", "flags", "metavar"),
    [
        ("host", ["--host", "-H"], "TEXT"),
        ("port", ["--port", "-P"], "N"),
        ("user", ["--user", "-u"], "TEXT"),
        ("key_file", ["--key-file", "--key", "-i"], "FILE"),
        ("link_deadline_s", ["--link-deadline-s"], "SECONDS"),
        ("max_rate", ["--max-rate"], "RATE"),
        ("password_file", ["--password-file"], "FILE"),
        ("env_file", ["--env-file"], "FILE"),
        ("ciphers", ["--ciphers"], "TEXT"),
    ],
)
def test_an_option_is_named_after_its_setting_and_says_what_it_takes(name: str, flags: list[str], metavar: str) -> None:
    action = actions()[name]
    assert (action.option_strings, action.metavar) == (flags, metavar)
    assert action.default is argparse.SUPPRESS


def test_a_switch_can_be_turned_off_and_a_choice_has_its_values() -> None:
    found = actions()
    assert found["keep_times"].option_strings == ["--keep-times", "--no-keep-times"]
    assert found["keep_times"].default is argparse.SUPPRESS
    assert list(found["verify"].choices or ()) == ["size", "timestamp", "tail", "full"]
    assert found["verify"].default is argparse.SUPPRESS


class Kind(enum.Enum):
    ONE = "one"


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (FieldInfo(annotation=int, default=5, description="how much, 50 %"), "how much, 50 %% (default: 5) [SFTP_X]"),
        (FieldInfo(annotation=int, description="how much"), "how much [SFTP_X]"),
        (FieldInfo(annotation=str, default="", description="what"), "what [SFTP_X]"),
        (FieldInfo(annotation=str, default=None, description="what"), "what [SFTP_X]"),
        (FieldInfo(annotation=tuple, default=(), description="what"), "what [SFTP_X]"),
        (FieldInfo(annotation=bool, default=False, description="what"), "what (default: False) [SFTP_X]"),
        (FieldInfo(annotation=Kind, default=Kind.ONE, description="what"), "what (default: one) [SFTP_X]"),
    ],
)
def test_the_help_of_an_option_has_its_default_and_its_variable(field: FieldInfo, told: str) -> None:
    assert module._help("x", field) == told


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [(int, int), (int | None, int), (None | str, str), (tuple[str, ...], tuple), (Kind | bool, Kind), (Path, Path)],
)
def test_the_kind_of_a_setting_is_its_type_without_none(annotation: Any, kind: type) -> None:
    assert module._kind(FieldInfo(annotation=annotation)) is kind
    assert module._holds(FieldInfo(annotation=SecretStr | None), SecretStr)
    assert module._holds(FieldInfo(annotation=SecretStr), SecretStr)
    assert not module._holds(FieldInfo(annotation=str), SecretStr)


# -- secrets


def test_a_secrets_file_of_an_option_wins_over_variables_and_a_variable_over_a_named_file(
    monkeypatch, tmp_path
) -> None:
    option, variable, named = (secret(tmp_path / name, name) for name in ("option", "variable", "named"))
    env_file = secret(tmp_path / "env", f"SFTP_HOST=h\nSFTP_PASSWORD_FILE={named}\n")

    def password(**given: Any) -> str | None:
        found = settings_from({"host": "h", **given}, env_file=env_file if "env" in given else None).password
        return found.get_secret_value() if found is not None else None

    assert password() is None
    assert password(env=True) == "named"
    monkeypatch.setenv("SFTP_PASSWORD_FILE", str(variable))
    assert password() == password(env=True) == "variable"
    monkeypatch.setenv("SFTP_PASSWORD", "itself")
    assert password() == "itself"
    assert password(password_file=str(option)) == "option"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "its first line is empty"),
        (b"\nsecond\n", "its first line is empty"),
        (b"\xff\n", "holds no UTF-8 text"),
        (None, "No such file or directory"),
    ],
)
def test_a_secrets_file_without_a_secret_is_a_wrong_setting(monkeypatch, tmp_path: Path, content, told: str) -> None:
    path = tmp_path / "pw"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^--password-file {path}: {told}$"):
        settings_from({"host": "h", "password_file": str(path)})
    monkeypatch.setenv("SFTP_PROXY_PASSWORD_FILE", str(path))
    with pytest.raises(ConfigurationError, match=f"^SFTP_PROXY_PASSWORD_FILE {path}: {told}$"):
        settings_from({"host": "h"})


def test_files_of_secrets_that_others_may_read_are_warned_of_or_refused(tmp_path: Path, capsys) -> None:
    settings_from({"host": "h", "password_file": str(secret(tmp_path / "pw"))})
    assert capsys.readouterr().err == ""
    settings_from({"host": "h", "password_file": str(secret(tmp_path / "pw", mode=0o644))})
    assert capsys.readouterr().err.startswith(f"warning: --password-file {tmp_path}/pw ")
    settings_from({"host": "h", "key_file": str(secret(tmp_path / "key")), "prompt_file": str(secret(tmp_path / "a"))})
    assert capsys.readouterr().err == ""
    settings_from({"host": "h", "prompt_file": str(secret(tmp_path / "a", mode=0o644))})
    assert capsys.readouterr().err.startswith(f"warning: --prompt-file {tmp_path}/a ")
    with pytest.raises(ConfigurationError, match=f"^--key {tmp_path}/key "):
        settings_from({"host": "h", "key_file": str(secret(tmp_path / "key", mode=0o644))})


# -- a password that is asked for


@pytest.mark.parametrize(
    ("given", "wants"),
    [({}, True), ({"password": "x"}, False), ({"key_file": "/k"}, False), ({"agent": True}, False)],
)
def test_a_password_is_wanted_where_nothing_else_was_given(given: dict[str, Any], wants: bool) -> None:
    assert wants_password(ClientSettings(host="h", **given)) is wants


@pytest.mark.parametrize(
    ("stdin", "may"),
    [(None, False), (SimpleNamespace(isatty=lambda: True), True), (SimpleNamespace(isatty=lambda: False), False)],
)
def test_somebody_is_there_at_a_terminal(monkeypatch, stdin: Any, may: bool) -> None:
    monkeypatch.setattr(module.sys, "stdin", stdin)
    assert may_ask() is may


def test_a_password_is_asked_for_by_name_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module.getpass, "getpass", lambda words: asked.append(words) or "typed")
    found = with_password(ClientSettings(host="h")).password
    assert found is not None
    assert found.get_secret_value() == "typed"
    with_password(ClientSettings(host="h", user="me"))
    assert asked == ["password for you at h: ", "password for me at h: "]

    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr(module.getpass, "getpass", ended)
    with pytest.raises(ConfigurationError, match=r"^no password given$"):
        with_password(ClientSettings(host="h"))


# -- what is wrong, and what is told


def test_a_wrong_setting_is_told_with_where_it_may_come_from() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^host: none is given, as in user@host:path \[--host or SFTP_HOST\]$"
    ):
        settings_from({})
    assert module._sources("key_file") == "--key-file or SFTP_KEY"
    assert module._sources("SFTP_KEY") == "--key-file or SFTP_KEY"
    assert module._sources("ciphers.0") == "--ciphers or SFTP_CIPHERS"
    assert module._sources("SFTP_PASSWORD") == "--password-file or SFTP_PASSWORD"
    assert module._with_sources(["give only one", "port: no"]) == ["give only one", "port: no [--port or SFTP_PORT]"]


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (None, []),
        ({}, []),
        ({"problem": "it is a folder"}, ["x/.env is not read: it is a folder"]),
        ({"taken": ["user", "port"]}, ["x/.env sets USER, PORT"]),
        ({"refused": ["HOST", "KEY"]}, ["x/.env may not set HOST, KEY unless it is asked for: --env-file x/.env"]),
    ],
)
def test_a_settings_file_that_nobody_asked_for_is_told_of(monkeypatch, capsys, found: Any, lines: list[str]) -> None:
    values = {"path": Path("x/.env"), "problem": "", "taken": [], "refused": [], **(found or {})}
    monkeypatch.setattr(module, "env_file_here", lambda: None if found is None else SimpleNamespace(**values))
    settings_from({"host": "h"})
    assert capsys.readouterr().err.splitlines() == lines


def test_of_a_settings_file_that_was_asked_for_nothing_is_told(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(module, "env_file_here", lambda: pytest.fail("looked for"))
    settings_from({}, env_file=secret(tmp_path / "env", "SFTP_HOST=h\n"))
    assert capsys.readouterr().err == ""


# -- sync, and which server is meant


def synced(*words: str) -> argparse.Namespace:
    arguments: argparse.Namespace = top_parser((add_sync,)).parse_args(["sync", *words])
    arguments.arrange(arguments)
    return arguments


@pytest.mark.parametrize(
    ("host", "words", "expected"),
    [
        ("", ["here", "u@h:there"], ("upload", "here", "u@h:there")),
        ("", ["h:there", "here"], ("download", "here", "h:there")),
        ("h", ["here", ":there"], ("upload", "here", "there")),
        ("h", [":", "here"], ("download", "here", ".")),
        ("h", ["a:b", ":there"], ("upload", "a:b", "there")),
        ("", ["--max-remove", "0", "here", ":there"], ("upload", "here", "there")),
    ],
)
def test_a_sync_goes_to_or_from_the_one_word_that_is_on_the_server(monkeypatch, host, words, expected) -> None:
    monkeypatch.setenv("SFTP_HOST", host)
    found = synced(*words)
    assert (found.direction, found.near, found.far) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["here", "there"], "one of SRC and DEST must be on the server"),
        (["u@h:a", "u@h:b"], "one of SRC and DEST must be on the server"),
        (["--max-remove", "-1", "here", ":b"], "--max-remove -1: must be 0 or more"),
    ],
)
def test_a_sync_that_makes_no_sense_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        synced(*words)


def test_with_h_a_colon_names_no_host_in_a_sync() -> None:
    with pytest.raises(UsageError):
        synced("-H", "h", "a:b", "here")


def test_a_sync_is_planned_first_as_it_was_asked_for_and_then_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []
    client = SimpleNamespace(sync=lambda *given, **how: planned.append((given, how)) or SimpleNamespace(plan="plan"))
    monkeypatch.setattr("iot.sftp.client.cli.syncing.carry", lambda _, plan, __: [75, 1] if plan == "plan" else [])
    arguments = synced("--prune", "--max-remove", "3", "--allow-empty", "here", "u@h:there")
    arguments.far = "there"
    assert arguments.run(client, arguments) == 75
    how = {"direction": "upload", "prune": True, "allow_empty": True, "max_remove": 3, "dry_run": True}
    assert planned == [(("here", "there"), how)]
    monkeypatch.setattr("iot.sftp.client.cli.syncing.carry", lambda *_: [])
    assert arguments.run(client, arguments) == 0


def test_the_server_may_be_named_in_a_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file = secret(tmp_path / "env", "SFTP_HOST=me@there\n")

    def located(**values: Any) -> argparse.Namespace:
        arguments = argparse.Namespace(remote=("path",), path="a:b", **values)
        locate(arguments)
        return arguments

    found = located(env_file=env_file)
    assert (found.host, found.user, found.path, found.addressed) == ("there", "me", "a:b", False)
    monkeypatch.setenv("SFTP_HOST", "other")
    assert located(env_file=env_file).host == "other"
    assert located(env_file=env_file, host="third").host == "third"
    monkeypatch.delenv("SFTP_HOST")
    found = located()
    assert (found.host, found.path, found.addressed) == ("a", "b", True)
    bare = argparse.Namespace(remote=("path",), path="x")
    locate(bare)
    assert (bare.addressed, hasattr(bare, "host")) == (False, False)


# -- words


def test_a_command_takes_words_behind_options_and_says_what_there_is_not(capsys) -> None:
    def add(commands: Any) -> None:
        parser = add_command(commands, "do", lambda *_: 0, "does it", words="A", example="x")
        parser.add_argument("path")
        parser.add_argument("-x", "--long", action="store_true")
        parser.add_argument("-y", action="store_true")

    parsed = top_parser((add,)).parse_args(["do", "a"])
    assert (parsed.remote, parsed.arrange, parsed.command) == (("path",), None, "do")
    assert not hasattr(parsed, "verbose")
    for words, told in (
        (["do", "a", "b"], "iot-sftp do: one word more than it takes"),
        (["do", "a", "-xz"], "no such option: -z"),
        (["do", "a", "-z"], "no such option: -z"),
        (["do", "a", "--lnog=secret"], "no such option: --lnog; did you mean --long?"),
        (["do"], "missing: path"),
        (["--verbse"], "no such option: --verbse; did you mean --verbose?"),
    ):
        with pytest.raises(SystemExit) as ended:
            top_parser((add,)).parse_args(words)
        assert ended.value.code == 64
        assert told in capsys.readouterr().err

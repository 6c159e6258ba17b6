"""What the command line says when it is used wrongly, and its help: short, in its own words, at 80 columns."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iot.sftp.client
import iot.transfer
from iot.sftp.client.cli.main import COMMANDS as GROUPS
from iot.sftp.client.cli.main import main
from iot.sftp.client.cli.output import EXIT_USAGE
from iot.sftp.client.cli.parser import top_parser
from iot.sftp.client.cli.wording import ALWAYS, in_words
from iot.sftp.client.environment import ClientSettings

COMMANDS = tuple(top_parser(GROUPS).commands)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code, and all that is printed."""
    try:
        code = main(list(words))
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_twenty_lines_of_eighty_columns_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(capsys, *([command] if command else []), "--help")
    assert code == 0
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"xample:\s+iot-sftp ", text)
    assert "--help-all" in text


def test_the_help_names_a_value_behind_options_that_take_one_and_behind_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said(capsys, "get", "--help")[1]
    assert re.search(r"^  -r, --recursive  ", text, re.MULTILINE)
    assert re.search(r"^  --sha256 HEX  ", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_all_help_shows_every_setting_with_its_variable_and_the_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(capsys, command, "--help-all")
    assert code == 0
    for name in ClientSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    assert "[SFTP_LINK_DEADLINE_S]" in text
    assert "exit codes:" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "missing: COMMAND"),
        (("gte", "x"), "no such command: gte; did you mean get?"),
        (("put",), "missing: SRC... [DEST]"),
        (("rm",), "missing: PATH..."),
        (("exists", "secret1", "secret2"), "one word more than it takes"),
        (("exists", "a", "b", "c"), "2 words more than it takes"),
        (("put", "--quite", "a"), "no such option: --quite; did you mean --quiet?"),
        (("put", "--pasword=hunter2", "a"), "no such option: --pasword; did you mean --password-file?"),
        (("--hots", "h", "ls"), "no such option: --hots; did you mean --host?"),
        (("rm", "-rf", "a"), "no such option: -f"),
        (("ls", "-AR", "a"), "no such option: -A"),
        (("ls", "--recursive=hunter2", "a"), "-R/--recursive takes no value"),
        (("ls", "-i"), "--key/-i needs a value"),
        (("ls", "--port"), "--port/-P needs a value"),
        (("ls", "--verify", "much"), "--verify much: must be one of size, timestamp, tail, full"),
        (("ls", "--files", "--directories"), "exclude each other"),
        (("put", "-T", "a", "b", "c"), "-T names one remote file, and there are several sources. Nothing was sent"),
    ],
)
def test_wrong_usage_is_64_in_at_most_three_lines(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTP_HOST", "localhost")
    code, text = said(capsys, *words)
    assert code == EXIT_USAGE
    assert expected in text
    assert len(text.splitlines()) <= 3
    assert "hunter2" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["put", "a", "--proof", "full", "b", "-T", "c"], ["a", "b", "c"]),
        (["get", "a", "--sha256", "0f", "-"], ["a", "-"]),
        (["ls", "a", "-l", "b"], ["a", "b"]),
        (["ls", "-l"], ["."]),
    ],
)
def test_options_may_stand_between_the_words(words: list[str], paths: list[str]) -> None:
    assert top_parser(GROUPS).parse_args(words).paths == paths


def messages_of_raises() -> list[tuple[str, str]]:
    """The constant text of every error that the client raises, what is filled in as X."""
    found: list[tuple[str, str]] = []
    for package in (iot.sftp.client, iot.transfer):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            if path.parent.name != "cli" and path.name not in ("configured.py", "settings.py"):
                nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
                calls = [node.exc for node in nodes if isinstance(node.exc, ast.Call)]
                found += [(path.name, shown(call.args[0])) for call in calls if call.args]
    return found


def shown(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "'X'" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def test_no_error_names_an_option_as_python_does() -> None:
    texts = messages_of_raises()
    assert len(texts) > 100
    for name, text in texts:
        words = in_words(text)
        assert not re.search(rf"(?<![\w/.-])({'|'.join(ALWAYS)})(?![\w/.-])", words), (name, words)
        assert "=True" not in words, (name, words)
        assert not re.search(r"\bor prompts\b|\bb'", words), (name, words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("give a key_file, or agent=True with keys", "give a --key, or --agent with keys"),
        ("pin it, host_key='SHA256:x', or add it", "pin it, --host-key SHA256:x, or add it"),
        ("key_file /key_file: give its key_passphrase", "--key /key_file: give its --key-passphrase-file"),
        ('leave it out with ssh_config="it\'s none"', "leave it out with --ssh-config it's none"),
        ("known_hosts: cannot read /known_hosts", "--known-hosts: cannot read /known_hosts"),
        ("not in ~/.ssh/known_hosts; >> x/known_hosts", "not in ~/.ssh/known_hosts; >> x/known_hosts"),
        ("give prompt_file or prompt_command or prompts", "give --prompt-file or --prompt-command"),
        ("give prompt_file, prompt_command or prompts", "give --prompt-file or --prompt-command"),
        ("5 names would be removed; allow_empty permits that", "5 names would be removed; --allow-empty permits that"),
        ("sftp_host: must be alone", "--host: must be alone"),
        ("sftp_pass: must not contain a line end", "--password-file: must not contain a line end"),
    ],
)
def test_options_are_named_as_they_are_given(text: str, expected: str) -> None:
    assert in_words(text) == expected


def test_the_version_is_told_without_loading_what_a_transfer_needs() -> None:
    code = "import sys; from iot.sftp.client.cli.main import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('paramiko', 'pydantic', 'sqlite3', 'asyncio', 'json') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

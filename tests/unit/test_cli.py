"""The command line's own rooms: options made from the settings, safe output, exit codes, progress."""

from __future__ import annotations

import inspect
import io
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.sftp.client.cli.options import add_settings, settings_from
from iot.sftp.client.cli.output import EXIT_USAGE, exit_code_of, print_names, result_line, say, say_error
from iot.sftp.client.cli.parser import Parser
from iot.sftp.client.environment import ClientSettings
from iot.sftp.client.settings import Durability, Verify
from iot.transfer import errors
from iot.transfer.errors import ConfigurationError, NotFound
from iot.transfer.model import Evidence, Proof, TransferResult
from iot.transfer.terminal import TerminalSafeFormatter, human_bytes, terminal_safe


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [f"SFTP_{name.upper()}" for name in ClientSettings.model_fields] + ["SFTP_KEY"]:
        monkeypatch.delenv(name, raising=False)


def parse(*words: str, env_file: Path | None = None) -> ClientSettings:
    parser = Parser(prog="test")
    add_settings(parser)
    return settings_from(vars(parser.parse_args(list(words))), env_file=env_file)


def test_every_setting_is_an_option_and_names_its_variable() -> None:
    parser = Parser(prog="test")
    add_settings(parser)
    text = parser.format_help_all()
    for name in ClientSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert ("SFTP_KEY" if name == "key_file" else f"SFTP_{name.upper()}") in text


def test_no_option_takes_a_secret_itself() -> None:
    parser = Parser(prog="test")
    add_settings(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert "--password" not in flags
    assert "--key-passphrase" not in flags
    assert {"--password-file", "--key-passphrase-file"} <= flags


def test_option_wins_over_environment_and_environment_over_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    asked.write_text("SFTP_HOST=from-file\nSFTP_USER=from-file\nSFTP_PORT=2022\nSFTP_KEY=/file/key\n")
    monkeypatch.setenv("SFTP_USER", "from-environment")
    monkeypatch.setenv("SFTP_HOST", "from-environment")
    monkeypatch.setenv("SFTP_KEY", "/environment/key")
    settings = parse("--host", "from-option", "--key", "/option/key", env_file=asked)
    assert (settings.host, settings.user, settings.port) == ("from-option", "from-environment", 2022)
    assert settings.key_file == Path("/option/key")


def test_typed_options_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTP_SERVER_DURABILITY", "trust")
    settings = parse(
        *("-H", "h", "--verify", "tail", "--tail-size", "4096", "--no-make-dirs", "--keep-times"),
        *("--ciphers", "aes128-gcm@openssh.com, aes256-ctr", "--state-dir", "/s"),
    )
    assert settings.server_durability is Durability.TRUST
    assert settings.verify is Verify.TAIL
    assert (settings.tail_size, settings.make_dirs, settings.keep_times) == (4096, False, True)
    assert settings.ciphers == ("aes128-gcm@openssh.com", "aes256-ctr")
    assert settings.state_dir == Path("/s")


def test_password_file_gives_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("se cret\nrest\n")
    settings = parse("--host", "h", "--password-file", str(tmp_path / "pw"))
    assert settings.password is not None
    assert settings.password.get_secret_value() == "se cret"
    assert "se cret" not in repr(settings)


@pytest.mark.parametrize("content", [None, "", "\nsecond\n"])
def test_unusable_password_file_is_a_configuration_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "pw").write_text(content)
    with pytest.raises(errors.ConfigurationError, match="--password-file"):
        parse("--host", "h", "--password-file", str(tmp_path / "pw"))


def test_all_wrong_settings_are_told_at_once_with_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTP_ATTEMPTS", "0")
    with pytest.raises(errors.ConfigurationError) as caught:
        parse("--port", "99999", "--host-key", "MD5:1")
    text = str(caught.value)
    for expected in ("host: ", "99999", "--port or SFTP_PORT", "SFTP_ATTEMPTS", "--host-key"):
        assert expected in text


def test_the_env_file_that_was_read_is_named_with_what_it_sets_and_may_not_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("SFTP_HOST=evil\nSFTP_HOST_KEY=SHA256:" + "A" * 43 + "\nSFTP_USER=me\nOTHER=1\n")
    assert parse("--host", "good").user == "me"
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"{tmp_path}/.env sets SFTP_USER",
        f"{tmp_path}/.env may not set SFTP_HOST, SFTP_HOST_KEY unless it is asked for: --env-file {tmp_path}/.env",
    ]
    assert parse("--port", "22", env_file=tmp_path / ".env").host == "evil"


def test_an_env_file_with_nothing_for_us_is_not_worth_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("DATABASE=x\nHOST=y\nKEY=z\n")
    parse("--host", "good")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [("--pasword=hunter2",), ("--pasword", "hunter2"), ("hunter2",)])
def test_a_mistyped_option_of_the_command_line_never_repeats_its_value(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--host", "h", *words)
    assert caught.value.code == EXIT_USAGE
    told = capsys.readouterr().err.splitlines()[-1]
    assert "hunter2" not in told
    assert ("--pasword" in told) is (len(words) > 1 or "=" in words[0])


HOSTILE = "\x1b]0;owned\x07\rdone\n\x1b[2Jroot# \u202e\x9b31m"


def test_whatever_is_logged_cannot_act_on_a_terminal() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TerminalSafeFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("hostile")  # noqa: LOG001 - of this test alone
    log.addHandler(handler)
    log.warning("server says %s", HOSTILE)
    log.warning(HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("failed")
    lines = stream.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("WARNING server says \\x1b]0;owned")
    assert lines[1].startswith("WARNING \\x1b]")
    assert "Traceback" in stream.getvalue()


@pytest.mark.parametrize(
    ("name", "meant"), [("SFTP_HOTS", "SFTP_HOST"), ("SFPT_HOST", "SFTP_HOST"), ("sftp_pasword", "SFTP_PASSWORD")]
)
def test_a_misspelt_variable_of_a_named_env_file_is_refused_with_its_neighbour(
    name: str, meant: str, tmp_path: Path
) -> None:
    (tmp_path / "named").write_text(f"SFTP_USER=me\nDATABASE=x\nFTP_HOST=y\n{name}=hunter2\n")
    with pytest.raises(errors.ConfigurationError) as caught:
        parse("--host", "h", env_file=tmp_path / "named")
    assert str(caught.value) == f"--env-file {tmp_path}/named: {name}: no such setting; did you mean {meant}?"


def test_a_named_env_file_may_name_files_of_secrets_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pw").write_text("from the file\n")
    (tmp_path / "pw").chmod(0o600)
    (tmp_path / "named").write_text(f"SFTP_HOST=h\nSFTP_PASSWORD_FILE={tmp_path}/pw\nSFTP_QUIET=1\n")
    found = parse("--port", "22", env_file=tmp_path / "named").password
    assert found is not None
    assert found.get_secret_value() == "from the file"
    monkeypatch.setenv("SFTP_PASSWORD", "from the environment")
    found = parse("--port", "22", env_file=tmp_path / "named").password
    assert found is not None
    assert found.get_secret_value() == "from the environment"


def test_a_named_env_file_that_is_no_text_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "named").write_bytes(b"SFTP_USER=\xff\n")
    with pytest.raises(errors.ConfigurationError, match="is not UTF-8 text"):
        parse("--host", "h", env_file=tmp_path / "named")


def test_missing_env_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="no such file"):
        settings_from({"host": "h"}, env_file=tmp_path / "missing")


@pytest.mark.parametrize("words", [("--hos", "h"), ("--verify", "nonsense"), ("--unknown",), ("--password", "x")])
def test_wrong_usage_ends_with_64(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == EXIT_USAGE
    assert "usage:" in capsys.readouterr().err


def test_every_error_has_a_documented_exit_code() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.SFTPError)]
    assert {exit_code_of(kind("x")) for kind in classes} == {1, 69, 74, 75, 76, 77, 78, 130}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("x"), 1),
        (errors.LinkLost("x"), 69),
        (errors.DiskFull("x"), 74),
        (errors.NoSpaceOnServer("x"), 74),
        (errors.Timeout("x"), 75),
        (errors.ProtocolError("x"), 76),
        (errors.HostKeyUnknown("x"), 77),
        (errors.PermissionDenied("x"), 77),
        (errors.ConfigurationError("x"), 78),
        (OSError(5, "x"), 74),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code


@given(st.text())
def test_terminal_safe_is_printable_and_keeps_printable_names(name: str) -> None:
    assert terminal_safe(name).isprintable()
    if name.isprintable():
        assert terminal_safe(name) == name


@given(st.binary())
def test_terminal_safe_takes_any_bytes(raw: bytes) -> None:
    assert terminal_safe(raw.decode("utf-8", "surrogateescape")).isprintable()


def test_terminal_safe_shows_what_it_escaped() -> None:
    assert terminal_safe("a\x1b[31m\n\udcff\u202eb") == "a\\x1b[31m\\n\\xff\\u202eb"


@pytest.mark.parametrize(
    ("proof", "evidence", "words"),
    [
        (Proof.SIZE, None, "proof size"),
        (Proof.SIZE, Evidence.SIZE, "proof size"),
        (Proof.SIZE, Evidence.END_OF_FILE, "proof size (end of file)"),
        (Proof.FULL, Evidence.SECOND_READING, "proof full (second reading)"),
    ],
)
def test_a_proof_is_shown_with_what_it_is_based_on(proof: Proof, evidence: Evidence | None, words: str) -> None:
    line = result_line(TransferResult("a", "b", 1, 1, 0, 1.0, proof, durable=True, evidence=evidence))
    assert line == f"a -> b: 1 bytes in 1.0 s (1 B/s), {words}"


def test_a_name_cannot_begin_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A server or a producer chose it, and it may look like a message of ours."""
    name = "x\niot-sftp: all is well\x1b[2K"
    say(result_line(TransferResult(name, name, 0, sent_bytes=0, resumed_at=0, seconds=0.0, proof=Proof.SIZE)))
    say_error(NotFound(f"{name}: No such file or directory"))
    say_error(ConfigurationError("host: none is given\nport: must be a number"))
    safe = "x\\niot-sftp: all is well\\x1b[2K"
    assert capsys.readouterr().err.splitlines() == [
        f"{safe} -> {safe}: 0 bytes in 0.0 s (0 B/s), proof size",
        f"iot-sftp: {safe}: No such file or directory",
        "iot-sftp: --host: none is given",
        "--port: must be a number",
    ]


def test_names_reach_a_program_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_names(["a\nb", "\udcff\x1b"], null=True)
    assert raw.getvalue() == b"a\nb\0\xff\x1b\0"


def test_human_bytes() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 64 << 20, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "64.0 MiB",
        "5.0 TiB",
    ]


@pytest.mark.parametrize("given", ["option", "variable"])
def test_a_prompt_command_is_split_like_a_shells_words(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "/bin/oathtool --totp '-b x,y'"
    if given == "variable":
        monkeypatch.setenv("SFTP_PROMPT_COMMAND", command)
    words = ("--prompt-command", command) if given == "option" else ()
    settings = parse("--host", "h", "--key", "k", *words)
    assert settings.prompt_command == ("/bin/oathtool", "--totp", "-b x,y")


def test_two_ways_to_answer_prompts_are_refused_in_one_line() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"^give only one of prompts, prompt_command and prompt_file$"):
        parse("--host", "h", "--key", "k", "--prompt-command", "x", "--prompt-file", "y")

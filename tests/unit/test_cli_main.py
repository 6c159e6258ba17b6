"""`iot-sftp` around its commands: signals, closed streams, passwords that are asked for, errors and how to go on."""

from __future__ import annotations

import argparse
import gc
import io
import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import iot.sftp.client.client
from iot.sftp.client.cli import main as module
from iot.sftp.client.cli import options
from iot.sftp.client.cli.main import main
from iot.transfer.errors import Cancelled, CredentialsInvalid, LinkLost, LoginRefused, NotFound

if TYPE_CHECKING:
    from typing_extensions import Self


class Client:
    """In the place of the real one: how it was made, and what was done with it."""

    made: ClassVar[list[Client]] = []
    refuses: ClassVar[list[BaseException]] = []

    def __init__(self, *given: Any, **how: Any) -> None:
        self.given, self.how, self.did = given, how, []
        Client.made.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.did.append("closed")

    def close(self) -> None:
        self.did.append("closed")

    def connect(self) -> None:
        if Client.refuses:
            raise Client.refuses.pop(0)

    def cancel(self) -> None:
        self.did.append("cancelled")

    def stat(self, path: str) -> Any:
        self.did.append(path)
        if path in ("cut", "refused"):
            raise {"cut": LinkLost("the link\x1b was cut"), "refused": LoginRefused("no")}[path]
        if path == "gone":
            raise NotFound("gone")
        if path == "broken":
            raise RuntimeError("a mistake\x1b")
        if path == "stopped":
            raise KeyboardInterrupt
        if path == "pipe":
            raise BrokenPipeError
        return None


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Client]:
    monkeypatch.setattr(Client, "made", [])
    monkeypatch.setattr(Client, "refuses", [])
    monkeypatch.setattr(iot.sftp.client.client, "IoTSFTPClient", Client)
    monkeypatch.setattr(module, "_log_to_stderr", lambda *, verbose: None)
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("SFTP_"):
            monkeypatch.delenv(name)
    return Client.made


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Is there to be asked; with which words is noted."""
    asked: list[str] = []
    monkeypatch.setattr(options, "may_ask", lambda: True)
    monkeypatch.setattr(options.getpass, "getpass", lambda words: asked.append(words) or "typed")
    return asked


# -- errors and exit codes


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("fine", 0, ""),
        ("gone", 1, ""),
        ("cut", 69, "iot-sftp: the link\\x1b was cut\n"),
        ("stopped", 130, "stopped\n"),
        ("broken", 70, "RuntimeError: a mistake\\x1b\n"),
    ],
)
def test_what_becomes_of_a_command_is_its_exit_code_and_a_line_that_harms_no_terminal(
    client, capsys, path: str, code: int, said: str
) -> None:
    assert main(["exists", f"u@h:{path}", "--password-file", str(secret())]) == code
    assert capsys.readouterr().err.endswith(said)
    assert client[0].did == [path, "closed"]


def secret() -> Path:
    path = Path("secret")
    path.write_text("typed\n")
    path.chmod(0o600)
    return path


def test_wrong_usage_behind_the_parser_is_told_by_the_command(client, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["put", "-T", "a", "b", "u@h:c"])
    assert ended.value.code == 64
    assert "iot-sftp put: -T names one remote file" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_ends_it_without_a_word(client, monkeypatch, capsys) -> None:
    swapped: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "dup2", lambda *given: swapped.append(given))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 77, isatty=lambda: False))
    assert main(["exists", "u@h:pipe", "--password-file", str(secret())]) == 0
    ((nowhere, stdout),) = swapped
    assert (os.readlink(f"/proc/self/fd/{nowhere}"), stdout) == (os.devnull, 77)
    assert os.write(nowhere, b"x") == 1
    os.close(nowhere)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "makes_dest", "words", "told"),
    [
        ("put", False, ["put", "--port", "5", "--restart", "a b", "x"], "run:\n  iot-sftp put --port 5 'a b' x"),
        ("get", True, ["get", "-r", "a", "x"], "run:\n  iot-sftp get -r a x -T"),
        ("sync", False, ["sync", "a", "x"], "run:\n  iot-sftp sync a x"),
        ("ls", False, ["ls"], "stopped"),
    ],
)
def test_a_transfer_that_is_stopped_says_how_to_go_on(command, makes_dest, words, told) -> None:
    arguments = argparse.Namespace(command=command, **({"makes_dest": True} if makes_dest else {}))
    assert module._how_to_go_on(arguments, words).endswith(told)


def test_a_cancel_is_told_like_that(client, monkeypatch, capsys) -> None:
    def cancelled(*_: Any) -> int:
        raise Cancelled("x")

    monkeypatch.setattr(module, "_run", cancelled)
    assert main(["put", "--restart", "a", "u@h:x"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "  iot-sftp put a u@h:x"


# -- the first signal and the second


def test_the_first_signal_cancels_and_the_second_ends_at_once() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    client: Any = Client()
    with module._stoppable(client):
        stop: Any = signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is stop
        stop(signal.SIGTERM, None)
        assert client.did == ["cancelled"]
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def broken() -> None:
    with module._stoppable(Client()):  # type: ignore[arg-type]
        raise KeyError


def test_signals_are_given_back_whatever_happens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError):
        broken()
    assert signal.getsignal(signal.SIGTERM) is before


# -- passwords


@pytest.mark.parametrize("error", [LoginRefused("no"), CredentialsInvalid("nothing to log in with")])
def test_a_password_is_asked_for_when_keys_and_agent_do_not_do(client, somebody, error: Exception) -> None:
    Client.refuses = [error]
    assert main(["exists", "u@h:fine"]) == 0
    assert [one.given for one in client] == [("h", None, "u", None), ("h", None, "u", "typed")]
    assert [one.did for one in client] == [["closed"], ["fine", "closed"]]
    assert somebody == ["password for u at h: "]


def test_keys_that_do_are_enough(client, somebody) -> None:
    assert main(["exists", "u@h:fine"]) == 0
    assert [one.did for one in client] == [["fine", "closed"]]
    assert somebody == []


def test_who_gave_a_key_or_a_password_is_not_asked(client, somebody) -> None:
    for words in (["--key", str(secret())], ["--password-file", str(secret())], ["--agent"]):
        Client.refuses = [LoginRefused("no")]
        assert main(["exists", "u@h:fine", *words]) == 0
    assert somebody == []


def test_a_connection_that_fails_for_another_reason_is_closed(client, somebody) -> None:
    Client.refuses = [LinkLost("cut")]
    assert main(["exists", "u@h:fine"]) == 69
    assert (client[0].did, len(client), somebody) == (["closed"], 1, [])


@pytest.mark.parametrize(("words", "said"), [([], True), (["--agent"], False)])
def test_where_nobody_can_be_asked_that_is_said(client, monkeypatch, capsys, words: list[str], said: bool) -> None:
    monkeypatch.setattr(options, "may_ask", lambda: False)
    assert main(["exists", "u@h:refused", *words]) == 77
    told = capsys.readouterr().err
    assert told.startswith("iot-sftp: no")
    assert ("; no password is asked for, since standard input is no terminal" in told) is said


# -- settings


def test_what_was_not_given_is_left_to_the_openssh_configuration(client) -> None:
    main(["exists", "h:fine"])
    assert client[0].given == ("h", None, None, None)
    assert client[0].how["ssh_config"] == "default"
    main(["exists", "sftp://u@h:23/fine", "--ssh-config", "none", "--password-file", str(secret())])
    assert client[1].given == ("h", 23, "u", "typed")
    assert client[1].how["ssh_config"] is None


@pytest.mark.parametrize(
    ("variable", "words", "quiet"),
    [("", [], False), ("1", [], True), ("YES", [], True), ("no", [], False), ("", ["-q"], True), ("no", ["-q"], True)],
)
def test_switches_come_from_the_words_or_the_environment(client, monkeypatch, variable, words, quiet) -> None:
    monkeypatch.setenv("SFTP_QUIET", variable)
    arguments = argparse.Namespace(**({"quiet": True} if words else {}))
    module._take_switches(arguments)
    assert (arguments.quiet, arguments.verbose) == (quiet, False)


def test_switches_come_from_a_named_file_too_and_the_environment_wins(client, monkeypatch, tmp_path) -> None:
    (tmp_path / "env").write_text("SFTP_QUIET=1\nSFTP_VERBOSE=1\n")
    monkeypatch.setenv("SFTP_VERBOSE", "0")
    arguments = argparse.Namespace(env_file=tmp_path / "env")
    module._take_switches(arguments)
    assert (arguments.quiet, arguments.verbose) == (True, False)


@pytest.mark.parametrize(
    ("verbose", "level", "paramiko"), [(True, logging.INFO, logging.WARNING), (False, logging.ERROR, logging.CRITICAL)]
)
def test_only_who_asks_for_it_is_told_what_is_done(monkeypatch, verbose: bool, level: int, paramiko: int) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **how: told.update(how))
    module._log_to_stderr(verbose=verbose)
    assert told["level"] == level
    assert logging.getLogger("paramiko").level == paramiko
    assert told["handlers"][0].stream is sys.stderr
    record = logging.LogRecord("x", logging.INFO, "", 0, "a\x1b", None, None)
    assert told["handlers"][0].format(record) == "INFO a\\x1b"


# -- as a program


def test_as_a_program_it_reads_its_own_words_and_collects_no_garbage_until_all_is_loaded(client, monkeypatch) -> None:
    did: list[Any] = []
    for name in ("disable", "freeze", "enable"):
        monkeypatch.setattr(gc, name, lambda name=name: did.append(name))
    monkeypatch.setattr(module, "_occupy_closed_streams", lambda: did.append("streams"))
    monkeypatch.setattr(sys, "argv", ["iot-sftp", "exists", "u@h:fine", "--password-file", str(secret())])
    assert main() == 0
    assert did == ["disable", "streams", "freeze", "enable"]
    did.clear()
    assert main(["exists", "u@h:fine"]) == 0
    assert did == []


def test_a_closed_standard_stream_is_occupied_and_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    kept = sys.stderr
    module._occupy_closed_streams()
    assert sys.stderr is kept
    stdin, stdout = sys.stdin, sys.stdout
    try:
        assert stdin.fileno() >= 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            stdin.read()
        with pytest.raises(OSError, match="Bad file descriptor"):
            stdout.write("x")
    finally:
        for stream in (stdin, stdout):
            with_descriptor = stream.fileno()
            stream.detach()
            assert with_descriptor >= 0


def test_messages_to_a_closed_standard_error_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    module._occupy_closed_streams()
    with sys.stderr as stream:
        assert stream.write("x") == 1
        assert isinstance(stream, io.TextIOWrapper)

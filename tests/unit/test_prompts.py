"""Who answers which prompt of a login, and that no answer is told to anybody else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import paramiko
import pytest

from iot.sftp.client.ssh import prompts
from iot.sftp.client.ssh.login import PROMPTS_MAX, AuthHandler, Credentials, Login, _load_key, _options_for
from iot.sftp.client.ssh.prompts import ROUNDS_MAX, Answers, Password, from_command, from_file
from iot.transfer.errors import CredentialsInvalid, LinkLost, LoginRefused

SECRET = "correct-horse"


def asked(answers: Answers, *texts: str, echo: bool = False) -> list[str]:
    return answers.give("title", "instructions", [(text, echo) for text in texts])


class Source:
    def __init__(self, answer: Any = "123456") -> None:
        self.answer, self.asked = answer, []

    def __call__(self, text: str, echo: bool) -> Any:
        self.asked.append((text, echo))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


# -- the password


def test_a_password_is_sent_once_and_again_only_after_a_step_that_succeeded():
    password = Password(SECRET)
    assert not password.spent
    assert password.take() == SECRET
    assert password.spent
    password.accepted()
    assert not password.spent
    none = Password(None)
    assert none.spent
    none.accepted()
    assert none.spent
    assert none.take() == ""


@pytest.mark.parametrize(
    ("text", "echo", "alone", "beside"),
    [
        ("Password: ", False, True, True),
        ("PASSWORT:", False, True, True),
        ("Kennwort", False, True, True),
        ("Mot de passe :", False, True, True),
        ("Contraseña:", False, True, True),
        ("hasło:", False, True, False),  # in any language, where nothing else could answer
        ("Password: ", True, False, False),  # shown while it is typed
        ("New password: ", False, False, False),
        ("One-time password: ", False, False, False),
        ("Verification code: ", False, False, False),
        ("Token password", False, False, False),
        ("OTP", False, False, False),
        ("Renewed password", False, True, True),
    ],
)
def test_the_password_goes_only_to_a_prompt_that_is_for_it(text, echo, alone, beside):
    without = Answers(Password(SECRET), None)
    if alone:
        assert asked(without, text, echo=echo) == [SECRET]
    else:
        with pytest.raises(CredentialsInvalid, match="no answer is configured: set prompt_file"):
            asked(without, text, echo=echo)
    source = Source()
    assert asked(Answers(Password(SECRET), source), text, echo=echo) == [SECRET if beside else "123456"]
    assert source.asked == ([] if beside else [(text.strip(), echo)])


def test_password_and_code_may_be_asked_for_together_each_is_answered_once():
    answers = Answers(Password(SECRET), Source())
    assert answers.has_any
    assert asked(answers, "Password:", "Code:") == [SECRET, "123456"]
    for again in ("Password:", "Code:"):
        with pytest.raises(LoginRefused, match=f"asks '{again}' again"):
            asked(answers, again)
    answers.accepted()
    assert asked(answers, "Code:") == ["123456"]


def test_without_password_and_source_there_is_nothing_to_answer_with():
    assert not Answers(Password(None), None).has_any
    assert Answers(Password(SECRET), None).has_any
    assert Answers(Password(None), Source()).has_any
    assert asked(Answers(Password(None), None)) == []  # a round without prompts is the protocol's


def test_a_server_that_asks_without_end_is_left():
    answers = Answers(Password(None), Source())
    for number in range(ROUNDS_MAX):
        asked(answers, f"prompt {number}")
    with pytest.raises(LoginRefused, match=f"gave up after {ROUNDS_MAX} rounds"):
        asked(answers, "one more")


def test_what_a_prompt_does_to_a_terminal_is_not_passed_on():
    source = Source()
    asked(Answers(Password(None), source), "Code\x1b[2J: " + "x" * 500)
    assert "\x1b" not in source.asked[0][0]
    assert len(source.asked[0][0]) < 120


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (ValueError(SECRET), CredentialsInvalid, "prompts raised ValueError for the prompt 'Code:'"),
        (LinkLost("gone"), LinkLost, "gone"),
        (b"123", CredentialsInvalid, "prompts must return text for 'Code:', not bytes"),
        (None, CredentialsInvalid, "not NoneType"),
    ],
)
def test_the_fault_of_the_callers_code_is_its_own(answer, kind, words):
    with pytest.raises(kind, match=words) as told:
        asked(Answers(Password(None), Source(answer)), "Code:")
    assert SECRET not in str(told.value)


# -- a file, a command


def test_a_file_answers_a_line_for_a_prompt(tmp_path: Path):
    file = tmp_path / "answers"
    file.write_text("one\ntwo\n")
    file.chmod(0o600)
    answer = from_file(file)
    assert [answer("a", False), answer("b", True)] == ["one", "two"]
    with pytest.raises(CredentialsInvalid, match="has no line left for the prompt 'c'"):
        answer("c", False)


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path):
    with pytest.raises(CredentialsInvalid, match=r"prompt_file .*missing: No such file"):
        from_file(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialsInvalid, match=r"prompt_file .*binary: "):
        from_file(tmp_path / "binary")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_answers_with_its_first_line_and_knows_the_prompt():
    answer = from_command(python("import os; print(os.environ['IOT_SFTP_PROMPT'][::-1]); print('more')"))
    assert answer("abc", False) == "cba"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (python(f"import sys; print({SECRET!r}); sys.exit(3)"), "exit status 3"),
        (python("pass"), "its output has no line of UTF-8 text"),
        (python("import sys; sys.stdout.buffer.write(b'\\xff')"), "its output has no line of UTF-8 text"),
        (["/nonexistent/program", SECRET], "No such file or directory"),
        (python("import time; time.sleep(60)"), "it took more than 0.5 s"),
    ],
)
def test_a_command_that_gives_no_answer_is_told_without_what_it_knows(command, words, monkeypatch):
    monkeypatch.setattr(prompts, "COMMAND_S", 0.5 if "sleep" in command[-1] else 15.0)
    with pytest.raises(CredentialsInvalid, match="gave no answer") as told:
        from_command(command)("Code:", False)
    assert words in str(told.value)
    assert SECRET not in str(told.value)
    assert told.value.__cause__ is None


# -- paramiko's side of it


class Transport:
    def __init__(self) -> None:
        self.sent: list[paramiko.Message] = []

    def _send_message(self, message: paramiko.Message) -> None:
        self.sent.append(message)


def handler(method: str = "keyboard-interactive") -> AuthHandler:
    found = AuthHandler.__new__(AuthHandler)
    found.transport, found.auth_method = Transport(), method
    found.interactive_handler = lambda title, text, asked: [f"{title}{text}{prompt}{echo}" for prompt, echo in asked]
    return found


def request(*prompts: tuple[bytes, bool], count: int | None = None) -> paramiko.Message:
    message = paramiko.Message()
    for text in (b"t", b"\xff", b""):
        message.add_string(text)
    message.add_int(len(prompts) if count is None else count)
    for text, echo in prompts:
        message.add_string(text)
        message.add_boolean(echo)
    message.rewind()
    return message


def test_prompts_in_any_encoding_are_answered_in_their_order():
    found = handler()
    found._parse_userauth_info_request(request((b"a", True), (b"\xe9", False)))
    (sent,) = found.transport.sent
    sent.rewind()
    assert (sent.get_byte(), sent.get_int()) == (b"\x3d", 2)
    assert [sent.get_text(), sent.get_text()] == ["t\ufffdaTrue", "t\ufffd\ufffdFalse"]


def test_prompts_without_end_or_where_nobody_answers_end_the_login():
    with pytest.raises(paramiko.SSHException, match=f"sent {PROMPTS_MAX + 1} prompts at once"):
        handler()._parse_userauth_info_request(request(count=PROMPTS_MAX + 1))
    found = handler()
    found._parse_userauth_info_request(request(*[(b"x", False)] * PROMPTS_MAX))
    assert len(found.transport.sent) == 1
    with pytest.raises(LoginRefused, match="requires a password change first"):
        handler("password")._parse_userauth_info_request(request())
    with pytest.raises(paramiko.SSHException, match="sent a prompt that was not expected"):
        handler("publickey")._parse_userauth_info_request(request())
    with pytest.raises(paramiko.SSHException, match="sent a prompt that was not expected"):
        handler("gssapi")._parse_userauth_info_request(request())


# -- what a refusal says


class Refusing:
    """A server that takes a key, and then wants what we do not have."""

    def __init__(self, *asks: str) -> None:
        self.asks = list(asks)

    def auth_publickey(self, *_: Any) -> list[str]:
        return self.asks

    def auth_password(self, *_: Any, **__: Any) -> list[str]:
        raise paramiko.AuthenticationException("no")

    def is_active(self) -> bool:
        return True

    def is_authenticated(self) -> bool:
        return False


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(file), password=None)
    file.chmod(0o600)
    return file


def test_a_server_that_wants_more_is_told_with_the_settings_that_would_answer(key):
    with pytest.raises(CredentialsInvalid, match=r"accepted key .* and asks for keyboard-interactive as well") as told:
        Login(Credentials("me", None, key)).run(Refusing("keyboard-interactive"), "host")
    assert str(told.value).endswith("give password or prompt_file or prompt_command or prompts")
    assert _options_for(["publickey", "password", "hostbased"]) == ["key_file", "agent", "password"]
    with pytest.raises(LoginRefused, match=r"host refused user 'me'; tried .*; the server asks for password"):
        Login(Credentials("me", SECRET, key)).run(Refusing("password"), "host")


def test_a_key_that_does_not_open_is_told_without_its_passphrase(key, tmp_path):
    encrypted = tmp_path / "encrypted"
    paramiko.ECDSAKey.generate().write_private_key_file(str(encrypted), password="other")
    encrypted.chmod(0o600)
    text = tmp_path / "text"
    text.write_text("no key")
    text.chmod(0o600)
    cases = [
        (encrypted, None, "is encrypted: give its key_passphrase"),
        (encrypted, SECRET, "wrong key_passphrase"),
        (text, None, ": not a private key"),
        (tmp_path / "missing", None, "does not exist"),
        (tmp_path, None, "key_file"),
    ]
    for path, passphrase, words in cases:
        with pytest.raises(CredentialsInvalid, match=words) as told:
            _load_key(path, Credentials("me", None, path, key_passphrase=passphrase))
        assert SECRET not in str(told.value)
        assert told.value.__cause__ is None
    assert _load_key(encrypted, Credentials("me", None, encrypted, key_passphrase="other")) is not None
    assert _load_key(key, Credentials("me", None, key, key_passphrase="not needed")) is not None

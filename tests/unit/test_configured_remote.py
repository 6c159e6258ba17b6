"""What every kind of [server] tells of itself where it has nothing of its own to say, and how it finds its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from iot.transfer.configured import ConfiguredLogin, ConfiguredRemote, checked_file
from iot.transfer.errors import ConfigurationError


class Options(BaseModel):
    attempts: int = 3
    slots: int = 4
    ciphers: tuple[str, ...] = ()


class Folder(ConfiguredRemote, Options):
    OPTIONS: ClassVar[type[BaseModel]] = Options
    SECRET_FILES: ClassVar[tuple[str, ...]] = ("key", "token")

    key: Path | None = None
    token: Path | None = None
    secret: SecretStr | None = None

    @property
    def address(self) -> str:
        return "over there"


class Login(ConfiguredLogin, Options):
    OPTIONS: ClassVar[type[BaseModel]] = Options


def login(**given: Any) -> Login:
    return Login(**{"host": "h", **given})


def test_a_remote_has_nothing_to_say_beyond_its_address() -> None:
    folder = Folder()
    assert (folder.account, folder.local_folder, folder.identity) == ("over there", None, "")
    assert (folder.doubts(), folder.login_problems(), folder.login_files(), folder.secret_files()) == ([], [], [], {})
    assert (Folder.secret_keys(), Folder.list_keys()) == (["secret"], ["ciphers"])


def test_the_files_of_a_login_are_those_with_its_secrets() -> None:
    folder = Folder(token=Path("/t"))
    assert folder.secret_files() == {"token": Path("/t")}
    assert folder.login_files() == [Path("/t")]


def test_a_remote_that_cannot_be_made_says_so() -> None:
    folder: Any = Folder()
    with pytest.raises(NotImplementedError):
        folder.remote(None, "d")
    with pytest.raises(NotImplementedError):
        _ = ConfiguredRemote.address.fget(folder)  # type: ignore[attr-defined]


def test_a_client_gets_what_was_given_and_one_attempt() -> None:
    folder = Folder(slots=9, attempts=7)
    assert folder.client_options() == {"slots": 9}
    assert folder.options_here("d1") == {"slots": 9, "attempts": 1, "owner_tag": "d1"}


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"secret", "secret"), (b"secret\n", "secret"), (b"se cret \r\n\n", "se cret "), ("sécret".encode(), "sécret")],
)
def test_a_password_is_the_one_line_of_its_file(tmp_path: Path, content: bytes, password: str) -> None:
    (tmp_path / "password").write_bytes(content)
    assert login(password_file=tmp_path / "password").login_password() == password


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no password"),
        (b"\n", "holds no password"),
        (b"two\nlines", "holds no password"),
        (b"a\0b", "holds no password"),
        (b"\xff", "holds no UTF-8 text"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_without_a_password_is_a_problem_from_the_start_and_later(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"secret")
    settings = login(password_file=file)
    assert settings.login_problems() == []
    file.unlink() if content is None else file.write_bytes(content)
    told = f"password_file = {str(file)!r}: {problem}"
    assert settings.login_problems() == [("password_file", told)]
    with pytest.raises(ConfigurationError) as caught:
        settings.login_password()
    assert str(caught.value) == told
    with pytest.raises(ValidationError, match=problem):
        login(password_file=file)


def test_a_password_may_be_given_or_left_out_but_not_twice(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    assert login().login_password() is None
    assert login(password="").login_password() == ""
    assert login(password="secret").login_problems() == []
    with pytest.raises(ValidationError, match="give password or password_file, not both"):
        login(password="x", password_file=tmp_path / "password")
    for wrong in ("a\n", "a\rb", "\0"):
        with pytest.raises(ValidationError, match="must not hold a line end or NUL"):
            login(password=wrong)


@pytest.mark.parametrize("host", ["u@h", "h:22", "h/x"])
def test_a_host_that_is_more_than_that_is_told_once(host: str) -> None:
    with pytest.raises(ValidationError) as told:
        login(host=host)
    [problem] = told.value.errors()
    assert problem["msg"] == "Value error, must be a name or an address alone, without user, port, path or space"


def test_a_file_that_is_named_is_read_to_see_whether_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert checked_file(tmp_path / "f") == tmp_path / "f"
    with pytest.raises(ValueError, match=r"^cannot be read: is a folder, not a regular file$"):
        checked_file(tmp_path)

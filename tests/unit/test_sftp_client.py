"""The client for SFTP and the table [server] that describes one: where it goes, as whom, and what it shows of that."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from iot.sftp.client import IoTSFTPClient, session
from iot.sftp.client.configured import ServerSettings
from iot.sftp.client.learned import LearnedRefusals
from iot.sftp.client.session import Session
from iot.transfer.errors import ConfigurationError, NotFound
from iot.transfer.journal.checkpoints import CHECKPOINTS
from iot.transfer.journal.journal import Journal
from iot.transfer.model import RemoteFile

PIN = "SHA256:" + "A" * 43
CONFIG = "Host far\n  HostName far.example\n  Port 2200\n  User them\n  IdentityFile ~/.ssh/id_far\n"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[IoTSFTPClient]:
    with IoTSFTPClient("h", None, "u", "secret", host_key=PIN, state_dir=tmp_path) as made:
        yield made


# -- the client


def test_a_client_shows_where_it_goes_and_whether_it_is_there(client: Any) -> None:
    assert repr(client) == "IoTSFTPClient(u@h:22, not connected)"
    client._runner.links.current = SimpleNamespace(close=lambda: None, pace=SimpleNamespace(window=1))
    assert repr(client) == "IoTSFTPClient(u@h:22, connected)"


def test_a_link_that_is_not_there_is_not_found(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {b"/up/link": RemoteFile(3)}
    monkeypatch.setattr(client._runner, "lstat", found.get)
    assert client.lstat("/up/link") == RemoteFile(3)
    with pytest.raises(NotFound, match="'/up/gone' is not on the server"):
        client.lstat("/up/gone")


def test_the_connection_underneath_is_that_of_the_session(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    underneath = object()
    monkeypatch.setattr(client._runner, "session", lambda: SimpleNamespace(connection=underneath))
    assert client.connection is underneath


def test_without_a_user_the_local_one_logs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "local")
    with IoTSFTPClient("h", 2222, None, "secret", host_key=PIN, state_dir=tmp_path) as made:
        assert repr(made) == "IoTSFTPClient(local@h:2222, not connected)"


@pytest.mark.parametrize("error", [KeyError("uid"), ImportError("pwd"), OSError("no user")])
def test_a_user_without_a_name_has_to_give_one(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    with pytest.raises(ConfigurationError, match="user: required, because the user id of this process has no name"):
        IoTSFTPClient("h", None, None, "secret", host_key=PIN)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("h", 0, "u", "p"), "sftp_port: "),
        (("h", 22, "u\n", "p"), "sftp_user: "),
        (("h", 22, "u", "p\n"), "sftp_pass: "),
        (("h h", 22, "u", "p"), "sftp_host: "),
    ],
)
def test_what_cannot_be_a_login_is_named(given: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{problem}"):
        IoTSFTPClient(*given, host_key=PIN)


def test_a_host_of_the_openssh_configuration_has_its_port_and_user_unless_others_are_given(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    given = {"ssh_config": str(tmp_path / "config"), "host_key": PIN, "state_dir": tmp_path}
    with IoTSFTPClient("far", None, None, "secret", **given) as made:
        assert repr(made) == "IoTSFTPClient(them@far.example:2200, not connected)"
    with IoTSFTPClient("far", 22, "u", "secret", **given) as made:
        assert repr(made) == "IoTSFTPClient(u@far.example:22, not connected)"


# -- the table [server]


def settings(**more: Any) -> ServerSettings:
    return ServerSettings.model_validate({"host": "h", "user": "u", "password": "secret", "host_key": PIN, **more})


def test_a_server_shows_its_address_its_account_and_what_it_proves_itself_by() -> None:
    one = settings(port=2222)
    assert (one.address, one.account, one.identity, one.doubts()) == ("h:2222", "u@h:2222", "host key", [])
    assert (settings().port, settings().local_folder) == (22, None)


def test_what_a_login_needs_of_this_device_is_listed(tmp_path: Path) -> None:
    key, known, prompts = tmp_path / "key", tmp_path / "known", tmp_path / "prompts"
    for file in (key, known, prompts):
        file.write_text("x")
    assert settings(host_key=None).login_files() == [Path("~/.ssh/known_hosts").expanduser()]
    found = settings(key_file=key, known_hosts=known, prompt_file=prompts).login_files()
    assert {key, known, prompts, tmp_path / "key-cert.pub"} == set(found)


def test_the_files_of_the_openssh_configuration_count_too(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(CONFIG)
    one = settings(host="far", ssh_config=str(config))
    identity = Path("~/.ssh/id_far").expanduser()
    assert {config, identity} <= set(one.login_files())
    config.write_text("Host far\n  Port no number\n")
    assert config in one.login_files()
    assert identity not in one.login_files()


@pytest.mark.parametrize("key", ["key_file", "known_hosts"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        settings(**{key: tmp_path / "missing"})


def test_what_keeps_a_server_from_a_login_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().login_problems() == []
    file = tmp_path / "password"
    file.write_text("secret\n")
    gone = settings(password=None, password_file=file)
    file.write_text("\n")
    assert [key for key, _ in gone.login_problems()] == ["password_file"]

    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nobody)
    [(key, words)] = settings(user=None).login_problems()
    assert (key, words.startswith("user: required")) == ("user", True)


def test_the_client_of_a_server_has_its_options_and_one_attempt(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    with closing(Journal(tmp_path / "state", CHECKPOINTS)) as journal:
        with closing(settings(port=2222, slots=7).remote(journal, "device")) as made:
            options = made._runner._options
            assert repr(made) == "IoTSFTPClient(u@h:2222, not connected)"
            assert (options.slots, options.attempts, options.owner_tag) == (7, 1, "device")
            assert made._runner._account.password == "secret"
            assert made._runner._books.journal is journal
        far = settings(host="far", ssh_config=str(tmp_path / "config"))
        with closing(far.remote(journal, "device")) as made:
            assert repr(made) == "IoTSFTPClient(u@far.example:2200, not connected)"


# -- a session


@pytest.mark.parametrize(
    ("link", "told"),
    [
        (SimpleNamespace(round_trip_s=0.01234, sent_bytes=5), "12.3"),
        (SimpleNamespace(round_trip_s=None, sent_bytes=5), "unknown"),
        (None, "unknown"),
    ],
)
def test_a_connection_tells_its_round_trip_where_the_system_knows_it(
    caplog: pytest.LogCaptureFixture, link: Any, told: str
) -> None:
    caplog.set_level("INFO", "iot")
    made: Any = object.__new__(Session)
    algorithms = ("curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com")
    made.connection = SimpleNamespace(link=link, algorithms=algorithms, banner="SSH-2.0-x", host_key=PIN)
    made._tell(SimpleNamespace(host="h", port=22))
    assert caplog.messages[-1].endswith(f"round_trip_ms={told}")
    assert made.sent_bytes == (5 if link else 0)


def test_a_session_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed: list[int] = []

    class Refusing:
        banner, host_key = "SSH-2.0-OpenSSH_9.2", PIN

        def __init__(self, *_: object) -> None: ...

        def open_sftp_channel(self, at_once: bool) -> Any:
            assert at_once
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(1)

    monkeypatch.setattr(session, "Connection", Refusing)
    making: Any = SimpleNamespace(beside=None, stop=None, meter=None)
    with closing(Journal(tmp_path, CHECKPOINTS)) as journal, pytest.raises(KeyboardInterrupt):
        Session(*[None] * 4, LearnedRefusals(journal), making)  # type: ignore[arg-type]
    assert closed == [1]

"""Every setting is checked once, and every wrong one is named at once, without its secrets."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iot.folder import FolderClient
from iot.ftp import FTPClient
from iot.sftp.client import IoTSFTPClient
from iot.sftp.client.environment import TRUST, ClientSettings, env_file_here
from iot.sftp.client.settings import ClientOptions, Durability, Verify, describe_errors, options_from
from iot.transfer.errors import ConfigurationError
from iot.transfer.model import Proof
from iot.transfer.options import TransferOptions


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*ClientSettings.model_fields, "key"]:
        monkeypatch.delenv(f"SFTP_{name.upper()}", raising=False)


def test_the_defaults_are_the_safe_ones() -> None:
    options = options_from({})
    assert options.server_durability is Durability.FSYNC
    assert options.verify is Verify.TIMESTAMP
    assert options.proof is Proof.SIZE
    assert (options.direct_write, options.replace_by_remove, options.agent) == (False, False, False)
    assert (options.link_deadline_s, options.server_reply_s, options.publish_grace_s) == (60, 600, 30)
    assert options.attempts == 3
    assert options.part_suffix == ".part"


WRONG = {
    "attempts": 0,
    "backoff_s": -1,
    "checkpoint_bytes": 5,
    "chunk_size": 17 * 1024 * 1024,
    "ciphers": ("no-such-cipher",),
    "congestion": "no-such-control",
    "connect_timeout_s": 0,
    "host_key": "md5:aa:bb",
    "link_deadline_s": -60,
    "max_in_flight_bytes": 1,
    "part_suffix": "a/b",
    "proof": "hope",
    "server_durability": "maybe",
    "slots": 5000,
    "tail_size": 0,
    "verify": "never",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_named_with_its_key(key: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        options_from({key: WRONG[key]})
    assert str(told.value).startswith(f"{key}: ")
    assert repr(WRONG[key]) in str(told.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as told:
        options_from(WRONG)
    assert [line.split(":")[0] for line in str(told.value).split("; ")] == sorted(WRONG, key=list(OPTION_ORDER).index)


OPTION_ORDER = ClientOptions.model_fields


def test_an_unknown_option_is_refused_and_not_ignored() -> None:
    with pytest.raises(ConfigurationError, match=r"^unknown option 'whatever'; help\(\) of the client lists all$"):
        options_from({"whatever": 5})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("prot", "proof"),
        ("atempts", "attempts"),
        ("chunksize", "chunk_size"),
        ("link_deadline", "link_deadline_s"),
        ("hostkey", "host_key"),
        ("password", "sftp_pass"),
        ("pasword", "sftp_pass"),
        ("username", "sftp_user"),
        ("port", "sftp_port"),
        ("key", "key_file"),
        ("timeout", "connect_timeout_s"),
    ],
)
def test_an_unknown_option_is_answered_with_the_one_that_was_meant(given: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        options_from({given: 5})
    assert str(told.value) == f"unknown option {given!r}: did you mean {meant!r}?"


def test_a_mistyped_option_never_repeats_its_value() -> None:
    """It could be the password."""
    with pytest.raises(ConfigurationError, match="pasword") as told:
        options_from({"pasword": "hunter2", "key_pasphrase": {"a": ["hunter2"]}, "attempts": 0})
    assert "hunter2" not in str(told.value)
    assert "attempts: " in str(told.value)


@pytest.mark.parametrize("value", [12345678, ["12345678"], {"a": "12345678"}])
@pytest.mark.parametrize("key", ["password", "key_passphrase"])
def test_a_secret_of_the_wrong_kind_is_not_repeated(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as wrong:
        ClientSettings(host="h", **{key: value})
    [line] = describe_errors(wrong.value)
    assert line.startswith(f"{key}: ")
    assert "12345678" not in line


def test_what_is_missing_does_not_show_its_neighbours() -> None:
    with pytest.raises(ValidationError) as wrong:
        ClientSettings(password="hunter2", user="someone")
    assert "someone" not in "; ".join(describe_errors(wrong.value))


@pytest.mark.parametrize("suffix", ["", "a/b", "x\0", "s" * 33])
def test_a_part_suffix_is_part_of_a_name(suffix: str) -> None:
    with pytest.raises(ConfigurationError, match="part_suffix"):
        options_from({"part_suffix": suffix})


def test_options_cannot_change_under_a_running_transfer() -> None:
    options = options_from({})
    with pytest.raises(ValidationError):
        options.attempts = 5  # type: ignore[misc]


def test_secrets_show_neither_in_repr_nor_in_complaints() -> None:
    options = options_from({"key_passphrase": "hunter2"})
    assert "hunter2" not in repr(options)
    assert "hunter2" not in options.model_dump_json()
    with pytest.raises(ConfigurationError) as told:
        options_from({"key_passphrase": ["hunter2"], "attempts": 0})
    assert "key_passphrase" in str(told.value)
    assert "hunter2" not in str(told.value)
    with pytest.raises(ValidationError) as wrong:
        ClientSettings(host="h", password=["hunter2"], port=0)
    assert "hunter2" not in "; ".join(describe_errors(wrong.value))
    assert "port" in "; ".join(describe_errors(wrong.value))


WRONG_ARGUMENTS: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[str]]] = [
    (
        IoTSFTPClient,
        ("u:hunter2@h", "hunter2", 5, b"hunter2"),
        {"attempts": 0, "prot": "hunter2"},
        ["sftp_host: ", "sftp_port: ", "sftp_user: ", "sftp_pass: ", "attempts: ", "unknown option 'prot'"],
    ),
    (
        FTPClient,
        ("ftp://me:hunter2@h", 0, "", "hunter2\n"),
        {"tls": "hunter", "usr": "hunter2"},
        ["host: ", "port: ", "password: ", "user: ", "tls: ", "tls: ", "unknown option 'usr': did you mean 'user'?"],
    ),
    (
        FolderClient,
        ("relative",),
        {"marker": "a/b", "pth": "hunter2"},
        ["path: ", "marker: must be the name", "unknown option 'pth': did you mean 'path'?"],
    ),
    (FolderClient, (5,), {"connections": 0}, ["path: must be text or a Path (got int)", "connections: "]),
]


@pytest.mark.parametrize(("client", "arguments", "options", "begins"), WRONG_ARGUMENTS)
def test_everything_wrong_is_told_at_once_and_no_secret_in_a_wrong_place_is_repeated(
    client: Any, arguments: tuple[Any, ...], options: dict[str, Any], begins: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as told:
        client(*arguments, **options)
    lines = str(told.value).split("; ")
    assert len(lines) == len(begins), lines
    assert [line[: len(begin)] for line, begin in zip(lines, begins, strict=True)] == begins
    assert "hunter2" not in str(told.value)
    assert "Value error" not in str(told.value)


@pytest.mark.parametrize(("client", "place"), [(IoTSFTPClient, "h"), (FTPClient, "h"), (FolderClient, "/tmp")])
def test_a_folder_given_as_journal_is_an_error_that_says_where_it_belongs(client: Any, place: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^journal: must be a Journal \(got str\); its folder is .* state_dir$"
    ):
        client(place, journal="/var/lib/device")


@pytest.mark.parametrize("name", [name for name in ClientOptions.model_fields if name != "prompts"])
def test_bytes_that_are_no_text_are_an_invalid_value_or_a_valid_one(name: str) -> None:
    """As from the environment: what is not UTF-8 is a lone surrogate there."""
    told = f"{name}: "
    try:
        options_from({name: "\udc80"})
    except ConfigurationError as error:
        told = str(error)
    assert told.startswith(f"{name}: ")


@pytest.mark.parametrize("host", ["sftp://h", "me@h", "h/upload", "h:22", "a b", "h\n", "", " ", None, b"h", 5])
def test_a_host_is_a_name_or_an_address_alone(host: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^sftp_host: must be a name or an address"):
        IoTSFTPClient(host, sftp_user="me")


@pytest.mark.parametrize("host", ["h", "h.example.com", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "my_box"])
def test_a_name_and_an_address_are_a_host(host: str) -> None:
    IoTSFTPClient(host, 2222, "me").close()
    FTPClient(host).close()


def test_the_environment_gives_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "SFTP_HOST": "server",
        "SFTP_PORT": "2222",
        "SFTP_USER": "device",
        "SFTP_PASSWORD": "hunter2",
        "SFTP_KEY": "/keys/id",
        "SFTP_KNOWN_HOSTS": "/keys/known",
        "SFTP_SERVER_DURABILITY": "trust",
        "SFTP_CIPHERS": "aes128-ctr",
        "SFTP_CHUNK_SIZE": "65536",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = ClientSettings()
    assert (settings.host, settings.port, settings.user) == ("server", 2222, "device")
    assert settings.password is not None
    assert settings.password.get_secret_value() == "hunter2"
    options = settings.options()
    assert options.key_file == Path("/keys/id")
    assert options.known_hosts == Path("/keys/known")
    assert options.server_durability is Durability.TRUST
    assert options.ciphers == ("aes128-ctr",)
    assert options.chunk_size == 65536


def test_keywords_win_over_the_environment_and_that_over_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "asked").write_text("SFTP_HOST=file\nSFTP_PORT=1\nSFTP_USER=file\nOTHER=ignored\n")
    monkeypatch.setenv("SFTP_PORT", "2")
    monkeypatch.setenv("SFTP_USER", "environment")
    settings = ClientSettings(user="keyword", _env_file=tmp_path / "asked")
    assert (settings.host, settings.port, settings.user) == ("file", 2, "keyword")


PIN = "SHA256:" + "A" * 43
FOREIGN = {
    "SFTP_HOST": "evil",
    "SFTP_PORT": "2222",
    "SFTP_KNOWN_HOSTS": "/evil/hosts",
    "SFTP_HOST_KEY": PIN,
    "SFTP_KEY": "/evil/key",
    "SFTP_KEY_FILE": "/evil/key",
    "SFTP_KEY_PASSPHRASE": "evil",
    "SFTP_AGENT": "1",
    "SFTP_CIPHERS": "aes128-ctr",
    "SFTP_STATE_DIR": "/evil/state",
}


def env_file(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def test_an_env_file_that_nobody_asked_for_sets_nothing_about_trust(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_file({**FOREIGN, "SFTP_USER": "me", "sftp_attempts": "7", "key": "/evil/key"}))
    settings = ClientSettings(host="good")
    assert settings == ClientSettings(host="good", user="me", attempts=7, _env_file=None)
    found = env_file_here()
    assert found is not None
    assert set(found.refused) == set(FOREIGN)
    assert set(found.taken) == {"sftp_user", "sftp_attempts"}


def test_an_env_file_that_is_asked_for_sets_everything(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_file({**FOREIGN, "SFTP_KNOWN_HOSTS": ""}))
    settings = ClientSettings(_env_file=tmp_path / ".env")
    assert (settings.host, settings.port, settings.host_key, settings.agent) == ("evil", 2222, PIN, True)
    assert settings.key_file == Path("/evil/key")


def test_every_setting_about_trust_is_one_that_exists() -> None:
    assert set(ClientSettings.model_fields) >= TRUST


def test_an_env_file_that_nobody_asked_for_cannot_pass_a_secret_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SFTP_PASSWORD", "hunter2")
    (tmp_path / ".env").write_text("SFTP_USER=${SFTP_PASSWORD}\nSFTP_PART_SUFFIX=.${SFTP_PASSWORD}\n")
    settings = ClientSettings(host="good")
    assert "hunter2" not in repr(settings)
    assert settings.user == "${SFTP_PASSWORD}"


@pytest.mark.parametrize("kind", ["fifo", "folder", "not UTF-8"])
def test_an_env_file_that_cannot_be_read_is_named_and_ignored(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"SFTP_USER=\xff\n")
    assert ClientSettings(host="good").user is None
    found = env_file_here()
    assert found is not None
    assert found.problem


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTP_PORT", "")
    assert ClientSettings(host="h").port == 22


def test_without_a_host_it_says_so() -> None:
    with pytest.raises(ValidationError) as wrong:
        ClientSettings()
    assert describe_errors(wrong.value) == ["host: Field required"]


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in ClientSettings.model_fields.items() if not field.description] == []


def test_every_option_of_a_transfer_is_the_setting_of_its_name() -> None:
    """A new setting reaches the transfers by itself: nobody copies them by hand."""
    given = {"chunk_size": 4096, "keep_mode": True, "tail_size": 7, "publish_grace_s": 1.5, "direct_write": True}
    plain = ClientOptions(**given, verify=Verify.FULL, server_durability=Durability.TRUST, owner_tag="-tag").plain(
        "owner"
    )
    assert {name: getattr(plain, name) for name in given} == given
    assert (plain.verify, plain.trust, plain.owner) == ("full", True, "owner-tag")
    of_a_call = {"resume", "sha256"}
    computed = {"trust", "owner", "exact_part"}
    assert {item.name for item in fields(TransferOptions)} - of_a_call - computed <= set(ClientOptions.model_fields)


@pytest.mark.parametrize("value", ["?", -5, 1e12, 1.5, [], b"\xff", float("nan")])
def test_no_message_is_in_the_words_of_pydantic(value: object) -> None:
    for name in ClientOptions.model_fields:
        try:
            ClientOptions(**{name: value})
        except ValidationError as error:
            (told, *_) = describe_errors(error)
            assert not re.search(r"Input|String|Unable|\bpars|tuple|boolean|integer|class", told), told

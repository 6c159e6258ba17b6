"""The table [server] of the spooler for FTP and folders, and the clients they describe: addresses, secrets, options."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iot.folder import FolderClient
from iot.folder.configured import ServerSettings as FolderServer
from iot.ftp import TLS, FTPClient
from iot.ftp.client import IMPLICIT_PORT, PORT
from iot.ftp.configured import ServerSettings as FTPServer
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.checkpoints import CHECKPOINTS
from iot.transfer.journal.journal import Journal

SECRET = "correct-horse"


def ftp(**more: Any) -> FTPServer:
    return FTPServer.model_validate({"host": "h", **more})


@pytest.mark.parametrize(
    ("options", "port"), [({}, PORT), ({"tls": "implicit"}, IMPLICIT_PORT), ({"port": 5, "tls": "implicit"}, 5)]
)
def test_the_port_is_the_usual_one_of_the_kind_of_tls(options, port):
    assert ftp(**options).address == f"h:{port}"
    assert (PORT, IMPLICIT_PORT) == (21, 990)
    client = FTPClient("h", options.get("port"), tls=options.get("tls", "explicit"))
    assert repr(client) == f"FTPClient(anonymous@h:{port})"
    client.close()


def test_the_client_of_a_configured_server_has_its_options_and_one_attempt(tmp_path):
    settings = ftp(user="me", password=SECRET, timeout_s=5, connections=3)
    assert settings.options_here("d1") == {"timeout_s": 5.0, "connections": 3, "attempts": 1, "owner_tag": "d1"}
    with closing(Journal(tmp_path, CHECKPOINTS)) as journal, closing(settings.remote(journal, "d1")) as client:
        address = client._address
        assert (address.host, address.port, address.user, address.password) == ("h", 21, "me", SECRET)
        assert (address.timeout_s, address.implicit, address.active) == (5.0, False, False)
        assert client._parallel.capabilities.connections == 3
    assert SECRET not in repr(settings)


def test_the_password_comes_from_its_file_once_it_is_needed(tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\r\n")
    settings = ftp(password_file=file)
    assert (settings.login_password(), settings.login_problems()) == (SECRET, [])
    assert settings.secret_files() == {"password_file": file}
    file.write_text("\n")
    assert [key for key, _ in settings.login_problems()] == ["password_file"]
    with pytest.raises(ConfigurationError, match=r"password_file = "):
        settings.login_password()
    assert ftp().login_password() is None
    assert ftp(password=SECRET).login_password() == SECRET


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": SECRET, "password_file": "FILE"}, "not both"),
        ({"password": f"{SECRET}\n"}, "line end or NUL"),
        ({"password": f"{SECRET}\0"}, "line end or NUL"),
        ({"password_file": "/nonexistent"}, "cannot be read: No such file"),
        ({"password_file": "TWO"}, "holds no password"),
        ({"password_file": "BINARY"}, "holds no UTF-8 text"),
        ({"host": "two words"}, "host"),
        ({"user": "a\nb"}, "user"),
        ({"port": 0}, "port"),
        ({"certificate": "12"}, "64 hex digits"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_key_is_told_and_no_secret_with_it(tmp_path, wrong, words):
    for name, content in (("FILE", b"x"), ("TWO", SECRET.encode() + b"\nmore"), ("BINARY", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
    given = {
        key: str(tmp_path / value) if value in ("FILE", "TWO", "BINARY") else value for key, value in wrong.items()
    }
    with pytest.raises(ValidationError) as told:
        ftp(**given)
    shown = " ".join(f"{each['loc']} {each['msg']}" for each in told.value.errors(include_input=False))
    assert words in shown
    assert SECRET not in shown


def test_which_keys_hold_secrets_or_lists_is_known():
    assert FTPServer.secret_keys() == ["password"]
    assert FTPServer.list_keys() == []
    assert ftp().local_folder is None


@pytest.mark.parametrize(
    ("name", "value"), [("host", ""), ("user", ""), ("user", "a\rb"), ("password", "a\0b"), ("host", "a\nb")]
)
def test_a_client_refuses_what_would_end_a_line_of_the_protocol(name, value):
    given = {"host": "h", "user": "me", "password": SECRET, name: value}
    with pytest.raises(ConfigurationError, match=f"{name}: "):
        FTPClient(given["host"], None, given["user"], given["password"])
    FTPClient("h", None, "me", "").close()  # an empty password is one


def test_plain_ftp_is_warned_about_once_for_each_server(caplog):
    for host in ("one.example.com", "one.example.com", "two.example.com"):
        FTPClient(host, tls=False).close()
    FTPClient("three.example.com").close()
    assert [record.args[0] for record in caplog.records] == ["one.example.com", "two.example.com"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("AB:" * 31 + "AB", "ab" * 32), ("sha256:" + "ab" * 32, "ab" * 32), ("", "")],
)
def test_a_fingerprint_is_taken_in_any_of_its_spellings(given, kept):
    assert ftp(certificate=given).certificate == kept
    assert str(ftp(tls=True).tls) == str(ftp().tls)


# -- folders


def test_a_folder_is_its_path_and_is_told_as_one_of_this_device(tmp_path):
    settings = FolderServer.model_validate({"path": str(tmp_path), "marker": ".disk"})
    assert (settings.address, settings.local_folder) == (str(tmp_path), tmp_path)
    with closing(Journal(tmp_path / "state", CHECKPOINTS)) as journal, closing(settings.remote(journal, "d")) as client:
        assert repr(client) == f"FolderClient({tmp_path})"
    assert settings.login_problems() == []
    assert settings.secret_files() == {}


@pytest.mark.parametrize("path", ["relative", ""])
def test_a_folder_is_an_absolute_path(path):
    with pytest.raises(ValidationError):
        FolderServer.model_validate({"path": path})
    with pytest.raises(ConfigurationError, match="path: "):
        FolderClient(path)


def test_a_system_without_openat_has_no_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("os.supports_dir_fd", set())
    with pytest.raises(ConfigurationError, match="openat"):
        FolderClient(Path(tmp_path))


@pytest.mark.parametrize(("path", "told"), [(5, r"must be text or a Path \(got int\)"), ("x", r"\(got 'x'\)")])
def test_what_is_no_path_of_a_folder_is_told_with_what_was_given(path: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^path: .*{told}"):
        FolderClient(path)


def test_a_folder_is_known_by_where_it_really_is_and_another_disk_may_end_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    settings = FolderServer.model_validate({"path": str(tmp_path / "link")})
    assert settings.account == str((tmp_path / "real").resolve())
    assert settings.login_files() == [tmp_path / "link"]


@pytest.mark.parametrize(("options", "on_a_disk", "doubt"), [
    ({}, False, "is on no disk of its own now: if one is to be mounted there, set marker or mounted"),
    ({}, True, None),
    ({"marker": ".disk"}, False, None),
    ({"marker": ".gone"}, False, "; until it is, files wait"),
    ({"mounted": True}, False, None),
])  # fmt: skip
def test_a_folder_that_may_be_an_empty_mount_point_is_doubted(tmp_path: Path, monkeypatch, options, on_a_disk, doubt):
    (tmp_path / ".disk").touch()
    monkeypatch.setattr("iot.folder.place.mount_point", lambda *_: "/mnt")
    monkeypatch.setattr("iot.folder.configured.is_mounted", lambda _: on_a_disk)
    found = FolderServer.model_validate({"path": str(tmp_path), **options}).doubts()
    assert [key for key, _ in found] == ([] if doubt is None else ["path"])
    assert doubt is None or found[0][1].endswith(doubt)


@pytest.mark.parametrize(("durability", "durable"), [("trust", False), ("fsync", True)])
def test_a_folders_store_is_as_its_options_say(tmp_path: Path, monkeypatch, durability: str, durable: bool) -> None:
    made: list[Any] = []
    monkeypatch.setattr("iot.folder.client.ParallelRemote", lambda *given: made.append(given))
    FolderClient(tmp_path, server_durability=durability, marker=".m", mounted=True, connections=7)
    store, identity, *_ = made[0]
    assert identity == f"folder:{tmp_path}"
    assert (store().capabilities.durable, store().capabilities.connections) == (durable, 7)
    assert (store()._place._marker, store()._place._mounted) == (".m", True)


# -- FTP


def test_an_ftp_server_is_known_by_who_logs_in_where_and_by_its_certificate(tmp_path: Path) -> None:
    settings = ftp(user="me", password=SECRET)
    assert (settings.account, settings.identity, settings.doubts()) == ("me@h:21", "certificate", [])
    plain = ftp(tls=False)
    assert (plain.identity, [key for key, _ in plain.doubts()]) == ("", ["tls"])
    authorities, password = tmp_path / "ca.pem", tmp_path / "password"
    password.write_text(SECRET)
    assert ftp(password_file=password).login_files() == [password]
    assert ftp(password_file=password, ca_file=authorities).login_files() == [password, authorities]


@pytest.mark.parametrize(
    ("given", "problems"),
    [({}, 0), ({"user": "me"}, 1), ({"user": "me", "password": SECRET}, 0), ({"user": "anonymous"}, 0)],
)
def test_only_anonymous_needs_no_password(given: dict[str, str], problems: int) -> None:
    assert len(ftp(**given).login_problems()) == problems


def test_an_ftp_client_connects_as_its_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("iot.ftp.client.ParallelRemote", lambda *given: made.append(given))
    found = FTPClient("h", None, "me", SECRET, tls="implicit", active=True, connect_timeout_s=3, certificate="ab" * 32)
    address = found._address
    assert (address.port, address.implicit, address.active, address.connect_timeout_s) == (990, True, True, 3.0)
    assert address.trust is not None
    assert address.trust._pin == "ab" * 32
    assert made[0][1] == "ftp:me@h:990"
    plain = FTPClient("h", 5, tls=False)._address
    assert (plain.trust, plain.port, plain.user, plain.password) == (None, 5, "anonymous", "")


@pytest.mark.parametrize(
    ("marker", "fine"),
    [
        (".disk", True),
        ("...", True),
        ("", True),
        ("a/b", False),
        ("/", False),
        ("a\0", False),
        (".", False),
        ("..", False),
    ],
)
def test_a_marker_is_the_name_of_a_file(tmp_path: Path, marker: str, fine: bool) -> None:
    if fine:
        assert FolderServer.model_validate({"path": str(tmp_path), "marker": marker}).marker == marker
        return
    with pytest.raises(ValidationError, match="must be the name of a file in the folder"):
        FolderServer.model_validate({"path": str(tmp_path), "marker": marker})


@pytest.mark.parametrize("path", ["/a/../b", "/a\0b", "a"])
def test_a_path_of_a_folder_is_absolute_and_leads_nowhere_else(path: str) -> None:
    with pytest.raises(ConfigurationError, match="must be an absolute path without"):
        FolderClient(path)


@pytest.mark.parametrize(
    ("given", "tls"),
    [({}, TLS.EXPLICIT), ({"tls": True}, TLS.EXPLICIT), ({"tls": False}, False), ({"tls": "implicit"}, TLS.IMPLICIT)],
)
def test_tls_is_begun_by_a_command_unless_that_is_said_otherwise(given: dict[str, Any], tls: TLS | bool) -> None:
    assert ftp(**given).tls is tls


@pytest.mark.parametrize("certificate", ["ab" * 31, "ab" * 33, "xy" * 32, "sha1:" + "ab" * 32])
def test_what_is_no_fingerprint_is_refused(certificate: str) -> None:
    with pytest.raises(ValidationError, match="64 hex digits"):
        ftp(certificate=certificate)

"""The table [fallback] and its settings: all that is wrong is said at once, with where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iot.spooler.cli.main import main
from iot.spooler.config.exposure import exposed_secrets
from iot.spooler.config.fallbacks import divided_batches
from iot.spooler.config.load import BadConfiguration, load, look, secrets_in
from iot.spooler.config.settings import Settings

TOP = 'state_dir = "/var/lib/iot-spooler"\n'
SERVER = '[server]\nhost = "a"\nuser = "device"\n'
OUTBOX = '[[outbox]]\npath = "/out"\ndestination = "up"\n'
PLACES = {"server": "disk", "fallback": "usb"}


def text(fallback: str = '[fallback]\nhost = "b"\nuser = "device"\n', top: str = "", outbox: str = "") -> str:
    return TOP + top + SERVER + fallback + OUTBOX + outbox


def loaded(tmp_path: Path, content: str, environment: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "spooler.toml"
    file.write_text(content)
    return load(file, environment or {})


def problems(tmp_path: Path, content: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(BadConfiguration) as caught:
        loaded(tmp_path, content, environment)
    return [problem.replace(str(tmp_path), "") for problem in caught.value.problems]


def test_a_fallback_is_of_any_kind_and_has_keys_of_its_own(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, text('[fallback]\nkind = "ftp"\nhost = "b"\ntls = "implicit"\n', "fallback_after_s = 30\n")
    )
    assert [server.address for server in settings.servers.values()] == ["a:22", "b:990"]
    assert (settings.fallback_after_s, settings.fallback_check_s, settings.fallback_when_held) == (30.0, 60.0, False)
    assert list(loaded(tmp_path, text("")).servers) == ["server"]


def test_it_comes_from_the_environment_and_from_credentials_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sftp_password").write_text("one\n")
    (tmp_path / "sftp_fallback_password").write_text("two\n")
    environment = {
        "IOT_SPOOLER_FALLBACK__HOST": "b",
        "IOT_SPOOLER_FALLBACK__KIND": "sftp",
        "IOT_SPOOLER_FALLBACK__CIPHERS": "aes256-ctr aes128-ctr",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    settings = loaded(tmp_path, text(""), environment)
    assert settings.fallback is not None
    assert settings.fallback.address == "b:22"
    assert settings.fallback.client_options()["ciphers"] == ("aes256-ctr", "aes128-ctr")
    files = [server.secret_files()["password_file"].name for server in settings.servers.values()]
    assert files == ["sftp_password", "sftp_fallback_password"]


def test_a_credential_alone_makes_no_fallback(tmp_path: Path) -> None:
    (tmp_path / "sftp_fallback_key").touch()
    assert loaded(tmp_path, text(""), {"CREDENTIALS_DIRECTORY": str(tmp_path)}).fallback is None


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    top = 'fallback_after_s = 0\nfallback_check_s = "soon"\nfallback_back_after_s = -1\nfallback_when_held = "no"\n'
    fallback = '[fallback]\nhost = "u@b"\nusr = "x"\nport = 70000\nstate_dir = "/x"\npassword = "a\\nb"\n'
    found = problems(tmp_path, text(fallback, top, 'collision = "no"\n'))
    assert sorted(problem.split(" ")[0].rstrip(":") for problem in found) == [
        *("fallback.host", "fallback.password", "fallback.port", "fallback.state_dir", "fallback.usr"),
        *("fallback_after_s", "fallback_back_after_s", "fallback_check_s", "fallback_when_held"),
        "outbox[0].collision",
    ]
    assert "fallback.usr: no such setting; perhaps fallback.user (from /spooler.toml:11)" in found
    assert not any("a\\nb" in problem for problem in found)


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        ("fallback = 3\n", "must be a table, begun with [fallback]"),
        ('[fallback]\nkind = "carrier pigeon"\n', "fallback.kind = 'carrier pigeon': must be one of folder, ftp, sftp"),
        ("[fallback]\n", "fallback.host: missing"),
        ('[fallback]\nhost = "b"\nmarker = "x"\n', "fallback.marker: no such setting with this kind of server"),
    ],
)
def test_what_is_no_server_is_refused(tmp_path: Path, fallback: str, expected: str) -> None:
    content = TOP + fallback + SERVER + OUTBOX if fallback.startswith("fallback") else text(fallback)
    (found,) = problems(tmp_path, content)
    assert expected in found


@pytest.mark.parametrize(
    "fallback",
    [
        '[fallback]\nhost = "a"\nuser = "device"\n',
        '[fallback]\nhost = "a"\nuser = "device"\nport = 22\nmax_rate = "1 Mbit/s"\n',
    ],
)
def test_one_server_twice_is_no_fallback(tmp_path: Path, fallback: str) -> None:
    (found,) = problems(tmp_path, text(fallback))
    assert found.startswith("server and fallback: both are device@a:22: a fallback must be another server or folder")


def test_one_folder_twice_is_seen_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "usb").symlink_to("disk")
    tables = (
        f'[server]\nkind = "folder"\npath = "{tmp_path}/disk"\n[fallback]\nkind = "folder"\npath = "{tmp_path}/usb"\n'
    )
    (found,) = problems(tmp_path, TOP + tables + OUTBOX)
    assert "both are /disk" in found


def test_another_user_of_one_server_is_another_one(tmp_path: Path) -> None:
    assert loaded(tmp_path, text('[fallback]\nhost = "a"\nuser = "other"\n')).fallback is not None


def test_settings_of_a_fallback_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, text("", "fallback_after_s = 60\nfallback_when_held = true\n"))
    expected = "fallback_after_s = 60.0 and fallback_when_held = True: there is no [fallback] (in /spooler.toml:2, "
    assert found.startswith(expected)


def test_a_wrong_fallback_is_not_also_a_missing_one(tmp_path: Path) -> None:
    found = problems(tmp_path, text("[fallback]\nport = 1\n", "fallback_after_s = 60\n"))
    assert [problem.split(":")[0] for problem in found] == ["fallback.host"]


def test_a_folder_that_is_a_fallback_lies_apart_from_what_is_ours(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, text('[fallback]\nkind = "folder"\npath = "/out"\n'))
    assert "what is delivered must lie apart" in found


def test_options_that_do_not_go_with_an_outbox_are_seen_in_the_fallback_too(tmp_path: Path) -> None:
    fallback = '[fallback]\nhost = "b"\ndirect_write = true\n'
    (found,) = problems(tmp_path, text(fallback, outbox='collision = "skip"\n'))
    assert found.startswith("fallback.direct_write = True and outbox[0].collision = 'skip'")


def test_its_secrets_are_looked_after_like_those_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o644)
    fallback = f'[fallback]\nhost = "b"\nuser = "device"\npassword_file = "{tmp_path}/password"\n'
    settings = loaded(tmp_path, text(fallback))
    told = exposed_secrets(settings, tmp_path / "spooler.toml", {})
    assert len(told) == 1
    assert "holds what fallback.password_file names" in told[0]
    loaded(tmp_path, text('[fallback]\nhost = "b"\nkey_passphrase = "secret"\n'))
    assert secrets_in(tmp_path / "spooler.toml") == ["fallback.key_passphrase"]


def test_check_names_both_and_what_a_login_to_the_fallback_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "out").mkdir()
    file, key = tmp_path / "spooler.toml", tmp_path / "key"
    server = '[server]\nhost = "a"\npassword_file = "{key}"\nhost_key = "SHA256:{pin}"\n'
    content = f'state_dir = "{tmp_path}/state"\n{server}[fallback]\nhost = "b"\n{OUTBOX}batch_marker = "*.end"\n'
    content = content.replace("{key}", str(key)).replace("{pin}", "A" * 43).replace('"/out"', f'"{tmp_path}/out"')
    key.write_text("secret")
    key.chmod(0o600)
    file.write_text(content)
    assert main(["check", "--config", str(file)]) == 78
    told = capsys.readouterr().err
    assert "fallback: nothing to log in with" in told.replace("\n", " ")
    file.write_text(
        content.replace('host = "b"\n', f'host = "b"\npassword_file = "{key}"\nhost_key = "SHA256:{"B" * 43}"\n')
    )
    assert main(["check", "--config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "configuration good: a:22, fallback b:22, outboxes out" in out
    assert "whoever waits for the marker has to look at both" in err
    assert len(divided_batches(look(file, {}).settings)) == 1  # type: ignore[arg-type]


def test_a_list_of_the_fallback_may_be_json(tmp_path: Path) -> None:
    environment = {"IOT_SPOOLER_FALLBACK__CIPHERS": json.dumps(["aes256-ctr"])}
    settings = loaded(tmp_path, text(), environment)
    assert settings.fallback is not None
    assert settings.fallback.client_options()["ciphers"] == ("aes256-ctr",)

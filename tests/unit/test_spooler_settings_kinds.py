"""What a configuration may say depends on the kind of its server."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
from pydantic import SecretStr
from unit.spooler_config import GOOD, problems

from iot.spooler.config import kinds
from iot.spooler.config.load import load, secrets_in
from iot.transfer import ConfiguredRemote
from iot.transfer.settings import TransferSettings


@pytest.fixture
def config(tmp_path):
    (tmp_path / "credentials-spooler").mkdir(exist_ok=True)
    (tmp_path / "credentials-spooler" / "key").touch()  # as for iot-spooler@spooler

    def write(text):
        path = tmp_path / "spooler.toml"
        path.write_text(text)
        return path

    return write


FTP_SERVER = 'kind = "ftp"\nhost = "ftp.example.com"\n'
FOLDER_SERVER = 'kind = "folder"\npath = "/mnt/usb"\n'
SFTP_SERVER = 'host = "sftp.example.com"\nuser = "device"\n'


@pytest.mark.parametrize(
    ("server", "line"),
    [
        (SFTP_SERVER, 'marker = ".this-disk"'),
        (SFTP_SERVER, "active = true"),
        (f'kind = "sftp"\n{SFTP_SERVER}', 'path = "/mnt/usb"'),
        (FTP_SERVER, 'host_key = "SHA256:x"'),
        (FTP_SERVER, 'key_file = "/etc/key"'),
        (FTP_SERVER, 'marker = ".this-disk"'),
        (FOLDER_SERVER, 'host = "sftp.example.com"'),
        (FOLDER_SERVER, 'user = "device"'),
        (FOLDER_SERVER, 'password = "hunter2"'),
    ],
)
def test_a_key_of_another_kind_of_server_is_reported_as_that_and_not_as_a_mistyped_one(config, server, line):
    """Whoever changed `kind` alone would otherwise look for a typing error."""
    path = config(GOOD[: GOOD.index("[server]")] + f"[server]\n{server}{line}\n" + GOOD[GOOD.index("[[outbox]]") :])
    (told,) = problems(path)
    number = path.read_text().splitlines().index(line) + 1
    key = line.partition(" ")[0]
    assert told == f"server.{key}: no such setting with this kind of server (from {path}:{number})"


@pytest.mark.parametrize("server", [SFTP_SERVER, FTP_SERVER, FOLDER_SERVER])
def test_a_key_of_no_kind_of_server_is_not_reported_as_one_of_another(config, server):
    parts = GOOD[: GOOD.index("[server]")], f'[server]\n{server}hots = "x"\n', GOOD[GOOD.index("[[outbox]]") :]
    (told,) = problems(config("".join(parts)))
    assert "no such setting; perhaps server.host " in told


FOLDER = GOOD.replace('host = "sftp.example.com"\nuser = "device"\n', 'kind = "folder"\npath = "/mnt/usb"\n')


def test_a_kind_is_given_only_the_credentials_that_it_knows(config, tmp_path):
    (tmp_path / "sftp_password").write_text("hunter2\n")
    (tmp_path / "sftp_key").write_text("key")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(config(FOLDER), environment).server.address == "/mnt/usb"
    ftp = load(config(GOOD.replace("[server]", '[server]\nkind = "ftp"')), environment).server
    assert ftp.login_password() == "hunter2"


@pytest.mark.parametrize("text", ['["oathtool", "-b"]', "oathtool -b"])
def test_a_list_of_the_server_comes_from_the_environment_as_json_or_as_words(config, text):
    environment = {"IOT_SPOOLER_SERVER__PROMPT_COMMAND": text}
    assert load(config(GOOD), environment).server.prompt_command == ("oathtool", "-b")


def test_a_new_kind_is_one_line_of_the_registry(config, tmp_path, monkeypatch):
    """Its keys, secrets, credentials and lists are what its class says; nothing else knows them."""

    class Pigeons(ConfiguredRemote, TransferSettings):
        OPTIONS = TransferSettings
        CREDENTIALS: ClassVar = {"ring": ("ring", "ring_file")}
        loft: str
        ring: SecretStr | None = None
        names: tuple[str, ...] = ()

    monkeypatch.setitem(sys.modules, "pigeons", SimpleNamespace(ServerSettings=Pigeons))
    monkeypatch.setitem(kinds.KINDS, "pigeon", "pigeons")
    (tmp_path / "sftp_ring").write_text("hunter2\n")
    text = GOOD.replace('host = "sftp.example.com"\nuser = "device"', 'loft = "roof"')
    environment = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "IOT_SPOOLER_SERVER__KIND": "pigeon",
        "IOT_SPOOLER_SERVER__NAMES": '["a", "b"]',
    }
    server = load(config(text), environment).server
    assert (server.loft, server.ring.get_secret_value(), server.names) == ("roof", "hunter2", ("a", "b"))
    path = config(text.replace("[server]", '[server]\nkind = "pigeon"\nring = "hunter2"'))
    assert secrets_in(path) == ["server.ring"]
    (told,) = problems(path, {"IOT_SPOOLER_SERVER__STATE_DIR": "/x"})
    assert told.startswith("server.state_dir: no such setting")


def test_the_settings_of_a_server_are_those_of_every_kind_and_the_kind_itself() -> None:
    assert {"kind", "host", "path", "tls"} <= kinds.server_keys()
    assert "prompts" not in kinds.server_keys()  # what a program is asked, no file can say

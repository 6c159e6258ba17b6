"""What deploy/ promises: the example names every setting and loads, the units are accepted by systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conditions import missing
from pydantic import BaseModel, ByteSize

from iot.sftp.spooler.configuration import BadConfiguration, load
from iot.sftp.spooler.settings import NOT_FROM_FILE, OutboxSettings, RetrySettings, ServerSettings, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "iot-spooler.toml"
SET_OR_SHOWN = re.compile(r"(?:# )?([a-z][a-z0-9_]*) = (.+)")
UNITS = ("iot-spooler.service", "iot-spooler@.service")
MODELS: dict[str, type[BaseModel]] = {
    "": Settings,
    "retry": RetrySettings,
    "server": ServerSettings,
    "outbox": OutboxSettings,
}
ALTERNATIVES = {"password", "prompt_file"}
"""Keys that exclude another one, which is set in their place: password_file, prompt_command."""


def blocks(text: str) -> dict[str, dict[str, str]]:
    """The keys of each block of the example with their values, those in comments included."""
    found: dict[str, dict[str, str]] = {"": {}}
    block = ""
    for line in text.splitlines():
        if line.startswith("["):
            block = line.strip("[]")
            found[block] = {}
        elif match := SET_OR_SHOWN.fullmatch(line):
            found[block][match[1]] = match[2]
    return found


def uncommented(line: str, secrets: Path) -> str:
    match = SET_OR_SHOWN.fullmatch(line)
    if match is None or match[1] in ALTERNATIVES:
        return line
    return line.removeprefix("# ").replace("/etc/iot-spooler/", f"{secrets}/")


def expected() -> dict[str, set[str]]:
    server = set(ServerSettings.model_fields) - set(NOT_FROM_FILE)
    return {
        "": set(Settings.model_fields) - {"server", "retry", "outbox"},
        "server": server,
        "retry": set(RetrySettings.model_fields),
        "outbox": set(OutboxSettings.model_fields),
    }


def test_example_loads_as_it_is() -> None:
    settings = load(EXAMPLE, {})
    assert settings.server.host == "sftp.example.com"
    assert settings.outbox[0].destination == "/upload/{device_id}"


def test_example_explains_every_key_and_no_other() -> None:
    assert {block: set(keys) for block, keys in blocks(EXAMPLE.read_text()).items()} == expected()


def test_example_shows_the_real_defaults() -> None:
    shown = blocks(EXAMPLE.read_text())
    for block, model in MODELS.items():
        for key, text in shown[block].items():
            default = model.model_fields[key].get_default()
            if default in (None, "", ()) or model.model_fields[key].is_required() or isinstance(default, ByteSize):
                continue  # an example stands there, or a size as text: the next test loads it
            if key != "device_id":  # set, so that nobody runs with the default
                plain = getattr(default, "value", default)
                assert text == (f'"{plain}"' if isinstance(plain, str) else str(plain).lower()), key


def test_example_loads_with_every_key_set(tmp_path: Path) -> None:
    for name in ("id_ed25519", "password", "known_hosts"):
        (tmp_path / name).write_text("content\n")
    complete = tmp_path / "complete.toml"
    complete.write_text("\n".join(uncommented(line, tmp_path) for line in EXAMPLE.read_text().splitlines()))
    settings = load(complete, {})
    assert settings.server.model_fields_set == expected()["server"] - ALTERNATIVES
    assert settings.outbox[0].model_fields_set == expected()["outbox"]
    assert settings.retry == RetrySettings()


def test_example_tells_a_wrong_value_by_its_key(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(EXAMPLE.read_text().replace("# settle_s = 2.0", "settle_s = -1"))
    with pytest.raises(BadConfiguration, match="settle_s"):
        load(wrong, {})


def test_template_unit_keeps_state_apart_by_environment() -> None:
    text = (DEPLOY / "iot-spooler@.service").read_text()
    match = re.search(r"^Environment=(IOT_SPOOLER_STATE_DIR)=%S/(.+)$", text, re.MULTILINE)
    assert match
    assert f"StateDirectory={match[2]}" in text
    assert load(EXAMPLE, {match[1]: "/var/lib/iot-spooler-x"}).state_dir == Path("/var/lib/iot-spooler-x")


def test_credentials_of_the_unit_are_the_ones_the_spooler_reads(tmp_path: Path) -> None:
    """systemd loads each file of the folder as ID_FILENAME."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    text = (DEPLOY / "iot-spooler.service").read_text()
    match = re.search(r"^LoadCredential=(\w+):/", text, re.MULTILINE)
    assert match
    for name in ("key", "key_passphrase", "password", "known_hosts"):
        (folder / f"{match[1]}_{name}").write_text(f"the {name}\n")
    server = load(EXAMPLE, {"CREDENTIALS_DIRECTORY": str(folder)}).server
    assert server.key_file == folder / "sftp_key"
    assert server.known_hosts == folder / "sftp_known_hosts"
    assert server.login_password() == "the password"
    assert server.key_passphrase is not None
    assert server.key_passphrase.get_secret_value() == "the key_passphrase"


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is missing: apt-get install systemd")
    text = (DEPLOY / unit).read_text()
    assert text.count("/opt/iot-spooler/bin/python") == 1
    copy = tmp_path / unit.replace("@.", "@one.")
    copy.write_text(text.replace("/opt/iot-spooler/bin/python", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if unit.partition("@")[0].removesuffix(".service") in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("script", ["demo", "install"])
def test_scripts_are_posix_shell(script: str) -> None:
    subprocess.run(["sh", "-n", str(DEPLOY / script)], check=True, timeout=10)


def test_install_stages_its_files_below_destdir(tmp_path: Path) -> None:
    environment = {**os.environ, "DESTDIR": str(tmp_path)}
    subprocess.run(["sh", str(DEPLOY / "install")], env=environment, check=True, timeout=30)
    staged = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert staged == {
        "etc/systemd/system/iot-spooler.service",
        "etc/systemd/system/iot-spooler@.service",
        "usr/lib/sysusers.d/iot-spooler.conf",
        "usr/lib/tmpfiles.d/iot-spooler.conf",
        "usr/share/doc/iot-spooler/README.md",
        "usr/share/doc/iot-spooler/iot-spooler.toml",
    }

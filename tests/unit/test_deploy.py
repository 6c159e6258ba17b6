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
from unit.other_user import in_child

from iot.sftp.client.configured import ServerSettings
from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.kinds import SERVERS
from iot.spooler.config.load import PLAIN, BadConfiguration, load
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.config.retry import RetrySettings
from iot.spooler.config.settings import Settings
from iot.spooler.config.table import tables_within

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "iot-spooler.toml"
HOWTO = (DEPLOY / "HOWTO.md").read_text(encoding="utf-8")
SET_OR_SHOWN = re.compile(r"(?:# )?([a-z][a-z0-9_]*) = (.+)")
UNITS = ("iot-spooler.service", "iot-spooler@.service")
INNER = tables_within(OutboxSettings)
MODELS: dict[str, type[BaseModel]] = {
    "": Settings,
    **PLAIN,
    "server": ServerSettings,
    "outbox": OutboxSettings,
    **{f"outbox.{name}": model for name, model in INNER.items()},
    "inbox": InboxSettings,
}
ALTERNATIVES = {"batch_interval_s", "password", "prompt_file", "move_to"}
"""Keys that exclude another one, which is set in their place: batch_marker, password_file, and so on."""
TABLE = re.compile(r"(?:# )?\[+([a-z.]+)\]+")
"""One in a comment is an example of what few devices need."""


def blocks(text: str) -> dict[str, dict[str, str]]:
    """The keys of each block of the example with their values, those in comments included."""
    found: dict[str, dict[str, str]] = {"": {}}
    block = ""
    for line in text.splitlines():
        if table := TABLE.fullmatch(line):
            block = table[1]
            found[block] = {}
        elif match := SET_OR_SHOWN.fullmatch(line):
            found[block][match[1]] = match[2]
    return found


def uncommented(line: str, secrets: Path) -> str:
    if TABLE.fullmatch(line):
        return line.removeprefix("# ")
    match = SET_OR_SHOWN.fullmatch(line)
    if match is None or match[1] in ALTERNATIVES:
        return line
    return line.removeprefix("# ").replace("/etc/iot-spooler/", f"{secrets}/")


def expected() -> dict[str, set[str]]:
    server = set(ServerSettings.model_fields) - set(ServerSettings.NOT_FROM_FILE)
    return {
        "": set(Settings.model_fields) - {*SERVERS, "outbox", "inbox", *PLAIN},
        "server": server,
        "fallback": {"host", "user", "known_hosts"},
        **{name: set(model.model_fields) for name, model in PLAIN.items()},
        "outbox": set(OutboxSettings.model_fields) - set(INNER),
        **{f"outbox.{name}": set(model.model_fields) for name, model in INNER.items()},
        "inbox": set(InboxSettings.model_fields),
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
    (tmp_path / "ssh_config").write_text("User device\n")
    complete = tmp_path / "complete.toml"
    text = EXAMPLE.read_text().replace('after_upload = "delete"', 'after_upload = "forward"')  # it needs forward_to
    complete.write_text("\n".join(uncommented(line, tmp_path) for line in text.splitlines()))
    settings = load(complete, {})
    assert settings.server.model_fields_set == expected()["server"] - ALTERNATIVES
    assert settings.outbox[0].model_fields_set == expected()["outbox"] - ALTERNATIVES | set(INNER)
    for name in INNER:
        assert getattr(settings.outbox[0], name).model_fields_set == expected()[f"outbox.{name}"]
    assert settings.inbox[0].model_fields_set == expected()["inbox"] - ALTERNATIVES
    assert settings.retry == RetrySettings()
    assert settings.fallback is not None
    assert settings.fallback.model_fields_set == expected()["fallback"]


def test_example_tells_a_wrong_value_by_its_key(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(EXAMPLE.read_text().replace("# settle_s = 2.0", "settle_s = -1"))
    with pytest.raises(BadConfiguration, match="settle_s"):
        load(wrong, {})


POLICIES = [block for block in re.findall(r"^```toml\n(.*?)^```", HOWTO, re.MULTILINE | re.DOTALL) if "box" in block]


@pytest.mark.parametrize("block", POLICIES, ids=lambda block: block.partition("\n")[0])
def test_the_outboxes_and_inboxes_of_the_how_to_load(block: str, tmp_path: Path) -> None:
    outbox = "" if "[[outbox]]" in block else '[[outbox]]\npath = "/o"\ndestination = "/d"\n'
    config = tmp_path / "howto.toml"
    config.write_text(f'state_dir = "/s"\n{outbox}{block}\n[server]\nhost = "h"\n')
    assert load(config, {}).outbox


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


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_may_ask_who_writes_and_stays_closed_otherwise(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is missing: apt-get install systemd")
    text = (DEPLOY / unit).read_text()
    for line in ("AmbientCapabilities=CAP_LEASE", "CapabilityBoundingSet=CAP_LEASE", "NoNewPrivileges=yes"):
        assert line in text.splitlines()
    copy = tmp_path / unit.replace("@.", "@one.")
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    exposure = re.search(r"Overall exposure level.*: ([0-9.]+) ", done.stdout)
    if exposure is None:
        missing(f"systemd-analyze is too old to judge a file: {done.stderr}")
    assert float(exposure[1]) < 1.5


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_bounds_the_memory(unit: str) -> None:
    match = re.search(r"^MemoryMax=(\d+)M$", (DEPLOY / unit).read_text(), re.MULTILINE)
    assert match
    assert 2 * 71 < int(match[1]) <= 512


def test_producers_have_a_group_of_their_own_that_reads_nothing_of_the_configuration() -> None:
    users = (DEPLOY / "iot-spooler.sysusers").read_text()
    folders = {
        fields[1]: fields[2:5]
        for fields in map(str.split, (DEPLOY / "iot-spooler.tmpfiles").read_text().splitlines())
        if fields[:1] == ["d"]
    }
    assert re.search(r"^g iot-outbox ", users, re.MULTILINE)
    assert re.search(r"^m iot-spooler iot-outbox$", users, re.MULTILINE)
    assert folders["/var/spool/iot/outbox"] == ["2770", "iot-spooler", "iot-outbox"]
    for path, (mode, _, group) in folders.items():
        if path.startswith("/etc/"):
            assert group != "iot-outbox"
            assert mode.endswith("0")


@pytest.mark.needs("root")
def test_a_producer_can_drop_files_and_read_no_configuration(tmp_path: Path) -> None:
    """The real systemd-sysusers and systemd-tmpfiles below another root, then a process of the producers' group."""
    tools = [shutil.which(f"systemd-{name}") for name in ("sysusers", "tmpfiles")]
    if not all(tools):
        missing("systemd-sysusers and systemd-tmpfiles are missing: apt-get install systemd")
    (tmp_path / "etc").mkdir()
    shutil.copytree("/usr/lib/sysusers.d", tmp_path / "usr/lib/sysusers.d", dirs_exist_ok=True)
    for tool, name in zip(tools, ("sysusers", "tmpfiles"), strict=True):
        command = [str(tool), f"--root={tmp_path}", *(["--create"] if name == "tmpfiles" else [])]
        subprocess.run([*command, str(DEPLOY / f"iot-spooler.{name}")], check=True, timeout=60)
    groups = dict(line.split(":")[:3:2] for line in (tmp_path / "etc/group").read_text().splitlines())
    (tmp_path / "etc/iot-spooler/iot-spooler.toml").write_text("[server]")
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(above.stat().st_mode | 0o711)

    def produce() -> None:
        os.setgroups([int(groups["iot-outbox"])])
        os.setgid(65534)
        os.setuid(65534)
        os.close(os.open(tmp_path / "var/spool/iot/outbox/f", os.O_CREAT | os.O_WRONLY, 0o640))
        with pytest.raises(PermissionError):
            os.listdir(tmp_path / "etc/iot-spooler")
        with pytest.raises(PermissionError):
            os.open(tmp_path / "etc/iot-spooler/iot-spooler.toml", os.O_RDONLY)

    in_child(produce)
    status = os.stat(tmp_path / "var/spool/iot/outbox/f")
    assert (status.st_gid, status.st_mode & 0o777) == (int(groups["iot-outbox"]), 0o640)


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
        "usr/share/doc/iot-spooler/HOWTO.md",
        "usr/share/doc/iot-spooler/SETTINGS.md",
        "usr/share/doc/iot-spooler/ERRORS.md",
        "usr/share/doc/iot-spooler/iot-spooler.toml",
        "usr/local/share/man/man1/iot-sftp.1",
        "usr/share/bash-completion/completions/iot-sftp",
        "usr/local/share/zsh/site-functions/_iot-sftp",
        "usr/share/fish/vendor_completions.d/iot-sftp.fish",
        "usr/local/share/man/man1/iot-spooler.1",
        "usr/share/bash-completion/completions/iot-spooler",
        "usr/local/share/zsh/site-functions/_iot-spooler",
        "usr/share/fish/vendor_completions.d/iot-spooler.fish",
    }

"""`iot-spooler check`: what would keep the agent from its work is told before it starts, with its key and its file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ordinary_user import AGENT, open_folder
from servers.bad_input import Done, Site, clean_environment, mounted
from servers.openssh import OpenSSH

from iot.spooler.state.running import announced, find


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    site = Site(sshd, tmp_path / "device")
    site.state.mkdir()
    return site


def told(done: Done[str], key: str, reason: str) -> None:
    assert done.returncode == 78, done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith(key)]
    assert len(lines) == 1, done.stderr
    assert reason in lines[0]
    assert re.search(r"spooler\.toml:[0-9]+\)", lines[0])


def test_check_of_what_works_says_so(site: Site) -> None:
    done = site.spooler("check")
    assert done.returncode == 0, done.stderr
    assert site.drain().returncode == 0


def key_of(site: Site, *options: str) -> Path:
    key = site.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-f", str(key), *options], check=True)
    return key


def test_check_tries_the_credentials(site: Site) -> None:
    told(site.spooler("check", key_file=key_of(site, "-N", "secret")), "server.key_file", "give its key_passphrase")
    wrong = {"key_file": site.folder / "key", "key_passphrase": "hunter2"}
    done = site.spooler("check", **wrong)
    told(done, "server.key_file", "wrong key_passphrase")
    assert "hunter2" not in done.stderr
    (site.folder / "noise").write_text("no key")
    (site.folder / "noise").chmod(0o600)
    told(site.spooler("check", key_file=site.folder / "noise"), "server.key_file", "not a private key")
    told(site.spooler("check", key_file=site.folder / "missing"), "server.key_file", "No such file")
    nowhere = site.folder / "nowhere"
    told(site.spooler("check", prompt_command=[str(nowhere)]), "server.prompt_command", "not an executable program")
    told(site.spooler("check", prompt_file=nowhere), "server.prompt_file", "No such file")


@pytest.mark.needs("root")
def test_a_user_without_a_name_is_told_to_give_the_login_name(sshd: OpenSSH) -> None:
    """As in containers that run under a number."""
    with open_folder() as base:
        site = Site(sshd, base / "device")
        site.state.mkdir()
        os.chown(site.state, AGENT, AGENT)
        os.chown(site.box, AGENT, AGENT)
        site.login |= {"key_file": None, "known_hosts": None, "host_key": "SHA256:" + "A" * 43, "user": None}
        told(site.run(["env", "-u", "USER", "-u", "LOGNAME", *site.spooler_command("check")]), "server.user", "no name")


def test_check_warns_of_what_is_not_given_at_all(site: Site) -> None:
    """The service may get it as a systemd credential, which nobody else can see."""
    (site.folder / "empty").touch()
    (site.folder / "credentials-spooler").mkdir()
    (site.folder / "credentials-spooler" / "key").touch()
    done = site.spooler("check", key_file=None, password=None, known_hosts=site.folder / "empty")
    assert done.returncode == 0
    assert "warning: server: nothing to log in with" in done.stderr
    assert "warning: server: no host_key is set, and known_hosts has no line for" in done.stderr


def missing(path: Path) -> None:
    path.rmdir()


def a_file(path: Path) -> None:
    path.rmdir()
    path.touch()


def foreign_and_open_to_all(path: Path) -> None:
    path.chmod(0o777)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(missing, "is not there"), (a_file, "is not a folder")],
)
def test_check_looks_at_the_outbox(site: Site, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(site.box)
    told(site.spooler("check"), "outbox[0].path", reason)


@pytest.mark.parametrize(("spoil", "reason"), [(a_file, "Not a directory"), (foreign_and_open_to_all, "chmod o-w")])
@pytest.mark.parametrize("key", ["archive", "quarantine"])
def test_check_looks_at_archive_and_quarantine(
    site: Site, key: str, spoil: Callable[[Path], None], reason: str
) -> None:
    folder = site.folder / "other"
    folder.mkdir()
    spoil(folder)
    site.outbox |= {key: str(folder), "after_upload": "archive"}
    told(site.spooler("check"), f"outbox[0].{key}", reason)
    site.outbox[key] = str(folder / "in" / "it")
    told(site.spooler("check"), f"outbox[0].{key}", reason)


@pytest.mark.needs("root", "mounts")
def test_check_tells_a_read_only_disk(site: Site, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "tmpfs", "ro,mode=755") as disk:
        site.outbox |= {"path": str(disk), "quarantine": str(disk.parent / "q")}
        told(site.spooler("check"), "outbox[0].path", "read-only")
        site.outbox["after_upload"] = "keep"
        assert site.spooler("check").returncode == 0
        site.outbox |= {"path": str(site.box), "quarantine": str(disk / "q")}
        told(site.spooler("check"), "outbox[0].quarantine", "read-only")


@pytest.mark.needs("root")
def test_check_by_root_asks_as_the_user_of_the_agent(sshd: OpenSSH) -> None:
    with open_folder() as base:
        site = Site(sshd, base / "device")
        site.state.mkdir()
        os.chown(site.state, AGENT, AGENT)
        key = key_of(site, "-N", "")
        site.login |= {"key_file": str(key), "password": None, "known_hosts": None, "host_key": "SHA256:" + "A" * 43}
        told(site.spooler("check"), "outbox[0].path", f"user {AGENT} may not take files out of it")
        os.chown(site.box, AGENT, AGENT)
        told(site.spooler("check"), "server.key_file", "Permission denied")
        os.chown(key, AGENT, AGENT)
        (site.folder / "spooler.toml").chmod(0o600)
        done = site.spooler("check")
        assert done.returncode == 78
        assert f"spooler.toml: user {AGENT} cannot read it" in done.stderr
        os.chown(site.folder / "spooler.toml", AGENT, AGENT)
        done = site.spooler("check")
        assert done.returncode == 0, done.stderr


@pytest.mark.needs("root")
def test_check_warns_of_a_sticky_outbox_that_keeps_other_users_files(sshd: OpenSSH) -> None:
    with open_folder() as base:
        site = Site(sshd, base / "device")
        site.state.mkdir()
        os.chown(site.state, AGENT, AGENT)
        site.box.chmod(0o1777)
        site.login |= {"key_file": None, "known_hosts": None, "host_key": "SHA256:" + "A" * 43}
        (site.folder / "credentials-spooler").mkdir()
        (site.folder / "credentials-spooler" / "key").touch()
        done = site.spooler("check")
        assert done.returncode == 0, done.stderr
        assert "warning: outbox[0].path" in done.stderr
        assert "chmod -t" in done.stderr
        os.chown(site.box, AGENT, AGENT)
        assert "sticky" not in site.spooler("check").stderr


def test_what_the_environment_set_is_told_as_that(site: Site) -> None:
    command = ["env", f"IOT_SPOOLER_OUTBOX__0__PATH={site.folder}/elsewhere", *site.spooler_command("check")]
    done = site.run(command)
    assert done.returncode == 78
    assert "outbox[0].path" in done.stderr
    assert "(from environment variable IOT_SPOOLER_OUTBOX__0__PATH)" in done.stderr


UNIT = """
mount -t tmpfs none /run
mkdir -m 755 /run/iot-spooler-one
RUNTIME_DIRECTORY=/run/iot-spooler-one IOT_SPOOLER_STATE_DIR={state} {agent} run --config {config} 2>{log} &
agent=$!
trap 'kill -KILL $agent' EXIT
for _ in $(seq 600); do test -e /run/iot-spooler-one/status.json && break; sleep 0.1; done
{commands}
"""


@pytest.mark.needs("root", "mounts")
def test_status_retry_and_flush_find_the_state_directory_that_a_unit_has_set(site: Site, tmp_path: Path) -> None:
    """As iot-spooler@NAME does it, whose environment nobody sees."""
    state = tmp_path / "of-the-unit"
    state.mkdir()
    agent = " ".join(site.spooler_command()[:3])
    config = site.folder / "spooler.toml"
    commands = [
        f"{agent} status --json --config {config}",
        f"{agent} retry --config {config}",
        f"{agent} flush --config {config}",
        "kill -KILL $agent; wait $agent || true",
        f"{agent} status --config {config} || echo an error",
    ]
    script = UNIT.format(state=state, agent=agent, config=config, log=tmp_path / "log", commands="\n".join(commands))
    done = site.run(["unshare", "--mount", "--propagation", "private", "sh", "-ec", script])
    assert '"running": true' in done.stdout, done.stdout + done.stderr
    assert f"released 0 files from {state}/quarantine" in done.stdout
    assert re.search(r"agent +DEAD: process [0-9]+ has ended without a word; these figures are", done.stdout)
    assert "an error" in done.stdout
    assert "no agent is running" not in done.stderr


def test_the_note_of_where_the_files_are_goes_with_the_agent(site: Site, tmp_path: Path) -> None:
    config = site.folder / "spooler.toml"
    command = site.spooler_command("run", "--drain")
    environment = {**clean_environment(), "RUNTIME_DIRECTORY": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    assert site.run(command, environment).returncode == 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["status.json"]
    with announced(config, site.state, site.state / "status.json", environment):
        found = find(config, environment)
        assert found is not None
        assert (found.pid, found.state_dir) == (os.getpid(), str(site.state))
        assert find(site.folder / "other.toml", environment) is None
    assert find(config, environment) is None
    (tmp_path / "run" / "agent-0.json").write_text(json.dumps(found._asdict()))
    assert find(config, environment) is None  # nobody holds it


@pytest.mark.needs("root")
def test_a_note_of_another_user_leads_root_nowhere(tmp_path: Path) -> None:
    environment = {"RUNTIME_DIRECTORY": str(tmp_path)}
    config, state = tmp_path / "c.toml", tmp_path / "state"
    state.mkdir()
    with announced(config, state, state / "status.json", environment):
        (note,) = tmp_path.glob("agent-*.json")
        assert find(config, environment) is not None
        os.chown(note, AGENT, AGENT)
        assert find(config, environment) is None
        os.chown(state, AGENT, AGENT)
        assert find(config, environment) is not None


def test_status_says_how_old_its_figures_are(site: Site) -> None:
    site.put("file")
    assert site.drain().returncode == 0
    path = site.state / "status.json"
    days_s = 2 * 86400 + 3 * 3600 + 1800  # the command may take its time
    path.write_text(json.dumps({**json.loads(path.read_text()), "updated_at": time.time() - days_s}))
    assert "not running, ended 2 d 3 h ago; these are its last figures\n" in site.spooler("status").stdout

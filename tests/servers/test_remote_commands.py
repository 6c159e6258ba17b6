"""Remote commands on real servers: of a client with each kind of server, and of the agent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.base import Server
from servers.device import Device

from iot.sftp.client import Failure, TransferResult, UploadJob
from iot.transfer import RemoteCommand, RemoteCommands, Unsupported, Verb

NO_TOUCH = ("vsftpd",)


def command(verb: str, path: str, to: str = "", mode: int = 0) -> RemoteCommand:
    return RemoteCommand(Verb(verb), path, to, mode)


@pytest.fixture
def kind(request: pytest.FixtureRequest, any_remote: Server) -> str:
    return str(request.node.callspec.params["any_remote"])


@pytest.fixture
def place(any_remote: Server, request: pytest.FixtureRequest) -> str:
    return "commands-" + request.node.name.partition("[")[0]


def send(
    server: Server, tmp_path: Path, place: str, content: bytes, commands: RemoteCommands, name: str = "file"
) -> object:
    source = tmp_path / "source"
    source.write_bytes(content)
    with server.connect(tmp_path) as client:
        job = UploadJob(source, server.path(f"{place}/{name}"), commands=commands)
        (outcome,) = client.upload_many([job])
        return outcome


def test_files_are_renamed_deleted_and_put_into_new_folders(any_remote: Server, place: str, tmp_path: Path) -> None:
    base = any_remote.path(place)
    assert isinstance(send(any_remote, tmp_path, place, b"old", RemoteCommands(base=base)), TransferResult)
    commands = RemoteCommands(
        before=(command("mkdir", "done"), command("rename", "{path}", "{folder}/old/{name}"), command("delete", "no")),
        before_publish=(command("mkdir", "done"), command("rename", "old/file", "older")),
        after_success=(command("rename", "{path}", "done/{name}"), command("delete", "older")),
        base=base,
    )
    outcome = send(any_remote, tmp_path, place, b"new", commands)
    assert isinstance(outcome, TransferResult), outcome
    found = [name for name in any_remote.names() if name.startswith(f"{place}/")]
    assert found == [f"{place}/done/file"]
    assert any_remote.content(f"{place}/done/file") == b"new"


def test_modes_and_flags_are_set_where_the_server_can(
    any_remote: Server, kind: str, place: str, tmp_path: Path
) -> None:
    base = any_remote.path(place)
    for chosen in (command("touch", "READY"), command("chmod", "{path}", mode=0o640)):
        commands = RemoteCommands(after_success=(chosen,), base=base)
        outcome = send(any_remote, tmp_path, place, b"new", commands, chosen.verb.value)
        assert isinstance(outcome, TransferResult), outcome  # a failing one is only logged
    strict = RemoteCommands(before=(command("touch", "SET"),), base=base)
    outcome = send(any_remote, tmp_path, place, b"x", strict, "strict")
    if kind in NO_TOUCH:
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, Unsupported)
        assert "remote command touch" in str(outcome.error)
        return
    assert isinstance(outcome, TransferResult), outcome
    assert isinstance(send(any_remote, tmp_path, place, b"y", strict, "again"), TransferResult)
    assert any_remote.content(f"{place}/SET") == b""


def test_one_that_fails_keeps_the_file_from_being_published(any_remote: Server, place: str, tmp_path: Path) -> None:
    base = any_remote.path(place)
    assert isinstance(send(any_remote, tmp_path, place, b"old", RemoteCommands(base=base)), TransferResult)
    missing = RemoteCommands(before_publish=(command("rename", "nothing", "something"),), base=base)
    outcome = send(any_remote, tmp_path, place, b"new", missing)
    assert isinstance(outcome, Failure)
    assert "remote command rename" in str(outcome.error)
    assert any_remote.content(f"{place}/file") == b"old"


def one_destination(base: str, folder: Path) -> list[UploadJob]:
    jobs = []
    for number in range(12):
        source = folder / f"source-{number}"
        source.write_bytes(b"%02d" % number)
        commands = RemoteCommands(after_success=(command("rename", "{path}", f"done/{number}"),), base=base)
        jobs.append(UploadJob(source, f"{base}/file", commands=commands))
    return jobs


def test_files_for_one_destination_wait_for_the_commands_that_follow_each(sshd, tmp_path: Path) -> None:
    """Else one would get the name before the other has been moved out of its way, which would then be lost."""
    jobs = one_destination(sshd.path("up"), tmp_path)
    with sshd.connect(tmp_path) as client:
        assert all(isinstance(outcome, TransferResult) for outcome in client.upload_many(jobs))
    found = {name: sshd.content(name) for name in sshd.names() if name.startswith("up/")}
    assert found == {f"up/done/{number}": b"%02d" % number for number in range(12)}


# -- the agent


OUTBOX = """\
batch_marker = "*.done"
batch_grace_s = 0
[outbox.commands]
before = [["mkdir", "done/{date}"]]
before_publish = [["touch", "incoming-{name}"]]
after_success = [["chmod", "640", "{path}"], ["rename", "{path}", "done/{date}/{name}"], ["delete", "incoming-{name}"]]
[outbox.hooks]
"""


def hooks(folder: Path) -> str:
    words = {name: f'["sh", "-c", "echo {name} $IOT_FILES $IOT_BYTES >> {folder}/notes"]' for name in NAMES}
    return "".join(f"{name} = {each}\n" for name, each in words.items())


NAMES = ("before_batch", "after_batch")


def test_an_agent_carries_out_commands_and_hooks_of_a_batch_on_openssh(sshd, tmp_path: Path) -> None:
    with Device(tmp_path / "device", sshd, outbox=OUTBOX + hooks(tmp_path)) as device:
        for name, content in (("a", b"12345"), ("b", b"123"), ("all.done", b"x")):
            device.put(name, content)
        day = time.strftime("%Y-%m-%d", time.gmtime((device.box / "a").stat().st_mtime))
        device.drain()
        done = [f"up/done/{day}/{name}" for name in ("a", "all.done", "b")]
        assert sorted(name for name in sshd.names() if name.startswith("up/")) == done
        assert sshd.content(done[0]) == b"12345"
        assert (tmp_path / "notes").read_text().splitlines() == ["before_batch 2 8", "after_batch 2 8"]


def test_an_agent_killed_at_any_moment_sends_nothing_twice_though_commands_move_what_it_sent(sshd, tmp_path) -> None:
    """Where after_success takes a file away from its name, only the journal knows that it was delivered."""
    with Device(tmp_path / "device", sshd, outbox=OUTBOX + hooks(tmp_path)) as device:
        for number in range(20):
            device.put(f"f{number:02}", b"%d" % number)
        device.put("all.done", b"")
        for _ in range(2):
            agent = device.start("--drain")
            arrived = len(sshd.names())
            end = time.monotonic() + 30
            while len(sshd.names()) < arrived + 6 and agent.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            agent.kill()
            agent.wait()
        told = device.drain()
        names = [name.rpartition("/")[2] for name in sshd.names() if name.startswith("up/")]
        assert sorted(names) == ["all.done", *(f"f{number:02}" for number in range(20))]
        sent = [line.partition("path=")[2].split()[0] for line in told.splitlines() if "delivered path=" in line]
        assert "repeat=True" not in told
        assert set(sent) == set(names)


def test_an_agent_carries_out_commands_on_a_folder(tmp_path: Path) -> None:
    for name in ("box", "remote"):
        (tmp_path / name).mkdir()
    (tmp_path / "box/a").write_bytes(b"x")
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nkind = "folder"\npath = "{tmp_path}/remote"\npublish_grace_s = 0\n'
        f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "up/{{outbox}}"\nsettle_s = 0\n[outbox.commands]\n'
        'after_success = [["touch", "{path}.ok"], ["rename", "{path}", "done/{name}"]]\n'
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "iot.spooler", "run", "--drain", "--config", str(config)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    found = [str(path.relative_to(tmp_path / "remote")) for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert sorted(found) == ["up/box/a.ok", "up/box/done/a"]

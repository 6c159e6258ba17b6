"""A connection that stands: what it takes of the server's limits, and what it makes durable."""

from __future__ import annotations

import os
import resource
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.scripted import Files, drive

from iot.sftp.client import session as module
from iot.sftp.client.protocol.packets import Code, Extended, Reply, Status
from iot.sftp.client.protocol.server import SAFE_DATA_BYTES, SAFE_SLOTS, Server
from iot.sftp.client.session import (
    MAX_BLOCK,
    SPARE_HANDLES,
    Session,
    ask_limits,
    commit,
    known_hosts_of,
    login_problems,
    target_from,
)
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.ssh.hostkeys import Pinned
from iot.sftp.client.ssh.openssh_config import Way
from iot.sftp.client.ssh.transport import Target
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Token

LIMITS = b"limits@openssh.com"


def limits(packet: int, read: int, write: int, handles: int) -> Extended:
    return Extended(struct.pack(">4Q", packet, read, write, handles))


def asked(server: Server, reply: Reply) -> Files:
    files = Files(refuse=lambda event: reply if event.what == LIMITS.decode() else None)
    drive(ask_limits(server), files)
    return files


@pytest.mark.parametrize(
    ("reply", "read", "write", "handles"),
    [
        (limits(0, 100_000, 200_000, 500), 100_000, 200_000, 500),
        (limits(0, 1024, 1024, 1), 1024, 1024, 1),
        (limits(0, 1023, 0, 0), SAFE_DATA_BYTES, SAFE_DATA_BYTES, SAFE_SLOTS),  # 0: not said; 1023: hardly meant
        (Status(Code.OP_UNSUPPORTED, ""), SAFE_DATA_BYTES, SAFE_DATA_BYTES, SAFE_SLOTS),
        (Extended(b"short"), SAFE_DATA_BYTES, SAFE_DATA_BYTES, SAFE_SLOTS),
    ],
)
def test_limits_that_make_sense_are_kept_and_others_leave_the_safe_ones(
    reply: Reply, read: int, write: int, handles: int
) -> None:
    server = Server("SSH-2.0-other", "key", {LIMITS: b"1"})
    asked(server, reply)
    assert (server.max_read, server.max_write, server.max_handles) == (read, write, handles)


@pytest.mark.parametrize(
    ("banner", "extensions", "is_asked"),
    [("SSH-2.0-other", {}, False), ("SSH-2.0-other", {LIMITS: b"1"}, True), ("SSH-2.0-OpenSSH_9.2", {}, True)],
)
def test_only_a_server_that_may_know_its_limits_is_asked(
    banner: str, extensions: dict[bytes, bytes], is_asked: bool
) -> None:
    files = asked(Server(banner, "key", extensions), limits(0, 100_000, 100_000, 9))
    assert bool(files.events) is is_asked


@pytest.mark.parametrize(
    ("handles", "files_allowed", "slots"),
    [(1000, 2**20, 100), (SPARE_HANDLES + 20, 2**20, 20), (1, 2**20, 1), (1000, 60, 30), (1000, 1, 1)],
)
def test_so_many_files_at_once_as_all_sides_allow_and_always_one(
    monkeypatch: pytest.MonkeyPatch, handles: int, files_allowed: int, slots: int
) -> None:
    monkeypatch.setattr(module, "_open_files_allowed", lambda: files_allowed)
    session: Any = object.__new__(Session)
    session.server = Server("SSH-2.0-other", "key", {LIMITS: b"1"})
    blocks: list[int] = []
    session.pace, session._options = SimpleNamespace(allow_blocks=blocks.append), SimpleNamespace(slots=100)
    files = Files(refuse=lambda event: limits(0, 10**6, 10**6, handles))
    drive(session._learn_limits(), files)
    assert session.slots == slots
    assert blocks == [MAX_BLOCK]


def test_what_a_job_waits_for_is_in_the_journal_after_the_commit(tmp_path: Path) -> None:
    ledger = Checkpoints(Journal(None, CHECKPOINTS), "s", every_bytes=1, every_s=1, clock=time.monotonic)
    local = os.fsencode(tmp_path / "f")
    record = Checkpoint(Direction.UPLOAD, b"/up/f", local, Token(b"/up/f.part"), Fingerprint(9, 5), 3, 3)
    commit(ledger, [record])
    found = ledger.load(Direction.UPLOAD, b"/up/f", local)
    assert found is not None
    assert (found.acked_bytes, found.token) == (3, b"/up/f.part")


# -- where to, as whom, and with what


def target(way: dict[str, Any] | None = None, password: str | None = None, **options: Any) -> Target:
    place = {"host": "h", "port": 2222, "user": "u", **(way or {})}
    return target_from(Way(**place), password, ClientOptions(**options))


@pytest.mark.parametrize(
    ("way", "password", "options", "agent", "identities"),
    [
        ({}, None, {}, False, 0),
        ({}, None, {"agent": True}, True, 0),
        ({"uses_agent": True}, None, {}, True, 2),
        ({"uses_agent": True}, "secret", {}, False, 0),
        ({"uses_agent": True}, None, {"key_file": "/key"}, False, 0),
        ({"uses_agent": True}, "secret", {"agent": True}, True, 0),
    ],
)
def test_keys_of_the_configuration_and_the_agent_count_where_nothing_else_is_given(
    way: dict[str, Any], password: str | None, options: dict[str, Any], agent: bool, identities: int
) -> None:
    found = target({**way, "identities": (Path("/a"), Path("/b")) if way else ()}, password, **options).credentials
    assert (found.user, found.password, found.agent, len(found.identities)) == ("u", password, agent, identities)


def test_what_an_option_says_wins_over_the_configuration() -> None:
    way = {"bind_address": "192.0.2.1", "bind_interface": "eth0", "proxy_command": "nc %h %p"}
    found = target(way)
    assert (found.bind_address, found.bind_interface, found.proxy_command) == ("192.0.2.1", "eth0", "nc %h %p")
    assert found.proxy is None
    found = target(way, bind_address="192.0.2.9", bind_interface="eth1", proxy="socks5://proxy:1080")
    assert (found.bind_address, found.bind_interface, found.proxy_command) == ("192.0.2.9", "eth1", None)
    assert found.proxy is not None


def test_what_is_secret_or_pinned_is_of_the_last_server_and_none_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("")
    hop = Way("hop", 22, "w")
    found = target(
        {"via": hop, "known_hosts": (tmp_path / "known",)},
        "secret",
        host_key="SHA256:" + "A" * 43,
        key_file="/key",
        key_passphrase="open",
        prompt_command=("otp",),
        compression=True,
        connect_timeout_s=7,
        link_deadline_s=70,
    )
    assert isinstance(found.host_keys, Pinned)
    assert (found.credentials.password, found.credentials.key_file) == ("secret", Path("/key"))
    assert found.credentials.key_passphrase == "open"
    assert found.credentials.answers is not None
    assert (found.compression, found.connect_timeout_s) == (True, 7)
    assert (found.login_deadline_s, found.link_deadline_s) == (70, 70)
    via = found.via
    assert via is not None
    assert (via.host, via.port, via.credentials.user) == ("hop", 22, "w")
    assert not isinstance(via.host_keys, Pinned)
    secrets = via.credentials
    assert (secrets.password, secrets.key_file, secrets.key_passphrase, secrets.answers) == (None,) * 4
    assert (via.compression, via.connect_timeout_s, via.link_deadline_s) == (False, 7, 70)


@pytest.mark.parametrize("source", ["callback", "command", "file"])
def test_prompts_are_answered_from_where_the_settings_say(tmp_path: Path, source: str) -> None:
    (tmp_path / "answers").write_text("file\n")
    options: dict[str, dict[str, Any]] = {
        "file": {"prompt_file": tmp_path / "answers"},
        "command": {"prompt_command": ("echo", "command")},
        "callback": {"prompts": lambda text, echo: "callback"},
    }
    answers = target(**options[source]).credentials.answers
    assert answers is not None
    assert answers()("Code: ", False) == source
    assert target().credentials.answers is None


@pytest.mark.parametrize(
    ("password", "options", "lines", "problems"),
    [
        ("secret", {}, True, []),
        ("secret", {"host_key": "SHA256:" + "A" * 43}, False, []),
        ("secret", {}, False, [("", "no host_key is set, and known_hosts has no line for h port 2222")]),
        (None, {}, True, [("", "nothing to log in with")]),
        (None, {"key_file": "/missing"}, True, [("key_file", "key_file /missing does not exist")]),
        (None, {"prompt_file": "/missing"}, True, [("prompt_file", "prompt_file /missing")]),
        ("secret", {"prompt_command": ("sh",)}, True, []),
        ("secret", {"prompt_command": ("no such program",)}, True, [("prompt_command", "'no such program' is not")]),
    ],
)
def test_what_makes_every_login_fail_is_seen_without_a_connection(
    tmp_path: Path,
    password: str | None,
    options: dict[str, Any],
    lines: bool,
    problems: list[tuple[str, str]],
) -> None:
    known = tmp_path / "known"
    known.write_text("[h]:2222 ssh-ed25519 AAAA\n" if lines else "")
    found = login_problems(Way("h", 2222, "u"), password, ClientOptions(known_hosts=known, **options))
    assert [key for key, _ in found] == [key for key, _ in problems]
    assert all(text.startswith(words) for (_, text), (_, words) in zip(found, problems, strict=True))


def test_the_users_own_known_hosts_count_where_nothing_else_is_said(tmp_path: Path) -> None:
    usual, configured, given = Path("~/.ssh/known_hosts").expanduser(), tmp_path / "configured", tmp_path / "given"
    assert known_hosts_of(ClientOptions()) == [usual]
    assert known_hosts_of(ClientOptions(), (configured,)) == [configured]
    assert known_hosts_of(ClientOptions(known_hosts=given), (configured,)) == [given]


@pytest.mark.parametrize(("soft", "allowed"), [(100, 100), (resource.RLIM_INFINITY, 2**31)])
def test_without_a_limit_of_open_files_there_are_as_many_as_are_wanted(
    monkeypatch: pytest.MonkeyPatch, soft: int, allowed: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert module._open_files_allowed() == allowed

"""Wrong server, wrong login, wrong host key: told clearly on all three ways in, no secret shown, no file lost."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from servers.bad_input import Site
from servers.base import client_key, fingerprint, free_port, host_keys
from servers.openssh import OpenSSH

from iot.sftp.client import (
    CredentialsInvalid,
    HostKeyMismatch,
    HostKeyUnknown,
    LinkLost,
    LoginRefused,
    SFTPError,
    Timeout,
    TransientError,
)
from iot.sftp.client.cli.wording import in_words

WRONG_PASSWORD = "wr0ng-s3cret"
PASSPHRASE = "l0cked-s3cret"
UNUSED_KEY = "unknown-to-the-server"


@dataclass(frozen=True)
class Case:
    """changes: settings of the server; a function of the site and a folder. words: what every message must say."""

    changes: Callable[[Site, Path], dict[str, Any]]
    error: type[SFTPError]
    exit_code: int
    words: Callable[[Site], list[str]] = field(default=lambda site: [])


def empty_file(site: Site, folder: Path) -> dict[str, Any]:
    (folder / "known_none").write_text("")
    return {"known_hosts": folder / "known_none"}


def other_key_known(site: Site, folder: Path) -> dict[str, Any]:
    """The known_hosts file lists this server with the keys of another one, as after a man in the middle."""
    lines = (" ".join(Path(f"{key}.pub").read_text().split()[:2]) for key in host_keys("another"))
    path = folder / "known_other"
    path.write_text("".join(f"[{site.server.host}]:{site.server.port} {line}\n" for line in lines))
    return {"known_hosts": path}


def shown_key(site: Site) -> str:
    return fingerprint(host_keys()[0])


def only_key(path: Path, **more: Any) -> dict[str, Any]:
    return {"password": None, "key_file": path, **more}


CASES = {
    "wrong host": Case(
        lambda site, folder: {"host": "no-such-host.invalid"}, TransientError, 69, lambda site: ["no-such-host.invalid"]
    ),
    "refused port": Case(lambda site, folder: {"port": free_port()}, LinkLost, 69, lambda site: ["refused"]),
    "wrong password": Case(
        lambda site, folder: {"password": WRONG_PASSWORD}, LoginRefused, 77, lambda site: [site.server.user, "password"]
    ),
    "wrong user": Case(lambda site, folder: {"user": "nobody-here"}, LoginRefused, 77, lambda site: ["nobody-here"]),
    "wrong key": Case(
        lambda site, folder: only_key(host_keys(UNUSED_KEY)[0]), LoginRefused, 77, lambda site: [UNUSED_KEY]
    ),
    "encrypted key without passphrase": Case(
        lambda site, folder: only_key(client_key(passphrase=PASSPHRASE)),
        CredentialsInvalid,
        78,
        lambda site: ["encrypted", "key_passphrase"],
    ),
    "encrypted key with a wrong passphrase": Case(
        lambda site, folder: only_key(client_key(passphrase=PASSPHRASE), key_passphrase=WRONG_PASSWORD),
        CredentialsInvalid,
        78,
        lambda site: ["wrong key_passphrase"],
    ),
    "a key file that is none": Case(
        lambda site, folder: only_key(site.server.known_hosts), CredentialsInvalid, 78, lambda site: ["key_file"]
    ),
    "unknown host key": Case(
        empty_file,
        HostKeyUnknown,
        77,
        lambda site: [
            f"ssh-keyscan -p {site.server.port} {site.server.host} >> ",
            f"host_key='{shown_key(site)}'",
            f"presented ssh-ed25519 {shown_key(site)}",
        ],
    ),
    "changed host key": Case(
        other_key_known, HostKeyMismatch, 77, lambda site: ["not the key that", shown_key(site), "ssh-keygen -f", "-R"]
    ),
    "pin of another key": Case(
        lambda site, folder: {"host_key": fingerprint(host_keys("another")[0]), "known_hosts": None},
        HostKeyMismatch,
        77,
        lambda site: ["host_key pins", shown_key(site)],
    ),
}


@pytest.fixture
def site(sshd_with_password: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd_with_password, tmp_path / "device")


@pytest.mark.parametrize("said", CASES)
def test_it_is_told_on_all_three_ways_and_nothing_is_lost(said: str, site: Site, tmp_path: Path) -> None:
    case = CASES[said]
    changes, source = case.changes(site, tmp_path), site.put("file")
    with site.client(**changes) as client, pytest.raises(case.error) as caught:
        client.upload(source, site.server.path("up/file"))
    typed = site.iot_sftp("put", str(source), site.server.path("up/file"), **changes)
    assert typed.returncode == case.exit_code, typed.stderr
    drained = site.drain(**changes)
    assert drained.returncode == 75, drained.stderr
    assert case.error is TransientError or case.error.__name__ in drained.stderr
    for told in (str(caught.value), typed.stderr, drained.stderr, str(site.status()["last_error"])):
        for words in case.words(site):
            assert (in_words(words) if told is typed.stderr else words) in told
        assert WRONG_PASSWORD not in told
        assert PASSPHRASE not in told
    assert site.left() == ["file"]
    assert site.arrived() == []


@contextlib.contextmanager
def silent_host(backlog: int = 8) -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener.getsockname()[1]


def test_silent_host_is_given_up_at_the_deadline(site: Site) -> None:
    source = site.put("file")
    with silent_host() as port:
        began = time.monotonic()
        with site.client(port=port, link_deadline_s=1) as client, pytest.raises((LinkLost, Timeout)):
            client.upload(source, "/x")
        assert time.monotonic() - began < 1 + 9
        assert site.iot_sftp("put", str(source), "/x", port=port, link_deadline_s=1).returncode in (69, 75)
        drained = site.drain(port=port, link_deadline_s=1)
    assert drained.returncode == 75
    assert site.left() == ["file"]


def test_a_refused_login_is_tried_once_and_then_held(site: Site) -> None:
    """Penalty lists count bad logins: one try for many files, and the status says what is the matter."""
    for number in range(20):
        site.put(f"file{number}")
    assert site.drain(password=WRONG_PASSWORD).returncode == 75
    log = site.server.log.read_text(errors="replace")  # type: ignore[attr-defined]
    assert log.count("Failed password for") == 1
    assert site.status()["connection"]["state"] == "held"
    assert site.drain().returncode == 0  # once it is right, the files go
    assert len(site.arrived()) == 20


def test_the_client_alone_never_tries_a_refused_login_again(site: Site) -> None:
    with site.client(password=WRONG_PASSWORD, attempts=5) as client:
        assert client.upload_file(site.put("file"), site.server.path("up/file")) is False
        assert isinstance(client.last_error, LoginRefused)
    log = site.server.log.read_text(errors="replace")  # type: ignore[attr-defined]
    assert log.count("Failed password for") == 1


def test_a_host_key_that_changes_between_two_connections_gets_no_password(site: Site) -> None:
    server = site.server
    assert isinstance(server, OpenSSH)
    known = site.folder / "known_before"
    known.write_text(server.known_hosts.read_text())
    with site.client(known_hosts=known, attempts=2) as client:
        client.connect()
        server.keys_name = "another"
        server.restart()
        with pytest.raises(HostKeyMismatch):
            client.upload(site.put("file"), server.path("up/file"))
    log = server.log.read_text(errors="replace")
    assert log.count("Accepted password") == 1
    assert "Failed password" not in log


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("passphrase", ["", "right passphrase ü"])
def test_a_key_of_any_type_logs_in_with_its_passphrase_and_one_too_many_does_no_harm(
    kind: str, passphrase: str, site: Site, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(client_key(kind).read_bytes())
    key.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(key)]
    subprocess.run(change, check=True, stdin=subprocess.DEVNULL, timeout=30)
    with site.client(**only_key(key, key_passphrase=passphrase or "not needed")) as client:
        assert client.exists(site.server.path())

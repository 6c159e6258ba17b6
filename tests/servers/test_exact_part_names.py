"""`<dest><suffix>` as the name of a part: whose it is only the journal knows, so what is not ours is left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink, Fault
from servers.bad_input import Site
from servers.base import Server
from servers.openssh import OpenSSH
from servers.quirks import Misbehaving, Quirk
from servers.zoo import start

from iot.sftp.client import Failure, IoTSFTPClient, NameRefused, TransferResult, UploadJob
from iot.transfer.client import Client

KINDS = ["openssh", "proftpd", "ssh2", "folder", "vsftpd", "pure-ftpd"]
MIB = 1024 * 1024


class Watching(Quirk):
    """Notes what is there whenever a file is written to."""

    def on_write(self, message: Any) -> Any:
        self.server.seen.update(map(os.fsdecode, os.listdir(self.root)))  # type: ignore[attr-defined]
        return super().on_write(message)


def sent(client: Client, source: Path, dest: str, **more: Any) -> Any:
    (outcome,) = client.upload_many([UploadJob(source, dest, **more)])
    return outcome


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with start(request.param, tmp_path / "root") as server:
        yield server


@pytest.mark.parametrize("size", [0, 10, 3 * MIB])
def test_a_part_that_is_not_ours_is_left_alone_and_the_file_arrives(server: Server, tmp_path: Path, size: int) -> None:
    (server.root / "file.tmp").write_bytes(b"theirs")
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "other").write_bytes(content)
    with server.connect(tmp_path) as client:
        for source, dest in (("source", "file"), ("other", "free")):
            outcome = sent(client, tmp_path / source, server.path(dest), part_suffix=".tmp")
            assert isinstance(outcome, TransferResult), outcome
    assert {name: server.content(name) for name in server.names()} == {
        "file.tmp": b"theirs",
        "file": content,
        "free": content,
    }


@pytest.mark.parametrize("name", ["a.csv.part", "b.PART"])
def test_a_name_that_parts_have_is_refused_and_no_file_is_mixed_up(server: Server, tmp_path: Path, name: str) -> None:
    large = os.urandom(8 * MIB)
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "small").write_bytes(b"another")
    jobs = [UploadJob(tmp_path / "large", server.path("a.csv")), UploadJob(tmp_path / "small", server.path(name))]
    with server.connect(tmp_path, part_name="exact") as client:
        sent, refused = sorted(client.upload_many(jobs), key=lambda outcome: isinstance(outcome, Failure))
    assert isinstance(sent, TransferResult)
    assert isinstance(refused, Failure)
    assert isinstance(refused.error, NameRefused)
    assert "another ending" in str(refused.error)
    assert {each: server.content(each) for each in server.names()} == {"a.csv": large}


def test_the_part_has_exactly_that_name(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(MIB))
    with Misbehaving(tmp_path / "root", Watching) as server:
        server.seen = set()  # type: ignore[attr-defined]
        options = {**server.login(), "state_dir": tmp_path / "state", "part_name": "exact", "part_suffix": ".filepart"}
        with IoTSFTPClient(**options) as client:
            client.upload(tmp_path / "source", server.path("file"))
        assert server.seen == {"file.filepart"}  # type: ignore[attr-defined]
        assert server.names() == ["file"]


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_upload_goes_on_with_its_part_and_what_others_made_of_that_is_mended(
    sshd: OpenSSH, tmp_path: Path, changed: bool
) -> None:
    content = os.urandom(8 * MIB)
    (tmp_path / "source").write_bytes(content)
    with BadLink(sshd.host, sshd.port, script=[Fault("cut", up_bytes=5 * MIB, lasts_s=0.1)]) as link:
        login = {**sshd.login(), "sftp_port": link.port, "known_hosts": None, "host_key": sshd.host_key}
        options: dict[str, Any] = {**login, "state_dir": tmp_path / "state", "part_name": "exact", "attempts": 1}
        with IoTSFTPClient(**options) as client:
            outcome = sent(client, tmp_path / "source", sshd.path("file"))
        assert isinstance(outcome, Failure)
        assert sshd.names() == ["file.part"]
        part = sshd.root / "file.part"
        if changed:
            part.write_bytes(os.urandom(part.stat().st_size))
        with IoTSFTPClient(**{**options, "attempts": 9, "backoff_s": 0.1}) as client:
            result = client.upload(tmp_path / "source", sshd.path("file"))
    assert result.resumed_at > MIB
    assert sshd.names() == ["file"]
    assert sshd.content("file") == content


def test_a_rule_gives_the_temporary_suffix_of_some_files(sshd: OpenSSH, tmp_path: Path) -> None:
    site = Site(sshd, tmp_path / "device")
    site.outbox["rules"] = [{"action": "temporary-suffix", "value": ".tmp", "match": "*.csv"}, {"action": "no-action"}]
    site.outbox["percent_encode"] = ":"
    (sshd.root / "up").mkdir()
    (sshd.root / "up/held%3A.csv.tmp").write_bytes(b"theirs")
    for name in ("held:.csv", "b.csv", "c.txt"):
        site.put(name, name.encode())
    done = site.drain()
    assert done.returncode == 0, done.stderr
    assert {name: site.content(name) for name in site.arrived()} == {
        "held%3A.csv.tmp": b"theirs",
        "held%3A.csv": b"held:.csv",
        "b.csv": b"b.csv",
        "c.txt": b"c.txt",
    }

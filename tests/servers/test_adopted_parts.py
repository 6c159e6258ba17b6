"""What another program has left of a file is gone on from if it is a beginning of it, and left alone otherwise."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers.base import Server
from servers.device import Device
from servers.openssh import OpenSSH
from servers.zoo import start

from iot.sftp.client import AlreadyExists, ConfigurationError, Failure, TransferResult, UploadJob
from iot.transfer import IfExists
from iot.transfer.client import Client

KINDS = ["openssh", "proftpd", "embedded", "folder", "vsftpd"]
MIB = 1 << 20
CONTENT = random.Random(5).randbytes(3 * MIB)
NAMES = [("{name}.filepart", "file.filepart"), ("{name}", "file"), (".{name}.tmp", ".file.tmp")]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with start(request.param, tmp_path / "root") as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def left(server: Server, name: str, content: bytes) -> None:
    """As another program would that logs in as the same user."""
    (server.root / name).write_bytes(content)
    (server.root / name).chmod(0o666)


def sent(client: Client, source: Path, dest: str, **more: Any) -> Any:
    (outcome,) = client.upload_many([UploadJob(source, dest, **more)])
    return outcome


def names(server: Server) -> list[str]:
    return sorted(path.name for path in server.root.iterdir() if path.is_file())


@pytest.mark.parametrize(("pattern", "name"), NAMES)
def test_a_beginning_of_the_file_is_gone_on_from(
    server: Server, tmp_path: Path, source: Path, pattern: str, name: str
) -> None:
    left(server, name, CONTENT[: 2 * MIB])
    with server.connect(tmp_path) as client:
        result = client.upload(source, server.path("file"), adopt_partial=pattern)
    assert result.resumed_at == 2 * MIB
    assert result.sent_bytes == MIB
    assert server.content("file") == CONTENT
    assert names(server) == ["file"]


@pytest.mark.parametrize(("pattern", "name"), NAMES)
@pytest.mark.parametrize("other", ["first byte", "last byte", "longer", "empty"])
def test_any_other_content_is_left_alone_and_the_file_arrives(
    server: Server, tmp_path: Path, source: Path, pattern: str, name: str, other: str
) -> None:
    content = {
        "first byte": b"?" + CONTENT[1 : 2 * MIB],
        "last byte": CONTENT[: 2 * MIB - 1] + bytes([CONTENT[2 * MIB - 1] ^ 1]),
        "longer": CONTENT + b"x",
        "empty": b"",
    }[other]
    left(server, name, content)
    with server.connect(tmp_path) as client:
        result = client.upload(source, server.path("file"), adopt_partial=pattern)
    assert (result.resumed_at, result.sent_bytes) == (0, len(CONTENT))
    assert server.content("file") == CONTENT
    if name != "file":
        assert server.content(name) == content


def test_a_complete_file_is_published_without_sending_a_byte(server: Server, tmp_path: Path, source: Path) -> None:
    left(server, "file.filepart", CONTENT)
    with server.connect(tmp_path) as client:
        result = client.upload(source, server.path("file"), adopt_partial="{name}.filepart")
        assert result.sent_bytes == 0
        again = client.upload(source, server.path("file"), adopt_partial="{name}")
    assert again.already_done
    assert server.content("file") == CONTENT
    assert names(server) == ["file"]


def test_without_the_option_nothing_is_taken_over(server: Server, tmp_path: Path, source: Path) -> None:
    left(server, "file.filepart", CONTENT[:MIB])
    with server.connect(tmp_path) as client:
        assert client.upload(source, server.path("file")).sent_bytes == len(CONTENT)
        assert client.upload(source, server.path("two"), adopt_partial="{name}.filepart", resume=False).resumed_at == 0
    assert server.content("file.filepart") == CONTENT[:MIB]


def test_a_folder_of_that_name_is_no_part(server: Server, tmp_path: Path, source: Path) -> None:
    (server.root / "file.filepart").mkdir()
    with server.connect(tmp_path) as client:
        assert client.upload(source, server.path("file"), adopt_partial="{name}.filepart").resumed_at == 0
    assert (server.root / "file.filepart").is_dir()


def test_our_own_part_comes_first(server: Server, tmp_path: Path, source: Path) -> None:
    """An earlier attempt has been interrupted: it is resumed, and the other program's file stays."""
    with server.connect(tmp_path, checkpoint_bytes=65536) as client:
        stop = iter([False] * 3)
        failure = sent(client, source, server.path("file"), suspended=lambda: next(stop, None) is None)
        assert isinstance(failure, Failure)
        left(server, "file.filepart", CONTENT[:-1])
        result = sent(client, source, server.path("file"), adopt_partial="{name}.filepart")
    assert isinstance(result, TransferResult)
    assert server.content("file") == CONTENT
    if result.resumed_at:
        assert result.resumed_at < len(CONTENT) - 1
        assert server.content("file.filepart") == CONTENT[:-1]


def test_where_another_file_may_not_be_replaced_a_beginning_of_ours_is_still_taken_over(
    server: Server, tmp_path: Path, source: Path
) -> None:
    left(server, "file", CONTENT[:MIB])
    with server.connect(tmp_path) as client:
        result = sent(client, source, server.path("file"), adopt_partial="{name}", if_exists=IfExists.FAIL)
        assert isinstance(result, TransferResult), result
        assert result.resumed_at == MIB
        left(server, "other", b"?" * MIB)
        failure = sent(client, source, server.path("other"), adopt_partial="{name}", if_exists=IfExists.FAIL)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, AlreadyExists)
    assert server.content("file") == CONTENT
    assert server.content("other") == b"?" * MIB


@pytest.mark.parametrize("pattern", ["", "file.filepart", "x/{name}", "{name}{name}", "{name}\0"])
def test_a_name_that_does_not_follow_that_of_the_file_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="adopt_partial"):
        UploadJob("a", "b", adopt_partial=pattern)


def test_on_the_command_line(sshd: OpenSSH, tmp_path: Path, source: Path) -> None:
    left(sshd, "up.filepart", CONTENT[: 2 * MIB])
    command = [sys.executable, "-m", "iot.sftp.client.cli.main", "put", "--adopt-partial", "{name}.filepart", "-T"]
    login = ["--key", str(sshd.key_file), "--host-key", sshd.host_key, "--port", str(sshd.port)]
    address = f"{sshd.user}@{sshd.host}:{sshd.path('up')}"
    words = [*command, *login, str(source), address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sshd.content("up") == CONTENT
    assert sshd.names() == ["up"]


def test_by_an_agent(sshd: OpenSSH, tmp_path: Path) -> None:
    (sshd.root / "up").mkdir()
    (sshd.root / "up").chmod(0o777)
    left(sshd, "up/file.filepart", CONTENT[: 2 * MIB])
    device = Device(tmp_path / "device", sshd, outbox='settle_s = 0\nadopt_partial = "{name}.filepart"')
    device.put("file", CONTENT)
    assert f"resumed_at={2 * MIB}" in device.drain()
    assert sshd.content("up/file") == CONTENT
    assert sshd.content("up/file.filepart") is None

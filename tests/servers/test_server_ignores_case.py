"""A server whose file system ignores case: a file that is replaced keeps the spelling of its name there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import missing
from faults.lab_disk import LabDisk, cannot_mount, in_memory
from servers.bad_input import Site
from servers.base import Server
from servers.zoo import start

from iot.sftp.client import UploadJob
from iot.transfer.names import as_spelled


@pytest.fixture(params=["openssh", "proftpd", "folder", "pyftpdlib"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    reason = cannot_mount("fat")
    if reason is not None:
        missing(reason)
    with LabDisk(Path(tempfile.mkdtemp(prefix="iot-sftp-lab-", dir=in_memory())), "fat") as disk:
        (disk.path / "SPELLING").touch()
        if not (disk.path / "spelling").exists():
            missing("this file system does not ignore case")
        with start(request.param, disk.path / "root") as server:
            yield server


def test_the_spelling_that_stands_there_is_kept(server: Server, tmp_path: Path) -> None:
    folder = server.root / "Up"
    folder.mkdir()
    (folder / "Data.CSV").write_bytes(b"old")
    (tmp_path / "source").write_bytes(b"new")
    with server.connect(tmp_path) as client:
        for name in ("data.csv", "Other.txt", "OTHER.TXT"):
            job = UploadJob(tmp_path / "source", server.path(f"up/{name}"), ignores_case=True)
            (outcome,) = client.upload_many([job])
            assert outcome.proof is not None
    assert server.names() == ["Up/Data.CSV", "Up/Other.txt"]
    assert server.content("Up/Data.CSV") == b"new"


@pytest.mark.parametrize("server", ["openssh"], indirect=True)
def test_an_outbox_delivers_under_the_spelling_of_the_server(server: Server, tmp_path: Path) -> None:
    site = Site(server, tmp_path / "device")
    site.outbox["server_ignores_case"] = True
    (server.root / "up").mkdir()
    (server.root / "up" / "Data.csv").write_bytes(b"old")
    site.put("DATA.CSV", b"new")
    done = site.drain()
    assert done.returncode == 0, done.stderr
    assert site.arrived() == ["Data.csv"]
    assert site.content("Data.csv") == b"new"
    assert "up/Data.csv" in done.stderr


@pytest.mark.parametrize(
    ("path", "names", "spelt"),
    [
        (b"up/data.csv", ["x", "Data.CSV"], b"up/Data.CSV"),
        (b"up/data.csv", ["Data.CSV", "data.csv"], b"up/data.csv"),  # exactly this one is there
        (b"up/data.csv", [], b"up/data.csv"),
        (b"STRASSE", ["stra\u00dfe"], "stra\u00dfe".encode()),
        (b"\xffa", ["\udcffA"], b"\xffA"),
    ],
)
def test_which_spelling_is_taken(path: bytes, names: list[str], spelt: bytes) -> None:
    assert as_spelled(path, names) == spelt

"""Names in a server's listing that are no names: no list and no download ever leads out of its folder."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from paramiko import Message
from servers.quirks import Misbehaving, Quirk
from servers.shell import Shell

from iot.sftp.client import IoTSFTPClient, LinkLost, NameRefused, SFTPError
from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import EOF, NAME, Reply, status, text

HOSTILE = [
    b"../x",
    b"/etc/passwd",
    b"a/b",
    b"..\0",
    b"\0",
    b"",
    b"a\0b",
    b"/",
    b"//",
    b"../../../../etc/cron.d/x",
    b"./x",
]
HARMLESS = [b".", b".."]


class HostileNames(Quirk):
    """One listing of these names, each said to be a regular file."""

    names: Sequence[bytes] = ()

    def on_opendir(self, message: Message) -> Reply:
        self.told = False
        return super().on_opendir(message)

    def on_readdir(self, message: Message) -> Reply:
        if self.told:
            return status(EOF, "End of file")
        self.told = self.hit()
        attributes = self.attributes(os.stat(__file__))
        rows = b"".join(text(name) + text(b"-rw-r--r-- " + name) + attributes for name in self.names)
        return NAME, struct.pack(">I", len(self.names)) + rows


class ServesAnything(HostileNames):
    """Gives the same content for every path that is asked for."""

    def local(self, path: bytes, *, itself: bool = False) -> bytes:
        return SFTPSession.local(self, b"/bait")


def connect(server: Misbehaving, tmp_path: Path) -> IoTSFTPClient:
    return IoTSFTPClient(**server.login(), state_dir=tmp_path / "state", attempts=1)


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_listing_with_a_path_in_it_is_refused_whole(name: bytes, tmp_path: Path) -> None:
    with (
        Misbehaving(tmp_path / "root", HostileNames, names=[b"good", name]) as server,
        connect(server, tmp_path) as client,
    ):
        for listing in (client.list, client.list_directories, client.scan):
            with pytest.raises(NameRefused, match="must not contain"):
                listing("/")
        assert client.list_files("/") is None
        assert isinstance(client.last_error, NameRefused)
        assert server.hits


def test_the_folder_itself_and_the_one_above_are_passed_over(tmp_path: Path) -> None:
    names = [*HARMLESS, b"...", b"good", b"-rf", b"\xff", b"new\nline"]
    with Misbehaving(tmp_path / "root", HostileNames, names=names) as server, connect(server, tmp_path) as client:
        assert client.list("/") == sorted(["/...", "/good", "/-rf", "/\udcff", "/new\nline"])


@pytest.mark.parametrize("size", [255, 5000, 100 * 1024])
def test_a_name_of_any_length_is_listed_or_the_connection_given_up(size: int, tmp_path: Path) -> None:
    with (
        Misbehaving(tmp_path / "root", HostileNames, names=[b"x" * size]) as server,
        connect(server, tmp_path) as client,
    ):
        try:
            assert client.list("/") == ["/" + "x" * size]
        except (NameRefused, LinkLost):
            pass  # a typed no is as good
        assert server.hits


@pytest.mark.parametrize(
    "name", [*HOSTILE, *HARMLESS, b"x" * 100 * 1024, b"..", b"x/.."], ids=lambda name: repr(name[:30])
)
def test_a_get_into_a_folder_stays_in_it(name: bytes, tmp_path: Path) -> None:
    """`iot-sftp get PATH` makes a local name from the remote one; the server would serve any path."""
    inside = tmp_path / "outer" / "inside"
    inside.mkdir(parents=True)
    with Misbehaving(tmp_path / "root", ServesAnything) as server:
        (server.root / "bait").write_bytes(b"bait")
        before = everything(tmp_path / "outer")
        environment = {
            **os.environ,
            "SFTP_HOST": server.host,
            "SFTP_PORT": str(server.port),
            "SFTP_USER": server.user,
            "SFTP_PASSWORD": server.password or "",
            "SFTP_KNOWN_HOSTS": str(server.known_hosts),
            "SFTP_STATE_DIR": str(tmp_path / "state"),
        }
        path = b"/folder/" + name.replace(b"\0", b"")
        words = (sys.executable, "-m", "iot.sftp.client.cli.main", "get", "--", path, ".")
        command = [os.fsencode(word) for word in words]
        done = subprocess.run(command, cwd=inside, env=environment, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in done.stderr
    fresh = everything(tmp_path / "outer") - before
    assert all(path.parent == inside for path in fresh), fresh
    assert done.returncode != 0 or len(fresh) == 1


@pytest.mark.parametrize("name", [*HOSTILE, b"\x1b[2J\r\n"])
def test_a_folder_that_is_fetched_with_the_command_line_leaves_its_place_for_no_name(
    name: bytes, tmp_path: Path
) -> None:
    """Pattern or folder: a name that is none ends the listing; one that is odd is kept, and shown as an escape."""
    inside = tmp_path / "outer" / "inside"
    inside.mkdir(parents=True)
    with Misbehaving(tmp_path / "root", type("Quirk", (ServesAnything,), {"names": [name]})) as server:
        (server.root / "bait").write_bytes(b"bait")
        (server.root / "folder").mkdir()
        before = everything(tmp_path / "outer")
        shell = Shell(server, inside)
        shell.environment["SFTP_STATE_DIR"] = str(tmp_path / "state")
        for source in ("/folder", "/folder/*"):
            done = shell("get", "-r", source, "dest/", SFTP_PASSWORD=server.password or "")
            assert b"Traceback" not in done.stderr
            assert b"\x1b" not in done.stderr
    assert all(inside / "dest" in path.parents for path in everything(tmp_path / "outer") - before)


def test_a_download_to_a_path_that_the_caller_names_goes_there_and_nowhere_else(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    with Misbehaving(tmp_path / "root", ServesAnything) as server, connect(server, tmp_path) as client:
        (server.root / "bait").write_bytes(b"bait")
        for name in HOSTILE:
            try:
                client.download("/" + os.fsdecode(name), outer / "file")
            except SFTPError:
                continue
            assert everything(outer) == {outer / "file"}


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


class EndlessListing(Quirk):
    """A folder that never ends: 100 names of 200 characters in every answer."""

    number = 0

    def on_readdir(self, message: Message) -> Reply:
        self.hit()
        names = [b"%0200d" % (self.number + index) for index in range(100)]
        self.number += len(names)
        rows = b"".join(text(name) + text(name) + self.attributes(os.stat(__file__)) for name in names)
        return NAME, struct.pack(">I", len(names)) + rows


MEASURED = """
import json, resource, sys, time
from iot.sftp.client import IoTSFTPClient, ServerRefused
login, folder = json.loads(sys.argv[1]), sys.argv[2]
with IoTSFTPClient(**login, state_dir=folder) as client:
    client.connect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        client.list("/")
    except ServerRefused as error:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
"""


def test_a_listing_without_end_is_given_up_before_it_fills_the_memory(tmp_path: Path) -> None:
    with Misbehaving(tmp_path / "root", EndlessListing) as server:
        login = json.dumps(
            {name: str(value) if name != "sftp_port" else value for name, value in server.login().items()}
        )
        words = [sys.executable, "-c", MEASURED, login, str(tmp_path / "state")]
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120)
    grown_mib, _, told = done.stdout.partition(" ")
    assert "cannot list '/': the listing exceeds 32 MiB of names" in told
    assert int(grown_mib) < 64

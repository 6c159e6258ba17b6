"""FTP: what a listing may say, and when it is believed. The server is scripted: no real one can be told to err so."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from servers.ftp_scripted import Answer, ScriptedFTP

from iot.ftp import FTPClient
from iot.transfer.errors import LinkLost, NameRefused

LISTS = {
    "LIST": b"-rw-r--r-- 1 o g 5 Jan 01 2024 first.csv\r\n-rw-r--r-- 1 o g 5 Jan 01 2024 second.csv\r\n",
    "MLSD": b"type=file;size=5; first.csv\r\ntype=file;size=5; second.csv\r\n",
}
FACTS = "211-Features\r\n MLST type*;size*;\r\n211 End"


class Listings:
    """A server's answer to LIST or MLSD: each time the next of these contents, the last one for ever."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = list(contents)

    def __call__(self, server: ScriptedFTP, session: socket.socket) -> None:
        session.sendall(b"150 here it comes\r\n")
        data, _ = server._data.accept()
        with data:
            data.sendall(self._contents.pop(0) if len(self._contents) > 1 else self._contents[0])
        session.sendall(b"226 Transfer complete\r\n")


@pytest.fixture(params=LISTS)
def verb(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(fake: ScriptedFTP, tmp_path: Path, attempts: int) -> FTPClient:
    options = {"state_dir": tmp_path / "state", "attempts": attempts, "backoff_s": 0.01, "timeout_s": 5}
    return FTPClient(fake.host, fake.port, "device", "secret", tls=False, **options)


def answers(verb: str, *contents: bytes) -> dict[str, Answer]:
    return {verb: Listings(*contents), **({"FEAT": FACTS} if verb == "MLSD" else {})}


@pytest.mark.parametrize("left_out", [len(b"csv\r\n"), len(b"cond.csv\r\n"), len(b"second.csv\r\n"), 1, 2, 20])
def test_a_listing_that_breaks_off_in_a_line_is_a_lost_link_and_no_list(
    verb: str, left_out: int, tmp_path: Path
) -> None:
    """Also where the server says that the transfer is complete: a name that was cut is another file's name."""
    half = LISTS[verb][:-left_out]
    with ScriptedFTP(**answers(verb, half)) as fake, client_of(fake, tmp_path, 1) as client:
        with pytest.raises(LinkLost, match="broke off in the middle of a line"):
            client.list("/")
        with pytest.raises(LinkLost):
            client.list_files("/")


def test_a_listing_that_broke_off_is_asked_for_again(verb: str, tmp_path: Path) -> None:
    whole = LISTS[verb]
    with ScriptedFTP(**answers(verb, whole[:-6], whole)) as fake, client_of(fake, tmp_path, 2) as client:
        assert client.list_files("/") == ["/first.csv", "/second.csv"]


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_listing_is_whole_with_either_end_of_line_and_when_there_is_nothing(
    verb: str, end: bytes, tmp_path: Path
) -> None:
    whole = LISTS[verb].replace(b"\r\n", end)
    with ScriptedFTP(**answers(verb, whole, b"")) as fake, client_of(fake, tmp_path, 1) as client:
        assert client.list_files("/") == ["/first.csv", "/second.csv"]
        assert client.list_files("/") == []


def test_a_listing_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    names = b"type=file;size=1; ../../etc/passwd\r\ntype=file;size=1; fine\r\n"
    with ScriptedFTP(**answers("MLSD", names)) as fake, client_of(fake, tmp_path, 1) as client:
        assert client.list_files("/") is None
        assert isinstance(client.last_error, NameRefused)

"""How an FTP connection ends: politely only where somebody may still listen, and never waiting."""

from __future__ import annotations

import pytest

from iot.ftp.connection import Address, Connection
from iot.ftp.dial import dial
from iot.transfer.errors import LinkLost


class Sock:
    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)


@pytest.mark.parametrize(
    ("sock", "lost", "aborted", "polite"),
    [(True, False, False, True), (False, False, False, False), (True, True, False, False), (True, False, True, False)],
)
def test_a_quit_is_sent_only_over_a_connection_that_stands(monkeypatch, sock, lost, aborted, polite):
    said: list[str] = []
    found = Connection(Address("h", 21, "me", "correct-horse-battery", None))
    monkeypatch.setattr(found, "putcmd", said.append)
    monkeypatch.setattr(found, "close", lambda: said.append("closed"))
    found.sock = given = Sock() if sock else None
    if lost:
        found._lost = LinkLost("cut")
    if aborted:
        found.abort()
    found.goodbye()
    assert said == (["QUIT", "closed"] if polite else ["closed"])
    assert (given.timeouts if given else []) == ([1.0] if polite else [])
    found.sock = None


@pytest.mark.parametrize("error", [OSError("gone"), EOFError(), ValueError("closed file")])
def test_a_quit_that_cannot_be_sent_is_no_error(monkeypatch, error):
    def refused(_: str) -> None:
        raise error

    found = Connection(Address("h", 21, "me", "correct-horse-battery", None))
    monkeypatch.setattr(found, "putcmd", refused)
    found.sock = Sock()
    monkeypatch.setattr(found, "close", lambda: None)
    found.goodbye()
    found.sock = None


def test_a_name_that_cannot_be_one_of_a_host_is_told_as_that() -> None:
    with pytest.raises(LinkLost, match="x" * 64):
        dial("x" * 64 + ".example.com", 21, 3.0, lambda: None)

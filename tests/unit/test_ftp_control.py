"""The control connection of FTP over a pair of sockets: what is asked, what a reply means, and what ends it."""

from __future__ import annotations

import ftplib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iot.ftp import connection as module
from iot.ftp.connection import REPLY_LINES, Address, Connection
from iot.ftp.data import CLOSING_S
from iot.transfer.errors import (
    Incompatible,
    LinkLost,
    LoginRefused,
    NotFound,
    PermissionDenied,
    ProtocolError,
    ServerBusy,
    ServerRefused,
    Timeout,
    TransferError,
    Unsupported,
)

SECRET = "correct-horse-battery"
Far = Callable[..., Connection]


class Trust:
    def wrap(self, sock: Any, host: str, watch: Any, session: Any = None) -> Any:
        return sock


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made: list[tuple[socket.socket, socket.socket]] = []
    yield made
    for one, other in made:
        one.close()
        other.close()


@pytest.fixture
def far(pairs: list[tuple[socket.socket, socket.socket]]) -> Far:
    """A connection to a server that has given these replies; None in their place: it has closed."""

    def make(*replies: str | None, user: str = "me", **address: Any) -> Connection:
        here, there = socket.socketpair()
        pairs.append((here, there))
        found = Connection(Address("h", 21, user, SECRET, address.pop("trust", None), **{"timeout_s": 9.0, **address}))
        found._use(here)
        there.sendall("".join(f"{reply}\r\n" for reply in replies if reply is not None).encode())
        if None in replies:
            there.shutdown(socket.SHUT_WR)
        return found

    return make


def asked(pairs: list[tuple[socket.socket, socket.socket]]) -> list[str]:
    pairs[-1][1].setblocking(False)
    try:
        return pairs[-1][1].recv(100_000).decode().splitlines()
    except BlockingIOError:
        return []


# -- replies


@pytest.mark.parametrize(
    "reply",
    [
        "200 fine",
        "211-Features:\r\n REST\r\n211 End",
        "230-a\r\n230-b\r\n230",
        "230-a\r\n231 no\r\n229 no\r\n230 b",
        "200.fine",
    ],
)
def test_a_reply_is_read_to_its_end_and_no_further(far: Far, reply: str) -> None:
    found = far(reply, "200 next")
    assert found.command("NOOP") == reply.replace("\r\n", "\n")
    assert found.command("NOOP") == "200 next"


def test_a_reply_of_too_many_lines_is_given_up(far: Far) -> None:
    assert far("211-x", *[" y"] * (REPLY_LINES - 1), "211 z").command("NOOP").count("\n") == REPLY_LINES
    with pytest.raises(ProtocolError, match=f"a reply of more than {REPLY_LINES} lines"):
        far("211-x", *[" y"] * (REPLY_LINES + 1), "211 z").command("NOOP")


@pytest.mark.parametrize(
    ("reply", "kind", "words", "stands"),
    [
        ("550 No such file", NotFound, "No such file", True),
        ("450 what", ServerBusy, "450 what", True),
        ("421 bye", LinkLost, "421 bye", False),
        ("425 no data connection", LinkLost, "425", True),
        ("hello", ProtocolError, "'hello' is no reply|hello is no reply", False),
        ("SSH-2.0-OpenSSH", ProtocolError, "it is an SSH server", False),
        ("999 what", ProtocolError, "violated the FTP protocol", False),
        (None, LinkLost, "closed by the server", False),
        (f"550 Permission denied for {SECRET}", PermissionDenied, r"\*\*\*", True),
    ],
)
def test_what_a_reply_means_and_whether_the_connection_stands_after_it(
    far: Far, reply: str | None, kind: type[TransferError], words: str, stands: bool
) -> None:
    found = far(reply)
    with pytest.raises(kind, match=words) as told:
        found.command("DELE", b"f")
    assert type(told.value) is kind
    assert SECRET not in f"{told.value} {told.value.__cause__}"
    if stands:
        found.check_usable()
        return
    with pytest.raises(LinkLost, match="is lost"):
        found.check_usable()


def test_silence_ends_the_connection_and_a_deadline_of_its_own_counts_for_one_reply(far: Far) -> None:
    found = far("200 a", timeout_s=30.0)
    assert found.sock is not None
    found.timeout_for(0.01)
    found.command("NOOP")
    assert found.sock.gettimeout() == 30.0
    found.timeout_for(0.01)
    with pytest.raises(Timeout, match="NOOP: no answer from h port 21"):
        found.command("NOOP")
    with pytest.raises(LinkLost, match="no answer"):
        found.command("NOOP")


def test_a_refusal_is_an_answer_where_it_is_asked_for_but_no_goodbye(far: Far) -> None:
    found = far("550 what", "400 what", "200 ok", "421 bye")
    assert found.ask("DELE", b"f") == (False, "550 what")
    assert found.ask("DELE", b"f") == (False, "400 what")
    assert found.ask("DELE", b"f") == (True, "200 ok")
    with pytest.raises(LinkLost):
        found.ask("DELE", b"f")


# -- the beginning


@pytest.mark.parametrize(
    ("replies", "kind", "said"),
    [
        (["230 in"], None, ["USER me"]),
        (["331 password", "230 in"], None, ["USER me", f"PASS {SECRET}"]),
        (["331 password", "202 not needed"], None, ["USER me", f"PASS {SECRET}"]),
        (["331 password", "332 account"], LoginRefused, ["USER me", f"PASS {SECRET}"]),
        (["530 no"], LoginRefused, ["USER me"]),
        (["331 password", "530 no"], LoginRefused, ["USER me", f"PASS {SECRET}"]),
        (["331 password", "500 what"], LoginRefused, ["USER me", f"PASS {SECRET}"]),
        (["450 later"], ServerBusy, ["USER me"]),
        (["421 bye"], LinkLost, ["USER me"]),
        ([None], LinkLost, ["USER me"]),
    ],
)
def test_a_login_is_a_user_and_a_password_where_that_is_asked_for(far: Far, pairs, replies, kind, said) -> None:
    found = far(*replies)
    if kind is None:
        found._log_in()
    else:
        with pytest.raises(TransferError) as told:
            found._log_in()
        assert type(told.value) is kind
        assert SECRET not in str(told.value)
    assert asked(pairs) == said


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("refusal", [None, "502 no TLS", "421 bye"])
def test_tls_is_begun_or_the_server_cannot_be_used(far: Far, pairs, explicit: bool, refusal: str | None) -> None:
    steps = [*(["AUTH TLS"] if explicit else []), "PBSZ 0", "PROT P"]
    found = far(*(["200 ok"] * (len(steps) - 1)), refusal or "200 ok", trust=Trust())
    begun: list[bool] = []
    found._protect = lambda: begun.append(True)  # type: ignore[method-assign]
    if refusal is None:
        found._secure(explicit=explicit)
    else:
        with pytest.raises(LinkLost if refusal.startswith("421") else Incompatible):
            found._secure(explicit=explicit)
    assert asked(pairs) == steps
    assert begun == [True] * explicit


@pytest.mark.parametrize(
    ("replies", "features", "said"),
    [
        (["211-Features:\r\n utf8\r\n MFMT\r\n REST STREAM\r\n211 End", "200 ok"],
         {"UTF8": "", "MFMT": "", "REST": "STREAM"}, ["FEAT", "OPTS UTF8 ON"]),
        (["211-Features:\r\n UTF8\r\n\r\n211 End", "500 what"], {"UTF8": ""}, ["FEAT", "OPTS UTF8 ON"]),
        (["211 none"], {}, ["FEAT"]),
        (["502 what"], {}, ["FEAT"]),
    ],
)  # fmt: skip
def test_what_a_server_can_is_learned_as_far_as_it_tells(far: Far, pairs, replies, features, said) -> None:
    found = far(*replies)
    found._learn_features()
    assert found.features == features
    assert asked(pairs) == said


OPENED = ["220 hello", "230 in", "502 what", "200 binary"]


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        (OPENED, None),
        (["421 too many"], ServerBusy),
        (["500 go away"], ServerBusy),
        (["220 hello", "530 no"], LoginRefused),
        ([*OPENED[:3], "504 what"], Unsupported),
        ([None], LinkLost),
    ],
)
def test_a_connection_that_does_not_come_about_is_closed(far: Far, monkeypatch, replies, kind) -> None:
    found = far(*replies)
    monkeypatch.setattr(module, "dial", lambda *_: found.sock)
    if kind is None:
        found.open()
        assert found.described() == "software='220 hello' tls=none"
        found.check_usable()
        return
    with pytest.raises(TransferError) as told:
        found.open()
    assert type(told.value) is kind
    assert found.sock is None
    with pytest.raises(LinkLost):
        found.check_usable()


def test_nothing_is_begun_after_an_abort(far: Far) -> None:
    found = far("200 a")
    found.abort()
    for call in (lambda: found.command("NOOP"), found.check_usable, found._check_aborted):
        with pytest.raises(LinkLost, match="was aborted"):
            call()
    with pytest.raises(LinkLost, match="was aborted"), socket.socket() as other:
        found._watch(other)


def test_an_abort_reaches_every_socket_that_is_in_use_and_none_that_is_forgotten(far: Far, pairs) -> None:
    found = far()
    here, there = socket.socketpair()
    past, beyond = socket.socketpair()
    pairs[:0] = [(here, there), (past, beyond)]
    for sock in (here, past, found.sock):
        found._watch(sock)
    found._watch(here)  # once more, as after a handshake
    found.forget(past)
    found.abort()
    for sock in (there, pairs[-1][1]):
        sock.settimeout(1.0)
    assert there.recv(1) == pairs[-1][1].recv(1) == b""
    beyond.setblocking(False)
    with pytest.raises(BlockingIOError):
        beyond.recv(1)


# -- the end of a transfer


@pytest.mark.parametrize(
    ("reply", "broken", "answer"),
    [
        ("226 done", False, "226 done"),
        ("226 done", True, "226 done"),
        ("426 cut", True, "426 cut"),
        ("552 full", True, "552 full"),
        ("400 what", True, "400 what"),
        ("421 bye", True, LinkLost),
        ("426 cut", False, LinkLost),
        ("553 what", False, ServerRefused),
    ],
)
def test_the_last_reply_is_waited_for_as_long_as_it_matters(far: Far, monkeypatch, reply, broken, answer) -> None:
    found = far(reply, timeout_s=60.0)
    waited: list[float | None] = []
    real = found.getresp
    monkeypatch.setattr(found, "getresp", lambda: waited.append(found.sock and found.sock.gettimeout()) or real())
    if isinstance(answer, str):
        assert found.finish("STOR f", broken=broken) == answer
    else:
        with pytest.raises(answer):
            found.finish("STOR f", broken=broken)
    assert waited == [CLOSING_S if broken else 60.0]


@pytest.mark.parametrize("start", [0, 7])
def test_a_transfer_begins_behind_what_is_there(far: Far, pairs, monkeypatch, start: int) -> None:
    found = far(*(["350 go on"] if start else []), "150 here it comes")
    data, other = socket.socketpair()
    pairs.insert(0, (data, other))
    monkeypatch.setattr(found, "makepasv", lambda: ("h", 5))
    monkeypatch.setattr(module, "dial", lambda *_: data)
    opened = found.transfer("RETR", b"f", start=start)
    other.sendall(b"content")
    assert opened.receive() == b"content"
    assert asked(pairs) == [*(["REST 7"] if start else []), "RETR f"]
    assert data.gettimeout() == 9.0


@pytest.mark.parametrize(("reply", "kind"), [("226 done already", ProtocolError), ("550 No such file", NotFound)])
def test_a_transfer_that_does_not_begin_leaves_no_connection_open(far: Far, pairs, monkeypatch, reply, kind) -> None:
    found = far(reply)
    data, other = socket.socketpair()
    pairs.insert(0, (data, other))
    monkeypatch.setattr(found, "makepasv", lambda: ("h", 5))
    monkeypatch.setattr(module, "dial", lambda *_: data)
    with pytest.raises(kind):
        found.transfer("RETR", b"f")
    assert data.fileno() == -1


def test_no_error_of_ftplib_leaves_without_a_translation(far: Far, monkeypatch) -> None:
    for error in (ftplib.error_reply("x"), ValueError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")):
        found = far("200 a")

        def fails(_: str, error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(found, "sendcmd", fails)
        with pytest.raises(ProtocolError, match="violated the FTP protocol"):
            found.command("NOOP")

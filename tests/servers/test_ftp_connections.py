"""FTP: who the server is, how one logs in, and what a hostile or broken server can do."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.ftp_base import FTPServer, certificate
from servers.ftp_scripted import ScriptedFTP
from servers.proftpd_ftp import ProFTPDFTP
from servers.vsftpd import Vsftpd
from servers.zoo import FTP

from iot.ftp import FTPClient
from iot.ftp.connection import Address
from iot.ftp.store import FTPStore
from iot.ftp.tls import Trust
from iot.transfer.errors import (
    ConfigurationError,
    HostKeyMismatch,
    HostKeyUnknown,
    Incompatible,
    LinkLost,
    LoginRefused,
    NameRefused,
    ProtocolError,
    ServerBusy,
    Timeout,
    TransferError,
    Unsupported,
)
from iot.transfer.model import Span
from iot.transfer.remote import Meta, Token

SECRET = "correct-horse-battery"


@pytest.fixture(params=FTP)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FTPServer]:
    with FTP[request.param](tmp_path / "root") as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(300_000))
    return path


def client_of(fake: ScriptedFTP, tmp_path: Path, **options: Any) -> FTPClient:
    given = {"tls": False, "state_dir": tmp_path / "state", "backoff_s": 0.01, "timeout_s": 5, **options}
    return FTPClient(fake.host, fake.port, "device", SECRET, **given)


_made: list[FTPStore] = []


def store_of(fake: ScriptedFTP, trust: Trust | None = None, **options: Any) -> FTPStore:
    store = FTPStore(Address(fake.host, fake.port, "device", SECRET, trust, **{"timeout_s": 5.0, **options}))
    _made.append(store)
    return store


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


# -- certificates


def test_an_unknown_certificate_is_refused_and_no_password_is_sent(server, tmp_path, source):
    with server.connect(tmp_path, ca_file=None) as client, pytest.raises(HostKeyUnknown, match="ca_file"):
        client.upload(source, server.path("file"))
    assert server.names() == []


def test_a_certificate_of_another_name_is_refused(tmp_path, source):
    server = ProFTPDFTP(tmp_path / "root")
    server.certificate = certificate("elsewhere", "DNS:elsewhere.example")
    with server, server.connect(tmp_path) as client, pytest.raises(HostKeyUnknown):
        client.upload(source, server.path("file"))


def test_a_pinned_certificate_needs_no_authority(server, tmp_path, source):
    with server.connect(tmp_path, ca_file=None, certificate=server.pin) as client:
        client.upload(source, server.path("file"))
    assert server.content("file") == source.read_bytes()


def test_another_certificate_than_the_pinned_one_is_refused(server, tmp_path, source):
    with server.connect(tmp_path, certificate="ab" * 32) as client, pytest.raises(HostKeyMismatch):
        client.upload(source, server.path("file"))


def test_a_data_connection_without_the_session_is_refused_by_vsftpd(tmp_path, source, monkeypatch):
    """What plain ftplib does."""
    wrap = Trust.wrap
    monkeypatch.setattr(Trust, "wrap", lambda self, sock, host, watch, session=None: wrap(self, sock, host, watch))
    with Vsftpd(tmp_path / "root") as server, server.connect(tmp_path, attempts=1) as client:
        with pytest.raises(TransferError):
            client.upload(source, server.path("file"))
        assert server.content("file") is None


@pytest.mark.parametrize("kind", [Vsftpd, ProFTPDFTP])
def test_tls_from_the_first_byte(kind, tmp_path, source):
    with kind(tmp_path / "root", "implicit") as server, server.connect(tmp_path) as client:
        client.upload(source, server.path("file"))
        assert server.content("file") == source.read_bytes()


def test_active_mode(server, tmp_path, source):
    with server.connect(tmp_path, active=True) as client:
        client.upload(source, server.path("file"))
        client.download(server.path("file"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


# -- plain FTP


def test_plain_ftp_has_to_be_asked_for_and_is_warned_about_once(tmp_path, source, caplog):
    with ScriptedFTP() as fake:
        client = FTPClient(fake.host, fake.port, "device", SECRET, state_dir=tmp_path / "state", attempts=1)
        with client, pytest.raises(Incompatible):
            client.upload(source, "/file")
        assert [command for command in fake.commands if command.startswith(("USER", "PASS"))] == []
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                client_of(fake, tmp_path).close()
        assert len([record for record in caplog.records if "clear text" in record.getMessage()]) == 1


@pytest.mark.parametrize("kind", FTP)
def test_plain_ftp_works_where_it_was_asked_for(kind, tmp_path, source):
    with FTP[kind](tmp_path / "root", "") as server, server.connect(tmp_path) as client:
        client.upload(source, server.path("file"))
        client.download(server.path("file"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == source.read_bytes()


# -- login


def test_a_wrong_password_is_refused_and_shown_nowhere(server, tmp_path, source, caplog):
    with caplog.at_level(logging.DEBUG), server.connect(tmp_path, password=SECRET) as client:
        with pytest.raises(LoginRefused) as refused:
            client.upload(source, server.path("file"))
        assert SECRET not in repr(client) + str(refused.value) + repr(refused.value.__cause__) + caplog.text


def test_a_server_that_repeats_the_password_does_not_make_us_show_it(tmp_path, source, caplog):
    caplog.set_level(logging.DEBUG)
    fake = ScriptedFTP(PASS=f"530 no such login: PASS {SECRET}")
    with fake, client_of(fake, tmp_path) as client, pytest.raises(LoginRefused) as refused:
        client.upload(source, "/file")
    assert SECRET not in str(refused.value) + caplog.text
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "answers",
    [
        {"PASS": f"430 user with password {SECRET.upper()} is locked"},
        {"PASS": f"421 {SECRET}: closing"},
        {"PASS": f"{SECRET} is no reply"},
        {"EPSV": f"425 no data for {SECRET}", "PASV": f"425 no data for {SECRET}"},
        {"PASS": "530 " + "x" * 290 + SECRET},
        {"welcome": f"421 {SECRET}, not you again"},
        {"STOR": f"552 no room for {SECRET}"},
        {"RNTO": f"553-no\r\n {SECRET}\r\n553 no"},
        {"RNTO": f"999 {SECRET}"},
    ],
)
def test_a_password_that_comes_back_in_any_reply_is_shown_nowhere(tmp_path, source, caplog, answers):
    caplog.set_level(logging.DEBUG)
    with ScriptedFTP(**answers) as fake, client_of(fake, tmp_path) as client, pytest.raises(TransferError) as failed:
        client.upload(source, "/file")
    told = caplog.text + "".join(traceback.format_exception(failed.value))
    assert SECRET[:5].lower() not in told.lower()


def test_a_password_is_in_no_repr(tmp_path):
    address = Address("host", 21, "device", SECRET, None)
    assert SECRET not in repr(address) + str(address)
    with pytest.raises(ConfigurationError) as wrong:
        FTPClient("host", 21, "device", SECRET + "\r\nDELE x", tls=False, state_dir=tmp_path)
    assert SECRET not in str(wrong.value)


# -- hostile and broken servers


def test_the_address_in_a_passive_reply_is_not_connected_to(tmp_path, source):
    """It could be a host behind the firewall that this device is to be used against."""
    with socket.create_server(("127.0.0.3", 0)) as victim, ScriptedFTP() as fake:
        victim.settimeout(0.2)
        high, low = divmod(fake.data_port, 256)
        fake.answers["PASV"] = f"227 Entering Passive Mode (127,0,0,3,{high},{low})"
        with client_of(fake, tmp_path) as client:
            client.upload(source, "/file")
        assert bytes(fake.stored) == source.read_bytes()
        with pytest.raises(TimeoutError):
            victim.accept()


def test_what_came_before_tls_is_not_taken_for_an_answer_within(tmp_path):
    """A forged reply behind the 234 would be read as the first one of the protected connection."""

    def start_tls(fake: ScriptedFTP, session: socket.socket) -> None:
        session.sendall(b"234 go on\r\n200 forged\r\n200 forged\r\n")
        session.recv(65536)
        session.shutdown(socket.SHUT_RDWR)

    with ScriptedFTP(AUTH=start_tls) as fake:
        store = store_of(fake, Trust(certificate()))
        with pytest.raises(LinkLost):
            store.connect()
        assert fake.commands == ["AUTH TLS"]


def test_no_password_goes_to_a_server_that_does_not_protect_the_data(tmp_path):
    with ScriptedFTP(AUTH="504 no such mechanism") as fake:
        store = store_of(fake, Trust(certificate()))
        with pytest.raises(Incompatible):
            store.connect()
        assert fake.commands == ["AUTH TLS"]


def test_a_reply_without_end_is_given_up():
    def endless(fake: ScriptedFTP, session: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                session.sendall(b"211-more\r\n" * 100)

    with ScriptedFTP(NOOP=endless) as fake:
        store = store_of(fake)
        store.connect()
        with pytest.raises(ProtocolError):
            store.check()


@pytest.mark.parametrize("garbage", [b"\r\n", b"\xff\xfb\x01 what\r\n", b"A" * 100_000 + b"\r\n", b"999\x00\r\n"])
def test_garbage_for_a_reply_is_an_error_of_the_protocol(garbage):
    with ScriptedFTP(NOOP=garbage) as fake:
        store = store_of(fake)
        store.connect()
        with pytest.raises(LinkLost):
            store.check()
        with pytest.raises(LinkLost):
            store.check()


def test_too_many_connections_are_a_busy_server():
    with ScriptedFTP(welcome="421 too many connections") as fake, pytest.raises(ServerBusy):
        store_of(fake).connect()


def test_a_silent_server_is_a_timeout():
    with ScriptedFTP(NOOP=None) as fake:
        store = store_of(fake, timeout_s=0.3)
        store.connect()
        with pytest.raises(Timeout):
            store.check()


@pytest.mark.parametrize("silent", ["welcome", "USER", "NOOP", "STOR"])
def test_abort_from_another_thread_ends_a_call_within_a_second(silent):
    with ScriptedFTP(**{silent: None}) as fake:
        store = store_of(fake, timeout_s=60.0)
        aborter = threading.Timer(0.3, store.abort)
        aborter.start()
        began = time.monotonic()
        with pytest.raises(LinkLost):
            _use(store)
        assert time.monotonic() - began < 1.3
        with pytest.raises(LinkLost):
            store.check()
        aborter.join()


def _use(store: FTPStore) -> None:
    store.connect()
    store.check()
    store.write(Token(b"part"), Span(0, 1), [b"x"])


def test_abort_ends_a_write_over_a_link_that_has_gone_silent(server, tmp_path):
    with server.link(rate_bps=8e6) as link:
        trust = Trust(server.certificate)
        store = FTPStore(Address(link.host, link.port, server.user, server.password, trust, timeout_s=60.0))
        _made.append(store)
        store.connect()
        token = store.begin(server.path("x").encode(), 10**6, Meta(server.path("x.part").encode()))
        threading.Timer(0.2, link.silence).start()
        threading.Timer(1.0, store.abort).start()
        began = time.monotonic()
        with pytest.raises(LinkLost):
            store.write(token, Span(0, 10**7), (bytes(65536) for _ in range(150)))
        assert time.monotonic() - began < 2.0


def test_in_active_mode_only_the_server_may_connect(tmp_path):
    """Whoever else guesses the port first would be sent the file."""

    def stor(fake: ScriptedFTP, session: socket.socket) -> None:
        host, port = "127.0.0.1", next(c for c in fake.commands if c.startswith("PORT")).split(",")[-2:]
        where = (host, int(port[0]) * 256 + int(port[1]))
        with socket.create_connection(where, source_address=("127.0.0.4", 0)) as thief:
            session.sendall(b"150 go on\r\n")
            with socket.create_connection(where) as data:
                while block := data.recv(65536):
                    fake.stored += block
            assert thief.recv(1) == b""
        fake.size = len(fake.stored)
        session.sendall(b"226 done\r\n")

    with ScriptedFTP(PORT="200 ok", STOR=stor) as fake:
        store = store_of(fake, active=True)
        store.connect()
        assert store.write(Token(b"part"), Span(0, 3), [b"abc"]).end == 3
        assert bytes(fake.stored) == b"abc"


def test_a_connection_that_was_closed_as_idle_is_made_again(tmp_path, source):
    """421, as after ten idle minutes."""
    with ScriptedFTP() as fake, client_of(fake, tmp_path) as client:
        client.connect()
        fake.answers["DELE"] = _once(fake, "DELE", "421 idle for too long")
        client.upload(source, "/file")
        assert bytes(fake.stored) == source.read_bytes()


def _once(fake: ScriptedFTP, verb: str, reply: str) -> Any:
    def answer(fake: ScriptedFTP, session: socket.socket) -> None:
        del fake.answers[verb]
        session.sendall(f"{reply}\r\n".encode())
        session.shutdown(socket.SHUT_RDWR)

    return answer


def test_commands_and_the_ends_of_files_are_not_held_back():
    """Nagle's algorithm and delayed ACKs together made a small file five times as slow."""
    with ScriptedFTP() as fake:
        store = store_of(fake)
        store.connect()
        assert store._connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_226_proves_nothing(tmp_path, source):
    """The server says that all arrived, and holds half of it: nothing is published."""
    with ScriptedFTP(SIZE="213 1000") as fake, client_of(fake, tmp_path, attempts=1) as client:
        with pytest.raises(TransferError):
            client.upload(source, "/file")
        assert not any(command.startswith("RNTO") for command in fake.commands)


def test_rest_behind_the_end_is_never_sent(tmp_path):
    with ScriptedFTP() as fake:
        store = store_of(fake)
        store.connect()
        fake.size = 10
        with pytest.raises(Unsupported):
            store.write(Token(b"part"), Span(11, 12), [b"x"])
        assert not any(command.startswith(("REST", "STOR")) for command in fake.commands)


def test_0xff_in_a_name_is_refused_since_servers_disagree_on_it():
    """Sent twice, as Telnet wants it, ProFTPD takes it for one; vsftpd and pure-ftpd make it a name with two."""
    with ScriptedFTP() as fake:
        store = store_of(fake)
        store.connect()
        with pytest.raises(NameRefused):
            store.stat(b"a\xffb")
        assert not any("\xff" in command for command in fake.commands)

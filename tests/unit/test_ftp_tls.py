"""TLS of FTP: who the server is, and what a broken TLS connection leaves behind in its thread."""

from __future__ import annotations

import _ssl
import ctypes
import datetime as dt
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conditions import missing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from iot.ftp.tls import Trust, forget_errors
from iot.transfer.errors import ConfigurationError, HostKeyMismatch, HostKeyUnknown, Incompatible, LinkLost, Timeout

ERR_LIB_SYS = 2
ECONNRESET = 104


def test_what_broke_one_connection_is_not_seen_by_the_next() -> None:
    """OpenSSL 3.4 leaves an entry where a write fails; CPython looks into the list after each call."""
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    if not hasattr(library, "ERR_set_error"):
        missing("the list of errors of this OpenSSL cannot be reached")
    library.ERR_new()
    library.ERR_set_error(ERR_LIB_SYS, ECONNRESET, None)
    assert library.ERR_peek_error()
    forget_errors()
    assert not library.ERR_peek_error()


class Server(NamedTuple):
    certificate: Path
    key: Path

    @property
    def pin(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server's certificate for gw.example.com, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gw.example.com")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gw.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    found = Server(folder / "certificate.pem", folder / "key.pem")
    found.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return found


class Far:
    """The other end of a pair of sockets, which shakes hands as this server."""

    def __init__(self, server: Server, **limits: ssl.TLSVersion) -> None:
        self.here, self.there = socket.socketpair()
        self.here.settimeout(10.0)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(server.certificate, server.key)
        for name, value in limits.items():
            setattr(self._context, name, value)
        self._thread = threading.Thread(target=self._shake_hands)
        self._thread.start()

    def _shake_hands(self) -> None:
        try:
            with self._context.wrap_socket(self.there, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            self.there.close()

    def close(self) -> None:
        self.here.close()
        self._thread.join()


@pytest.fixture
def far(server: Server) -> Iterator[Any]:
    made: list[Far] = []

    def make(**limits: ssl.TLSVersion) -> socket.socket:
        made.append(Far(server, **limits))
        return made[-1].here

    yield make
    for each in made:
        each.close()


def ignore(_: object) -> None: ...


def test_a_certificate_of_a_listed_authority_and_for_this_host_is_trusted(far: Any, server: Server) -> None:
    watched: list[ssl.SSLSocket] = []
    with Trust(server.certificate).wrap(far(), "gw.example.com", watched.append) as wrapped:
        assert watched == [wrapped]
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(("listed", "host"), [(True, "other.example.com"), (False, "gw.example.com")])
def test_another_host_or_authority_is_not(far: Any, server: Server, listed: bool, host: str) -> None:
    watched: list[ssl.SSLSocket] = []
    with pytest.raises(HostKeyUnknown, match=rf"^{host}: its certificate is not trusted: .*; set ca_file"):
        Trust(server.certificate if listed else None).wrap(far(), host, watched.append)
    assert watched[0].fileno() == -1


def test_a_pinned_certificate_needs_neither_authority_nor_name(far: Any, server: Server) -> None:
    Trust(server.certificate, server.pin).wrap(far(), "other.example.com", ignore).close()


def test_another_certificate_than_the_pinned_one_is_refused_with_what_was_shown(far: Any, server: Server) -> None:
    watched: list[ssl.SSLSocket] = []
    with pytest.raises(HostKeyMismatch, match=f"^h presented the certificate {server.pin}, not the pinned one$"):
        Trust(server.certificate, "0" * 64).wrap(far(), "h", watched.append)
    assert watched[0].fileno() == -1


def test_tls_below_1_2_is_not_spoken(far: Any, server: Server) -> None:
    assert Trust(server.certificate)._context.minimum_version is ssl.TLSVersion.TLSv1_2
    trust = Trust(server.certificate, server.pin)
    trust._context.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(Incompatible, match=r"^h: no common version of TLS: TLSV1_ALERT_PROTOCOL_VERSION$"):
        trust.wrap(far(maximum_version=ssl.TLSVersion.TLSv1_2), "h", ignore)


class Fails:
    """A TLS socket whose handshake fails like this."""

    def __init__(self, error: Exception) -> None:
        self.error, self.closed = error, 0

    def do_handshake(self) -> None:
        raise self.error

    def close(self) -> None:
        self.closed += 1


def failed(reason: str) -> ssl.SSLError:
    """As OpenSSL makes one."""
    error = ssl.SSLError(1, f"told: {reason}")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (TimeoutError(), Timeout, "h: no answer to the TLS handshake"),
        (ConnectionResetError("reset"), LinkLost, "h: the TLS handshake failed: reset"),
        (failed("WRONG_VERSION_NUMBER"), LinkLost, "h: the TLS handshake failed: .*WRONG_VERSION_NUMBER"),
        (failed("UNSUPPORTED_PROTOCOL"), Incompatible, "h: no common version of TLS: UNSUPPORTED_PROTOCOL"),
    ],
)
def test_a_handshake_that_fails_is_told_as_what_it_is(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], told: str
) -> None:
    sock, trust = Fails(error), Trust(server.certificate)
    how: dict[str, Any] = {}
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda _, sock, **given: how.update(given) or sock)
    session: Any = object()
    with pytest.raises(kind, match=f"^{told}"):
        trust.wrap(sock, "h", ignore, session)  # type: ignore[arg-type]
    assert sock.closed == 1
    assert how == {"server_hostname": "h", "session": session, "do_handshake_on_connect": False}


def test_an_abort_before_the_handshake_closes_the_socket(far: Any, server: Server) -> None:
    def aborted(_: object) -> None:
        raise LinkLost("aborted")

    sock = far()
    with pytest.raises(LinkLost, match="aborted"):
        Trust(server.certificate).wrap(sock, "h", aborted)
    assert sock.fileno() == -1


def test_a_file_of_authorities_that_holds_none_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for file in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError, match=f"^ca_file = '{file}': cannot load certificates: "):
            Trust(file)

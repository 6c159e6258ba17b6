"""Authenticate the server: its certificate is checked against authorities, or against a pin."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from iot.transfer.errors import ConfigurationError, HostKeyMismatch, HostKeyUnknown, Incompatible, LinkLost, Timeout

__all__ = ["Trust", "forget_errors"]


def forget_errors() -> None:
    """Empty OpenSSL's list of errors, which each thread has one of.

    CPython looks into it after the next call, of whatever connection (python/cpython#148594): from OpenSSL 3.4 on, what
    broke a data connection would seem to have broken the control connection as well. No call of `ssl` is for this; one
    that fails like this empties the list.
    """
    with contextlib.suppress(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("none")


class Trust:
    """ca_file: authorities to use instead of the system's. pin: SHA-256 of the only accepted certificate, in hex."""

    def __init__(self, ca_file: Path | None = None, pin: str = "") -> None:
        self._pin = pin
        try:
            self._context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"ca_file = {str(ca_file)!r}: cannot load certificates: {error}") from error
        if pin:  # the issuing authority is then irrelevant
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap(
        self,
        sock: socket.socket,
        host: str,
        watch: Callable[[ssl.SSLSocket], object],
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Do the handshake and authenticate the server. session: that of the control connection, for a data connection
        to resume. watch: called with the socket before the handshake, so that it can be aborted.

        Raises: HostKeyUnknown, HostKeyMismatch, Incompatible, Timeout, LinkLost.
        """
        forget_errors()
        wrapped = self._context.wrap_socket(sock, server_hostname=host, session=session, do_handshake_on_connect=False)
        try:
            watch(wrapped)
            self._shake_hands(wrapped, host)
            self._check_pin(wrapped, host)
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def _shake_hands(self, wrapped: ssl.SSLSocket, host: str) -> None:
        try:
            wrapped.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise HostKeyUnknown(
                f"{host}: its certificate is not trusted: {error.verify_message}; set ca_file to the authority that "
                "issued it, or certificate to its fingerprint"
            ) from error
        except TimeoutError as error:
            raise Timeout(f"{host}: no answer to the TLS handshake") from error
        except ssl.SSLError as error:
            if error.reason in ("UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER", "TLSV1_ALERT_PROTOCOL_VERSION"):
                raise Incompatible(f"{host}: no common version of TLS: {error.reason}") from error
            raise LinkLost(f"{host}: the TLS handshake failed: {error}") from error
        except OSError as error:
            raise LinkLost(f"{host}: the TLS handshake failed: {error}") from error

    def _check_pin(self, wrapped: ssl.SSLSocket, host: str) -> None:
        if not self._pin:
            return
        shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(shown, self._pin):
            raise HostKeyMismatch(f"{host} presented the certificate {shown}, not the pinned one")

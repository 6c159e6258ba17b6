"""What a broken TLS connection leaves behind in its thread."""

from __future__ import annotations

import _ssl
import ctypes

from conditions import missing

from iot.ftp.tls import forget_errors

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

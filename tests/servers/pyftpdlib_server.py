"""pyftpdlib, as the FTP server of a Python program: MLST, no hash, one process for all sessions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from servers.ftp_base import FTPServer

__all__ = ["Pyftpdlib"]

PROGRAM = """\
import json, sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer
given = json.load(open(sys.argv[1]))
users = DummyAuthorizer()
users.add_user(given["user"], given["password"], given["root"], perm="elradfmwMT")
handler = TLS_FTPHandler if given["certificate"] else FTPHandler
handler.authorizer = users
handler.passive_ports = range(given["low"], given["high"] + 1)
if given["certificate"]:
    handler.certfile = given["certificate"]
    handler.tls_control_required = handler.tls_data_required = True
FTPServer((given["host"], given["port"]), handler).serve_forever()
"""


class Pyftpdlib(FTPServer):
    name = "pyftpdlib"

    def __init__(self, root: Path, tls: str = "explicit") -> None:
        assert tls != "implicit"
        super().__init__(root, tls)

    def command(self) -> list[str]:
        low, high = self.passive_ports
        given = {"host": self.host, "port": self.port, "root": str(self.root), "low": low, "high": high}
        given |= {"user": self.user, "password": self.password}
        given["certificate"] = str(self.certificate) if self.tls else ""
        settings = self.state / "settings.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(given))
        return [sys.executable, "-c", PROGRAM, str(settings)]

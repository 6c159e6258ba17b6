"""The product's embedded server, with the interface of the other servers of the tests."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

from servers.base import Server

from iot.sftp.server.embedded import EmbeddedServer, SessionFactory
from iot.sftp.server.files import SFTPSession

__all__ = ["Embedded"]


class Embedded(Server):
    """session: what answers the requests; a misbehaving one is given here."""

    name = "embedded"

    def __init__(self, root: Path, *, session: SessionFactory = SFTPSession) -> None:
        super().__init__(root)
        self.embedded = EmbeddedServer(root, session=session)
        self.user, self.password = self.embedded.user, self.embedded.password
        self._known_hosts = Path(mkdtemp(prefix="iot-sftp-embedded-")) / "known_hosts"

    def start(self) -> None:
        self.embedded.start()
        self.port = self.embedded.port
        self._known_hosts.parent.mkdir(exist_ok=True)
        if not self._known_hosts.exists():  # a key that changes later is not known
            self._known_hosts.write_text(self.embedded.host_key_line + "\n")

    def stop(self) -> None:
        self.embedded.stop()
        self._known_hosts.unlink(missing_ok=True)
        if self._known_hosts.parent.exists():
            self._known_hosts.parent.rmdir()

    def restart(self) -> None:
        self.embedded.stop()
        self.start()

    def kill(self) -> None:
        self.embedded.stop()

    def drop_connections(self) -> None:
        self.embedded.drop_connections()

    @property
    def known_hosts(self) -> Path:
        return self._known_hosts

    @property
    def host_key(self) -> str:
        return self.embedded.host_key

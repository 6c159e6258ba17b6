"""An SFTP server in this process, for the demo and the tests."""

from iot.sftp.server.embedded import EmbeddedServer

__all__ = ["EmbeddedServer"]

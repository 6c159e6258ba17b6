"""An SFTP server in this process, for the demo and the tests."""

from iot.transfer.deferred import deferred

with deferred("invoke"):  # see iot.sftp.client.ssh
    import paramiko  # noqa: F401

from iot.sftp.server.embedded import EmbeddedServer

__all__ = ["EmbeddedServer"]

"""The wire: the only room that imports paramiko and pysftp.

paramiko imports `invoke`, and that asyncio and unittest, for `Match exec` in an OpenSSH configuration, which nothing
here reads.
"""

from iot.sftp.client.deferred import deferred

with deferred("invoke"):
    import paramiko  # noqa: F401

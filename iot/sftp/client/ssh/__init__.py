"""SSH: the only folder that imports paramiko and pysftp.

paramiko imports `invoke`, and that asyncio and unittest, for `Match exec` in an OpenSSH configuration, which nothing
here reads.
"""

from iot.transfer.deferred import deferred

with deferred("invoke"):
    import paramiko  # noqa: F401

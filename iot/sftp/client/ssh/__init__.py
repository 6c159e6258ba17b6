"""SSH: the only folder that imports paramiko and pysftp.

paramiko imports `invoke`, which imports asyncio and unittest, for `Match exec` in an OpenSSH configuration. Nothing
here reads one.
"""

from iot.transfer.deferred import deferred

with deferred("invoke"):
    import paramiko  # noqa: F401

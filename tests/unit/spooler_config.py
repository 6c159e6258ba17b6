"""A good configuration for the tests of settings."""

import pytest

from iot.spooler.config.load import BadConfiguration, load

__all__ = ["GOOD", "problems"]

GOOD = """
state_dir = "/var/lib/iot-spooler"
device_id = "gw-0042"
[server]
host = "sftp.example.com"
user = "device"
tail_size = 4096
[[outbox]]
path = "/var/spool/iot/outbox"
destination = "/upload/{device_id}"
"""


def problems(path, environment=None):
    with pytest.raises(BadConfiguration) as caught:
        load(path, environment or {})
    return caught.value.problems

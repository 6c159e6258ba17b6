"""Files of any date that a file system can hold: queued, sent, resumed and recognised, by the service and alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import missing
from faults.proxy import BadLink, Fault
from unit.agent_rig import Rig

from iot.sftp.client import EmbeddedServer, IoTSFTPClient, LinkLost
from iot.spooler.agent.draining import End

SECONDS = {
    "1901": -(2**31),
    "before 1677": -9_300_000_000,
    "1969": -1,
    "2106": 2**32,
    "2262": 9_223_372_036,
    "2400": 13_569_465_600,
    "2446": 15_032_385_535,
    "the year 292 billion": 2**63 - 2**20,
    "long before time": -(2**63) + 2**20,
}


@pytest.fixture
def wide() -> Iterator[Path]:
    """A folder whose file system keeps 64 bits of seconds (tmpfs), else this machine's widest."""
    folder = Path(tempfile.mkdtemp(prefix="dates-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    yield folder
    shutil.rmtree(folder)


def dated(path: Path, second: int, content: bytes = b"content") -> Path:
    path.write_bytes(content)
    try:
        os.utime(path, ns=(0, second * 10**9 + 123_456_789))
    except OSError:
        missing(f"this file system holds no such time: {second}")
    return path


@pytest.mark.parametrize("date", SECONDS)
@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_file_of_any_date_is_queued_kept_and_delivered_once(wide: Path, date: str, order: str) -> None:
    rig = Rig(wide)
    rig.outbox |= {"after_upload": "keep", "order": order, "destination": "/up/{date}"}
    dated(rig.box / "dated", SECONDS[date])
    rig.put("other")
    rig.remote.cannot_connect = [LinkLost("down")] * 9
    assert rig.run() is End.REMAINS  # the row is read back by the next run
    rig.remote.cannot_connect = []
    assert rig.run() is End.DRAINED
    assert len(rig.arrived()) == 2
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 2, "it was taken for another version"


@pytest.mark.parametrize("date", SECONDS)
def test_a_file_of_any_date_is_uploaded_and_resumed(wide: Path, date: str) -> None:
    source = dated(wide / "dated", SECONDS[date], os.urandom(3_000_000))
    (wide / "remote").mkdir()
    cut = [Fault("cut", up_bytes=1_500_000)]
    with (
        EmbeddedServer(wide / "remote") as server,
        BadLink(server.host, server.port, rate_bps=80e6, script=cut) as link,
    ):
        options = {"host_key": server.host_key, "state_dir": wide / "state", "attempts": 1}
        with IoTSFTPClient(link.target[0], link.port, server.user, server.password, **options) as client:
            assert not client.upload_file(source, "/dated")
            assert isinstance(client.last_error, LinkLost)
        with IoTSFTPClient(link.target[0], link.port, server.user, server.password, **options) as client:
            result = client.upload(source, "/dated")
        assert result.resumed_at > 0
        assert (wide / "remote" / "dated").read_bytes() == source.read_bytes()


def test_a_folder_with_files_of_any_date_is_listed(wide: Path) -> None:
    (wide / "remote").mkdir()
    for date, second in SECONDS.items():
        (wide / "remote" / date).touch()
        with contextlib.suppress(OSError):  # this file system holds no such time
            os.utime(wide / "remote" / date, (second, second))
    with EmbeddedServer(wide / "remote") as server:
        options = {"host_key": server.host_key, "state_dir": wide / "state"}
        with IoTSFTPClient(server.host, server.port, server.user, server.password, **options) as client:
            assert sorted(client.list("/")) == sorted(f"/{date}" for date in SECONDS)


@pytest.mark.parametrize("second", [1, 2**32 - 1, 2**32, -1, 2**40])
def test_a_time_that_the_protocol_cannot_say_is_not_made_into_another(wide: Path, second: int) -> None:
    source = dated(wide / "dated", second)
    (wide / "remote").mkdir()
    before = int(time.time())
    with EmbeddedServer(wide / "remote") as server:
        options = {"host_key": server.host_key, "state_dir": wide / "state", "keep_times": True}
        with IoTSFTPClient(server.host, server.port, server.user, server.password, **options) as client:
            client.upload(source, "/dated")
    told = int((wide / "remote" / "dated").stat().st_mtime)
    if 0 <= second < 2**32:
        assert told == second
    else:
        assert before <= told <= time.time()

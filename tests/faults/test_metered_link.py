"""What a limited client puts on the wire, counted at the link and not by us: real TCP, headers and losses included."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.tunlink import TunLink
from faults.tunnel import SshdInside

pytestmark = [pytest.mark.needs("tun"), pytest.mark.alone]

KIB = 1024
RATE_BPS = 2e6
LEAST_S = 6.0
SAMPLE_S = 0.05
PROGRAM = """
import sys
from pathlib import Path
from iot.sftp.client import IoTSFTPClient, UploadJob
host, port, user, key, pin, state, what, folder = sys.argv[1:]
client = IoTSFTPClient(host, int(port), user, key_file=key, host_key=pin, state_dir=state, max_rate="2 Mbit/s")
client.connect()
print("begins", flush=True)
if what == "get":
    client.download("large", Path(folder) / "fetched")
else:
    jobs = [UploadJob(path, path.name, key=path.name) for path in sorted(Path(folder).iterdir())]
    assert all(outcome.size for outcome in client.upload_many(jobs))
print("ends", *client.wire, flush=True)
client.close()
"""


def rate_bps(counts: list[tuple[float, int]]) -> float:
    first, last = counts[0][1], counts[-1][1]
    middle = [each for each in counts if 0.1 <= (each[1] - first) / (last - first) <= 0.9]
    (began, before), (ended, after) = middle[0], middle[-1]
    return (after - before) * 8 / (ended - began)


class Line:
    def __init__(self, folder: Path, loss: float) -> None:
        self.folder = folder
        self.link = TunLink(20e6, rtt_s=0.06, loss=loss)

    def run(self, what: str, files: dict[str, int]) -> tuple[float, float, float]:
        """Bits a second, up and down, in the middle four fifths of the bytes: the first include a burst, and the last a
        few round trips that wait for answers. And the share by which the client's own count differs from the link's."""
        with self.link, SshdInside(self.folder / "server", self.link) as server:
            place = server.root if what == "get" else self.folder / "files"
            place.mkdir(exist_ok=True)
            for name, size in files.items():
                (place / name).write_bytes(bytes(size))
            login = [server.host, server.port, server.user, server.key_file, server.host_key]
            arguments = map(str, [*login, self.folder / "state", what, place if what == "put" else self.folder])
            client = self.link.popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)
            assert client.stdout is not None
            assert client.stdout.readline() == "begins\n"
            counts = [(time.monotonic(), self.link.counts())]
            while not select.select([client.stdout], [], [], SAMPLE_S)[0]:
                counts.append((time.monotonic(), self.link.counts()))
            words, last = client.stdout.readline().split(), self.link.counts()
        assert words[0] == "ends"
        assert counts[-1][0] - counts[0][0] >= LEAST_S
        counted = sum(int(word) for word in words[1:])
        up = [(at, each.up_bytes) for at, each in counts]
        down = [(at, each.down_bytes) for at, each in counts]
        return rate_bps(up), rate_bps(down), counted / (last.up_bytes + last.down_bytes) - 1


@pytest.fixture(params=[0.0, 0.02], ids=["clean", "lossy"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Line:
    return Line(tmp_path, request.param)


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("put", {"large": 2048 * KIB}),
        ("put", {f"f{number}": 10 * KIB for number in range(200)}),
        ("get", {"large": 2048 * KIB}),
    ],
    ids=["large", "small", "download"],
)
def test_the_wire_carries_the_limit_within_5_percent_and_the_client_counts_as_the_link_does(
    line: Line, what: str, files: dict[str, int]
) -> None:
    """What was lost on its way to the client, the client cannot know of."""
    up_bps, down_bps, differs = line.run(what, files)
    told = f"up {up_bps / 1e6:.3f} Mbit/s, down {down_bps / 1e6:.3f} Mbit/s, counted {differs:+.2%}"
    assert (down_bps if what == "get" else up_bps) == pytest.approx(RATE_BPS, rel=0.05), told
    assert abs(differs) < (0.03 if what == "get" else 0.01), told

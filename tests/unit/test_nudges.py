"""What ends a wait for the server early: an address, a carrier, a touched file; never a hold, and not too often."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iot.spooler.agent.agent import Wake
from iot.spooler.process.nudges import Nudges
from iot.spooler.queue.policy import Backoff
from iot.spooler.server import network
from iot.spooler.server.availability import Availability, ServerState
from iot.spooler.server.network import _attributes, _messages
from iot.transfer import LinkLost, LoginRefused

NETWORK = Path(__file__).parents[2] / "deploy" / "network"
PROGRAM = """
import subprocess, sys, time
from iot.spooler.server.network import AddressWatch

def ip(line):
    subprocess.run(["ip", *line.split()], check=True)

watch = AddressWatch()
for line in sys.stdin.read().splitlines():
    ip(line)
    news, quiet_s = False, 1.3 if "set far" in line else 0.05  # of a carrier the kernel tells once a second
    end = time.monotonic() + quiet_s
    while time.monotonic() < end:
        if watch.news():
            news, end = True, time.monotonic() + quiet_s
        time.sleep(0.01)
    print(int(news))
"""


class Waiting:
    """A server that was lost, and what may nudge the agent."""

    def __init__(self, file: Path, **limits: float) -> None:
        self.now = 1000.0
        self.file = file
        self.server = Availability(Backoff(300.0, 300.0), Backoff(900.0, 3600.0), lambda: 0.5)
        self.server.lost(LinkLost("gone"), self.now)
        self.nudges = Nudges(file, None, self.server, **{"min_s": 5.0, "max_s": 60.0, **limits}, clock=lambda: self.now)

    def touch(self) -> None:
        fresh = self.file.with_name("fresh")
        fresh.write_text("")
        fresh.replace(self.file)

    def tried_at(self, seconds: float, each: Callable[[], None] = lambda: None) -> list[float]:
        """When the server is tried, at which nobody answers, in so many seconds."""
        began, found = self.now, []
        while self.now < began + seconds:
            each()
            if self.nudges.due():
                found.append(self.now - began)
                self.server.lost(LinkLost("gone"), self.now)
            self.now += 1.0
        return found


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path / "wake")


def test_a_touched_file_has_the_server_tried_at_once(waiting: Waiting) -> None:
    assert waiting.tried_at(10) == []
    waiting.touch()
    assert waiting.tried_at(10) == [0.0]
    assert waiting.tried_at(60) == [], "a touch is one try"


def test_a_file_that_is_removed_is_no_touch(waiting: Waiting) -> None:
    waiting.touch()
    waiting.tried_at(10)
    waiting.file.unlink()
    assert waiting.tried_at(20) == []


def test_what_flaps_is_tried_less_and_less_often(waiting: Waiting) -> None:
    assert waiting.tried_at(400, waiting.touch) == [0, 5, 15, 35, 75, 135, 195, 255, 315, 375]


def test_a_server_that_has_answered_is_tried_as_soon_as_at_first(waiting: Waiting) -> None:
    waiting.tried_at(200, waiting.touch)
    waiting.server.progressed()
    waiting.nudges.due()
    waiting.server.lost(LinkLost("gone"), waiting.now)
    waiting.server.lost(LinkLost("gone"), waiting.now)
    tries = waiting.tried_at(100, waiting.touch)
    assert [later - earlier for earlier, later in itertools.pairwise(tries)][:2] == [5, 10]


def test_a_touch_while_the_server_answers_is_not_kept_for_later_as_a_second_try(waiting: Waiting) -> None:
    waiting.server.progressed()
    waiting.touch()
    assert not waiting.nudges.due()
    assert waiting.nudges.next_s() == float("inf"), "the file is not even looked at"


def test_a_hold_is_not_ended_by_a_network_that_comes_back(waiting: Waiting) -> None:
    waiting.server.lost(LoginRefused("no"), waiting.now)
    held_until = waiting.server.ready_at
    assert waiting.tried_at(100, waiting.touch) == []
    assert (waiting.server.state, waiting.server.ready_at) == (ServerState.HELD, held_until)


def test_a_pause_ends_when_the_next_look_or_try_is_due(waiting: Waiting) -> None:
    assert waiting.nudges.next_s() == 1.0
    waiting.touch()
    waiting.tried_at(1)
    waiting.touch()
    assert not waiting.nudges.due()
    assert waiting.nudges.next_s() == pytest.approx(4.0)


class Wire:
    """An AddressWatch whose news are written down. closed: how often it was."""

    def __init__(self, *news: bool | OSError) -> None:
        self.descriptor = 77
        self._news = list(news)
        self.closed = 0

    def news(self) -> bool:
        each = self._news.pop(0)
        if isinstance(each, OSError):
            raise each
        return each

    def close(self) -> None:
        self.closed += 1


def test_an_address_that_comes_has_the_server_tried_until_it_can_no_longer_be_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire(False, True, OSError(errno.ENOBUFS, "no"))
    monkeypatch.setattr("iot.spooler.process.nudges.AddressWatch", lambda: wire)
    heard: dict[int, Callable[[], None]] = {}

    def watch(descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        heard[descriptor] = act
        return heard.clear

    server = Availability(Backoff(300.0, 300.0), Backoff(900.0, 3600.0), lambda: 0.5)
    server.lost(LinkLost("gone"), 1000.0)
    nudges = Nudges(None, watch, server, min_s=5.0, max_s=60.0, clock=lambda: 1000.0)
    assert nudges.next_s() == float("inf")  # there is no file to look at
    heard[77]()
    assert not nudges.due()
    heard[77]()
    assert nudges.next_s() == 0.0
    assert nudges.due()
    heard[77]()
    assert "addresses are no longer watched" in caplog.text
    assert (heard, wire.closed, nudges.due()) == ({}, 1, False)
    nudges.close()
    assert wire.closed == 1


def test_where_addresses_cannot_be_watched_the_agent_does_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iot.spooler.process.nudges")

    def refused() -> None:
        raise PermissionError(errno.EACCES, "not here")

    monkeypatch.setattr("iot.spooler.process.nudges.AddressWatch", refused)
    server = Availability(Backoff(300.0, 300.0), Backoff(900.0, 3600.0), lambda: 0.5)
    Nudges(None, lambda *_: pytest.fail("nothing to watch"), server, min_s=5.0, max_s=60.0, clock=lambda: 0.0).close()
    assert 'addresses are not watched reason="not here"' in caplog.text


def test_a_nudge_has_the_agent_try_though_its_wait_is_not_over(tmp_path: Path) -> None:
    from unit.agent_rig import Rig

    rig = Rig(tmp_path)
    rig.put("file")
    rig.loop.stop = True
    rig.run(drain=False)
    assert rig.agent is not None
    rig.agent.server.lost(LinkLost("gone"), rig.loop.now)
    rig.agent.wake(Wake.NUDGE)
    assert not rig.agent.server.waits(rig.loop.now)
    rig.agent.server.lost(LoginRefused("no"), rig.loop.now)
    rig.agent.wake(Wake.NUDGE)
    assert rig.agent.server.state is ServerState.HELD


def test_what_is_cut_short_or_says_it_has_no_length_ends_the_reading() -> None:
    for number in range(32):
        list(_messages(b"\0" * number))
        list(_attributes(b"\1\0" * number))
    assert list(_messages(b"\x10\0\0\0" + bytes(12) + b"\xff" * 7)) == [(0, b"")]


@pytest.mark.needs("root")
def test_the_kernel_s_words_are_understood() -> None:
    """Of an address, once; of a carrier that comes back; of nothing that leads to no server."""
    steps = {
        "link set lo up": 0,  # 127.0.0.1 is this host
        "link add name near type veth peer name far": 0,
        "link set near up": 0,
        "addr add 10.9.9.1/24 dev near": 1,
        "addr change 10.9.9.1/24 dev near valid_lft 600 preferred_lft 600": 0,  # a lease is renewed
        "addr del 10.9.9.1/24 dev near": 0,
        "addr add 10.9.9.1/24 dev near ": 1,
        "link set far up": 1,  # now the cable is plugged in
        "link set far down": 0,
        "link set far up ": 1,
        "-6 addr add fd00::9/64 dev near nodad": 1,
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = ["unshare", "--net", sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        words, input="\n".join(steps), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if "unshare failed" in done.stderr:
        from conditions import missing

        missing(f"no network namespace can be made here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert dict(zip(steps, map(int, done.stdout.split()), strict=True)) == steps


@pytest.mark.parametrize(
    ("name", "words", "wakes"),
    [
        ("90-iot-spooler", ["eth0", "up"], True),
        ("90-iot-spooler", ["eth0", "dhcp4-change"], True),
        ("90-iot-spooler", ["", "connectivity-change"], True),
        ("90-iot-spooler", ["eth0", "down"], False),
        ("90-iot-spooler", [], False),
        ("50-iot-spooler", [], True),
    ],
)
def test_the_examples_for_network_managers_touch_the_file_of_each_agent(
    name: str, words: list[str], *, wakes: bool, tmp_path: Path
) -> None:
    folders = [tmp_path / "iot-spooler", tmp_path / "iot-spooler-north"]
    other = tmp_path / "precious"
    other.write_text("content")
    os.utime(other, (1, 1))
    for folder in folders:
        folder.mkdir()
    (folders[0] / "wake").symlink_to(other)
    environment = {"PATH": os.environ["PATH"], "RUN": str(tmp_path)}
    done = subprocess.run(
        ["sh", str(NETWORK / name), *words], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    touched = [(folder / "wake").is_file() and not (folder / "wake").is_symlink() for folder in folders]
    assert touched == [wakes, wakes]
    assert (other.read_text(), other.stat().st_mtime) == ("content", 1)
    assert [path.name for folder in folders for path in folder.iterdir() if path.name != "wake"] == []


def address_message(*, scope: int = 0, flags: int = 0, local: bytes = b"", peer: bytes = b"") -> bytes:
    """An address of interface 7, as RTM_NEWADDR tells it."""
    given = ((network.ADDRESS, peer), (network.LOCAL, local))
    attributes = b"".join(network.ATTRIBUTE.pack(4 + len(data), kind) + data for kind, data in given if data)
    return network.OF_ADDRESS.pack(socket.AF_INET, 24, flags, scope, 7) + attributes


@pytest.fixture
def addresses() -> Iterator[network.AddressWatch]:
    watch = network.AddressWatch()
    yield watch
    watch.close()


@pytest.mark.parametrize(
    "useless", [{"flags": network.TENTATIVE}, {"scope": network.LINK_SCOPE}, {"scope": network.LINK_SCOPE + 1}]
)
def test_an_address_that_leads_nowhere_yet_is_news_once_it_does(addresses, useless: dict[str, int]) -> None:
    assert not addresses._address(address_message(local=b"abcd", **useless), gone=False)
    assert addresses._address(address_message(local=b"abcd"), gone=False)


def test_of_a_tunnel_our_own_end_counts(addresses) -> None:
    assert addresses._address(address_message(local=b"mine", peer=b"peer"), gone=False)
    assert addresses._address(address_message(local=b"also", peer=b"peer"), gone=False)
    assert not addresses._address(address_message(local=b"mine", peer=b"peer"), gone=False)
    addresses._address(address_message(local=b"mine", peer=b"peer"), gone=True)
    assert addresses._address(address_message(local=b"mine", peer=b"peer"), gone=False)


class Socket:
    """What can be read from it, one after the other: errors, and messages of port 0, which is the kernel."""

    def __init__(self, *waiting: bytes | OSError, port: int = 0) -> None:
        self.waiting = list(waiting)
        self.port = port

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        found = self.waiting.pop(0) if self.waiting else BlockingIOError()
        if isinstance(found, OSError):
            raise found
        return found, (self.port, 0)

    def close(self) -> None:
        """It is no socket."""


def message(kind: int, body: bytes) -> bytes:
    return network.HEADER.pack(network.HEADER.size + len(body), kind, 0, 0, 0) + body


def link_message(*, carrier: bool, family: int = socket.AF_UNSPEC) -> bytes:
    """Interface 7, as RTM_NEWLINK and RTM_DELLINK tell it."""
    return network.OF_LINK.pack(family, 1, 7, network.CARRIER * carrier, 0)


@pytest.fixture
def told(addresses, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether what can be read is news."""

    def read(*waiting: bytes | OSError, port: int = 0) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(addresses, "_socket", Socket(*waiting, port=port))
            news: bool = addresses.news()
        return news

    return read


def test_another_process_that_writes_to_the_socket_is_not_believed(told) -> None:
    news = message(network.NEW_ADDRESS, address_message(local=b"abcd"))
    assert not told(news, port=4711)
    assert told(news)


def test_where_messages_were_lost_a_try_is_worth_it_and_what_was_known_counts_no_more(told) -> None:
    lost = OSError(errno.ENOBUFS, "No buffer space available")
    known, down = message(network.NEW_ADDRESS, address_message(local=b"abcd")), link_message(carrier=False)
    assert told(known)
    assert not told(known, message(network.NEW_LINK, down))
    assert told(lost)
    assert told(known)  # it may have gone and come again meanwhile
    assert not told(message(network.NEW_LINK, link_message(carrier=True)))  # that it had gone is not known any more
    assert told(lost, message(network.DELETED_ADDRESS, address_message(local=b"abcd")))


def test_an_error_that_is_no_loss_of_messages_is_none_of_ours(told) -> None:
    with pytest.raises(OSError, match="broken"):
        told(OSError(errno.EIO, "broken"))


def test_only_a_carrier_of_the_same_interface_comes_back(told) -> None:
    down, up = link_message(carrier=False), link_message(carrier=True)
    assert not told(message(network.NEW_LINK, down), message(network.DELETED_LINK, down), message(network.NEW_LINK, up))
    assert told(message(network.NEW_LINK, down), message(network.NEW_LINK, up))


def test_what_a_bridge_says_of_its_ports_is_no_carrier(told) -> None:
    down, up = (link_message(carrier=carrier, family=socket.AF_BRIDGE) for carrier in (False, True))
    assert not told(message(network.NEW_LINK, down), message(network.NEW_LINK, up))


def test_however_many_addresses_there_were_few_are_remembered(addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KNOWN_MAX", 3)
    for number in range(10):
        assert addresses._address(address_message(local=bytes([number] * 4)), gone=False)
    assert len(addresses._known) <= 3

"""A link at IP level between two network namespaces: delay, rate with a finite queue, loss, silence. Real TCP; root.

    with TunLink(rate_bps=50e6, rtt_s=0.1, loss=0.02) as link:
        server = link.popen(["sshd", ...], side="server")
        link.run(["sftp", link.server_address], side="client", check=True)
        print(link.counts())

Each namespace has a TUN device. A forwarder (this file run as a program, a process of its own) carries the packets
between the two. It ends and removes the namespaces when its standard input ends, so nothing stays behind even when
the one who made the link is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

__all__ = ["Counts", "TunLink"]

Side = Literal["client", "server"]

DEVICE = "link0"
ADDRESS = {"client": "10.99.0.1", "server": "10.99.0.2"}
MTU = 1500
LEAST_QUEUE_BYTES = 256 * 1024
START_S = 10.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What went over the link since it was made, IP headers, retransmissions and what the link lost included."""

    up_bytes: int
    down_bytes: int
    up_packets: int
    down_packets: int
    dropped_packets: int


@final
class TunLink:
    """A link between two fresh network namespaces.

    rate_bps: bits per second, each direction for itself.
    rtt_s: round trip of an empty link; half of it in each direction.
    loss: part of the packets, 0 to 1, lost at random in each direction; seed makes it repeatable.
    queue_bytes: what may wait before the link; more is dropped. Default: rate x round trip, at least 256 KiB.
    """

    client_address = ADDRESS["client"]
    server_address = ADDRESS["server"]

    def __init__(
        self, rate_bps: float, rtt_s: float, loss: float = 0.0, *, queue_bytes: int | None = None, seed: int = 1
    ) -> None:
        self.rate_bps = rate_bps
        self.rtt_s = rtt_s
        self.loss = loss
        self.queue_bytes = queue_bytes or max(LEAST_QUEUE_BYTES, int(rate_bps * rtt_s / 8))
        self.seed = seed
        name = f"tl{os.getpid()}-{next(_numbers)}"
        self.client, self.server = f"{name}c", f"{name}s"
        self._forwarder: subprocess.Popen[str] | None = None
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> TunLink:
        plan = json.dumps(
            [self.client, self.server, self.rate_bps, self.rtt_s / 2, self.loss, self.queue_bytes, self.seed]
        )
        command = [sys.executable, __file__, plan]
        self._forwarder = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._ask("counts")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            with process:  # its pipes are closed, and it is waited for
                process.kill()
        if self._forwarder is not None:
            with self._forwarder as forwarder:
                complaints = forwarder.communicate()[1]  # closing its input ends it; it removes the namespaces
            if forwarder.returncode:
                raise RuntimeError(
                    f"the forwarder of the link ended with {forwarder.returncode}: {_reason(complaints)}"
                )

    def command(self, command: Sequence[str], side: Side = "client") -> list[str]:
        """The command as it is to be started from outside; it becomes one process, without a wrapper in between."""
        return ["ip", "netns", "exec", self.client if side == "client" else self.server, *command]

    def run(self, command: Sequence[str], side: Side = "client", **options: Any) -> subprocess.CompletedProcess[Any]:
        """subprocess.run on one side of the link."""
        options.setdefault("check", False)
        return subprocess.run(self.command(command, side), **options)  # noqa: PLW1510  # it is in the options

    def popen(self, command: Sequence[str], side: Side = "client", **options: Any) -> subprocess.Popen[Any]:
        """subprocess.Popen on one side of the link; what still runs at the link's end is killed."""
        process = subprocess.Popen(self.command(command, side), **options)
        self._processes.append(process)
        return process

    def silence(self) -> None:
        """From now on nothing arrives, in either direction; what is on the way is lost."""
        self._ask("silence")

    def restore(self) -> None:
        self._ask("restore")

    def counts(self) -> Counts:
        return Counts(*self._ask("counts"))

    def _ask(self, what: str) -> list[int]:
        assert self._forwarder is not None
        assert self._forwarder.stdin is not None
        assert self._forwarder.stdout is not None
        self._forwarder.stdin.write(f"{what}\n")
        self._forwarder.stdin.flush()
        answer = self._forwarder.stdout.readline()
        if not answer:
            raise RuntimeError("the forwarder of the link has ended")
        return list(json.loads(answer))


_numbers = iter(range(1_000_000))


def _reason(complaints: str) -> str:
    """What the tools said, and the last line of the traceback."""
    lines = [line for line in complaints.splitlines() if line and not line.startswith((" ", "Traceback"))]
    return "; ".join(lines)


# The forwarder's own process.


class Lane:
    """One direction: packets wait for their turn at the rate, then spend the delay on the line.

    The queue needs no room of its own: `free_at` says when the last byte accepted will have left it.
    """

    def __init__(self, rate_bps: float, delay_s: float, loss: float, queue_bytes: int, seed: int) -> None:
        self.bytes = self.packets = self.dropped = 0
        self.line: deque[tuple[float, bytes]] = deque()
        self._byte_s = 8 / rate_bps
        self._delay_s = delay_s
        self._loss = loss
        self._queue_s = queue_bytes * self._byte_s
        self._random = random.Random(seed)
        self._free_at = 0.0

    def take(self, packet: bytes, now: float, *, silent: bool) -> None:
        self.bytes += len(packet)
        self.packets += 1
        start = max(self._free_at, now)
        if silent or start - now > self._queue_s:
            self.dropped += 1
            return
        self._free_at = start + len(packet) * self._byte_s
        if self._loss and self._random.random() < self._loss:
            self.dropped += 1
        else:
            self.line.append((self._free_at + self._delay_s, packet))

    def deliver(self, device: int, now: float, *, silent: bool) -> None:
        while self.line and self.line[0][0] <= now:
            packet = self.line.popleft()[1]
            if silent:
                self.dropped += 1
            else:
                _write(device, packet)


class Forwarder:
    def __init__(self, devices: tuple[int, int], lanes: tuple[Lane, Lane]) -> None:
        self._up, self._down = lanes
        self._devices = devices
        self._ways = ((devices[0], self._up), (devices[1], self._down))
        self._silent = False

    def run(self) -> None:
        """Carry packets until standard input ends."""
        inputs = [*self._devices, 0]
        while True:
            ready, _, _ = select.select(inputs, [], [], self._wait_s())
            now = time.monotonic()
            for device, lane in self._ways:
                if device in ready:
                    self._read(device, lane, now)
            self._up.deliver(self._devices[1], now, silent=self._silent)
            self._down.deliver(self._devices[0], now, silent=self._silent)
            if 0 in ready and not self._obey():
                return

    def _wait_s(self) -> float | None:
        due = [lane.line[0][0] for _, lane in self._ways if lane.line]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read(self, device: int, lane: Lane, now: float) -> None:
        for _ in range(64):  # then look at what is due
            try:
                packet = os.read(device, 65536)
            except BlockingIOError:
                return
            lane.take(packet, now, silent=self._silent)

    def _obey(self) -> bool:
        orders = os.read(0, 4096).decode().split()
        for order in orders:
            if order in ("silence", "restore"):
                self._silent = order == "silence"
            up, down = self._up, self._down
            counts = [up.bytes, down.bytes, up.packets, down.packets, up.dropped + down.dropped]
            sys.stdout.write(json.dumps(counts) + "\n")
        sys.stdout.flush()
        return bool(orders)


def _write(device: int, packet: bytes) -> None:
    with contextlib.suppress(BlockingIOError):  # the receiver's queue is full: lost, as on any link
        os.write(device, packet)


def _open_tun(namespace: str) -> int:
    """A TUN device inside a namespace, held by a descriptor of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
        _enter(libc, there.fileno())
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            tunsetiff, iff_tun, iff_no_pi = 0x400454CA, 0x0001, 0x1000
            fcntl.ioctl(device, tunsetiff, struct.pack("16sH22x", DEVICE.encode(), iff_tun | iff_no_pi))
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), "/dev/net/tun") from None
        finally:
            _enter(libc, home.fileno())
    return device


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    clone_newnet = 0x40000000
    if libc.setns(namespace, clone_newnet) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _configure(namespace: str, own: str, other: str) -> None:
    for command in (
        ["link", "set", "lo", "up"],
        ["address", "add", own, "peer", other, "dev", DEVICE],
        ["link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "1000", "up"],
    ):
        subprocess.run(["ip", "-netns", namespace, *command], check=True, stdin=subprocess.DEVNULL)


def _remove(namespace: str) -> None:
    if Path(f"/run/netns/{namespace}").exists():
        subprocess.run(["ip", "netns", "delete", namespace], check=True, stdin=subprocess.DEVNULL)


def main(plan: str) -> None:
    """Make the namespaces, carry packets between them, remove them."""
    client, server, rate_bps, delay_s, loss, queue_bytes, seed = json.loads(plan)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who made the link; input ends then
    try:
        for namespace in (client, server):
            subprocess.run(["ip", "netns", "add", namespace], check=True, stdin=subprocess.DEVNULL)
        devices = (_open_tun(client), _open_tun(server))
        _configure(client, ADDRESS["client"], ADDRESS["server"])
        _configure(server, ADDRESS["server"], ADDRESS["client"])
        up = Lane(rate_bps, delay_s, loss, queue_bytes, seed)
        down = Lane(rate_bps, delay_s, loss, queue_bytes, seed + 1)
        Forwarder(devices, (up, down)).run()
    finally:
        _remove(client)
        _remove(server)


if __name__ == "__main__":
    main(sys.argv[1])

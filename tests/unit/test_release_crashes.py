"""`iot-spooler retry` that dies, by a kill or a power cut, before any of its steps: the file is sent once more, whole.

Outbox and quarantine lie on two file systems. After each death the agent takes what it finds in the outbox, then the
operator tries again, until nothing is left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conditions import missing
from faults.powercut import PowerCutDisk
from servers.bad_input import mounted
from unit.removing import taken

from iot.sftp.client import Fingerprint
from iot.spooler.leaving import moving
from iot.spooler.leaving import release as releasing
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import release
from iot.spooler.leaving.removal import Item
from iot.spooler.outbox.scan import Outbox
from iot.transfer.beneath import PASSING

CONTENT = bytes(range(256)) * 9000
STEPS_MAX = 100


@contextmanager
def dying_before(step: int, die: Callable[[], None]) -> Iterator[None]:
    """In this process: what changes a file system is counted; the step-th is not done."""
    count = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                die()
            return real(*arguments, **keywords)

        return call

    for module, names in (
        (os, ("open", "mkdir", "rmdir", "unlink", "rename", "fsync", "utime", "fchmod")),
        (releasing, ("rename_noreplace",)),
        (moving, ("rename_noreplace", "_write")),
    ):
        for name in filter(module.__dict__.__contains__, names):
            setattr(module, name, counted(getattr(module, name)))
    yield


def released_until(step: int, die: Callable[[], None], folder: Path, box: Path) -> bool:
    """A `retry` that dies before its step-th step, in a process of its own; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        with dying_before(step, die):
            release([folder], [box])
            os._exit(0)
    return os.waitpid(pid, 0)[1] != 0


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Device:
    """sent: what the agent has delivered, in order."""

    def __init__(self, box: Path, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.sent: list[tuple[bytes, bytes]] = []

    def quarantine(self) -> None:
        self.box.mkdir()
        (self.box / "f").write_bytes(CONTENT)
        (self.box / "f").chmod(0o640)
        os.utime(self.box / "f", ns=(10**18, 10**18 + 1000))
        item = Item(1, b"f", Fingerprint.of(os.stat(self.box / "f")))
        root = os.open(self.box, os.O_RDONLY)
        try:
            assert taken(root, [item], Quarantine(self.folder, self.box)) == ([1], [])
        finally:
            os.close(root)

    def deliver(self) -> None:
        outbox = Outbox(self.box, wanted=lambda _: True, clock=lambda: 0.0)
        for found in [found for batch in outbox.walk(whole=True) for found in batch]:
            self.sent.append((found.path, (self.box / os.fsdecode(found.path)).read_bytes()))
            (self.box / os.fsdecode(found.path)).unlink()
        outbox.release()

    def assert_sent_once(self) -> None:
        assert self.sent == [(b"f", CONTENT)]
        assert list(self.folder.iterdir()) == []
        assert [name for name in os.listdir(self.box) if PASSING.fullmatch(os.fsencode(name))] == []


@contextmanager
def two_disks(kind: str, base: Path) -> Iterator[tuple[Path, Path]]:
    """Two file systems, for an outbox and a quarantine."""
    with ExitStack() as stack:
        for name in ("one", "two"):
            (base / name).mkdir(parents=True)
        if kind == "tmpfs to tmpfs":
            yield tuple(stack.enter_context(mounted(base / name, "tmpfs", "mode=755")) for name in ("one", "two"))
            return
        disk = stack.enter_context(PowerCutDisk(base / "one"))
        other = stack.enter_context(mounted(base / "two", "tmpfs", "mode=755"))
        yield (disk.path, other) if kind == "tmpfs to ext4" else (other, disk.path)


@pytest.mark.needs("root", "loop-mounts")
@pytest.mark.parametrize("kind", ["tmpfs to tmpfs", "tmpfs to ext4", "ext4 to tmpfs"])
def test_a_release_that_is_killed_at_any_step_sends_the_file_once(tmp_path: Path, kind: str) -> None:
    steps = 0
    with two_disks(kind, tmp_path) as (one, two):
        for step in range(1, STEPS_MAX):
            device = Device(one / f"box{step}", two / f"q{step}")
            device.quarantine()
            died = released_until(step, killed, device.folder, device.box)
            device.deliver()
            release([device.folder], [device.box])
            device.deliver()
            release([device.folder], [device.box])
            device.assert_sent_once()
            if not died:
                steps = step
                break
    assert steps > 20, "the steps are not counted"


@pytest.mark.needs("root", "loop-mounts")
def test_a_release_whose_power_is_cut_at_any_step_loses_nothing_and_sends_it_once(tmp_path: Path) -> None:
    """Both disks lose at once what they were not told to keep."""
    steps = 0
    with PowerCutDisk(tmp_path / "one") as one, PowerCutDisk(tmp_path / "two") as two:
        for step in range(1, STEPS_MAX):
            device = Device(one.path / f"box{step}", two.path / f"q{step}")
            device.quarantine()
            os.sync()

            def cut() -> None:
                one.cut()
                two.cut()
                killed()

            died = released_until(step, cut, device.folder, device.box)
            if died:
                one.remount()
                two.remount()
            device.deliver()
            release([device.folder], [device.box])
            device.deliver()
            release([device.folder], [device.box])
            device.assert_sent_once()
            if not died:
                steps = step
                break
    assert steps > 20, "the steps are not counted"


def test_a_file_that_its_agent_had_not_wholly_moved_is_not_released_beside_its_original(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent was killed between the copy and the unlink: its row brings it to the quarantine once more."""
    device = Device(tmp_path / "box", tmp_path / "q")
    device.quarantine()
    (device.box / ".iot-sent.#1.f").write_bytes(CONTENT)
    assert release([device.folder], [device.box]) == (0, 1)
    assert "start the agent first" in caplog.text
    (device.box / ".iot-sent.#1.f").unlink()
    assert release([device.folder], [device.box]) == (1, 0)


def test_a_place_that_is_taken_after_the_copy_keeps_the_file_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_file_systems(tmp_path) as (one, two):
        device = Device(one / "box", two / "q")
        device.quarantine()
        real = os.unlink

        def late(name: object, **keywords: object) -> None:
            real(name, **keywords)
            if name == b"f":
                (device.box / "f").write_bytes(b"newer")

        monkeypatch.setattr(os, "unlink", late)
        assert release([device.folder], [device.box]) == (0, 1)
        monkeypatch.undo()
        assert "its place is taken" in caplog.text
        device.deliver()
        assert release([device.folder], [device.box]) == (1, 0)
        device.deliver()
        assert device.sent == [(b"f", b"newer"), (b"f", CONTENT)]


@contextmanager
def two_file_systems(base: Path) -> Iterator[tuple[Path, Path]]:
    import shutil
    import tempfile

    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if other.stat().st_dev == base.stat().st_dev:
        missing("/dev/shm is on the same file system")
    try:
        yield base, other
    finally:
        shutil.rmtree(other)

"""A delivered file goes on into the next outbox: under its path, whole, without replacing another, whatever dies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults.powercut import PowerCutDisk
from servers.bad_input import mounted
from unit.agent_rig import Rig
from unit.removing import taken
from unit.test_release_crashes import killed, two_disks, two_file_systems

from iot.sftp.client import Fingerprint
from iot.spooler.agent.draining import End
from iot.spooler.leaving import forward, moving
from iot.spooler.leaving.forward import Forward
from iot.spooler.leaving.removal import Item, private_names
from iot.spooler.outbox.scan import Outbox
from iot.transfer import beneath

CONTENT = bytes(range(256)) * 9000
STEPS_MAX = 100
PATH = b"sub/f.csv"


def put(box: Path, path: bytes = PATH, content: bytes = CONTENT) -> Item:
    file = box / os.fsdecode(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, ns=(10**18, 10**18))
    return Item(1, path, Fingerprint.of(os.stat(file)))


def forwarded(box: Path, target: Path, *items: Item) -> tuple[list[int], list[tuple[int, OSError]]]:
    root = os.open(box, os.O_RDONLY)
    try:
        return taken(root, items, Forward(target, box))
    finally:
        os.close(root)


def found(box: Path) -> dict[str, bytes]:
    """What an agent of this outbox would send."""
    outbox = Outbox(box, wanted=lambda _: True, clock=lambda: 0.0)
    try:
        paths = [os.fsdecode(each.path) for batch in outbox.walk(whole=True) for each in batch]
    finally:
        outbox.release()
    return {path: (box / path).read_bytes() for path in paths}


def files(box: Path) -> list[str]:
    return sorted(str(path.relative_to(box)) for path in box.rglob("*") if path.is_file())


@contextmanager
def two_boxes(base: Path, kind: str) -> Iterator[tuple[Path, Path]]:
    with ExitStack() as stack:
        one, two = (base, base) if kind == "one disk" else stack.enter_context(two_file_systems(base))
        boxes = one / "box", two / "next"
        for box in boxes:
            box.mkdir()
        yield boxes


KINDS = pytest.mark.parametrize("kind", ["one disk", "two disks"])


@KINDS
def test_a_file_goes_on_under_its_path_with_its_times(tmp_path: Path, kind: str) -> None:
    with two_boxes(tmp_path, kind) as (box, target):
        assert forwarded(box, target, put(box)) == ([1], [])
        assert files(box) == []
        assert found(target) == {"sub/f.csv": CONTENT}
        assert (target / "sub/f.csv").stat().st_mtime_ns == 10**18


@KINDS
def test_a_file_of_that_path_there_is_not_replaced_and_both_are_sent(tmp_path: Path, kind: str) -> None:
    with two_boxes(tmp_path, kind) as (box, target):
        put(target, content=b"earlier")
        assert forwarded(box, target, put(box)) == ([1], [])
        assert found(target) == {"sub/f.csv": b"earlier", "sub/f-1.csv": CONTENT}
        assert forwarded(box, target, put(box, content=b"third")) == ([1], [])
        assert found(target)["sub/f-2.csv"] == b"third"
        assert files(box) == []


def test_what_has_gone_on_is_counted(tmp_path: Path) -> None:
    with two_boxes(tmp_path, "one disk") as (box, target):
        forward_of_box = Forward(target, box)
        root = os.open(box, os.O_RDONLY)
        counts = [forward_of_box.moved]
        for name in (b"a", b"b"):
            taken(root, [put(box, name)], forward_of_box)
            counts.append(forward_of_box.moved)
        os.close(root)
        assert counts == [0, 1, 2]


def test_a_link_in_the_next_outbox_leads_nowhere(tmp_path: Path) -> None:
    with two_boxes(tmp_path, "one disk") as (box, target):
        (tmp_path / "outside").mkdir()
        (target / "sub").symlink_to(tmp_path / "outside")
        done, failed = forwarded(box, target, put(box))
        assert (done, len(failed)) == ([], 1)
        assert files(tmp_path / "outside") == []
        assert (box / "sub" / os.fsdecode(private_names(1, b"f.csv")[0])).read_bytes() == CONTENT


def test_a_next_outbox_that_is_away_is_named_and_waited_for(tmp_path: Path) -> None:
    with two_boxes(tmp_path, "one disk") as (box, target):
        item = put(box)
        target.rmdir()
        done, [(key, error)] = forwarded(box, target, item)
        assert (done, key) == ([], 1)
        assert str(target) in str(error)
        assert not target.exists()
        target.mkdir()
        assert forwarded(box, target, item) == ([1], [])
        assert found(target) == {"sub/f.csv": CONTENT}


@pytest.mark.needs("root", "loop-mounts")
def test_nothing_goes_into_the_mount_point_of_a_medium_that_was_taken_away(tmp_path: Path) -> None:
    box, medium = tmp_path / "box", tmp_path / "medium"
    box.mkdir()
    medium.mkdir()
    (medium / "next").mkdir()
    leaver = Forward(medium / "next", box)
    root = os.open(box, os.O_RDONLY)
    try:
        with mounted(medium, "tmpfs", "mode=755"):
            (medium / "next").mkdir()
            assert taken(root, [put(box)], leaver) == ([1], [])
        done, [(_, error)] = taken(root, [put(box)], leaver)
        assert done == []
        assert "no longer mounted" in str(error)
    finally:
        os.close(root)
    assert files(medium) == []


# -- death at any step


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

    from iot.spooler.leaving import removal

    for module, names in (
        (os, ("mkdir", "unlink", "rename", "fsync", "utime", "fchmod")),
        (moving, ("rename_noreplace", "_write")),
        (removal, ("rename_noreplace",)),
    ):
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    yield


def forwarded_until(step: int, die: Callable[[], None], box: Path, target: Path, item: Item) -> bool:
    """In a process of its own, which dies before its step-th step; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        with dying_before(step, die):
            forwarded(box, target, item)
            os._exit(0)
    return os.waitpid(pid, 0)[1] != 0


def assert_it_is_somewhere(box: Path, target: Path) -> None:
    """Whole, under its name, under the name that its row knows, or as what is sent next."""
    private = [os.fsdecode(beneath.join(b"sub", name)) for name in private_names(1, b"f.csv")]
    places = [box / path for path in ("sub/f.csv", *private)]
    here = [path for path in places if path.is_file() and path.read_bytes() == CONTENT]
    there = found(target)
    assert set(there) <= {"sub/f.csv"}
    assert set(there.values()) <= {CONTENT}, "half a file would be sent"
    assert here or there


def assert_gone_on(box: Path, target: Path) -> None:
    assert files(box) == []
    assert files(target) == ["sub/f.csv"]
    assert found(target) == {"sub/f.csv": CONTENT}


@pytest.mark.needs("root", "loop-mounts")
@pytest.mark.parametrize("kind", ["one", "tmpfs to tmpfs", "tmpfs to ext4", "ext4 to tmpfs"])
def test_a_move_that_is_killed_at_any_step_loses_nothing_and_is_finished_by_the_next(tmp_path: Path, kind: str) -> None:
    steps = 0
    with ExitStack() as stack:
        one, two = (tmp_path, tmp_path) if kind == "one" else stack.enter_context(two_disks(kind, tmp_path))
        for step in range(1, STEPS_MAX):
            box, target = one / f"box{step}", two / f"next{step}"
            box.mkdir()
            target.mkdir()
            item = put(box)
            died = forwarded_until(step, killed, box, target, item)
            assert_it_is_somewhere(box, target)
            assert forwarded(box, target, item) == ([1], [])
            assert_gone_on(box, target)
            if not died:
                steps = step
                break
    assert steps > (5 if kind == "one" else 10), "the steps are not counted"


@pytest.mark.needs("root", "loop-mounts")
@pytest.mark.parametrize("kind", ["one disk", "two disks"])
def test_a_move_whose_power_is_cut_at_any_step_loses_nothing(tmp_path: Path, kind: str) -> None:
    """The disks lose at once what they were not told to keep."""
    steps = 0
    with ExitStack() as stack:
        disks = [stack.enter_context(PowerCutDisk(tmp_path / "one"))]
        if kind == "two disks":
            disks.append(stack.enter_context(PowerCutDisk(tmp_path / "two")))

        def cut() -> None:
            for disk in disks:
                disk.cut()
            killed()

        for step in range(1, STEPS_MAX):
            box, target = disks[0].path / f"box{step}", disks[-1].path / f"next{step}"
            box.mkdir()
            target.mkdir()
            item = put(box)
            os.sync()
            died = forwarded_until(step, cut, box, target, item)
            if died:
                for disk in disks:
                    disk.remount()
            assert_it_is_somewhere(box, target)
            assert forwarded(box, target, item) == ([1], [])
            assert_gone_on(box, target)
            if not died:
                steps = step
                break
    assert steps > 5, "the steps are not counted"


# -- with an agent around it


class ChainRig(Rig):
    """One agent with three outboxes: box, next and last."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        for name in ("next", "last"):
            (base / name).mkdir()
        self.outbox |= {"after_upload": "forward", "forward_to": "next"}
        self.more: list[dict[str, object]] = [
            {"path": str(base / "next"), "destination": "/second", "settle_s": 0, "after_upload": "forward",
             "forward_to": "last"},
            {"path": str(base / "last"), "destination": "/third", "settle_s": 0},
        ]  # fmt: skip

    def settings(self) -> dict[str, object]:
        settings = super().settings()
        return {**settings, "outbox": [self.outbox, *self.more]}

    def at(self, folder: str) -> dict[str, bytes]:
        root = self.base / "remote" / folder
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_drain_follows_the_chain_to_its_end(tmp_path: Path) -> None:
    rig = ChainRig(tmp_path)
    names = [f"d{number % 3}/f{number}" for number in range(40)]
    for name in names:
        rig.put(name, name.encode())
    assert rig.run() is End.DRAINED
    for folder in ("up", "second", "third"):
        assert rig.at(folder) == {name: name.encode() for name in names}
    assert [files(rig.base / name) for name in ("box", "next", "last")] == [[], [], []]


def test_what_was_delivered_and_could_not_go_on_goes_on_later_and_is_not_sent_again(tmp_path: Path) -> None:
    rig = ChainRig(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    rig.outbox["forward_to"] = str(elsewhere)
    rig.put("f")
    assert rig.run() is End.REMAINS
    assert rig.at("up") == {"f": b"x"}
    elsewhere.mkdir()
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 1
    assert found(elsewhere) == {"f": b"x"}


def test_what_an_interrupted_move_has_left_is_of_one_outbox_one_path_and_one_version() -> None:
    def staged(outbox: bytes, path: bytes, *version: int) -> bytes:
        return forward._staged(outbox, SimpleNamespace(path=path, fingerprint=Fingerprint(*version)))  # type: ignore[arg-type]

    names = {staged(b"/a", b"f", 1, 2), staged(b"/b", b"f", 1, 2), staged(b"/a", b"g", 1, 2)}
    names |= {staged(b"/a", b"f", 3, 2), staged(b"/a", b"f", 1, 4)}
    assert len(names) == 5
    assert staged(b"/a", b"f", 1, 2) == b".iot-back.28ec0da3fabc668a"  # the agent that goes on may be a newer one

"""Which compressed files are kept, made again or removed, and what is remembered of them; the clock is the test's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.compression import packing as module
from iot.spooler.compression.folder import Folder, Made
from iot.spooler.compression.packer import Task
from iot.spooler.compression.packing import SWEEP_S, Packing
from iot.spooler.config.packed import Compression
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry
from iot.transfer import Fingerprint

SIZE = 1000
"""Of each original. A third of that is left of it when it is compressed."""


class Packer:
    """Takes tasks, and does them when the test says so."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.asked: list[Task] = []
        self.finished = 0
        self.is_busy = False
        self._done: dict[str, Made | None] = {}

    def ask(self, task: Task) -> None:
        self.asked.append(task)

    def does(self, *, pays: bool = True) -> Task:
        """The oldest one."""
        task = self.asked.pop(0)
        self.finished += 1
        if pays:
            with self.folder.making(task.name, 5) as file:
                os.write(file, bytes(SIZE // 3))
        self._done[task.name] = self.folder.made(task.name) if pays else None
        return task

    def take(self) -> dict[str, Made | None]:
        done, self._done = self._done, {}
        return done

    def stop(self) -> None:
        """Nothing runs."""


class Desk:
    """What surrounds the packing, in memory. rows: of the queue."""

    def __init__(self, base: Path) -> None:
        self.now = 100.0
        self.rows: dict[int, Entry] = {}
        self.queue = SimpleNamespace(
            known=lambda outbox, paths: {},
            compressions=lambda outbox: frozenset({"gzip"}),
            entries=lambda ids: [self.rows[number] for number in ids if number in self.rows],
            page=lambda outbox, after_id, most: [row for number, row in self.rows.items() if number > after_id],
        )
        settings = SimpleNamespace(path=base / "box", compress=Compression.GZIP)
        self.intake: Any = SimpleNamespace(
            number=1, settings=settings, source=lambda each: f"/box/{each.path.decode()}"
        )
        self.base = base
        self.packing = self.fresh()

    def fresh(self, most: int = 100 * SIZE) -> Packing:
        self.packing = Packing(self.base, [self.intake], self.queue, most, lambda: self.now)  # type: ignore[arg-type]
        self.packing.tend()
        return self.packing

    @property
    def packer(self) -> Packer:
        packer = self.packing._packer
        assert isinstance(packer, Packer)
        return packer

    def entry(self, number: int, path: bytes | None = None, **more: Any) -> Entry:
        version = Fingerprint(SIZE, number, 0, number)
        name = path or b"f%d" % number
        plain = Entry(
            number, 1, name, State.READY, version, False, 5, "", None, 1, 0, 1.0, False, None, 0, 0, 0, None
        )  # fmt: skip
        self.rows[number] = plain._replace(**more)
        return self.rows[number]

    def moves(self, number: int, state: State) -> None:
        self.rows[number] = self.rows[number]._replace(state=state)

    def packed(self, number: int) -> Entry:
        """An entry whose compressed file is made."""
        entry = self.entry(number)
        assert not self.packing.is_ready(entry)
        self.packer.does()
        assert self.packing.is_ready(entry)
        return entry

    def there(self) -> int:
        """How many compressed files there are."""
        folder = self.base / "compressed"
        return len(list(folder.iterdir())) if folder.exists() else 0

    def swept(self) -> int:
        self.now += SWEEP_S
        self.packing.tend()
        return self.there()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(module, "Packer", Packer)
    return Desk(tmp_path)


def test_only_the_name_itself_must_not_be_too_long_with_the_suffix(desk: Desk) -> None:
    assert not desk.packing.is_ready(desk.entry(1, b"d" * 200 + b"/" + b"n" * 200))
    assert len(desk.packer.asked) == 1
    assert desk.packing.is_ready(desk.entry(2, b"n" * 253))
    assert not desk.packing.is_ready(desk.entry(3, b"n" * 252))


@pytest.mark.parametrize("state", [State.READY, State.SENDING, State.WAITING])
def test_it_stays_until_its_entry_needs_it_no_more(desk: Desk, state: State) -> None:
    desk.packed(1)
    desk.moves(1, state)
    assert desk.swept() == 1
    desk.moves(1, State.DELIVERED)
    assert desk.swept() == 0


def test_it_is_removed_soon_also_where_there_had_been_nothing_to_remove(desk: Desk) -> None:
    desk.packing.tend()
    assert desk.swept() == 0
    desk.packed(1)
    desk.moves(1, State.DELIVERED)
    assert desk.swept() == 0


def unreadable(*_: object) -> list[Made]:
    raise OSError("a bad disk")


def test_what_an_earlier_run_has_left_is_removed_as_soon_as_the_folder_can_be_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = desk.base / "compressed"
    folder.mkdir()
    (folder / "left").write_bytes(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "kept", unreadable)
        desk.fresh()
        assert desk.swept() == 1
    assert desk.swept() == 0


def test_what_is_being_compressed_takes_up_room_already(desk: Desk) -> None:
    desk.fresh(2 * SIZE)
    entries = [desk.entry(number) for number in (1, 2, 3)]
    assert [desk.packing.is_ready(entry) for entry in entries] == [False] * 3
    assert len(desk.packer.asked) == 2
    desk.packer.does()
    desk.packer.does()
    assert [desk.packing.is_ready(entry) for entry in entries] == [True, True, False]


def test_no_more_of_those_that_wait_go_for_others_than_have_to(desk: Desk) -> None:
    desk.fresh(3 * (SIZE // 3) + SIZE - 1)
    for number in (1, 2, 3):
        desk.packing.ended([desk.packed(number)])
    assert not desk.packing.is_ready(desk.entry(4))
    assert (desk.there(), len(desk.packer.asked)) == (2, 1)


def test_what_is_being_sent_goes_for_no_other(desk: Desk) -> None:
    desk.fresh(SIZE)
    first = desk.packed(1)
    second = desk.entry(2)
    assert not desk.packing.is_ready(second)
    assert (desk.there(), desk.packer.asked) == (1, [])
    desk.packing.ended([first])
    assert not desk.packing.is_ready(second)
    assert (desk.there(), len(desk.packer.asked)) == (0, 1)


def test_what_was_begun_compressed_has_to_be_whether_or_not_it_pays(desk: Desk) -> None:
    desk.packing.is_ready(desk.entry(1))
    desk.packing.is_ready(desk.entry(2, destination="/up/f2.gz"))
    assert [task.must for task in desk.packer.asked] == [False, True]


def test_what_could_not_be_made_again_is_tried_again_with_the_next_attempt(desk: Desk) -> None:
    entry = desk.entry(1, destination="/up/f1.gz")
    assert not desk.packing.is_ready(entry)
    desk.packer.does(pays=False)
    assert desk.packing.is_ready(entry)  # the attempt will say what is wrong
    news = desk.packing.news
    desk.packing.ended([entry])
    assert desk.packing.news != news
    assert not desk.packing.is_ready(entry)
    assert len(desk.packer.asked) == 1


def test_nothing_is_remembered_of_files_that_are_done(desk: Desk) -> None:
    """An agent runs for months."""
    desk.packed(1)
    desk.moves(1, State.DELIVERED)
    plain = desk.entry(2)
    assert not desk.packing.is_ready(plain)
    desk.packer.does(pays=False)
    assert desk.packing.is_ready(plain)
    assert desk.packing.suffix(plain) == ""
    desk.packing.ended([plain._replace(destination="/up/f2")])
    assert desk.swept() == 0
    kept = desk.packing
    assert [kept._made, kept._wanted, kept._pending, kept._plain, kept._used_by] == [{}, {}, {}, set(), {}]


# -- which file is sent, and under which name


def test_before_its_name_is_decided_the_suffix_says_whether_it_is_compressed(desk: Desk) -> None:
    entry = desk.entry(1)
    assert (desk.packing.suffix(entry), desk.packing.is_busy) == ("", False)
    news = desk.packing.news
    for _ in range(2):
        assert not desk.packing.is_ready(entry)
    assert len(desk.packer.asked) == 1  # once
    desk.packer.does()
    assert desk.packing.news != news
    assert desk.packing.is_ready(entry)
    assert desk.packing.suffix(entry) == ".gz"
    begun = entry._replace(destination="/up/f1.gz")
    [made] = desk.packing._made.values()
    assert desk.packing.source(begun) == (made.path, made.fingerprint)
    assert desk.packing.path(begun, begun.destination) == made.path
    assert desk.packing.path(begun, "/up/f1") == "/box/f1"  # an earlier attempt was made with the original
    plain = desk.entry(2, destination="/up/f2")
    assert desk.packing.is_ready(plain)
    assert desk.packing.source(plain) == ("/box/f2", plain.fingerprint)


@pytest.mark.parametrize(
    ("path", "more", "known", "compressed"),
    [
        (b"f", {}, {}, True),
        (b"f.gz", {}, {}, False),
        (b"f", {}, {b"f.gz": object()}, False),  # another file has that name
        (b"f", {}, {b"f": object()}, True),
        (b"f", {"fingerprint": Fingerprint(5 * SIZE, 1)}, {}, True),
        (b"f", {"fingerprint": Fingerprint(5 * SIZE + 1, 1)}, {}, False),
        (b"f", {"destination": "/up/f.gz"}, {b"f.gz": object()}, True),  # it was begun so
        (b"f.gz", {"destination": "/up/f.gz"}, {}, False),
        (b"f", {"destination": "/up/f.zst"}, {}, False),  # nobody has ever compressed so here
        (b"f", {"destination": "/up/f"}, {}, False),
    ],
)
def test_which_files_are_compressed(desk: Desk, path: bytes, more: Any, known: Any, compressed: bool) -> None:
    desk.fresh(5 * SIZE)
    desk.queue.known = lambda outbox, paths: {each: known[each] for each in paths if each in known}
    assert desk.packing.is_ready(desk.entry(1, path, **more)) is not compressed
    assert len(desk.packer.asked) == compressed


def test_without_that_setting_only_what_was_begun_so_is_compressed(desk: Desk) -> None:
    desk.intake.settings.compress = None
    assert desk.packing.is_ready(desk.entry(1))
    assert not desk.packing.is_ready(desk.entry(2, destination="/up/f2.gz"))


def test_after_a_restart_what_is_still_needed_is_used_and_the_rest_is_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iot.spooler.compression.folder.KEPT_BYTES", SIZE // 3)
    monkeypatch.setattr(module, "PAGE", 2)
    rows = desk.rows
    desk.queue.page = lambda outbox, after_id, most: [rows[number] for number in sorted(rows) if number > after_id][
        :most
    ]
    for number in (1, 2, 3, 4):
        desk.packed(number)
        rows[number] = rows[number]._replace(destination=f"/up/f{number}.gz")
    desk.moves(2, State.DELIVERED)
    rows[3] = rows[3]._replace(destination="/up/f3")
    desk.fresh()
    assert desk.there() == 2
    for number, asked in ((1, 0), (4, 0), (3, 0)):
        assert desk.packing.is_ready(rows[number])
        assert len(desk.packer.asked) == asked
    desk.moves(1, State.DELIVERED)
    assert desk.swept() == 1


def test_at_the_end_what_nobody_needs_goes(desk: Desk) -> None:
    desk.packed(1)
    desk.packed(2)
    desk.moves(1, State.DELIVERED)
    assert not desk.packing.is_ready(desk.entry(3))
    desk.packer.does()
    desk.packing.close()
    assert desk.there() == 2


def test_a_folder_that_could_not_be_read_at_first_costs_no_file_of_this_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a folder that somebody has made in it keeps nothing from being tidied."""
    there = desk.base / "compressed"
    (there / "foreign").mkdir(parents=True)
    (there / "0123456789abcdef.gz").write_bytes(b"of an earlier run")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "kept", unreadable)
        desk.fresh()
    desk.packed(1)
    assert desk.swept() == 2
    assert desk.packing.is_ready(desk.rows[1])
    assert [Path(name).suffix for name in os.listdir(there)].count(".gz") == 1

"""Where an outbox is: who has claimed it, whether it is still the same folder, and what could be known of its files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.outbox import place as module
from iot.spooler.outbox.lease import Answer, Completeness, Writer
from iot.spooler.outbox.place import OutboxTaken, Place, SourceFailed, completeness_of
from iot.spooler.state.lock import AlreadyRunning


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


@pytest.fixture
def place(box: Path) -> Iterator[Place]:
    found = Place(box)
    yield found
    found.release()


def opened(place: Place) -> None:
    os.close(place.open())


class Leases:
    """Notes what it is asked for. answers: by name; else nobody writes to it."""

    def __init__(self, root: int) -> None:
        self.completeness = Completeness(known=True)
        self.asked: list[bytes] = []

    def ask(self, folder: int, name: bytes) -> Answer:
        self.asked.append(name)
        if name == b"secret":
            self.completeness = Completeness(known=False, reason="files of other users")
        return Answer(Writer.NONE, None)


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> list[Leases]:
    made: list[Leases] = []
    monkeypatch.setattr(module, "Leases", lambda root: made.append(Leases(root)) or made[-1])
    return made


# -- what could be known


def test_what_can_be_known_is_judged_by_some_of_the_files_and_by_nothing_else(
    box: Path, leases: list[Leases], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 3)
    (box / "link").symlink_to("secret")
    (box / "folder").mkdir()
    assert completeness_of(box) == "known"
    (box / "secret").touch()
    assert completeness_of(box) == "guessed (files of other users)"
    assert [each.asked for each in leases] == [[], [b"secret"]]
    (box / "secret").unlink()
    for number in range(5):
        (box / f"{number}").touch()
    completeness_of(box)
    assert len(leases[-1].asked) == 3


def test_where_nothing_can_be_examined_that_is_said(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "Leases", failing)
    assert completeness_of(box) == "unknown: Input/output error"


# -- whose it is


def test_an_outbox_of_another_agent_is_taken_and_its_process_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(root: int, path: Path) -> None:
        raise AlreadyRunning(path, 77)

    monkeypatch.setattr(module, "OutboxClaim", taken)
    with pytest.raises(OutboxTaken) as caught:
        place.open()
    words = f"another agent (process 77) works on {place.path}; one at a time"
    assert (str(caught.value), caught.value.pid) == (words, 77)


def test_a_claim_lasts_until_it_is_released_and_a_new_folder_is_claimed_anew(
    place: Place, box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Any] = []
    released: list[int] = []

    def claim(root: int, path: Path) -> Any:
        made.append(path)
        number = len(made)
        return SimpleNamespace(counts_everywhere=True, release=lambda: released.append(number))

    monkeypatch.setattr(module, "OutboxClaim", claim)
    for _ in range(2):
        opened(place)
    assert (made, released) == ([box], [])
    box.rename(tmp_path / "old")
    box.mkdir()
    opened(place)
    assert (len(made), released, place.moved) == (2, [1], True)
    for _ in range(2):
        place.release()
    assert released == [1, 2]
    assert "folder cannot be locked" not in caplog.text


def test_of_a_device_that_is_missing_the_claim_is_given_up(place: Place, box: Path, tmp_path: Path) -> None:
    opened(place)
    released: list[bool] = []
    claimed = place._claimed
    place._claimed = SimpleNamespace(release=lambda: released.append(True) or claimed.release())

    def missing(*_: object) -> None:
        raise OSError(errno.ENOTCONN, "no longer mounted")

    place.homes = SimpleNamespace(check=missing)
    box.rename(tmp_path / "old")
    box.mkdir()
    with pytest.raises(SourceFailed, match=r"outbox .*box: no longer mounted"):
        place.open()
    assert (released, place.moved) == ([True], False)


# -- where it is


def test_only_the_folder_that_was_opened_is_home(place: Place, box: Path, tmp_path: Path) -> None:
    assert place.is_home()  # none was opened
    opened(place)
    assert place.is_home()
    assert not place.moved
    box.rename(tmp_path / "old")
    assert not place.is_home()
    box.mkdir()
    assert not place.is_home()
    opened(place)
    assert place.is_home()
    assert place.moved


def test_what_could_be_known_is_known_once_it_was_opened(place: Place, leases: list[Leases]) -> None:
    assert place.completeness is None
    opened(place)
    assert place.completeness is leases[0].completeness
    opened(place)
    assert len(leases) == 1

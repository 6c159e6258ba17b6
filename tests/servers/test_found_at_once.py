"""From the close of a file to its first byte on the server, with an agent that has nothing else to do."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.bad_input import Site, until
from servers.openssh import OpenSSH

FILES = 20
FIRST_BYTE_S = 0.05
"""As wanted of a quarter of the files: other tests run beside this one. Without events it would be seconds for each."""
EACH_S = 2.0
REST_S = 0.3


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    site = Site(sshd, tmp_path / "device")
    del site.outbox["settle_s"], site.top["scan_s"]
    return site


def seconds_until(there: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not there():
        assert time.monotonic() < began + EACH_S
        time.sleep(0.0005)
    return time.monotonic() - began


def is_there(folder: Path, name: str) -> bool:
    """Whether a byte of it is, in its part or under its name."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(name):
                try:
                    return entry.stat().st_size > 0
                except FileNotFoundError:
                    return False  # renamed meanwhile
    return False


def test_a_file_that_was_closed_is_on_its_way_within_50_ms(site: Site) -> None:
    with site.running():
        site.put("first", b"x")
        until(lambda: site.arrived() == ["first"] and not site.left(), 60)
        up = site.server.root / "up"
        took_s = []
        for number in range(FILES):
            time.sleep(REST_S)
            name = f"file-{number:03}"
            with (site.box / name).open("wb") as file:
                file.write(b"x" * 1024)
            took_s.append(seconds_until(lambda name=name: is_there(up, name)))  # type: ignore[misc]
        until(lambda: not site.left())
    print(f"close to first byte: median {statistics.median(took_s):.4f} s, most {max(took_s):.4f} s")
    assert statistics.quantiles(took_s, n=4)[0] < FIRST_BYTE_S


LARGE = os.urandom(3_000_000)
ANOTHER = os.urandom(2_000_000)


def finished(site: Site) -> list[str]:
    """Without the parts of uploads that were given up: they are removed later."""
    return [name for name in site.arrived() if not name.endswith(".part")]


def rewritten(file: Path) -> None:
    file.write_bytes(ANOTHER)


def removed(file: Path) -> None:
    file.unlink()


def made_again(file: Path) -> None:
    file.unlink()
    file.write_bytes(ANOTHER)


def moved_within(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))


def moved_out(file: Path) -> None:
    file.rename(file.parents[1] / "out")


@pytest.mark.parametrize(
    ("change", "arrives"),
    [
        (rewritten, {"file": ANOTHER}),
        (removed, {}),
        (made_again, {"file": ANOTHER}),
        (moved_within, {"elsewhere": LARGE}),
        (moved_out, {}),
    ],
)
def test_a_file_that_changes_while_it_is_sent_arrives_as_it_is_then_or_not_at_all(
    site: Site, change: Callable[[Path], None], arrives: dict[str, bytes]
) -> None:
    site.login["max_rate"] = "1 MB/s"
    with site.running():
        site.put("first", b"x")
        until(lambda: site.arrived() == ["first"] and not site.left(), 60)
        file = site.put("file", LARGE)
        until(lambda: is_there(site.server.root / "up", "file"), 30)
        change(file)
        wanted = sorted(["first", *arrives])
        until(lambda: finished(site) == wanted and not site.left(), 60)
    assert {name: site.content(name) for name in arrives} == arrives

"""Any reply, in any phase of any exchange, may be missing, late, of the wrong size or type, or no text: nothing but a
typed error comes of it, never a false success, a wait beyond the deadline, or a handle left open."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.table import Row
from unit.wrong_replies import EXCHANGES, HANGS_S, REPLY_DEADLINE_S, Bench, Exchange, Phase
from unit.wrongs import WRONGS, Wrong

from iot.transfer.errors import LinkLost, PermanentError, SFTPError, Timeout

SHARE = int(os.environ.get("IOT_SFTP_REPLIES_SHARE", "12"))
"""Of the table for each phase, one in so many: the phases of one exchange, and the same phase in others, meet the rest.
The long form (`sh tests/run faults`) plays them all."""
TAKEN_FOR_TRUE = {("list", "READDIR"), ("stat", "STAT"), ("real path", "REALPATH")}
"""Another answer of the right type to these is the server's word, whatever it is."""
UNPROVEN = ("download", "resumed download", "resumed download after a second reading")
"""With proof=size the bytes that READ gives are the server's word, too."""
LEAST_CASES = 12_000
BYTES_SHOWN = re.compile(r"\bb['\"]")


def phases(exchange: Exchange, folder: Path) -> list[Phase]:
    """Every request of the exchange; of many alike the first behind each other kind, and the last."""
    bench = Bench(folder, exchange)
    try:
        with contextlib.suppress(PermanentError) if exchange.refused else contextlib.nullcontext():
            assert exchange.good(bench, bench.play()), f"{exchange.name} does not even work as it should"
        asked = bench.channel.asked
    finally:
        bench.close()
    chosen: dict[tuple[str, str], Phase] = {}
    before = ""
    for phase in asked:
        chosen.setdefault((before, phase.what), phase)
        before = phase.what
    last = {phase.what: phase for phase in asked}
    return sorted({*chosen.values(), *last.values()})


def cases(exchange: Exchange, folders: Iterator[Path], share: int) -> Iterator[tuple[Phase, Wrong]]:
    first = EXCHANGES.index(exchange)
    for number, phase in enumerate(phases(exchange, next(folders))):
        for wrong in WRONGS[(first + number) % share :: share]:
            yield phase, wrong


def every_one(folder: Path, *, share: int) -> Row:
    """The row of the long form. Raises: AssertionError naming the first case that went wrong."""
    del folder
    row = Row("a wrong reply from the server")
    with contextlib.closing(fresh_folders()) as folders:
        for exchange in EXCHANGES:
            row.files += 1
            for phase, wrong in cases(exchange, folders, share):
                play(exchange, phase, wrong, next(folders))
                row.injected += 1
    return row


def fresh_folders() -> Iterator[Path]:
    """One after the other, in memory where there is some; the one before is removed."""
    base = Path(tempfile.mkdtemp(prefix="iot-sftp-replies-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        for number in itertools.count():
            yield base / str(number)
            shutil.rmtree(base / str(number), ignore_errors=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def folders() -> Iterator[Iterator[Path]]:
    with contextlib.closing(fresh_folders()) as some:
        yield some


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_a_wrong_reply_in_any_phase_is_never_a_false_success(exchange: Exchange, folders: Iterator[Path]) -> None:
    for phase, wrong in cases(exchange, folders, SHARE):
        play(exchange, phase, wrong, next(folders))


def test_the_table_covers_every_kind_of_request(folders: Iterator[Path]) -> None:
    met = {phase.what for exchange in EXCHANGES for phase in phases(exchange, next(folders))}
    assert met >= {
        "OPEN", "CLOSE", "READ", "WRITE", "LSTAT", "STAT", "FSETSTAT", "OPENDIR", "READDIR", "REMOVE", "MKDIR", "RMDIR",
        "REALPATH", "RENAME", "check-file-handle", "fsync@openssh.com", "limits@openssh.com",
        "posix-rename@openssh.com", "statvfs@openssh.com",
    }  # fmt: skip
    every = sum(len(phases(exchange, next(folders))) for exchange in EXCHANGES) * len(WRONGS)
    assert every >= LEAST_CASES, every


def play(exchange: Exchange, phase: Phase, wrong: Wrong, folder: Path) -> None:
    where = f"{exchange.name}: the reply to {phase.what} (request {phase.number}) is {wrong.name}"
    bench = Bench(folder, exchange)
    began = bench.clock.now
    try:
        try:
            found = bench.play(wrong, phase.number)
        except SFTPError as error:
            check_failure(bench, phase, wrong, error, where)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__} is no typed error") from error
        else:
            true = exchange.good(bench, found) or (exchange.name, phase.what) in TAKEN_FOR_TRUE
            true = true or (exchange.name in UNPROVEN and (phase.what, wrong.name) == ("READ", "data"))
            assert true, f"{where}: success was reported"
            expect_no_handle(bench, phase, wrong, where)
        assert bench.clock.now - began < HANGS_S, f"{where}: it took {bench.clock.now - began:.0f} s"
        expect_it_works_again(bench, where)
    finally:
        bench.close()


def check_failure(bench: Bench, phase: Phase, wrong: Wrong, error: SFTPError, where: str) -> None:
    in_time = wrong.name == "late" and not bench.exchange.refused
    assert not in_time, f"{where}: an answer within {REPLY_DEADLINE_S:g} s is in time: {error!r}"
    if wrong.name == "missing":
        assert isinstance(error, Timeout), f"{where}: {error!r}"
    if not isinstance(error, (LinkLost, Timeout)):  # the connection lives on, and with it what is open there
        expect_no_handle(bench, phase, wrong, where)
    assert str(error).isprintable() or "\n" in str(error), f"{where}: the message is not for a terminal: {error!r}"
    assert not BYTES_SHOWN.search(str(error)), f"{where}: the message shows Python's bytes: {error}"


def expect_no_handle(bench: Bench, phase: Phase, wrong: Wrong, where: str) -> None:
    """A handle that the server gave, and whose reply never told it, cannot be closed."""
    untold = 1 if phase.what in ("OPEN", "OPENDIR") else 0
    assert len(bench.channel.session.handles) <= untold, f"{where}: handles are left open"


def expect_it_works_again(bench: Bench, where: str) -> None:
    """The next attempt meets a server that behaves; what the wrong reply left behind does it no harm."""
    bench.channel.session.close()
    if bench.exchange.refused or "load" not in bench.exchange.name:
        return  # it never works, or what was asked for has happened perhaps
    try:
        found = bench.play()
    except SFTPError as error:
        raise AssertionError(f"{where}: then it does not work any more: {error!r}") from error
    assert bench.exchange.good(bench, found), f"{where}: then success was reported"
    assert not bench.channel.session.handles, f"{where}: then handles are left open"

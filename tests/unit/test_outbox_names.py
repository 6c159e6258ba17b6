"""A name that takes too long to make is given up, and nothing of the limit is left behind."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.naming import Facts, UnsafeName
from iot.spooler.outbox import names
from iot.spooler.outbox.names import TookTooLong, name_of, within
from iot.spooler.state.elapsed import boot_id
from iot.transfer import Fingerprint


def spin() -> None:
    while True:
        pass


def test_work_that_takes_too_much_of_the_processor_is_broken_off_and_the_timer_is_gone() -> None:
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TookTooLong):
        within(0.01, spin)
    assert within(5.0, lambda: "name") == "name"
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0.0
    assert signal.getsignal(signal.SIGVTALRM) is handler


def test_in_another_thread_which_gets_no_signals_nothing_is_limited() -> None:
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(within(5.0, lambda: "name")))
    thread.start()
    thread.join(10)
    assert done == ["name"]


def naming(*, long: bool, destination: object) -> Any:
    return SimpleNamespace(may_take_long=long, destination=destination)


def entry(hash8: str | None) -> Any:
    return SimpleNamespace(path=b"f", id=7, fingerprint=Fingerprint(3, 5), hash8=hash8)


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize(("hash8", "filled"), [("0123abcd", "0123abcd"), (None, "")])
def test_a_name_is_made_of_the_path_and_what_is_known_of_the_file(long: bool, hash8: str | None, filled: str) -> None:
    made = name_of(entry(hash8), naming(long=long, destination=lambda path, facts: (path, facts)))
    assert made == (b"f", Facts(5, 7, boot_id(), filled))


def test_a_file_whose_name_takes_too_long_cannot_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "LIMIT_CPU_S", 0.001)
    with pytest.raises(UnsafeName, match=r"regular expressions of the rules take longer than 0\.001 s"):
        name_of(entry(None), naming(long=True, destination=lambda *_: spin()))

"""Flags that not every system has."""

from __future__ import annotations

import os
import re
from pathlib import Path

import iot.transfer
from iot.transfer.openflags import open_flags

ROOT = Path(iot.transfer.__file__).parents[1]


def test_flags_are_taken_together_and_those_that_are_missing_left_out() -> None:
    assert open_flags("O_WRONLY", "O_CREAT", "O_NO_SUCH_FLAG") == os.O_WRONLY | os.O_CREAT
    assert open_flags("O_CREAT", "O_CREAT") == os.O_CREAT
    assert open_flags("O_NO_SUCH_FLAG") == 0


def test_every_flag_that_is_asked_for_is_one_of_linux_or_windows() -> None:
    asked = [name for file in ROOT.rglob("*.py") for name in re.findall(r'"(O_[A-Z]+)"', file.read_text())]
    assert set(asked) >= {"O_RDONLY", "O_NOFOLLOW", "O_BINARY"}
    assert [name for name in asked if not hasattr(os, name) and name != "O_BINARY"] == []

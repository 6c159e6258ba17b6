"""The first hour of a new user goes as deploy/HOWTO.md shows it."""

from __future__ import annotations

import pytest
from servers.base import program
from servers.first_hour import BEGIN, DOCUMENT, END, REGENERATE, WIDTH, built_wheel, document_with, transcript

SHOWN = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


@pytest.mark.slow
@pytest.mark.needs("root", "overlay")
def test_the_first_hour_goes_as_the_document_shows_it() -> None:
    for name, package in (("systemd-sysusers", "systemd"), ("setpriv", "util-linux"), ("useradd", "passwd")):
        program(name, package)
    lived = document_with(transcript(built_wheel()))
    assert lived == DOCUMENT.read_text(encoding="utf-8"), f"it went otherwise: {REGENERATE}"


def test_the_document_shows_every_step_and_no_secret_of_this_machine() -> None:
    titles = [line for line in SHOWN.splitlines() if line.startswith("### ")]
    assert len(titles) == 8
    assert "@revoked" not in SHOWN
    assert "127.0.0.1" not in SHOWN
    assert max(map(len, SHOWN.splitlines())) <= WIDTH

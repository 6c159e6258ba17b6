"""The container of deploy/HOWTO.md works as its text says."""

from __future__ import annotations

import pytest
from servers.as_container import as_container, instructions
from servers.base import program
from servers.first_hour import built_wheel


@pytest.mark.slow
@pytest.mark.needs("root", "overlay")
def test_the_lines_of_the_dockerfile_make_an_agent_that_delivers() -> None:
    for name, package in (("setpriv", "util-linux"), ("useradd", "passwd"), ("/usr/bin/python3", "python3-venv")):
        program(name, package)
    as_container(built_wheel())


def test_the_image_does_not_run_as_root() -> None:
    assert instructions()["USER"] == ["iot-spooler"]

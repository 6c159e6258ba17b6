#!/usr/bin/env python3
"""Makes the manual pages and completions of `iot-sftp` and `iot-spooler` out of their parsers, into deploy/generated/.

python3 deploy/generate.py [FOLDER]     again, after an option or a setting has changed; a test tells when
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from completions import bash, fish, zsh
from manual_page import manual
from programs import Program, iot_sftp, iot_spooler

__all__ = ["PROGRAMS", "generated"]

NOTE = "made by deploy/generate.py"
PROGRAMS = (iot_sftp, iot_spooler)


def generated() -> dict[str, str]:
    """The content of each file of deploy/generated/."""
    return {name: content for program in PROGRAMS for name, content in _of(program()).items()}


def _of(program: Program) -> dict[str, str]:
    return {
        f"{program.name}.1": manual(program, NOTE),
        f"{program.name}.bash": bash(program, NOTE),
        f"_{program.name}": zsh(program, NOTE),
        f"{program.name}.fish": fish(program, NOTE),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "generated"
    folder.mkdir(exist_ok=True)
    for file_name, content in generated().items():
        (folder / file_name).write_text(content, encoding="utf-8")

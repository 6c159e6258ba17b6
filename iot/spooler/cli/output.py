"""What the commands say on standard error, how the agent logs there, and the exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TextIO

__all__ = [
    "EXIT_CODES_TEXT",
    "EX_CONFIG",
    "EX_FAILED",
    "EX_OK",
    "EX_SOFTWARE",
    "EX_TEMPFAIL",
    "EX_USAGE",
    "WIDTH",
    "failed",
    "log_to_stderr",
    "say",
]

WIDTH = 80
EX_OK = 0
EX_FAILED = 1
EX_USAGE = 64
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_CONFIG = 78
EXIT_CODES_TEXT = f"""\
  {EX_OK}    done; run: stopped as asked; run --drain: everything is delivered
  {EX_FAILED}    no: something could not be done; status, flush: no agent is alive
  {EX_USAGE}   wrong usage
  {EX_SOFTWARE}   a mistake in this program; the traceback tells where
  {EX_TEMPFAIL}   run --drain: something remains; another agent is at work; a problem of this device, or of the link
  {EX_CONFIG}   the configuration is wrong, or check --connect found what a retry does not fix
"""


def say(text: str, file: TextIO | None = None) -> None:
    """To standard error, or another file; what a server or a file put into it cannot act on a terminal, whose lines go
    on, indented, after WIDTH characters. A program gets one line for each."""
    from iot.transfer import terminal_safe

    out = file or sys.stderr
    for line in text.splitlines():
        safe = terminal_safe(line)
        print(_wrapped(safe) if len(safe) > WIDTH and out.isatty() else safe, file=out)


def _wrapped(line: str) -> str:
    import textwrap

    return textwrap.fill(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def failed(options: argparse.Namespace, text: str, code: int) -> int:
    """Say why a command ends, to a program in its own way; returns the exit code."""
    if getattr(options, "json", False):
        print(json.dumps({"error": text, "exit": code}))
    else:
        say(text)
    return code


def log_to_stderr(level: str) -> None:
    import logging

    from iot.spooler.process.logs import NonBlockingHandler, formatter_for

    stderr = sys.stderr.fileno()
    handler = NonBlockingHandler(stderr)
    handler.setFormatter(formatter_for(stderr, os.environ))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("paramiko").setLevel("CRITICAL")  # its errors come to us as exceptions, and are told once

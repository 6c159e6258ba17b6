"""A manual page, in the language of man(7)."""

from __future__ import annotations

import argparse

from programs import Program, takes_value, text_of

from iot.transfer._version import __version__

__all__ = ["manual"]


def manual(program: Program, note: str) -> str:
    """PROGRAM(1)."""
    name = _roff(program.name)
    lines = [f'.\\" {note}', f'.TH {name.upper()} 1 "" "{program.name} {__version__}" "User Commands"', ".SH NAME"]
    lines += [
        rf"{name} \- {_roff(program.summary)}",
        ".SH SYNOPSIS",
        f".B {name}",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR ...",
    ]
    lines += [".SH DESCRIPTION", _lines(program.about), ".SH COMMANDS"]
    for command in program.commands.values():
        text = command.text[:1].upper() + command.text[1:]
        lines += [".SS " + _roff(command.usage), _roff(f"{text}.")]
        for action in (*command.positionals, *command.own):
            lines += _item(action)
        if command.example:
            lines += [".PP", "Example:", ".B " + _roff(command.example)]
    lines += [".SH OPTIONS", program.common_about]
    for action in program.common:
        lines += _item(action)
    lines += [".SH EXIT STATUS"]
    for line in program.exit_codes.splitlines():
        code, _, text = line.strip().partition(" ")
        lines += [".TP", f".B {code}", _roff(text.strip())]
    lines += [".SH ENVIRONMENT", _lines(program.environment), ".SH FILES", _lines(program.files)]
    lines += [".SH SEE ALSO", *program.see_also.replace(", .BR", ",\n.BR").split("\n")]
    return "\n".join(lines) + "\n"


def _item(action: argparse.Action) -> list[str]:
    shown = str(action.metavar or action.dest)
    if not action.option_strings:
        return [".TP", rf".I {_roff(shown)}", _roff(text_of(action))]
    names = ", ".join(rf"\fB{_roff(flag)}\fR" for flag in action.option_strings)
    value = "|".join(map(str, action.choices)) if action.choices else shown
    return [".TP", f"{names} \\fI{_roff(value)}\\fR" if takes_value(action) else names, _roff(text_of(action))]


def _lines(text: str) -> str:
    return "\n".join(map(_roff, text.splitlines()))


def _roff(text: str) -> str:
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text

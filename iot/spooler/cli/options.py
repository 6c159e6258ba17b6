"""The words of the command line. Only argparse here: `--version` and a mistyped word cost nothing else."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from iot.spooler.cli.output import EX_USAGE, say

__all__ = ["Parser", "parser"]

CONFIG = Path("/etc/iot-spooler/iot-spooler.toml")
VARIABLES = "IOT_SPOOLER_"
DRAIN = (
    "send what is there, then end: 0 all delivered, 75 something remains, in quarantine, too, or is never sent:"
    " symlinks, fifos, sockets, devices, what lies below 100 folders; `exclude` takes them out"
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that ends with 64 (EX_USAGE) in two lines, and takes no abbreviation for an option."""

    def __init__(self, prog: str, *, description: str = "", **keywords: Any) -> None:
        super().__init__(prog, description=description, allow_abbrev=False, **keywords)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What is no option of ours could be a secret: its value is not repeated."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            self.error(f"no such option: {' '.join(options)}" if options else f"too many words: {len(unknown)}")
        return known

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^the following arguments are required: ", "missing: ", message)
        wrong = re.match(r"argument [A-Z|a-z]+: invalid choice: '?([^']*)'? \(choose from (.*)\)$", message)
        if wrong:
            from iot.transfer import did_you_mean

            commands = re.findall(r"\w+", wrong[2])
            message = f"no such command: {wrong[1]}{did_you_mean(wrong[1], commands)}"
        say(f"{self.prog}: {message}\ntry: {self.prog} --help")
        sys.exit(EX_USAGE)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from iot.transfer import __version__

        print(f"{parser.prog} {__version__}")
        parser.exit()


def parser() -> Parser:
    top = Parser("iot-spooler", description="Deliver what appears in outboxes, whole, at least once.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    top.add_argument("--config", type=Path, default=_default_config(os.environ), help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    common = Parser("", add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,  # else it would hide the one in front of the command
        help=f"TOML file ({CONFIG}); also IOT_SPOOLER_CONFIG",
    )
    for_programs = Parser("", add_help=False)
    for_programs.add_argument("--json", action="store_true", help="for programs")
    run = commands.add_parser("run", parents=[common], help="deliver until stopped")
    run.add_argument("--drain", action="store_true", help=DRAIN)
    check = commands.add_parser(
        "check", parents=[common], help="report at once all that would keep the agent from its work"
    )
    check.add_argument(
        "--connect",
        action="store_true",
        help="then log in, and try at each destination what a delivery needs, under a scratch name",
    )
    status = commands.add_parser("status", parents=[common, for_programs], help="backlog, connection, last error")
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    deliveries = commands.add_parser(
        "deliveries", parents=[common, for_programs], help="what was delivered last, and how it was proven"
    )
    deliveries.add_argument(
        "--last", type=_count, default=20, metavar="N", help="how many (20); the last 1,000 are kept"
    )
    _add_quarantine(commands, common, for_programs)
    retry = commands.add_parser("retry", parents=[common], help="the same as `quarantine retry`")
    _add_pattern(retry)
    _add_control(commands, common, for_programs)
    commands.add_parser("demo", help="show it at work: no server, no settings needed")
    return top


def _add_quarantine(commands: Any, common: Parser, for_programs: Parser) -> None:
    told = "files that were given up"
    does = commands.add_parser("quarantine", help=f"{told}: list, retry, drop").add_subparsers(
        dest="does", required=True, metavar="list|retry|drop", parser_class=Parser
    )
    _add_pattern(does.add_parser("list", parents=[common, for_programs], help=f"{told}, each with its reason"))
    _add_pattern(does.add_parser("retry", parents=[common], help="move them back into their outboxes"))
    drop = does.add_parser("drop", parents=[common], help="remove them for good; asks on a terminal")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    _add_pattern(drop)


def _add_control(commands: Any, common: Parser, for_programs: Parser) -> None:
    does = {
        "stop": "neither scan outboxes nor send from them, nor fetch, also after a restart, until `start`",
        "start": "undo `stop` and `suspend`",
        "suspend": "scan outboxes, but neither send nor fetch, also after a restart, until `resume`",
        "resume": "undo `suspend`",
        "flush": "look and try now, and send and fetch past the schedule",
    }
    for name, words in does.items():
        to = commands.add_parser(name, parents=[common, for_programs], help=words)
        to.add_argument("outbox", nargs="*", metavar="NAME", help="name or path of an outbox or inbox; all without one")


def _add_pattern(to: Parser) -> None:
    to.add_argument(
        "pattern",
        nargs="?",
        type=_pattern,
        metavar="PATTERN",
        help="only these: an id, or a path below its outbox or with it, as in `include`; all without it",
    )


def _pattern(text: str) -> str:
    from iot.spooler.patterns import check_pattern

    check_pattern(text)
    return text


def _default_config(environment: Mapping[str, str]) -> Path | None:
    """The file that is read where none is named; None: the environment alone holds the settings, as in a container."""
    named = environment.get(f"{VARIABLES}CONFIG")
    if named:
        return Path(named)
    in_environment = any(name.startswith(VARIABLES) for name in environment)
    return None if in_environment and not CONFIG.exists() else CONFIG


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_count.__name__, _pattern.__name__ = "number", "pattern"  # argparse calls them so in its messages

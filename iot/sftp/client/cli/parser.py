"""How `iot-sftp` reads its words: short help, errors of a line or two, options before and after the command."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from iot.sftp.client.cli.output import EXIT_SUMMARY, EXIT_TEXT, EXIT_USAGE
from iot.transfer._version import __version__
from iot.transfer.deferred import without_plugins
from iot.transfer.terminal import did_you_mean, terminal_safe

__all__ = ["Commands", "Parser", "UsageError", "add_command", "top_parser"]

HELP = ("-h", "--help")
HELP_WIDTH = 24
TOP = """\
Resumable SFTP transfers: run the same command again, and it goes on.

{commands}

A remote path is user@host:path, sftp://user@host:port/path, or a path alone
with the server in SFTP_HOST or -H. Example:
  iot-sftp put big.bin device@sftp.example.com:/upload/
{exit_codes}
more: iot-sftp COMMAND --help, iot-sftp COMMAND --help-all
"""
SERVER = "  -H HOST -P PORT -u USER --key FILE   server, port, login name, private key"
MESSAGES = (
    (r"argument (\S+): expected one argument", r"\1 needs a value"),
    (r"argument (\S+): invalid choice: '?([^']*?)'? \(choose from (.*)\)", r"\1 \2: must be one of \3"),
    (r"argument (\S+): not allowed with argument (\S+)", r"\1 and \2 exclude each other"),
    (r"argument (-\w/\S+): ignored explicit argument '([A-Za-z])'", r"no such option: -\2"),
    (r"argument (\S+): ignored explicit argument .*", r"\1 takes no value"),
    (r"the following arguments are required: (.*)", r"missing: \1"),
)
"""What argparse says, and how it is said here."""

Commands = argparse._SubParsersAction  # argparse gives this type no public name


class UsageError(Exception):
    """The words make no sense; the text says why. Nothing was done."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that ends with 64 (EX_USAGE) and never takes an abbreviation for an option.

    words: the arguments, as the usage line shows them. example: a line of the help.
    has_settings: it takes every setting as an option, too; what they are is loaded when it is the one that is used.
    """

    def __init__(self, *, words: str = "", example: str = "", has_settings: bool = False, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, add_help=False, **keywords)
        self.usage = f"{self.prog} [OPTIONS] {words}".rstrip()
        self.example = example
        self._lacks_settings = has_settings
        self.add_argument(*HELP, nargs=0, action=_ShowHelp, help=argparse.SUPPRESS)
        self.add_argument("--help-all", nargs=0, action=_ShowHelp, help=argparse.SUPPRESS)
        self._own_actions: list[argparse.Action] | None = None

    def error(self, message: str) -> NoReturn:
        for pattern, ours in MESSAGES:
            message = re.sub(pattern, ours, message)
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {terminal_safe(message).replace(chr(39), '')}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but a word that is no option of ours could be a secret: its value is not repeated."""
        known, unknown = self.parse_known_args(args, namespace)
        if hasattr(known, "paths") and not any(word.startswith("-") and word != "-" for word in unknown):
            known.paths = [*known.paths, *unknown]  # argparse takes no words behind an option that follows the first
        elif unknown:
            used: Parser = getattr(known, "parser", self)
            used.error(used._about_unknown([word for word in unknown if word.startswith("-")], len(unknown)))
        return known

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._lacks_settings and set(args or ()) - set(HELP):
            self.load_settings()
        return super().parse_known_args(args, namespace)

    def load_settings(self) -> None:
        """From here on every setting is an option."""
        if not self._lacks_settings:
            return
        without_plugins()
        from iot.sftp.client.cli.options import add_settings

        self._lacks_settings, self._own_actions = False, list(self._actions)
        add_settings(self)

    def format_help(self) -> str:
        """At most twenty lines of 80 columns."""
        shown = [action for action in self._own_actions or self._actions if action.help != argparse.SUPPRESS]
        lines = [f"usage: {self.usage}", "", str(self.description), ""]
        lines += [f"  {_flags(action):<{HELP_WIDTH}} {(action.help or '').replace('%%', '%')}" for action in shown]
        example = ["", f"example: {self.example}"] if self.example else []
        return "\n".join([*lines, SERVER, *example, f"more: {self.prog} --help-all", ""])

    def format_help_all(self) -> str:
        """With every setting, the variable that also gives it, and the exit codes."""
        self.load_settings()
        return f"{super().format_help()}\n{EXIT_TEXT}"

    def _about_unknown(self, options: list[str], count: int) -> str:
        if not options:
            return f"{'one word' if count == 1 else f'{count} words'} more than it takes"
        name = options[0].partition("=")[0]
        if re.fullmatch(r"-\w\w+", name):  # several in one word
            name = next((f"-{letter}" for letter in name[1:] if f"-{letter}" not in self._option_string_actions), name)
        return f"no such option: {name}{did_you_mean(name, self._option_string_actions)}"


class _ShowHelp(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        print(parser.format_help() if option_string in HELP else parser.format_help_all(), end="")
        parser.exit()


class TopParser(Parser):
    """Of the program as a whole. commands: each with what it does."""

    commands: dict[str, str]
    _words: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        """A word that is taken for the command may be the value of an option that there is not."""
        options = [word for word in self._words if word.startswith("-")]
        unknown = [word for word in options if word.partition("=")[0] not in self._option_string_actions]
        super().error(self._about_unknown(unknown, len(unknown)) if unknown and "COMMAND" in message else message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options in front of the command are those of every command; without one, nothing has to be loaded."""
        self._words = tuple(args or ())
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            self.error(f"no such command: {args[0]}{did_you_mean(args[0], self.commands)}")
        if not args or not args[0].startswith("-") or args[0] in (*HELP, "--version"):
            return argparse.ArgumentParser.parse_known_args(self, args, namespace)
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        commands = "\n".join(f"  {name:<8} {text}" for name, text in self.commands.items())
        return f"usage: {self.usage}\n\n{TOP.format(commands=commands, exit_codes=EXIT_SUMMARY)}"


def top_parser(groups: Iterable[Callable[[Commands[Parser]], None]]) -> TopParser:
    """The parser of everything. groups: each adds its commands."""
    parser = TopParser(prog="iot-sftp", words="COMMAND ...", has_settings=True)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help=argparse.SUPPRESS)
    _add_everywhere(parser)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", prog=parser.prog, parser_class=Parser, required=True
    )
    for add in groups:
        add(commands)
    parser.commands = {action.dest: action.help or "" for action in commands._choices_actions}
    return parser


def add_command(
    commands: Commands[Parser],
    name: str,
    run: Callable[..., int],
    text: str,
    *,
    words: str,
    example: str,
    remote: tuple[str, ...] = ("path",),
    arrange: Callable[[argparse.Namespace], None] | None = None,
) -> Parser:
    """A command with what all of them take.

    text: a line of at most 68 characters. remote: its arguments that are remote paths. arrange: called before these
    are looked at, to make arguments of words.
    """
    parser = commands.add_parser(
        name, help=text, description=text, words=words, example=f"iot-sftp {name} {example}", has_settings=True
    )
    parser.set_defaults(run=run, parser=parser, remote=remote, arrange=arrange)
    _add_everywhere(parser)
    return parser


def _add_everywhere(parser: Parser) -> None:
    """Absent where not given, so that a command does not reset what stands in front of it."""
    absent: Any = {"default": argparse.SUPPRESS}
    parser.add_argument("-v", "--verbose", action="store_true", help="print what is done [SFTP_VERBOSE]", **absent)
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only [SFTP_QUIET]", **absent)


def _flags(action: argparse.Action) -> str:
    shown = str(action.metavar or action.dest)
    if not action.option_strings:
        return shown
    flags = ", ".join(action.option_strings)
    return flags if action.nargs == 0 else f"{flags} {shown}"

"""The programs as their manual pages and completions show them: what their own parsers know, in one form for both."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

from iot.sftp.client.cli.main import COMMANDS
from iot.sftp.client.cli.output import EXIT_CODES_TEXT
from iot.sftp.client.cli.parser import Parser, top_parser
from iot.sftp.client.environment import ClientSettings
from iot.spooler.cli.options import parser as spooler_parser
from iot.spooler.cli.output import EXIT_CODES_TEXT as SPOOLER_EXIT_CODES_TEXT

__all__ = ["FILES", "Command", "Program", "flags", "iot_sftp", "iot_spooler", "takes_value", "text_of"]

FILES = ("FILE", "SRC", "SRC... [DEST]")
"""Metavars of local files."""
HIDDEN = ("--help-all",)


@dataclass(frozen=True)
class Command:
    """name: with that of its group in front, if it has one: "quarantine list". own: the options of it alone."""

    name: str
    text: str
    usage: str
    positionals: list[argparse.Action]
    own: list[argparse.Action]
    example: str = ""

    @property
    def takes_files(self) -> bool:
        return any(action.metavar in FILES for action in self.positionals)


@dataclass(frozen=True)
class Program:
    """common: options of every command. groups: words in front of further ones, each with its text."""

    name: str
    summary: str
    about: str
    common_about: str
    common: list[argparse.Action]
    commands: dict[str, Command]
    exit_codes: str
    environment: str
    files: str
    see_also: str
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def first_words(self) -> dict[str, str]:
        """What may stand in the place of the command, with its text."""
        plain = {name: command.text for name, command in self.commands.items() if " " not in name}
        return {**plain, **self.groups}

    def below(self, group: str) -> dict[str, str]:
        """The second words of a group, with their texts."""
        own = {name: command.text for name, command in self.commands.items() if name.startswith(f"{group} ")}
        return {name.partition(" ")[2]: text for name, text in own.items()}

    def actions(self) -> list[argparse.Action]:
        """Every option that there is."""
        return [*self.common, *(action for command in self.commands.values() for action in command.own)]


def flags(actions: list[argparse.Action]) -> list[str]:
    return [flag for action in actions for flag in action.option_strings]


def takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def text_of(action: argparse.Action) -> str:
    """What its help says."""
    if action.dest != "help":
        return str(action.help).replace("%%", "%")
    hidden = action.help == argparse.SUPPRESS
    return "show a short help; --help-all shows everything" if hidden else "show a short help"


def iot_sftp() -> Program:
    top = top_parser(COMMANDS)
    parsers: dict[str, Parser] = dict(_choices(top))  # type: ignore[arg-type]
    for parser in parsers.values():
        parser.load_settings()
    settings = {*ClientSettings.model_fields, *(f"{name}_file" for name in ClientSettings.model_fields)}
    everywhere = {"verbose", "quiet", "help", "env_file"} | settings
    commands = {
        name: Command(
            name,
            top.commands[name],
            str(parser.usage),
            _positionals(parser),
            [action for action in _options(parser) if action.dest not in everywhere],
            parser.example,
        )
        for name, parser in parsers.items()
    }
    common = [action for action in _options(next(iter(parsers.values()))) if action.dest in everywhere]
    return Program(
        name="iot-sftp",
        summary="resumable SFTP transfers",
        about=SFTP_ABOUT,
        common_about="Of every command; they may stand before it, too.",
        common=common,
        commands=commands,
        exit_codes=EXIT_CODES_TEXT,
        environment=SFTP_ENVIRONMENT,
        files=SFTP_FILES,
        see_also=r".BR iot\-spooler (1), .BR ssh_config (5)",
    )


SFTP_ABOUT = """\
Sends and fetches files over links that break: run the same command again, and it goes on where it was.
A file gets its name when it is whole.
A remote path is user@host:path, sftp://user@host:port/path, or a path alone with the server in SFTP_HOST or --host.
The OpenSSH configuration is followed."""
SFTP_ENVIRONMENT = """\
Every option is also SFTP_<NAME>, as the list above shows in brackets; an option wins.
SFTP_PASSWORD and SFTP_KEY_PASSPHRASE hold the secret itself, SFTP_PASSWORD_FILE the name of a file."""
SFTP_FILES = """\
~/.ssh/config, /etc/ssh/ssh_config, ~/.ssh/known_hosts, .env in the working folder (which may not set whom to trust);
~/.local/state/iot-sftp holds what goes on after a break."""


def iot_spooler() -> Program:
    top = spooler_parser()
    parsers = dict(_leaves(top))
    common = {"help", "config"}
    texts = dict(_texts(top))
    commands = {
        name: Command(
            name,
            texts[name],
            " ".join([f"iot-spooler {name} [OPTIONS]", *map(_word, _positionals(parser))]),
            _positionals(parser),
            [action for action in _options(parser) if action.dest not in common],
        )
        for name, parser in parsers.items()
    }
    groups = {name: text for name, text in texts.items() if name not in parsers}
    return Program(
        name="iot-spooler",
        summary="delivers what appears in outbox folders",
        about=SPOOLER_ABOUT,
        common_about="Of every command:",
        common=[action for action in _options(parsers["run"]) if action.dest in common],
        commands=commands,
        exit_codes=SPOOLER_EXIT_CODES_TEXT,
        environment=SPOOLER_ENVIRONMENT,
        files=SPOOLER_FILES,
        see_also=r".BR iot\-sftp (1), .BR systemctl (1), .BR journalctl (1)",
        groups=groups,
    )


SPOOLER_ABOUT = """\
An agent that sends the files of outbox folders to one server, proves each, and then removes it from its outbox.
It goes on after a lost link, a crash or a power cut where it was.
Under systemd it is the unit iot-spooler, or iot-spooler@NAME for a further server; without systemd, `iot-spooler run`.
SIGTERM ends it with a last checkpoint; SIGHUP makes it read its configuration again."""
SPOOLER_ENVIRONMENT = """\
IOT_SPOOLER_CONFIG names the configuration. Every key of it is also IOT_SPOOLER_<KEY>, with two underscores between the
levels (IOT_SPOOLER_SERVER__HOST, IOT_SPOOLER_OUTBOX__0__PATH), and wins over the file."""
SPOOLER_FILES = """\
/etc/iot-spooler/iot-spooler.toml is the configuration.
/etc/iot-spooler/credentials holds key, password and known_hosts.
/usr/share/doc/iot-spooler has an example with every key, all settings, and HOWTO.md: what each message means.
/var/lib/iot-spooler holds queue and journal."""


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below a parser; none where it has none."""
    return next((dict(action.choices) for action in parser._actions if _is_group(action) and action.choices), {})


def _leaves(parser: argparse.ArgumentParser, above: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for name, below in _choices(parser).items():
        if _choices(below):
            yield from _leaves(below, f"{name} ")
        else:
            yield above + name, below


def _texts(parser: argparse.ArgumentParser, above: str = "") -> Iterator[tuple[str, str]]:
    """Every command and group with its help."""
    for action in parser._actions:
        if _is_group(action):
            yield from ((above + each.dest, str(each.help)) for each in action._choices_actions)
    for name, below in _choices(parser).items():
        yield from _texts(below, f"{name} ")


def _is_group(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)


def _word(positional: argparse.Action) -> str:
    name = str(positional.metavar or positional.dest)
    return f"[{name}]" if positional.nargs in ("?", "*") else name


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action for action in parser._actions if action.option_strings and not set(HIDDEN) & {*action.option_strings}
    ]

#!/usr/bin/env python3
"""Makes the manual page and the completions of `iot-sftp` out of its own parser, into deploy/generated/.

python3 deploy/generate.py [FOLDER]     again, after an option or a setting has changed; a test tells when
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from iot.sftp.client.cli.main import COMMANDS
from iot.sftp.client.cli.output import EXIT_CODES_TEXT
from iot.sftp.client.cli.parser import Parser, top_parser
from iot.sftp.client.environment import ClientSettings
from iot.transfer._version import __version__

PROGRAM = "iot-sftp"
NOTE = "made by deploy/generate.py"
FILES = ("FILE", "SRC... [DEST]")
HIDDEN = ("--help-all",)


class Commands:
    """What the parser knows: its commands, and the options of each; those of all commands apart."""

    def __init__(self) -> None:
        self.top = top_parser(COMMANDS)
        self.texts = self.top.commands
        choices = next(action.choices for action in self.top._actions if action.dest == "command")
        assert choices is not None
        self.parsers: dict[str, Parser] = dict(choices)  # type: ignore[arg-type]
        for parser in self.parsers.values():
            parser.load_settings()
        first = next(iter(self.parsers.values()))
        settings = {*ClientSettings.model_fields, *(f"{name}_file" for name in ClientSettings.model_fields)}
        everywhere = {"verbose", "quiet", "help", "env_file"} | settings
        self.common = [action for action in _options(first) if action.dest in everywhere]
        self.own = {
            name: [action for action in _options(parser) if action.dest not in everywhere]
            for name, parser in self.parsers.items()
        }

    def positionals(self, name: str) -> list[argparse.Action]:
        return [action for action in self.parsers[name]._actions if not action.option_strings]


def _options(parser: Parser) -> list[argparse.Action]:
    return [
        action for action in parser._actions if action.option_strings and not set(HIDDEN) & {*action.option_strings}
    ]


def _help(action: argparse.Action) -> str:
    text = "show a short help; --help-all shows everything" if action.dest == "help" else str(action.help)
    return text.replace("%%", "%")


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


# -- manual page


def manual(commands: Commands) -> str:
    """iot-sftp(1)."""
    lines = [f'.\\" {NOTE}', f'.TH IOT\\-SFTP 1 "" "{PROGRAM} {__version__}" "User Commands"', ".SH NAME"]
    lines += [
        r"iot\-sftp \- resumable SFTP transfers",
        ".SH SYNOPSIS",
        r".B iot\-sftp",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR ...",
    ]
    lines += [".SH DESCRIPTION", _lines(ABOUT), ".SH COMMANDS"]
    for name, parser in commands.parsers.items():
        lines += [".SS " + _roff(str(parser.usage)), _roff(commands.texts[name].capitalize() + ".")]
        for action in (*commands.positionals(name), *commands.own[name]):
            lines += _item(action)
        lines += [".PP", "Example:", ".B " + _roff(parser.example)]
    lines += [".SH OPTIONS", "Of every command; they may stand before it, too."]
    for action in commands.common:
        lines += _item(action)
    lines += [".SH EXIT STATUS"]
    for line in EXIT_CODES_TEXT.splitlines():
        code, _, text = line.strip().partition(" ")
        lines += [".TP", f".B {code}", _roff(text.strip())]
    lines += [".SH ENVIRONMENT", _lines(ENVIRONMENT), ".SH FILES", _lines(FILES_READ)]
    lines += [".SH SEE ALSO", r".BR sftp (1),", r".BR ssh_config (5)"]
    return "\n".join(lines) + "\n"


ABOUT = """\
Sends and fetches files over links that break: run the same command again, and it goes on where it was.
A file gets its name when it is whole.
A remote path is user@host:path, sftp://user@host:port/path, or a path alone with the server in SFTP_HOST or --host.
The OpenSSH configuration is followed."""
ENVIRONMENT = """\
Every option is also SFTP_<NAME>, as the list above shows in brackets; an option wins.
SFTP_PASSWORD and SFTP_KEY_PASSPHRASE hold the secret itself, SFTP_PASSWORD_FILE the name of a file."""
FILES_READ = """\
~/.ssh/config, /etc/ssh/ssh_config, ~/.ssh/known_hosts, .env in the working folder (which may not set whom to trust);
~/.local/state/iot-sftp holds what goes on after a break."""


def _item(action: argparse.Action) -> list[str]:
    shown = str(action.metavar or action.dest)
    if not action.option_strings:
        return [".TP", rf".I {_roff(shown)}", _roff(_help(action))]
    flags = ", ".join(rf"\fB{_roff(flag)}\fR" for flag in action.option_strings)
    value = "|".join(map(str, action.choices)) if action.choices else shown
    return [".TP", f"{flags} \\fI{_roff(value)}\\fR" if _takes_value(action) else flags, _roff(_help(action))]


def _lines(text: str) -> str:
    return "\n".join(map(_roff, text.splitlines()))


def _roff(text: str) -> str:
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


# -- completions


def bash(commands: Commands) -> str:
    valued = {flag: action for action in _all(commands) if _takes_value(action) for flag in action.option_strings}
    choices = {flag: action.choices for flag, action in valued.items() if action.choices}
    files = [flag for flag, action in valued.items() if action.metavar in FILES]
    others = [flag for flag in valued if flag not in files and flag not in choices and flag not in ("-H", "--host")]
    cases = [f"        {flag}) words='{' '.join(map(str, found))}' ;;" for flag, found in choices.items()]
    own = [f"        {name}) words='{' '.join(_flags(found))}' ;;" for name, found in commands.own.items()]
    return BASH.format(
        note=NOTE,
        commands=" ".join(commands.texts),
        either="|".join(commands.texts),
        choices="\n".join(cases),
        files="|".join(files),
        others="|".join(others),
        own="\n".join(own),
        common=" ".join(_flags(commands.common)),
    )


BASH = """\
# bash completion for iot-sftp; {note}
_iot_sftp() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command='' word words=''
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in {either}) command=$word; break ;; esac
    done
    COMPREPLY=()
    case $prev in
{choices}
        -H|--host) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur"); return ;;
        {files}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        {others}) return ;;
    esac
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    case $command in
        '') words='{commands}' ;;
{own}
    esac
    case $cur in
        -*)
            [ -n "$command" ] || words=''
            mapfile -t COMPREPLY < <(compgen -W "$words {common}" -- "$cur") ;;
        *)
            case $command in
                '') mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;
                put|get) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
            esac ;;
    esac
}}
complete -F _iot_sftp iot-sftp
"""


def zsh(commands: Commands) -> str:
    common = [f"    {line}" for action in commands.common for line in _zsh_specs(action)]
    names = [f"    '{name}:{_zsh_quoted(text)}'" for name, text in commands.texts.items()]
    own = []
    for name in commands.parsers:
        specs = [line for action in commands.own[name] for line in _zsh_specs(action)]
        rest = "'*:file:_files'" if name in ("put", "get") else "'*:remote path: '"
        own.append(f"    {name}) _arguments -s $common {' '.join(specs)} {rest} ;;")
    return "\n".join(
        [
            f"#compdef {PROGRAM}",
            f"# {NOTE}",
            "local -a common commands",
            "common=(",
            *common,
            ")",
            "commands=(",
            *names,
            ")",
            "local curcontext=$curcontext state line",
            "_arguments -C -s $common '1:command:->command' '*::argument:->argument'",
            "case $state in",
            "command) _describe command commands ;;",
            "argument)",
            "    case $line[1] in",
            *own,
            "    esac ;;",
            "esac",
            "",
        ]
    )


def _zsh_specs(action: argparse.Action) -> Iterator[str]:
    value = ""
    if action.choices:
        value = f":value:({' '.join(map(str, action.choices))})"
    elif action.metavar in FILES:
        value = ":file:_files"
    elif "--host" in action.option_strings:
        value = ":host:_hosts"
    elif _takes_value(action):
        value = f":{str(action.metavar).lower()}: "
    for flag in action.option_strings:
        yield f"'{flag}[{_zsh_quoted(_help(action))}]{value}'"


def _zsh_quoted(text: str) -> str:
    for char in "\\[]:":
        text = text.replace(char, f"\\{char}")
    return text.replace("'", "'\\''")


def fish(commands: Commands) -> str:
    lines = [f"# {NOTE}", f"complete -c {PROGRAM} -f"]
    none = f"not __fish_seen_subcommand_from {' '.join(commands.texts)}"
    lines += [f"complete -c {PROGRAM} -n '{none}' -a {name} -d {_fish(text)}" for name, text in commands.texts.items()]
    lines += [f"complete -c {PROGRAM} {_fish_option(action)}" for action in commands.common]
    for name, found in commands.own.items():
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c {PROGRAM} {seen} {_fish_option(action)}" for action in found]
    lines.append(f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from put get' -F")
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action) -> str:
    words = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings]
    if action.choices:
        words.append(f"-x -a {_fish(' '.join(map(str, action.choices)))}")
    elif action.metavar in FILES:
        words.append("-r -F")
    elif "--host" in action.option_strings:
        words.append("-x -a '(__fish_print_hostnames)'")
    elif _takes_value(action):
        words.append("-x")
    return " ".join([*words, f"-d {_fish(_help(action))}"])


def _fish(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def _all(commands: Commands) -> list[argparse.Action]:
    return [*commands.common, *(action for found in commands.own.values() for action in found)]


def _flags(actions: list[argparse.Action]) -> list[str]:
    return [flag for action in actions for flag in action.option_strings]


def generated() -> dict[str, str]:
    """The content of each file of deploy/generated/."""
    commands = Commands()
    return {
        "iot-sftp.1": manual(commands),
        "iot-sftp.bash": bash(commands),
        "_iot-sftp": zsh(commands),
        "iot-sftp.fish": fish(commands),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "generated"
    folder.mkdir(exist_ok=True)
    for file_name, content in generated().items():
        (folder / file_name).write_text(content, encoding="utf-8")

"""Completions for bash, zsh and fish."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from programs import FILES, Program, flags, takes_value, text_of

__all__ = ["bash", "fish", "zsh"]

HOST = "--host"


# -- bash


def bash(program: Program, note: str) -> str:
    commands = [*program.commands, *program.groups]
    own = [f"        {_word(name)}) words='{' '.join(flags(each.own))}' ;;" for name, each in program.commands.items()]
    own += [f"        {name}) words='{' '.join(program.below(name))}' ;;" for name in program.groups]
    takers = [name for name, command in program.commands.items() if command.takes_files]
    files = f"\n                {'|'.join(takers)}) {COMPLETE_FILES} ;;" if takers else ""
    return BASH.format(
        note=note,
        program=program.name,
        function=f"_{program.name.replace('-', '_')}",
        commands=" ".join(program.first_words),
        either="|".join(map(_word, commands)),
        previous="\n".join(_by_previous_word(program)),
        own="\n".join(own),
        common=" ".join(flags(program.common)),
        groups="|".join(["''", *program.groups]),
        files=files,
    )


COMPLETE_FILES = 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")'
BASH = """\
# bash completion for {program}; {note}
{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command='' word words=''
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        word=${{command:+$command }}$word
        case $word in {either}) command=$word ;; esac
    done
    COMPREPLY=()
    case $prev in
{previous}
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
            case $command in {groups}) words='' ;; esac
            mapfile -t COMPREPLY < <(compgen -W "$words {common}" -- "$cur") ;;
        *)
            case $command in
                {groups}) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;{files}
            esac ;;
    esac
}}
complete -F {function} {program}
"""


def _by_previous_word(program: Program) -> Iterator[str]:
    """What follows an option that takes a value."""
    valued = {flag: action for action in program.actions() if takes_value(action) for flag in action.option_strings}
    choices = {flag: action.choices for flag, action in valued.items() if action.choices}
    hosts = [flag for flag, action in valued.items() if HOST in action.option_strings]
    files = [flag for flag, action in valued.items() if action.metavar in FILES]
    others = [flag for flag in valued if flag not in (*choices, *hosts, *files)]
    yield from (f"        {flag}) words='{' '.join(map(str, found))}' ;;" for flag, found in choices.items())
    if hosts:
        yield f'        {"|".join(hosts)}) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur"); return ;;'
    if files:
        yield f"        {'|'.join(files)}) {COMPLETE_FILES}; return ;;"
    if others:
        yield f"        {'|'.join(others)}) return ;;"


def _word(name: str) -> str:
    return name.replace(" ", "\\ ")


# -- zsh


ZSH_ARGUMENTS = ("_arguments", "-s", "$common")


def zsh(program: Program, note: str) -> str:
    common = [f"    {line}" for action in program.common for line in _zsh_specs(action)]
    names = [f"    '{name}:{_zsh_quoted(text)}'" for name, text in program.first_words.items()]
    return "\n".join(
        [
            f"#compdef {program.name}",
            f"# {note}",
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
            *_zsh_cases(program),
            "    esac ;;",
            "esac",
            "",
        ]
    )


def _zsh_cases(program: Program) -> Iterator[str]:
    for name, command in program.commands.items():
        if " " in name:
            continue
        specs = [line for action in command.own for line in _zsh_specs(action)]
        rest = ["'*:file:_files'"] if command.takes_files else _zsh_rest(command.positionals)
        yield f"    {name}) {' '.join([*ZSH_ARGUMENTS, *specs, *rest])} ;;"
    for group in program.groups:
        below = [command for name, command in program.commands.items() if name.startswith(f"{group} ")]
        specs = dict.fromkeys(line for command in below for action in command.own for line in _zsh_specs(action))
        words = " ".join(f'{name}\\:"{_zsh_quoted(text)}"' for name, text in program.below(group).items())
        rest = [f"'1:command:(({words}))'", *_zsh_rest([each for command in below for each in command.positionals])]
        yield f"    {group}) {' '.join([*ZSH_ARGUMENTS, *specs, *rest])} ;;"


def _zsh_rest(positionals: list[argparse.Action]) -> list[str]:
    """What the words of a command are, where they are no files of this machine."""
    what = "pattern" if positionals and positionals[0].metavar == "PATTERN" else "remote path"
    return [f"'*:{what}: '"] if positionals else []


def _zsh_specs(action: argparse.Action) -> Iterator[str]:
    value = ""
    if action.choices:
        value = f":value:({' '.join(map(str, action.choices))})"
    elif action.metavar in FILES:
        value = ":file:_files"
    elif HOST in action.option_strings:
        value = ":host:_hosts"
    elif takes_value(action):
        value = f":{str(action.metavar).lower()}: "
    for flag in action.option_strings:
        yield f"'{flag}[{_zsh_quoted(text_of(action))}]{value}'"


def _zsh_quoted(text: str) -> str:
    for char in "\\[]:":
        text = text.replace(char, f"\\{char}")
    return text.replace("'", "'\\''")


# -- fish


def fish(program: Program, note: str) -> str:
    complete = f"complete -c {program.name}"
    none = f"not __fish_seen_subcommand_from {' '.join(program.first_words)}"
    lines = [f"# {note}", f"{complete} -f"]
    lines += [f"{complete} -n '{none}' -a {name} -d {_fish(text)}" for name, text in program.first_words.items()]
    for group in program.groups:
        below = program.below(group)
        seen = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {' '.join(below)}"
        lines += [f"{complete} -n '{seen}' -a {name} -d {_fish(text)}" for name, text in below.items()]
    lines += [f"{complete} {_fish_option(action)}" for action in program.common]
    for name, command in program.commands.items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        lines += [f"{complete} -n '{seen}' {_fish_option(action)}" for action in command.own]
    takers = [name for name, command in program.commands.items() if command.takes_files]
    lines += [f"{complete} -n '__fish_seen_subcommand_from {' '.join(takers)}' -F"] if takers else []
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action) -> str:
    words = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings]
    if action.choices:
        words.append(f"-x -a {_fish(' '.join(map(str, action.choices)))}")
    elif action.metavar in FILES:
        words.append("-r -F")
    elif HOST in action.option_strings:
        words.append("-x -a '(__fish_print_hostnames)'")
    elif takes_value(action):
        words.append("-x")
    return " ".join([*words, f"-d {_fish(text_of(action))}"])


def _fish(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"

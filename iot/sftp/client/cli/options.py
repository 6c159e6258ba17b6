"""The command line's options, made from the fields of ClientSettings: a new setting is a new option by itself."""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from iot.sftp.client.cli.output import say
from iot.sftp.client.environment import ClientSettings, SettingsError, env_file_here, named_env_file
from iot.sftp.client.settings import describe_errors
from iot.transfer.errors import ConfigurationError
from iot.transfer.givenfile import exposure, read_text_once
from iot.transfer.rate import Rate
from iot.transfer.terminal import terminal_safe

__all__ = ["add_settings", "may_ask", "settings_from", "wants_password", "with_password"]

ALIASES = {"key_file": ("--key", "-i"), "host": ("-H",), "port": ("-P",), "user": ("-u",)}
MISSING = ("host: Field required", "SFTP_HOST: Field required")
NO_HOST = "host: none is given, as in user@host:path"
ENVIRONMENT = {"key_file": "SFTP_KEY"}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """One option for each setting; what is not given is absent, so that it never hides the environment."""
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="settings file (without it: .env here, which may not set whom to trust)",
    )
    group = parser.add_argument_group("settings (each also from SFTP_<NAME>, and from an --env-file; an option wins)")
    for name, field in ClientSettings.model_fields.items():
        if _holds(field, SecretStr):
            _add_secret(group, name, field)
        else:
            _add_plain(group, name, field)


def settings_from(given: Mapping[str, Any], *, env_file: Path | None = None) -> ClientSettings:
    """Settings from the parsed options, then the environment, then the .env file.

    given: parsed arguments; those that are no setting are left alone.
    env_file: may set everything. None reads ".env" in the working folder, if there is one: it sets nothing of
        environment.TRUST, and what it sets and what not is told on standard error.

    Raises: ConfigurationError naming every wrong setting and where it may come from.
    """
    values = {name: given[name] for name in ClientSettings.model_fields if name in given}
    in_file = named_env_file(env_file) if env_file is not None else {}
    for name in _secrets():
        found = _secret_from_file(name, given, in_file)
        if found is not None:
            values[name] = found
    if env_file is None:
        _tell_of_env_file()
    settings = _checked(values, env_file)
    _check_permissions(settings)
    return settings


def wants_password(settings: ClientSettings) -> bool:
    """Whether a password is to be asked for, should agent and identities not do: nothing else was given."""
    return settings.password is None and settings.key_file is None and not settings.agent


def may_ask() -> bool:
    """Whether somebody is there to be asked for a password."""
    return sys.stdin is not None and sys.stdin.isatty()


def with_password(settings: ClientSettings) -> ClientSettings:
    """Ask for it. Raises: ConfigurationError where none is given."""
    return settings.model_copy(update={"password": SecretStr(_ask(settings))})


def _add_plain(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    flags = [f"--{_dashed(name)}", *ALIASES.get(name, ())]
    help_text = _help(name, field)
    kind = _kind(field)
    if kind is bool:
        group.add_argument(
            *flags, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text
        )
    elif issubclass(kind, Enum):
        choices = [member.value for member in kind]
        group.add_argument(*flags, dest=name, choices=choices, default=argparse.SUPPRESS, help=help_text)
    else:
        metavar = {Path: "FILE", int: "N", float: "SECONDS", Rate: "RATE"}.get(kind, "TEXT")
        group.add_argument(*flags, dest=name, metavar=metavar, default=argparse.SUPPRESS, help=help_text)


def _add_secret(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    """A secret comes from a file, never from the command line: other users of the machine can read that."""
    group.add_argument(
        f"--{_dashed(name)}-file",
        dest=f"{name}_file",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"file whose first line is the {field.description} [{_variable(name)}_FILE, or {_variable(name)} itself]",
    )


def _help(name: str, field: FieldInfo) -> str:
    default = field.default.value if isinstance(field.default, Enum) else field.default
    shown = "" if field.is_required() or default in (None, "", ()) else f" (default: {default})"
    return f"{field.description}{shown} [{_variable(name)}]".replace("%", "%%")


def _checked(values: Mapping[str, Any], env_file: Path | None) -> ClientSettings:
    try:
        settings = ClientSettings(**values) if env_file is None else ClientSettings(_env_file=env_file, **values)
        settings.options()  # contradictions show here
        return settings
    except ValidationError as error:
        lines = describe_errors(error)
        raise ConfigurationError(
            "\n".join(_with_sources(NO_HOST if line in MISSING else line for line in lines))
        ) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


def _check_permissions(settings: ClientSettings) -> None:
    """As ssh, a private key that others may read is not used. Raises: ConfigurationError."""
    if settings.key_file and (exposed := exposure(settings.key_file)):
        raise ConfigurationError(f"--key {settings.key_file} {exposed}")
    if settings.prompt_file and (exposed := exposure(settings.prompt_file)):
        say(f"warning: --prompt-file {settings.prompt_file} {exposed}")


def _tell_of_env_file() -> None:
    """Nobody asked for this file, and it may be anybody's: one line for what it sets, one for what it may not."""
    found = env_file_here()
    if found is None:
        return
    if found.problem:
        say(f"{found.path} is not read: {found.problem}")
    if found.taken:
        say(f"{found.path} sets {', '.join(name.upper() for name in found.taken)}")
    if found.refused:
        names = ", ".join(found.refused)
        say(f"{found.path} may not set {names} unless it is asked for: --env-file {shlex.quote(str(found.path))}")


def _with_sources(lines: Iterable[str]) -> list[str]:
    """A line without a key is about several settings, which it names itself."""
    return [f"{line} [{_sources(line.partition(':')[0])}]" if ":" in line else line for line in lines]


def _sources(key: str) -> str:
    name = key.lower().removeprefix("sftp_").split(".")[0]
    name = "key_file" if name == "key" else name
    option = f"--{_dashed(name)}-file" if name in _secrets() else f"--{_dashed(name)}"
    return f"{option} or {_variable(name)}"


def _ask(settings: ClientSettings) -> str:
    try:
        return getpass.getpass(terminal_safe(f"password for {settings.user or 'you'} at {settings.host}: "))
    except EOFError:
        raise ConfigurationError("no password given") from None


def _secret_from_file(name: str, given: Mapping[str, Any], in_file: Mapping[str, str]) -> str | None:
    """From the file that an option names; else, where the variable of the secret itself is not set, from the file that
    SFTP_<NAME>_FILE names, in the environment or in the --env-file."""
    if f"{name}_file" in given:
        return _secret_in(Path(given[f"{name}_file"]), f"--{_dashed(name)}-file")
    variable = f"{_variable(name)}_FILE"
    for variables in (os.environ, in_file):
        if variables.get(_variable(name)):
            return None
        if path := variables.get(variable):
            return _secret_in(Path(path), variable)
    return None


def _secret_in(path: Path, option: str) -> str:
    try:
        lines = read_text_once(path).splitlines()
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}") from error
    except UnicodeDecodeError:  # its words quote what it could not read
        raise ConfigurationError(f"{option} {path}: holds no UTF-8 text") from None
    if not lines or not lines[0]:
        raise ConfigurationError(f"{option} {path}: its first line is empty")
    if exposed := exposure(path):
        say(f"warning: {option} {path} {exposed}")
    return lines[0]


def _secrets() -> list[str]:
    return [name for name, field in ClientSettings.model_fields.items() if _holds(field, SecretStr)]


def _holds(field: FieldInfo, kind: type) -> bool:
    return kind is field.annotation or kind in get_args(field.annotation)


def _kind(field: FieldInfo) -> type:
    """The type of a field without its `| None`; tuple for any tuple."""
    annotation: Any = field.annotation
    if getattr(annotation, "__origin__", None) is tuple:
        return tuple
    kinds = [part for part in get_args(annotation) if part is not type(None)]
    kind: type = kinds[0] if kinds else annotation
    return kind


def _variable(name: str) -> str:
    return ENVIRONMENT.get(name, f"SFTP_{name.upper()}")


def _dashed(name: str) -> str:
    return name.replace("_", "-")

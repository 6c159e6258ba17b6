"""Writes the reference of all settings (deploy/SETTINGS.md) and the modules `keywords` from the models:

    PYTHONPATH=. python tests/settings_reference.py

in the environment of the tests. Tests compare document and modules with the models.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from option_keywords import KEYWORDS, module
from pydantic import AliasChoices, ByteSize, SecretStr
from pydantic.fields import FieldInfo

from iot.sftp.client import ClientOptions
from iot.sftp.client.cli.options import add_settings
from iot.sftp.client.environment import TRUST, ClientSettings
from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.kinds import KINDS, server_model
from iot.spooler.config.load import CREDENTIAL, FALLBACK_CREDENTIAL, PLAIN, PREFIX, TABLES
from iot.spooler.config.outboxes import NameRule, OutboxSettings
from iot.spooler.config.settings import Settings
from iot.spooler.config.table import tables_within
from iot.transfer import ConfiguredRemote
from iot.transfer.rate import Rate

__all__ = ["DOCUMENT", "REGENERATE", "fields_of_all", "is_number", "reference", "unit"]

DOCUMENT = Path(__file__).parents[1] / "deploy" / "SETTINGS.md"
REGENERATE = "python tests/settings_reference.py"
HEAD = f"""\
# Settings

Written by `{REGENERATE}` from the models that check them; a test compares the two.

"""
SPOOLER = f"""\
## Spooler

[iot-spooler.toml](iot-spooler.toml) shows each key in its place. The environment wins over the file; its variables hold
plain text, only lists are JSON (those of [server] also words), as is `{PREFIX}OUTBOX` as a whole.
`{PREFIX}OUTBOX__1__PATH` belongs to the second outbox, and so on. A size is a number of bytes, or text such as
`"10 MiB"`.

### Top level

"""
ALL_KINDS = f"""\
### [server], every kind

[fallback], the second server, has the same keys; its variables begin with `{PREFIX}FALLBACK__`, the names of its
credentials with `{FALLBACK_CREDENTIAL.format("")}`.

`kind` (text, default `sftp`, `{PREFIX}SERVER__KIND`) is one of {", ".join(f"`{kind}`" for kind in KINDS)}.

"""
CLIENT = """\
## Client

The keywords of `IoTSFTPClient` (see `ClientOptions`), the options of `iot-sftp`, and the environment variables of both.
`FTPClient` and `FolderClient` take the keys of their kind of server and of every kind as keywords, and also `attempts`,
`owner_tag` and `state_dir`. No secret is given on the command line: its option names a file that holds it.

"""
LOGIN = """\
### Where to log in

Keywords: `sftp_host`, `sftp_port`, `sftp_user`, `sftp_pass`.

"""
ENV_FILE = f"""\
A `.env` file in the working folder may set all but these, and the one that `--env-file` names may set everything:
{", ".join(f"`{name}`" for name in sorted(TRUST))}.

"""
TYPES = {
    bool: "boolean",
    ByteSize: "size",
    int: "integer",
    float: "number",
    Path: "path",
    Rate: "rate",
    SecretStr: "secret",
    str: "text",
    tuple: "list of text",
    Callable: "function",
}
Fields = Mapping[str, FieldInfo]
Where = Callable[[str], tuple[str, ...]]
BOUNDS = ((Ge, "from {}", "ge"), (Gt, "above {}", "gt"), (Le, "up to {}", "le"), (Lt, "below {}", "lt"))
LENGTHS = ((MinLen, "at least {} characters", "min_length"), (MaxLen, "at most {} characters", "max_length"))


class Section(NamedTuple):
    """A table of the document, with the text above it.

    where: the cells that say how else a setting is given; columns: their titles.
    """

    text: str
    fields: Fields
    columns: tuple[str, ...]
    where: Where


def reference() -> str:
    """The whole document."""
    return HEAD + "\n".join(section.text + "\n".join(_table(section)) + "\n" for section in _sections())


def fields_of_all() -> Iterator[tuple[str, FieldInfo]]:
    """Every field that the document shows."""
    return ((name, field) for section in _sections() for name, field in section.fields.items())


def unit(name: str, field: FieldInfo) -> str:
    """What a number counts, which its name says."""
    if name.endswith("_s"):
        return "seconds"
    if Rate in _kinds(field):
        return "bytes/s"
    return "bytes" if name.endswith(("_bytes", "_size")) or ByteSize in _kinds(field) else ""


def is_number(field: FieldInfo) -> bool:
    return bool({int, float, ByteSize} & set(_kinds(field)))


def _sections() -> list[Section]:
    return [*_spooler(), *_client()]


def _spooler() -> Iterator[Section]:
    def section(text: str, fields: Fields, way: str) -> Section:
        return Section(text, fields, ("Environment",), lambda name: (f"`{PREFIX}{way}{name.upper()}`",))

    models = {kind: server_model(kind) for kind in KINDS}
    kinds = {kind: _without(_own_first(model), model.NOT_FROM_FILE) for kind, model in models.items()}
    first, *others = kinds.values()
    shared = {name: field for name, field in first.items() if all(_is_same(field, each.get(name)) for each in others)}
    yield section(SPOOLER, _without(Settings.model_fields, TABLES), "")
    yield section(ALL_KINDS, shared, "SERVER__")
    for kind, fields in kinds.items():
        text = f'### [server], kind = "{kind}"\n\n' + _credentials(models[kind].CREDENTIALS)
        yield section(text, _without(fields, shared), "SERVER__")
    for name, model in PLAIN.items():
        yield section(f"### [{name}]\n\n", model.model_fields, f"{name.upper()}__")
    inner = tables_within(OutboxSettings)
    yield section("### [[outbox]]\n\n", _without(OutboxSettings.model_fields, inner), "OUTBOX__0__")
    for name, model in inner.items():
        yield section(f"### [outbox.{name}]\n\n", model.model_fields, f"OUTBOX__0__{name.upper()}__")
    yield section("### [[outbox.rules]]\n\n", NameRule.model_fields, "OUTBOX__0__RULES__0__")
    yield section("### [[inbox]]\n\n", InboxSettings.model_fields, "INBOX__0__")


def _client() -> Iterator[Section]:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    flags = {action.dest: " ".join(f"`{flag}`" for flag in action.option_strings) for action in parser._actions}

    def where(name: str) -> tuple[str, ...]:
        if name not in ClientSettings.model_fields:
            return "", ""
        return flags.get(name) or flags[f"{name}_file"], f"`{_variable(name)}`"

    columns = ("Option", "Environment")
    login = _without(ClientSettings.model_fields, ClientOptions.model_fields)
    yield Section(CLIENT + LOGIN, login, columns, where)
    yield Section("### Options\n\n" + ENV_FILE, ClientOptions.model_fields, columns, where)


def _credentials(known: Mapping[str, tuple[str, ...]]) -> str:
    given = [f"`{CREDENTIAL.format(name)}` (`{keys[0]}`)" for name, keys in known.items()]
    return f"Credentials of systemd, for keys that are not set: {', '.join(given)}.\n\n" if given else ""


def _own_first(model: type[ConfiguredRemote]) -> dict[str, FieldInfo]:
    """Its fields, with those before all others that are no options of its client: where to log in."""
    names = sorted(model.model_fields, key=lambda name: name in model.OPTIONS.model_fields)
    return {name: model.model_fields[name] for name in names}


def _variable(name: str) -> str:
    alias = ClientSettings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"SFTP_{name.upper()}"


def _without(fields: Fields, names: Iterable[str]) -> dict[str, FieldInfo]:
    return {name: field for name, field in fields.items() if name not in set(names)}


def _is_same(field: FieldInfo, other: FieldInfo | None) -> bool:
    return other is not None and repr(field) == repr(other)


def _table(section: Section) -> Iterator[str]:
    titles = ("Name", "Type", "Default", "Unit", "Allowed", *section.columns, "Meaning")
    yield _row(titles)
    yield _row("---" for _ in titles)
    for name, field in section.fields.items():
        described = (_type(field), _default(name, field), unit(name, field), _allowed(field))
        yield _row((f"`{name}`", *described, *section.where(name), _escaped(field.description or "")))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def _kinds(field: FieldInfo) -> list[Any]:
    """The alternatives of a field's type, without None."""
    return [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in _alternatives(field)]


def _alternatives(field: FieldInfo) -> list[Any]:
    either = get_origin(field.annotation) in (Union, types.UnionType)
    return [kind for kind in (get_args(field.annotation) if either else [field.annotation]) if kind is not type(None)]


def _constraints(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for kind in _alternatives(field):
        if get_origin(kind) is Annotated:
            yield from (part for extra in get_args(kind)[1:] for part in extra.metadata)


def _type(field: FieldInfo) -> str:
    return " or ".join(dict.fromkeys(map(_type_name, _kinds(field))))


def _type_name(kind: Any) -> str:
    """Raises: KeyError for a type that no setting has had yet."""
    origin = get_origin(kind) or kind
    if NameRule in get_args(kind):
        return "list of tables"
    if origin is tuple and get_origin(get_args(kind)[0]) is tuple:
        return "list of lists of text"
    if origin is Literal or issubclass(origin, Enum):
        return "text"
    return TYPES[origin]


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.default.value if isinstance(field.default, Enum) else field.default
    if default is None or default in ("", ()):
        return ""
    return f"`{_plain(default)}`" + (_rounded(default) if unit(name, field) == "bytes" else "")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _rounded(size: int) -> str:
    return f" ({ByteSize(size).human_readable(separator=' ').replace('.0 ', ' ')})"


def _allowed(field: FieldInfo) -> str:
    choices = [f"`{_plain(value)}`" for kind in _kinds(field) for value in _choices(kind)]
    limits = [_limit(part) for part in _constraints(field)]
    return ", ".join([*choices, *filter(None, limits)])


def _choices(kind: Any) -> Iterable[Any]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    return (member.value for member in kind) if isinstance(kind, type) and issubclass(kind, Enum) else ()


def _limit(part: Any) -> str:
    for kind, words, attribute in (*BOUNDS, *LENGTHS):
        if isinstance(part, kind):
            return words.format(_plain(getattr(part, attribute))).replace(" 1 characters", " 1 character")
    pattern = getattr(part, "pattern", None)
    return f"matches `{pattern}`" if pattern else ""


if __name__ == "__main__":
    for each in KEYWORDS:
        each.file.write_text(module(each), encoding="utf-8")
    DOCUMENT.write_text(reference(), encoding="utf-8")

"""Reads the settings from all their sources, and reports invalid ones with their source.

Later sources win: the TOML file; IOT_SPOOLER_<KEY> with "__" between the levels (IOT_SPOOLER_SERVER__HOST,
IOT_SPOOLER_OUTBOX__0__SETTLE_S; lists as JSON); the credentials that the kind of server knows, in systemd's
$CREDENTIALS_DIRECTORY, for what is not set otherwise.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.kinds import KIND, SERVERS, UNKNOWN, model_of, server_keys
from iot.spooler.config.layout import contradictions
from iot.spooler.config.literals import WrongLiteral, wrong_literals
from iot.spooler.config.origins import Contradiction, Origins, Place
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.config.settings import Settings
from iot.spooler.config.table import tables_within
from iot.spooler.naming import shown
from iot.transfer import ConfigurationError, ConfiguredRemote, brief, in_our_words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["PLAIN", "BadConfiguration", "Loaded", "load", "look", "secrets_in"]

PREFIX = "IOT_SPOOLER_"
PLAIN = {name: model for name, model in tables_within(Settings).items() if name != "server"}
"""The tables beside [server], whose model its kind decides, and [[outbox]]."""
KIND_VARIABLES = [f"{PREFIX}{table.upper()}__{KIND.upper()}" for table in SERVERS]
"""Read before all others: the kind of server decides which of its keys are lists."""
MESSAGE = 1000
"""Characters of a validation message, which may repeat the value."""
LISTS = (
    *("include", "exclude", "urgent", "rules", "schedule", "rates", "condition", "metered_command", "preserve"),
    *("before", "after_success", "after_failure", "before_publish"),
)
"""Keys of lists outside [server] and [fallback]."""
LISTED: Mapping[str, type[BaseModel]] = {"outbox": OutboxSettings, "inbox": InboxSettings}
"""Tables of which there are several."""
CREDENTIAL = "sftp_{}"
"""Name of a credential in the systemd unit, for every kind of server; that of [fallback] follows."""
FALLBACK_CREDENTIAL = "sftp_fallback_{}"


class BadConfiguration(ConfigurationError):
    """Every invalid setting, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Loaded(NamedTuple):
    """settings: where something is wrong, as far as they are good; None where too little of them is. problems: each
    wrong setting, one a line."""

    settings: Settings | None
    origins: Origins
    problems: list[str]


def load(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """All settings, checked. path: the TOML file; None: environment only.

    Raises: BadConfiguration.
    """
    settings, _, problems = look(path, environment)
    if problems or settings is None:
        raise BadConfiguration(problems)
    return settings


def look(path: Path | None, environment: Mapping[str, str]) -> Loaded:
    """The settings, where each came from, and what is wrong with them.

    Raises: BadConfiguration where there is nothing to look at: the file cannot be read, or is no TOML.
    """
    text = "" if path is None else _text_of(path)
    values, set_elsewhere = ({} if path is None else _parsed(path, text)), dict[Place, str]()
    wrong = list(_wrong_literals(values))
    problems = _add_environment(values, set_elsewhere, environment)
    problems += _add_credentials(values, set_elsewhere, environment)
    origins = Origins(path, text, set_elsewhere)
    told = [literal.place for literal in wrong]
    problems += [_misfit(literal, Origins(path, text, {})) for literal in wrong]
    problems += _not_ours(values, origins)
    settings: Settings | None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        details = _without_echo(error.errors(include_url=False, include_context=False))
        problems += [_describe(dict(detail), origins) for detail in details if _place(detail) not in told]
        settings, kept = _good_part(values, [tuple(detail["loc"]) for detail in details])
        origins = origins.without(kept)
    problems += [_contradicts(found, origins) for found in (contradictions(settings) if settings else ())]
    return Loaded(settings, origins, problems)


def _wrong_literals(values: Mapping[str, Any]) -> Iterator[WrongLiteral]:
    """Of all tables of the file."""
    tables: list[tuple[Place, type[BaseModel] | None, Any]] = [
        ((), Settings, values),
        *(((name,), model_of(values[name]), values[name]) for name in SERVERS if name in values),
    ]
    tables += [((name,), model, values.get(name)) for name, model in PLAIN.items()]
    for name, model_listed in LISTED.items():
        listed = values.get(name)
        each = listed if isinstance(listed, list) else []
        tables += [((name, number), model_listed, table) for number, table in enumerate(each)]
    for place, model, table in tables:
        if model is not None and isinstance(table, dict):
            yield from wrong_literals(table, model, place)
        if model is OutboxSettings and isinstance(table, dict):
            for key, inner in tables_within(model).items():
                values_within = table.get(key)
                yield from wrong_literals(
                    values_within if isinstance(values_within, dict) else {}, inner, (*place, key)
                )


def _misfit(literal: WrongLiteral, origins: Origins) -> str:
    key, value = origins.key(literal.place), _value(literal.place, literal.value)
    return f"{key} = {value}: must be {literal.wanted} (from {origins.of(literal.place)})"


def _place(detail: Mapping[str, Any]) -> Place:
    return tuple(detail["loc"])


def _contradicts(found: Contradiction, origins: Origins) -> str:
    keys = (f"{origins.key(place)}{value}" for place, value in found.settings)
    where = ", ".join(dict.fromkeys(origins.of(place) for place, _ in found.settings))
    return f"{' and '.join(keys)}: {found.reason} (in {where})"


def _good_part(values: Mapping[str, Any], wrong: Sequence[Place]) -> tuple[Settings | None, dict[str, list[int]]]:
    """The settings without what is wrong, so that the rest can be looked at in the same run; and the numbers of the
    outboxes and inboxes that are left."""
    good = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    if not isinstance(good.get("outbox"), list):
        return None, {}
    for name in LISTED:
        if isinstance(good.get(name), list):
            good[name] = [dict(table) if isinstance(table, dict) else table for table in good[name]]
    dropped: set[tuple[str, int]] = set()
    if not all(_taken_out(good, place, dropped) for place in wrong):
        return None, {}
    given = [name for name in LISTED if isinstance(good.get(name), list)]
    kept = {name: [n for n in range(len(good[name])) if (name, n) not in dropped] for name in given}
    left = {name: [good[name][number] for number in kept[name]] for name in given}
    try:
        return Settings.model_validate({**good, **left}), kept
    except ValidationError:
        return None, {}


def _taken_out(good: dict[str, Any], place: Place, dropped: set[tuple[str, int]]) -> bool:
    """Take what is wrong out of the values, or add the number of its table to `dropped` -> whether enough is left."""
    match place:
        case ("server" | "fallback" as table, *_):
            good[table] = UNKNOWN
        case ("outbox", int(number), "path") | ("outbox", int(number)):
            dropped.add(("outbox", number))
        case ("outbox", int(number), str(key), *_):
            good["outbox"][number].pop(key, None)
            good["outbox"][number].setdefault("destination", ".")
        case ("outbox", *_):
            return False
        case ("inbox", int(number), *_):
            dropped.add(("inbox", number))
        case (str(table), str(key), *_) if table in PLAIN:
            good[table].pop(key, None)
        case (str(key), *_):
            good.pop(key, None)
    return True


def _without_echo(details: Sequence[Any]) -> list[Any]:
    """Without the follow-up error that a list is too short because all its elements are invalid."""
    inside = {detail["loc"][0] for detail in details if len(detail["loc"]) > 1}
    return [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"][0] in inside)]


def _not_ours(values: Mapping[str, Any], origins: Origins) -> list[str]:
    """Take out and report options that the spooler sets itself: a configured value would be ignored."""
    found = []
    for table in SERVERS:
        server = values.get(table)
        names = (model_of(server) or ConfiguredRemote).NOT_FROM_FILE
        given = [key for key in names if isinstance(server, dict) and server.pop(key, None) is not None]
        found += [f"{table}.{key}: no such setting (from {origins.of((table, key))})" for key in given]
    return found


def secrets_in(path: Path) -> list[str]:
    """The keys of a configuration file that are secrets. Raises: BadConfiguration."""
    values = _parsed(path, _text_of(path))
    found = []
    for table in SERVERS:
        server = values.get(table, {})
        model = model_of(server)
        secrets = model.secret_keys() if model is not None else []
        found += [f"{table}.{key}" for key in secrets if isinstance(server, dict) and key in server]
    return found


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        hint = "; name the right one: --config FILE" if isinstance(error, FileNotFoundError) else ""
        raise BadConfiguration([f"{shown(str(path))}: cannot be read: {error.strerror}{hint}"]) from error
    except ValueError as error:
        raise BadConfiguration([f"{shown(str(path))}: not valid TOML: {brief(str(error))}"]) from None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(text)
        return values
    except (ValueError, RecursionError) as error:  # not TOML, a number of 5,000 digits, a list in 1,000 lists
        raise BadConfiguration([f"{shown(str(path))}: not valid TOML: {brief(str(error))}"]) from None


def _add_environment(values: dict[str, Any], origins: dict[Place, str], environment: Mapping[str, str]) -> list[str]:
    problems = []
    for name in sorted(environment, key=lambda name: (name not in KIND_VARIABLES, name)):
        if name.upper().startswith(PREFIX[:-1]) and not name.startswith(PREFIX):
            problems.append(
                f"{brief(shown(name))}: looks like a setting, but lacks the prefix {PREFIX} (in the environment)"
            )
        if not name.startswith(PREFIX) or name == f"{PREFIX}CONFIG":
            continue
        keys = _keys(name)
        try:
            _put(values, keys, _from_text(values, keys, environment[name]))
        except (TypeError, IndexError, KeyError):
            problems.append(f"{brief(shown(name))}: no such place in the configuration (from the environment)")
        except (ValueError, RecursionError) as error:
            problems.append(f"{brief(shown(name))}: must be a JSON list: {brief(str(error))} (from the environment)")
        else:
            origins[tuple(keys)] = f"environment variable {brief(shown(name))}"
    return problems


def _keys(name: str) -> list[str | int]:
    """The path of keys that a variable's name stands for; an index into a list has at most three digits."""
    parts = name[len(PREFIX) :].lower().split("__")
    return [int(part) if re.fullmatch("[0-9]{1,3}", part) else part for part in parts]


def _from_text(values: Mapping[str, Any], keys: list[str | int], text: str) -> Any:
    """The value of a variable. A list of a server may also be words, which its kind of server splits."""
    if keys[0] in SERVERS:
        model = model_of(values.get(str(keys[0]))) or ConfiguredRemote
        is_json = keys[-1] in model.list_keys() and text.lstrip().startswith("[")
    else:
        is_json = (len(keys) == 1 and keys[0] in LISTED) or keys[-1] in LISTS
    return json.loads(text) if is_json else text


def _put(values: Any, keys: list[str | int], value: Any) -> None:
    """Set values[k1][k2]...; a number one past the end of a list appends."""
    here = values
    for key, following in itertools.pairwise(keys):
        here = _step(here, key, [] if isinstance(following, int) else {})
    _step(here, keys[-1], value)
    here[keys[-1]] = value


def _step(here: Any, key: str | int, fresh: Any) -> Any:
    if isinstance(here, list) and isinstance(key, int):
        if key == len(here):
            here.append(fresh)
        return here[key]
    if not isinstance(here, dict) or isinstance(key, int):
        raise TypeError(key)
    return here.setdefault(key, fresh)


def _add_credentials(values: dict[str, Any], origins: dict[Place, str], environment: Mapping[str, str]) -> list[str]:
    folder = environment.get("CREDENTIALS_DIRECTORY")
    values.setdefault("server", {})
    problems = []
    for table, form in zip(SERVERS, (CREDENTIAL, FALLBACK_CREDENTIAL), strict=True):
        if folder and isinstance(values.get(table), dict):
            problems += _add_credentials_of(table, form, values[table], origins, Path(folder))
    return problems


def _add_credentials_of(
    table: str, form: str, server: dict[str, Any], origins: dict[Place, str], folder: Path
) -> list[str]:
    """A server whose table is not there has none: a credential alone makes no [fallback]."""
    model = model_of(server) or ConfiguredRemote
    problems = []
    for name, (key, *others) in ((form.format(name), keys) for name, keys in model.CREDENTIALS.items()):
        file = folder / name
        if any(given in server for given in (key, *others)):
            continue
        try:
            if not file.is_file():
                continue
            server[key] = file.read_text(encoding="utf-8").rstrip("\r\n") if key in model.secret_keys() else str(file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "holds no UTF-8 text"
            problems.append(f"{table}.{key}: {reason} (from credential {name})")
        else:
            origins[table, key] = f"credential {name}"
    return problems


def _describe(detail: dict[str, Any], origins: Origins) -> str:
    place: Place = tuple(detail["loc"])
    key = origins.key(place)
    key = brief(key) if key.isprintable() and key else brief(repr(key))
    origin = origins.of(place)
    message = in_our_words(str(detail["msg"]))
    if detail["type"] == "missing":
        return f"{key}: missing; it must be given (in {origin})"
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such setting{_neighbour(place)} (from {origin})"
    message = _kind_wanted(key, detail["type"]) or message
    return f"{key} = {_value(place, detail['input'])}: {brief(message, MESSAGE)} (from {origin})"


def _kind_wanted(key: str, error: str) -> str:
    """What a key of the wrong kind must be, in TOML's words; "" if that is not what is wrong."""
    if error == "tuple_type":
        return f"must be tables, each begun with [[{key}]]" if key in LISTED else 'must be a list: ["...", "..."]'
    table = re.sub(r"\[[0-9]+\]", "", key)
    return f"must be a table, begun with [{table}]" if error == "model_type" else ""


MAY_HOLD_A_PASSWORD = re.compile(r"://|:.*@", re.DOTALL)
TABLES = (*SERVERS, *PLAIN, "outbox", "inbox")


def _settings_of(table: str) -> list[str]:
    """The settings of a table; "" is the top level."""
    if table in SERVERS:
        return sorted(server_keys())
    models: dict[str, type[BaseModel]] = {"": Settings, **PLAIN, **LISTED}
    models |= {f"outbox.{key}": inner for key, inner in tables_within(OutboxSettings).items()}
    return list(models[table].model_fields)


def _neighbour(place: Place) -> str:
    """The setting that was probably meant; "_" may stand for the "__" between levels."""
    import difflib  # a valid configuration does not need it

    words = [str(part) for part in place if isinstance(part, str)]
    table = words[0] if words[0] in TABLES and len(words) > 1 else ""
    if table == "outbox" and len(words) > 2 and words[1] in tables_within(OutboxSettings):
        table = f"outbox.{words[1]}"
    known = {name: name for name in _settings_of(table)}
    if not table:
        known |= {f"{each}_{name}": f"{each}.{name}" for each in TABLES[:-2] for name in _settings_of(each)}
    if table and words[-1] in known:
        return " with this kind of server"
    within = (f"outbox.{key}" for key in tables_within(OutboxSettings))
    for elsewhere in (*TABLES, *within, ""):
        if words[-1] in _settings_of(elsewhere):
            return f"; it belongs in [{elsewhere}]" if elsewhere else "; it belongs before the first table"
    close = difflib.get_close_matches(words[-1], known, 1)
    return f"; perhaps {table + '.' if table else ''}{known[close[0]]}" if close else ""


def _value(place: Place, value: Any) -> str:
    """The value as it may be shown: hidden if it could be a secret."""
    secret = any(word in str(part) for part in place for word in ("pass", "secret", "key_phrase"))
    if secret and not str(place[-1]).endswith("_file"):
        return "(hidden)"
    if isinstance(value, (dict, list, tuple, Settings)) or hasattr(value, "model_fields"):
        return "(...)"
    if str(place[-1]) in TABLES or MAY_HOLD_A_PASSWORD.search(str(value)):  # so may a text instead of a table
        return "(hidden)"
    return brief(repr(value))

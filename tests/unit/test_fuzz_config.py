"""Whatever the configuration holds: good settings or the one typed error that names the keys; never a traceback."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from iot.sftp.client import ClientOptions, ConfigurationError, IoTSFTPClient
from iot.sftp.client.cli.options import settings_from
from iot.sftp.client.configured import ServerSettings
from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.config.retry import RetrySettings
from iot.spooler.config.settings import Settings, WakeSettings

EXAMPLES = int(os.environ.get("IOT_SFTP_FUZZ_EXAMPLES", "150"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SECRET = "s3cret-value"
GOOD: dict[str, Any] = {
    "state_dir": "/state",
    "server": {"host": "h", "password": SECRET},
    "outbox": [{"path": "/o", "destination": "/d"}],
}
SECTIONS: dict[str, type[BaseModel]] = {
    "": Settings,
    "server": ServerSettings,
    "retry": RetrySettings,
    "wake": WakeSettings,
    "outbox": OutboxSettings,
    "inbox": InboxSettings,
}

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(
        ["", " ", "\0", "/a\0b", "..", "/../x", "~", "{", "{date}", "{nobody}", "re:(", "re:" + "(a*)*" * 9]
    ),
    st.sampled_from(
        ["x" * 100_000, "/" * 5000, "1e999", "nan", "10 PiB", "-1 KiB", "[" * 3000, "\ud7ff\ue000", "\x1b[31m"]
    ),
)
numbers = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**4000]),
    st.floats(),
)
values = st.recursive(
    st.one_of(texts, numbers, st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


def places() -> list[tuple[str, str]]:
    return [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]


changes = st.lists(
    st.tuples(st.sampled_from([*places(), ("", "surprise"), ("server", "surprise")]), values), max_size=6
)


def changed(pairs: list[tuple[tuple[str, str], Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {"state_dir": "/state", "server": dict(GOOD["server"]), "outbox": [dict(GOOD["outbox"][0])]}
    for (section, key), value in pairs:
        part = tree.setdefault(section, {}) if section else tree
        part = part[0] if isinstance(part, list) and part else part
        if isinstance(part, dict):
            part[key] = value
    return tree


def as_toml(value: Any) -> str:
    """A value as inline TOML: what tomllib reads back as this very value."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_toml(str(key))} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", value) + '"'
    return str(value)


def check(path: Path | None, environment: Mapping[str, str]) -> Settings | None:
    """Load; a refusal names keys, stays on its lines, and shows no secret."""
    try:
        return load(path, environment)
    except BadConfiguration as error:
        told = error.problems
    assert told
    for problem in told:
        assert SECRET not in problem
        assert re.match(r"[^\n]+?(: | = )", problem), problem[:200]
        assert len(problem) < 2000
    return None


@FUZZ
@given(changes)
@example([(("server", "part_suffix"), "\0")])
@example([(("server", "ciphers"), ["x" * 100_000])])
def test_any_tree_gives_settings_or_names_the_keys(tmp_path: Path, pairs: list[tuple[tuple[str, str], Any]]) -> None:
    path = tmp_path / "fuzz.toml"
    tree = changed(pairs)
    path.write_text("".join(f"{as_toml(key)} = {as_toml(value)}\n" for key, value in tree.items()), encoding="utf-8")
    found = check(path, {})
    if found is not None:
        usable(found)


def usable(found: Settings) -> None:
    """What was let through does not blow up further down."""
    for part in (found.state_dir, *(outbox.path for outbox in found.outbox)):
        assert "\0" not in str(part)
    try:
        IoTSFTPClient(found.server.host, found.server.port, found.server.user, **found.server.client_options())
    except ConfigurationError as error:
        pytest.fail(f"passed the check, but not the client: {error}")


@FUZZ
@given(st.binary(max_size=300))
@example(b"x = " + b"[" * 2000)
@example(b"x = " + b"{a=" * 2000)
@example(b"x = 1" + b"0" * 5000)
@example(b"x = 0x" + b"f" * 100_000)
@example(b"\xff\xfe")
@example(b"a." * 5000 + b"b = 1")
@example(b"x = 9999-99-99")
def test_any_bytes_in_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.toml"
    path.write_bytes(content)
    assert check(path, {}) is None


names = st.one_of(
    st.builds(
        lambda section, key: f"IOT_SPOOLER_{section}{key}".upper(),
        st.sampled_from(["", "SERVER__", "RETRY__", "OUTBOX__0__", "OUTBOX__1__", "OUTBOX__7__", "SERVER__HOST__"]),
        st.sampled_from([key for _, key in places()]),
    ),
    st.text("_0123456789ABCX", max_size=30).map(lambda rest: f"IOT_SPOOLER_{rest}"),
    st.sampled_from(["IOT_SPOOLER_OUTBOX__" + "9" * 6000 + "__PATH", "IOT_SPOOLER_OUTBOX__٣__PATH"]),
)
variables = st.one_of(
    texts.map(lambda text: text.replace("\0", "0")),
    values.map(lambda value: json.dumps(value).replace("\0", "0")),
    st.binary(max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"0"))),
    st.sampled_from(["[" * 100_000, "[1" + "0" * 5000 + "]", "NaN", "[Infinity]", "null"]),
)


@FUZZ
@given(st.dictionaries(names, variables, max_size=5), st.booleans())
def test_any_environment(tmp_path: Path, environment: dict[str, str], with_file: bool) -> None:
    path = tmp_path / "good.toml"
    path.write_text("".join(f"{as_toml(key)} = {as_toml(value)}\n" for key, value in GOOD.items()))
    found = check(path if with_file else None, environment)
    if found is not None:
        usable(found)


@FUZZ
@given(st.dictionaries(st.sampled_from(["sftp_password", "sftp_key_passphrase", "sftp_key"]), st.binary(max_size=40)))
def test_any_credentials(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("credentials")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / "good.toml"
    path.write_text('state_dir = "/s"\nserver = {host = "h"}\noutbox = [{path = "/o", destination = "/d"}]\n')
    check(path, {"CREDENTIALS_DIRECTORY": str(folder)})


@FUZZ
@given(st.dictionaries(st.one_of(st.sampled_from(sorted(ClientOptions.model_fields)), texts), values, max_size=5))
def test_any_options_of_the_client(options: dict[str, Any]) -> None:
    given_options = {key: value for key, value in options.items() if key not in ("sftp_host", "self", "journal")}
    try:
        IoTSFTPClient("host", 22, "user", SECRET, **given_options)
    except ConfigurationError as error:
        told = str(error)
    else:
        return
    assert SECRET not in told
    assert any(key[:200] in told or repr(key[:200])[1:-1] in told for key in given_options)


@FUZZ
@given(variables=st.dictionaries(st.sampled_from(sorted(ClientOptions.model_fields)), variables, max_size=5))
@example(variables={"prompt_command": "0", "prompt_file": " "})
def test_any_environment_of_the_command_line(tmp_path: Path, variables: dict[str, str]) -> None:
    given_names = {f"SFTP_{name.upper()}": value for name, value in variables.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name in [name for name in os.environ if name.startswith("SFTP_")]:
            patch.delenv(name)
        patch.setenv("SFTP_HOST", "h")
        patch.setenv("SFTP_PASSWORD", SECRET)
        for name, value in given_names.items():
            patch.setenv(name, value)
        try:
            settings_from({})
        except ConfigurationError as error:
            told = str(error)
        else:
            return
    assert SECRET not in told
    of_several = {name.removeprefix("SFTP_").lower() for name in given_names}  # a line about several names them so
    assert any(name in told for name in ("SFTP_KEY", *given_names, *of_several))

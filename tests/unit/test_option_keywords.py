"""Every option of a client is a keyword that editors complete and type checkers verify."""

from __future__ import annotations

import os
import pydoc
import typing
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from option_keywords import KEYWORDS, Keywords, module
from pydantic import SecretStr, ValidationError
from settings_reference import REGENERATE

from iot.folder import FolderClient, FolderKeywords, FolderOptions
from iot.ftp import FTPClient, FTPKeywords, FTPOptions
from iot.sftp.client import ClientKeywords, ClientOptions, IoTSFTPClient
from iot.transfer.rate import Rate

CLIENTS = [
    (IoTSFTPClient, ClientKeywords, ClientOptions),
    (FTPClient, FTPKeywords, FTPOptions),
    (FolderClient, FolderKeywords, FolderOptions),
]
SAMPLES: dict[Any, Any] = {
    bool: True,
    int: 1024 * 1024,
    float: 7.5,
    str: "text",
    SecretStr: SecretStr("text"),
    os.PathLike: Path("/text"),
    list: ["text"],
    tuple: ("text",),
    NoneType: None,
    Callable: lambda prompt, echo: "answer",
}
"""A value for each kind that a keyword may have."""
OF_VALUE = ("value_error", "less_than_equal")
"""What may be wrong with a value although it is of the right type: a text that is no fingerprint."""
STANDS_FOR = {Path: os.PathLike, Rate: float}


@pytest.mark.parametrize("of", KEYWORDS, ids=lambda of: of.name)
def test_the_modules_of_keywords_are_those_that_the_models_give(of: Keywords) -> None:
    same = of.file.read_text(encoding="utf-8") == module(of)
    assert same, f"{of.file.name} of {of.package} differs from the model: {REGENERATE}"


@pytest.mark.parametrize(("keywords", "model"), [given[1:] for given in CLIENTS])
def test_every_option_is_a_keyword_and_every_keyword_an_option(keywords: Any, model: Any) -> None:
    assert set(typing.get_type_hints(keywords)) == set(model.model_fields)
    assert keywords.__required_keys__ == frozenset()


@pytest.mark.parametrize(("keywords", "model"), [given[1:] for given in CLIENTS])
def test_what_the_type_of_a_keyword_allows_the_model_takes(keywords: Any, model: Any) -> None:
    refused = []
    for name, hint in typing.get_type_hints(keywords).items():
        for value in values_of(hint):
            try:
                model(**{name: value})
            except ValidationError as error:
                refused += [(name, value, detail) for detail in error.errors() if detail["type"] not in OF_VALUE]
    assert not refused


@pytest.mark.parametrize(("keywords", "model"), [given[1:] for given in CLIENTS])
def test_what_the_model_takes_the_type_of_the_keyword_allows(keywords: Any, model: Any) -> None:
    hints = {name: kinds_of(hint) for name, hint in typing.get_type_hints(keywords).items()}
    lacking = [
        (name, kind)
        for name, field in model.model_fields.items()
        for kind in kinds_of(field.annotation)
        if STANDS_FOR.get(kind, kind) not in hints[name]
    ]
    assert not lacking
    words = {(name, member.value) for name, field in model.model_fields.items() for member in members_of(field)}
    spelt = {(name, word) for name, hint in typing.get_type_hints(keywords).items() for word in words_of(hint)}
    assert words == spelt


@pytest.mark.parametrize(("client", "model"), [(client, model) for client, _, model in CLIENTS])
def test_help_shows_every_option_with_default_and_meaning(client: Any, model: Any) -> None:
    shown = pydoc.render_doc(client, renderer=pydoc.plaintext)
    for name, field in model.model_fields.items():
        assert f" {name} = " in shown
        assert field.description in shown
    assert "ciphers = ()" in shown or client is not IoTSFTPClient
    assert " = 'size'\n" in shown


@pytest.mark.parametrize("client", [client for client, _, _ in CLIENTS])
def test_help_can_be_read(client: Any) -> None:
    shown = pydoc.render_doc(client, renderer=pydoc.plaintext).replace(repr(object), "")
    for noise in ("<function", "<object", " at 0x", "_List", "**keywords"):
        assert noise not in shown
    texts = [line for line in shown.splitlines() if "(" not in line or "->" not in line]  # signatures are long
    assert max(map(len, texts)) <= 125


def values_of(hint: Any) -> list[Any]:
    found = []
    for kind in parts_of(hint):
        if get_origin(kind) is Literal:
            found += get_args(kind)
        elif isinstance(kind, type) and issubclass(kind, Enum):
            found += list(kind)
        else:
            found.append(SAMPLES[get_origin(kind) or kind])
    return found


def parts_of(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if type(None | int) is type(hint) or get_origin(hint) is typing.Union else (hint,)


def kinds_of(hint: Any) -> set[Any]:
    return {get_origin(kind) or kind for kind in parts_of(hint)}


def members_of(field: Any) -> list[Any]:
    enums = [kind for kind in kinds_of(field.annotation) if isinstance(kind, type) and issubclass(kind, Enum)]
    return [member for enum in enums for member in enum]


def words_of(hint: Any) -> list[str]:
    return [word for kind in parts_of(hint) if get_origin(kind) is Literal for word in get_args(kind)]


@pytest.mark.parametrize("model", [given[2] for given in CLIENTS])
def test_options_cannot_be_changed_once_they_are_checked(model: Any) -> None:
    options = model()
    with pytest.raises(ValidationError, match="frozen"):
        options.attempts = -1

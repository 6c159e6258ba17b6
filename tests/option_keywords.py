"""The modules `keywords` of the package, for type checkers and editors: each option of a client, with its type.

`settings_reference.py` writes them from the models that check the options; a test compares the two.
"""

from __future__ import annotations

import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from iot.folder import FolderOptions
from iot.ftp import FTPOptions
from iot.sftp.client import ClientOptions
from iot.transfer.rate import Rate
from iot.transfer.settings import TransferSettings

__all__ = ["KEYWORDS", "Keywords", "module"]

ROOT = Path(__file__).parents[1]
WIDTH = 120
WHERE = {
    "Callable": "from collections.abc import Callable",
    "Literal": "from typing import Literal, TypedDict",
    "SecretStr": "from pydantic import SecretStr",
    "os": "import os",
}
"""What has to be imported for a name."""
SPELLINGS = {
    Path: "str | os.PathLike[str]",
    Rate: "float | str",
    SecretStr: "str | SecretStr",
    tuple: "str | list[str] | tuple[str, ...]",
    types.NoneType: "None",
}
"""What may be given where a setting is of a type; any other is spelt as it is."""


class Keywords(NamedTuple):
    """A module with the options of one model, those of `above` apart."""

    package: str
    name: str
    model: type[BaseModel]
    above: Keywords | None = None

    @property
    def file(self) -> Path:
        return ROOT / self.package.replace(".", "/") / "keywords.py"

    @property
    def fields(self) -> dict[str, FieldInfo]:
        inherited = self.above.fields if self.above is not None else {}
        return {name: field for name, field in self.model.model_fields.items() if name not in inherited}


COMMON = Keywords("iot.transfer", "TransferKeywords", TransferSettings)
KEYWORDS = (
    COMMON,
    Keywords("iot.sftp.client", "ClientKeywords", ClientOptions, COMMON),
    Keywords("iot.ftp", "FTPKeywords", FTPOptions, COMMON),
    Keywords("iot.folder", "FolderKeywords", FolderOptions, COMMON),
)


def module(of: Keywords) -> str:
    """The source of one module."""
    typed = {name: " | ".join(dict.fromkeys(_spelt(field.annotation))) for name, field in of.fields.items()}
    above = of.above.name if of.above is not None else "TypedDict"
    return "\n".join(
        [
            '"""The options of a client as keywords: written by `python tests/settings_reference.py`, not by hand."""',
            "",
            *_imports(of, " ".join(typed.values())),
            "",
            f'__all__ = ["{of.name}"]',
            "",
            "",
            f"class {of.name}({above}, total=False):",
            f'    """See {of.model.__name__}, which checks the values."""',
            *(line for name in typed for line in ("", f"    {name}: {typed[name]}", *_documented(of.fields[name]))),
            "",
        ]
    )


def _imports(of: Keywords, used: str) -> Iterator[str]:
    yield "from __future__ import annotations"
    typing = WHERE["Literal"] if "Literal" in used else "from typing import TypedDict" if of.above is None else ""
    typing = typing if of.above is None else typing.removesuffix(", TypedDict")
    standard = [WHERE[name] for name in ("os", "Callable") if name in used]
    yield from _block([*standard, typing])
    yield from _block([WHERE["SecretStr"] if "SecretStr" in used else ""])
    yield from _block(_own(of))


def _own(of: Keywords) -> Iterator[str]:
    enums = [kind for field in of.fields.values() for kind in _alternatives(field.annotation) if _is_enum(kind)]
    from_modules: dict[str, set[str]] = {}
    for kind in enums:
        from_modules.setdefault(kind.__module__, set()).add(kind.__name__)
    if of.above is not None:
        from_modules.setdefault(f"{of.above.package}.keywords", set()).add(of.above.name)
    for name in sorted(from_modules):
        yield f"from {name} import {', '.join(sorted(from_modules[name]))}"


def _block(lines: Iterable[str]) -> list[str]:
    given = [line for line in lines if line]
    return ["", *given] if given else []


def _documented(field: FieldInfo) -> Iterator[str]:
    """As editors show it beside the keyword."""
    text = f'"""{field.description}{_default(field)}"""'
    return (f"    {line}" for line in textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False))


def _default(field: FieldInfo) -> str:
    default = field.default.value if isinstance(field.default, Enum) else field.default
    return "" if default in (None, "", ()) else f" (default: {default!r})"


def _spelt(annotation: Any) -> Iterator[str]:
    """The alternatives of a type, as a caller may give them."""
    for kind in _alternatives(annotation):
        origin = get_origin(kind) or kind
        if _is_enum(kind):
            yield f"{kind.__name__} | Literal[{', '.join(_quoted(member.value) for member in kind)}]"
        elif origin is Callable:
            taken, answer = get_args(kind)
            yield f"Callable[[{', '.join(each.__name__ for each in taken)}], {answer.__name__}]"
        else:
            yield SPELLINGS.get(origin) or origin.__name__


def _quoted(text: str) -> str:
    return f'"{text}"'


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)

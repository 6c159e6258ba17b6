"""Defer imports that our dependencies make and that are rarely or never used here.

Each of them costs a device more time and memory at every start than all modules of this package together.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["deferred", "without_plugins"]


@contextlib.contextmanager
def deferred(name: str, **known: Any) -> Iterator[None]:
    """Within this block, importing the module yields a stand-in that loads the real one on first use.

    known: attributes of the stand-in itself; using only these never loads the module.
    Later imports get the module itself. Has no effect if the module is already loaded, or not installed.
    """
    if name in sys.modules or importlib.util.find_spec(name) is None:
        yield
        return
    stand_in = ModuleType(name)

    def load(attribute: str) -> Any:
        withdraw()
        return getattr(importlib.import_module(name), attribute)

    def withdraw() -> None:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]

    if known:
        known["__path__"] = []  # `from name import attribute` asks for it first
    vars(stand_in).update(known, __getattr__=load)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        withdraw()


def without_plugins() -> None:
    """Have pydantic look for no plugins: for programs of our own, before their first model.

    It looks in the metadata of every installed package, which takes its time and loads email and zipfile.
    """
    with contextlib.suppress(ImportError), deferred("importlib.metadata", entry_points=lambda **_: ()):
        import pydantic.plugin._loader  # noqa: F401  private: if it does not exist, plugins are looked for as usual

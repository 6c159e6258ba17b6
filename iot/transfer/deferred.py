"""Imports of our dependencies that nothing here ever uses: put off until somebody does.

Each costs a device more time and memory at every start than all modules of this package that it loads.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["deferred"]


@contextlib.contextmanager
def deferred(name: str, **known: Any) -> Iterator[None]:
    """Within this block whoever imports the module gets a stand-in, which loads the real one when it is first used.

    known: attributes that the stand-in has itself; who asks for these alone never loads the module.
    Those who import it afterwards get the module itself. Nothing changes where it is loaded already, or not installed.
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

"""The settings of the spooler and their validation.

pydantic looks for plugins in the metadata of every installed package, which loads email and zipfile. None are used.
"""

import contextlib

from iot.transfer.deferred import deferred

with contextlib.suppress(ImportError), deferred("importlib.metadata", entry_points=lambda **_: ()):
    import pydantic.plugin._loader  # noqa: F401  private: if it does not exist, plugins are looked for as usual

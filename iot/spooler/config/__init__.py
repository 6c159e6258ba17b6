"""The settings of the spooler and their validation.

pydantic looks for plugins in the metadata of all installed packages, which loads email and zipfile. The service has none.
"""

import contextlib

from iot.transfer.deferred import deferred

with contextlib.suppress(ImportError), deferred("importlib.metadata", entry_points=lambda **_: ()):
    import pydantic.plugin._loader  # noqa: F401  private: if it does not exist, plugins are looked for as usual

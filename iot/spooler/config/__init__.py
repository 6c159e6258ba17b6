"""The spooler's settings: read once, from one TOML file, the environment and systemd's credentials.

pydantic looks for plugins in the metadata of everything that is installed, and loads email and zipfile for that. The
service has none.
"""

import contextlib

from iot.transfer.deferred import deferred

with contextlib.suppress(ImportError), deferred("importlib.metadata", entry_points=lambda **_: ()):
    import pydantic.plugin._loader  # noqa: F401  private: where it is not there, plugins are looked for as usual

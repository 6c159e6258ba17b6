"""SSH: the only folder that imports paramiko and pysftp.

paramiko imports `invoke`, which imports asyncio and unittest, for `Match exec` in an OpenSSH configuration, not
used here; and `importlib.metadata`, which imports email and zipfile, to learn its own version.
"""

import importlib.util
from pathlib import Path

from iot.transfer.deferred import deferred


def _known_version() -> dict[str, object]:
    """What paramiko would be told: its version stands in the name of the folder that an installer puts beside it."""
    spec = importlib.util.find_spec("paramiko")
    if spec is None or spec.origin is None:
        return {}
    found = [path.stem for path in Path(spec.origin).parents[1].glob("paramiko-*.dist-info")]
    return {"version": lambda _: found[0].partition("-")[2]} if len(found) == 1 else {}


with deferred("invoke"), deferred("importlib.metadata", **_known_version()):
    import paramiko  # noqa: F401

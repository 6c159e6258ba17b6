"""pysftp, importable beside every paramiko from 3.5 on.

pysftp 0.2.9 imports DSSKey, which paramiko 4.0 removed (paramiko issues 2535-2537). A stand-in stands
there during the import and is taken away again; DSA keys themselves stay unsupported.
"""

from __future__ import annotations

import paramiko

if hasattr(paramiko, "DSSKey"):
    import pysftp
else:
    setattr(paramiko, "DSSKey", type("DSSKey", (paramiko.PKey,), {}))  # noqa: B010 - its types know no such name
    try:
        import pysftp
    finally:
        delattr(paramiko, "DSSKey")

__all__ = ["pysftp"]

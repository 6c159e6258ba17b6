"""A session of the embedded server without a network."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from iot.sftp.server.files import SFTPSession

__all__ = ["STATUS", "Wire"]

STATUS = 101


class Wire:
    """A session without a network: one request in, its answer out."""

    def __init__(self, root: Path) -> None:
        self.sent = bytearray()
        self.session = SFTPSession(os.fsencode(os.path.realpath(root)), self.sent.extend)

    def ask(self, kind: int, *parts: bytes | int) -> tuple[int, bytes]:
        """The answer's type and what follows its request id. Parts: bytes as a string, int as a uint32."""
        body = b"".join(struct.pack(">I", p) if isinstance(p, int) else struct.pack(">I", len(p)) + p for p in parts)
        packet = struct.pack(">BI", kind, 7) + body
        self.sent.clear()
        self.session.receive(struct.pack(">I", len(packet)) + packet)
        length, reply, request_id = struct.unpack_from(">IBI", self.sent)
        assert (length, request_id) == (len(self.sent) - 4, 7)
        return reply, bytes(self.sent[9:])

    def status(self, kind: int, *parts: bytes | int) -> int:
        reply, body = self.ask(kind, *parts)
        assert reply == STATUS
        return int(struct.unpack_from(">I", body)[0])

"""gzip and zstd, and which files are worth it.

What is written depends on the content alone: a header without time and name, one level. So a compressed file that was
lost is made again with the same bytes, as long as the library stays the same.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from iot.spooler.config.packed import Compression, zstd_library

__all__ = ["TRIAL_BYTES", "Writer", "pays", "writer"]

TRIAL_BYTES = 1024 * 1024
"""Of a file, what is compressed first to see whether that pays."""
LEAST_SAVED = 0.05
GZIP_LEVEL = 6
ZSTD_LEVEL = 3
GZIP = 16 + zlib.MAX_WBITS
"""For zlib: with the header and the checksum of gzip (RFC 1952); it writes neither name nor time."""


class Writer(Protocol):
    """Compresses one file. Pieces may be of any size, and what comes out is independent of it."""

    def compress(self, piece: bytes, /) -> bytes: ...

    def flush(self) -> bytes:
        """The rest, when all of the file was given."""


def writer(kind: Compression) -> Writer:
    """Raises: ImportError where the library for it is missing."""
    if kind is Compression.GZIP:
        return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP)
    library = zstd_library()
    made: Writer
    if library.__name__ == "zstandard":
        made = library.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    else:
        named = library.CompressionParameter
        made = library.ZstdCompressor(options={named.compression_level: ZSTD_LEVEL, named.checksum_flag: 1})
    return made


def pays(kind: Compression, beginning: bytes) -> bool:
    """Whether so much is saved by compressing a file of this beginning that the server had better unpack it."""
    made = writer(kind)
    packed = len(made.compress(beginning)) + len(made.flush())
    return packed <= len(beginning) * (1 - LEAST_SAVED)

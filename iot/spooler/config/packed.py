"""Which files are sent compressed, and how they are called then."""

from __future__ import annotations

import enum
import importlib
from typing import Any

__all__ = ["Compression", "is_packed", "kind_named", "zstd_library"]

PACKED = (
    *(".gz", ".tgz", ".zst", ".bz2", ".xz", ".lzma", ".lz4", ".br", ".zip", ".7z", ".rar", ".jar", ".apk", ".deb"),
    *(".rpm", ".jpg", ".jpeg", ".png", ".gif", ".webp", ".heic", ".avif", ".mp3", ".m4a", ".aac", ".ogg", ".opus"),
    *(".flac", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".docx", ".xlsx", ".pptx", ".odt", ".ods", ".parquet"),
)
"""Endings of files that are compressed already."""


class Compression(str, enum.Enum):
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        return SUFFIXES[self]

    def check_installed(self) -> None:
        """Raises: ValueError, with what is to be done."""
        try:
            if self is Compression.ZSTD:
                zstd_library()
        except ImportError:
            raise ValueError("needs a library: pip install zstandard, or Python 3.14 with its own") from None


SUFFIXES = {Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}


def zstd_library() -> Any:
    """Python's own from 3.14 on, or the package zstandard. Raises: ImportError."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return importlib.import_module("zstandard")


def is_packed(path: bytes) -> bool:
    """Whether its name says that compressing it again saves nothing."""
    return path.lower().endswith(tuple(ending.encode() for ending in PACKED))


def kind_named(name: str) -> Compression | None:
    """That of a name with the suffix of one."""
    return next((kind for kind, suffix in SUFFIXES.items() if name.endswith(suffix)), None)

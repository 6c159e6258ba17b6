"""What no test notices, but mypy does: it runs in CI beside the tests, and nobody can land what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mutants.making import Mutant

NOT_MISTAKES = ("ExceptionReplacer", "ZeroIterationForLoop", "FixCondition")
"""Mutants that mypy would notice for what they are written with: an unknown name, an empty list, a literal."""


class TypeCheck:
    """root: a copy of the product. cache: mypy's, made by the first look."""

    def __init__(self, root: Path, cache: Path) -> None:
        self._root = root
        self._words = [sys.executable, "-m", "mypy", "--cache-dir", str(cache)]

    def notices(self, mutant: Mutant) -> bool:
        if mutant.operator in NOT_MISTAKES:
            return False
        file = self._root / mutant.path
        original = file.read_text(encoding="utf-8")
        if not self._is_clean():
            raise RuntimeError(f"mypy is not content with the product as it is: see {self._root}")
        file.write_text(mutant.code, encoding="utf-8")
        try:
            return not self._is_clean()
        finally:
            file.write_text(original, encoding="utf-8")

    def _is_clean(self) -> bool:
        return subprocess.run(self._words, cwd=self._root, capture_output=True, check=False).returncode == 0

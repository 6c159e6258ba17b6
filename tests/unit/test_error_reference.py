"""deploy/ERRORS.md says of every error what the code makes of it."""

from __future__ import annotations

from error_reference import DOCUMENT, REGENERATE, kinds, reference

from iot.transfer import errors


def test_the_reference_says_what_the_code_does() -> None:
    same = DOCUMENT.read_text(encoding="utf-8") == reference()
    assert same, f"{DOCUMENT.name} differs from the code: {REGENERATE}"


def test_every_error_is_in_the_reference() -> None:
    assert {kind.__name__ for kind in kinds()} == set(errors.__all__) - {"SFTPError", "is_gone"}

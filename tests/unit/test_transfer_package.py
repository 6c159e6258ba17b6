"""The package that every remote and the spooler share: its names, of which some are loaded when they are first used."""

from __future__ import annotations

import pytest

import iot.transfer


def test_every_public_name_is_there_and_loaded_once() -> None:
    assert sorted(iot.transfer.__all__) == iot.transfer.__all__
    for name in iot.transfer.__all__:
        assert getattr(iot.transfer, name) is getattr(iot.transfer, name)
    assert set(iot.transfer.LATER) <= set(iot.transfer.__all__)


def test_a_name_that_is_none_is_told_as_usual() -> None:
    with pytest.raises(AttributeError, match=r"^module 'iot.transfer' has no attribute 'Nothing'$"):
        iot.transfer.Nothing  # noqa: B018

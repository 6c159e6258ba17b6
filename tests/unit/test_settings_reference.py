"""deploy/SETTINGS.md says of every setting what its model says."""

from __future__ import annotations

from settings_reference import DOCUMENT, REGENERATE, fields_of_all, reference, unit

from iot.sftp.client import ClientOptions
from iot.spooler.config.settings import OutboxSettings


def test_the_reference_says_what_the_models_say() -> None:
    same = DOCUMENT.read_text(encoding="utf-8") == reference()
    assert same, f"{DOCUMENT.name} differs from the models: {REGENERATE}"


def test_every_setting_is_described_with_its_unit() -> None:
    lacking = [
        name
        for name, field in fields_of_all()
        if not field.description or unit(name, field).rstrip("s") not in field.description
    ]
    assert not lacking


def test_every_setting_is_in_the_reference() -> None:
    shown = {name for name, _ in fields_of_all()}
    assert shown > set(ClientOptions.model_fields) | set(OutboxSettings.model_fields)
    assert {"state_dir", "marker", "certificate", "host_key", "auth_hold_s"} <= shown

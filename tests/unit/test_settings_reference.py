"""deploy/SETTINGS.md says of every setting what its model says."""

from __future__ import annotations

from settings_reference import DOCUMENT, REGENERATE, fields_of_all, is_number, reference, unit

from iot.sftp.client import ClientOptions
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.config.table import tables_within


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


COUNTED = {
    "at_once": "commands",
    "attempts": "attempts",
    "connections": "files",
    "drain_attempts": "attempts",
    "max_attempts": "errors",
    "max_files": "files",
    "min_free_inodes": "inodes",
    "min_free_percent": "percent",
    "port": "port",
    "priority": "rank",
    "slots": "files",
}
"""What the numbers count that are neither seconds nor bytes."""


def test_every_number_says_what_it_counts() -> None:
    lacking = [
        name
        for name, field in fields_of_all()
        if is_number(field) and (unit(name, field) or COUNTED.get(name, "its unit")) not in (field.description or "")
    ]
    assert not lacking, "the name ends in _s, _bytes or _size and the description says so, or COUNTED knows the word"


def test_every_setting_is_in_the_reference() -> None:
    shown = {name for name, _ in fields_of_all()}
    assert shown > set(ClientOptions.model_fields) | set(OutboxSettings.model_fields) - set(
        tables_within(OutboxSettings)
    )
    assert {"state_dir", "marker", "certificate", "host_key", "auth_hold_s"} <= shown

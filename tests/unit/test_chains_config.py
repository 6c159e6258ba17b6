"""Chains that lead nowhere, in a circle, or into a folder that is no outbox are told before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from iot.spooler.checks.preflight import obstacles
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.config.settings import Settings

Outbox = dict[str, object]


class Site:
    """A configuration of some outboxes: one, two and three, in folders of these names."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in ("one", "two", "three", "elsewhere"):
            (base / name).mkdir()

    def load(self, **outboxes: Outbox) -> Settings:
        lines = [f'state_dir = "{self.base}/state"', "[server]", 'host = "h"', 'password = "p"']
        for name, given in outboxes.items():
            table = {"path": str(self.base / name), "destination": f"up/{name}"}
            if given.get("forward_to"):
                table["after_upload"] = "forward"
            values = {**table, **given}
            lines += ["[[outbox]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        file = self.base / "spooler.toml"
        file.write_text("\n".join(lines))
        return load(file, {})

    def problems(self, **outboxes: Outbox) -> str:
        with pytest.raises(BadConfiguration) as told:
            self.load(**outboxes)
        return "\n".join(told.value.problems)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_next_outbox_has_a_name_of_this_configuration_or_a_path(site: Site) -> None:
    settings = site.load(one={"forward_to": "two"}, two={"forward_to": str(site.base / "elsewhere")})
    assert [settings.next_of(outbox) for outbox in settings.outbox] == [site.base / "two", site.base / "elsewhere"]


def test_by_its_path_it_may_be_one_of_this_configuration(site: Site) -> None:
    settings = site.load(one={"forward_to": str(site.base / "two")}, two={})
    assert settings.next_of(settings.outbox[0]) == site.base / "two"
    assert settings.next_of(settings.outbox[1]) is None


def test_several_outboxes_may_go_on_into_one(site: Site) -> None:
    assert len(site.load(one={"forward_to": "three"}, two={"forward_to": "three"}, three={}).outbox) == 3


def test_a_name_that_no_outbox_has_is_told_with_those_that_there_are(site: Site) -> None:
    told = site.problems(one={"forward_to": "tow"}, two={})
    assert "outbox[0].forward_to = 'tow'" in told
    assert "other outboxes are: two" in told


def test_forward_without_a_next_outbox_is_told(site: Site) -> None:
    assert "needs forward_to" in site.problems(one={"after_upload": "forward"})


@pytest.mark.parametrize("value", ["delete", "archive", "keep"])
def test_a_next_outbox_that_nothing_goes_on_to_is_told(site: Site, value: str) -> None:
    told = site.problems(one={"forward_to": "two", "after_upload": value}, two={})
    assert 'only with after_upload = "forward"' in told


@pytest.mark.parametrize("value", ["", "/x/../y", "../two"])
def test_a_next_outbox_is_a_name_or_a_plain_path(site: Site, value: str) -> None:
    told = site.problems(one={"forward_to": value, "after_upload": "forward"}, two={})
    assert "forward_to" in told
    assert "absolute path" in told


@pytest.mark.parametrize("by", ["name", "path", "symlink"])
def test_an_outbox_that_goes_on_into_itself_is_told(site: Site, by: str) -> None:
    (site.base / "link").symlink_to("one")
    target = {"name": "one", "path": str(site.base / "one"), "symlink": str(site.base / "link")}[by]
    assert "forwards into itself" in site.problems(one={"forward_to": target})


def test_a_circle_is_told_once_with_all_its_settings(site: Site) -> None:
    told = site.problems(
        one={"forward_to": "two"}, two={"forward_to": str(site.base / "three")}, three={"forward_to": "one"}
    )
    assert told.count("form a circle") == 1
    assert all(value in told for value in ("'two'", "three'", "'one'"))


def test_what_leads_into_a_circle_is_no_part_of_it(site: Site) -> None:
    told = site.problems(one={"forward_to": "two"}, two={"forward_to": "three"}, three={"forward_to": "two"})
    assert told.count("form a circle") == 1
    assert told.count("forward_to") == 2


@pytest.mark.parametrize("below", ["one/sub", "two/sub", "."])
def test_a_folder_in_or_above_an_outbox_is_no_outbox(site: Site, below: str) -> None:
    (site.base / "one" / "sub").mkdir()
    (site.base / "two" / "sub").mkdir()
    told = site.problems(one={"forward_to": str(site.base / below)}, two={})
    assert "to an outbox itself" in told


@pytest.mark.parametrize("inner", ["state", "state/archive/two", "quarantine", "archive"])
def test_the_folders_of_the_agent_are_no_outbox(site: Site, inner: str) -> None:
    two = {"after_upload": "archive", "archive": f"{site.base}/archive", "quarantine": f"{site.base}/quarantine"}
    told = site.problems(one={"forward_to": str(site.base / inner)}, two=two)
    assert "must come into an outbox" in told


def test_subfolders_that_the_next_outbox_would_not_send_are_told(site: Site) -> None:
    told = site.problems(one={"forward_to": "two"}, two={"recursive": False})
    assert "would never be sent" in told
    assert "recursive" in told
    site.load(one={"forward_to": "two", "recursive": False}, two={"recursive": False})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(), ""),
    ],
)
def test_check_tells_of_a_next_outbox_that_cannot_be_used(
    site: Site, make: Callable[[Path], None], reason: str
) -> None:
    from iot.spooler.config.load import look

    target = site.base / "next"
    make(target)
    site.load(one={"forward_to": str(target)})
    settings, origins, _ = look(site.base / "spooler.toml", {})
    assert settings is not None
    told = [line for line in obstacles(settings, origins, None, by_unit=True) if "forward_to" in line]
    assert [reason in line for line in told] == ([True] if reason else [])

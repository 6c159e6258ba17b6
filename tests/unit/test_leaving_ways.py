"""What becomes of the files of each outbox, as the settings say: one archive for all who share it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.config.settings import Settings
from iot.spooler.leaving.forward import Forward
from iot.spooler.leaving.leaving import Leaving, leaving
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.removal import Delete, Item
from iot.spooler.state.homes import Homes
from iot.transfer import Fingerprint


def made(base: Path, *outboxes: dict[str, Any]) -> Leaving:
    boxes = []
    for number, more in enumerate(outboxes, 1):
        (base / f"box{number}").mkdir()
        boxes.append({"path": str(base / f"box{number}"), "destination": "/up", **more})
    server = {"kind": "folder", "path": str(base)}
    settings = Settings.model_validate({"state_dir": str(base / "state"), "server": server, "outbox": boxes})
    intakes: Any = [SimpleNamespace(number=number, settings=box) for number, box in enumerate(settings.outbox, 1)]
    return leaving(settings, intakes, lambda: None)


def test_each_file_that_is_delivered_goes_where_its_outbox_says(tmp_path):
    ways = made(tmp_path, {}, {"after_upload": "archive"}, {"after_upload": "forward", "forward_to": "/next"})
    assert isinstance(ways.delivered[1], Delete)
    assert ways.archives == (ways.delivered[2],)
    assert isinstance(ways.delivered[3], Forward)
    assert ways.forwards == (ways.delivered[3],)
    for number in (1, 2, 3):
        assert isinstance(ways.given_up[number], Quarantine)
        assert isinstance(ways.dropped[number], Delete)


@pytest.mark.parametrize(("other", "archives"), [("one", 1), ("two", 2)])
def test_outboxes_share_an_archive_if_they_have_one_folder(tmp_path, other, archives):
    boxes = [{"after_upload": "archive", "archive": str(tmp_path / name)} for name in ("one", other)]
    ways = made(tmp_path, *boxes)
    assert len(ways.archives) == archives
    assert (ways.delivered[1] is ways.delivered[2]) is (archives == 1)


@pytest.mark.parametrize("away", ["the folder", "its medium"])
def test_a_next_outbox_that_is_away_is_named_with_the_reason(tmp_path, away):
    target = tmp_path / "next"
    if away == "its medium":
        target.mkdir()
    forward = Forward(target, tmp_path, homes=Homes(required=[tmp_path]))
    with pytest.raises(OSError, match=f"cannot forward to {target}: ") as told:
        forward.leave(-1, b"private", Item(1, b"f", Fingerprint(1, 2)))
    assert ("not mounted" in told.value.strerror) is (away == "its medium")
    assert (forward.moved, list(tmp_path.rglob("f"))) == (0, [])
    forward.sync()  # nothing has come
